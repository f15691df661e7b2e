"""Delay curves of the credit: one pooled per kind of touch, and one for each group of arms, shrunk to it.

Law of this file: a curve is estimated from what has been *seen*, by reverse hazards (``closedloop.stats.delay``). A group's curve starts as
the pooled one and counts as many outcomes of it as the data say the groups have in common; cohorts mature by the curve of their group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.attribute.cohorts import Entries, delay_bins, window_bins
from closedloop.attribute.rows import keys_of
from closedloop.attribute.state import AttributionState
from closedloop.attribute.tables import ONE
from closedloop.records.arms import Arms, IntArray
from closedloop.records.interval import FloatArray
from closedloop.records.moments import US_PER_DAY
from closedloop.records.outcomes import DelayCurve
from closedloop.stats.delay import PRIOR_STRENGTH, posterior, prior_shares, reverse_sums_by_group, share_seen, shrinkage


def groups_of(arms: Arms, columns: Sequence[str]) -> tuple[list[str], IntArray, IntArray]:
    """Return the labels of the groups of arms, the group of each arm, and a 64-bit key of it that outlives any list of groups.

    Args:
        arms: The arms.
        columns: The tags that make a group; without any, all arms are one group.
    """
    labels = np.full(len(arms), "", dtype=object)
    for i, name in enumerate(columns):
        tag = np.array(["?" if t is None else t for t in arms.column(name).decode()], dtype=object)
        labels = tag if i == 0 else labels + " / " + tag
    known, group = np.unique(labels.astype(str), return_inverse=True)
    key = keys_of(known.astype(object)).view(np.int64)
    return known.tolist(), group.astype(np.int64), key[group]


@attrs.frozen(kw_only=True, eq=False)
class Curves:
    """The curves of one kind of touch: ``pooled``, ``by_group`` (empty for one group), and the share seen of each group, shape (G, J)."""

    pooled: DelayCurve
    by_group: Mapping[str, DelayCurve]
    seen: FloatArray


def curves_of(
    kind: int,
    state: AttributionState,
    e: Entries,
    is_open: npt.NDArray[np.bool_],
    reached: IntArray,
    labels: Sequence[str],
    group: IntArray,
) -> Curves:
    """Return the curves of a kind of touch.

    Args:
        kind: 0 click, 1 view.
        state: Its settled delays.
        e: Credits of open rows.
        is_open: Which of them are not settled.
        reached: Day up to which the data behind each arm reach, shape (A,).
        labels: Names of the G groups.
        group: Group of each arm, shape (A,).
    """
    terms = state.terms
    n, g = delay_bins(terms, kind), max(1, len(labels))
    of_kind = is_open & (e.kind == kind)
    age = (reached[e.arm] - e.day)[of_kind]
    observed, at_risk = reverse_sums_by_group(group[e.arm[of_kind]], e.bin[of_kind], age, e.credit[of_kind] / ONE, g, n)
    # What settles in this very call is in the settled sums, and no longer open.
    done = state.delays.keys["kind"] == kind
    bins, credit = state.delays.keys["bin"][done], state.delays.sums["credit"][done] / ONE
    known = keys_of(np.array(labels, dtype=object)).view(np.int64)
    order = np.argsort(known)
    place = np.searchsorted(known[order], state.delays.keys["group"][done])
    place = np.minimum(place, max(len(known) - 1, 0))
    found = order[place] if len(known) else place
    # A group that no arm belongs to any more speaks for the pooled curve only: as one group more.
    of = np.where(known[found] == state.delays.keys["group"][done], found, g) if len(known) else np.full(len(bins), g)
    more, more_at_risk = reverse_sums_by_group(of, bins, np.full(len(bins), n), credit, g + 1, n)
    inside = window_bins(terms.window, kind)
    prior = prior_shares(inside, n - inside, longest=int(terms.window.limits_us()[kind]) / US_PER_DAY)
    pooled = _curve(observed.sum(axis=0) + more.sum(axis=0), at_risk.sum(axis=0) + more_at_risk.sum(axis=0), prior, PRIOR_STRENGTH)
    if len(labels) < 2:
        return Curves(pooled=pooled, by_group={}, seen=pooled.share_seen[None, :])
    observed, at_risk = observed + more[:-1], at_risk + more_at_risk[:-1]  # of the groups that there are
    shares = np.maximum(np.diff(pooled.share_seen, prepend=0.0), 1e-9)
    shares /= shares.sum()
    # What a group borrows can be no more than what the others have seen: else its curve would look surer than the pooled one.
    others = (at_risk.sum(axis=0) + more_at_risk[-1] - at_risk) / np.cumsum(shares)
    strength = np.clip(others, PRIOR_STRENGTH, max(PRIOR_STRENGTH, shrinkage(observed, at_risk, shares)))
    by_group = {label: _curve(observed[i], at_risk[i], shares, strength[i]) for i, label in enumerate(labels)}
    return Curves(pooled=pooled, by_group=by_group, seen=np.stack([c.share_seen for c in by_group.values()]))


def _curve(observed: FloatArray, at_risk: FloatArray, shares: FloatArray, strength: float | FloatArray) -> DelayCurve:
    a, b = posterior(observed, at_risk, shares, strength)
    hazard = a / (a + b)
    hazard[0] = 1.0
    return DelayCurve(observed=observed, at_risk=at_risk, shape_a=a, shape_b=b, share_seen=share_seen(hazard))
