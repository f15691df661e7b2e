"""Clock skew of a source, from the order of touches and conversions: estimated, reported, corrected on request.

Law of this file: a conversion cannot come before the touch that led to it. The delays between a user's touches of one source and the
user's conversions have a background (visits that have nothing to do with each other, before as after) and a jump where causation begins.
With right clocks the jump stands at zero; where it stands instead is the skew. Its place is found as the change point of a Poisson rate,
with the rates integrated out.

References: Raftery and Akman, "Bayesian analysis of a Poisson process with a change-point" (Biometrika 73, 1986).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import timedelta

import attrs
import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from closedloop.errors import ConfigurationError
from closedloop.records.batch import CLICK, CONVERSION, EventBatch
from closedloop.records.interval import Interval
from closedloop.records.moments import parse_duration

Int64 = npt.NDArray[np.int64]
_MICROSECOND = timedelta(microseconds=1)
_MOST_PAIRS = 2_000  # of one user


@attrs.frozen(kw_only=True)
class ClockSkew:
    """How far a source's clock is ahead of the conversions' clock.

    Args:
        source: The platform.
        seconds: By how much; positive means its touches are stamped too late. Infinite where nothing can be said.
        n_pairs: Pairs of touch and conversion looked at.
        before: Of these, conversions stamped before their touch, in [0, 1].
    """

    source: str
    seconds: Interval
    n_pairs: int
    before: float


def _pairs(batch: EventBatch, reach_us: int) -> tuple[npt.NDArray[np.int32], Int64]:
    """Platform code and delay (conversion - click) of all pairs of one user within the reach.

    Users with more than `_MOST_PAIRS` are left out: an id that so many clicks and conversions share is no person's, and says nothing.
    """
    clicks = np.flatnonzero((batch.kind == CLICK) & (batch.user_id.codes >= 0))
    bought = np.flatnonzero((batch.kind == CONVERSION) & (batch.user_id.codes >= 0))
    if not len(clicks) or not len(bought):
        return np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64)
    # One sorted key for (user, time in reaches), so that only pairs near to each other are ever made.
    origin = min(batch.occurred_at[clicks].min(), batch.occurred_at[bought].min())
    reaches = int((max(batch.occurred_at[clicks].max(), batch.occurred_at[bought].max()) - origin) // reach_us) + 3
    key = batch.user_id.codes.astype(np.int64) * reaches + (batch.occurred_at - origin) // reach_us + 1
    order = clicks[np.argsort(key[clicks], kind="stable")]
    start = np.searchsorted(key[order], key[bought] - 1, side="left")
    number = np.searchsorted(key[order], key[bought] + 1, side="right") - start
    of_user = np.bincount(batch.user_id.codes[bought], weights=number, minlength=len(batch.user_id.vocab))
    person = of_user[batch.user_id.codes[bought]] <= _MOST_PAIRS
    bought, start, number = bought[person], start[person], number[person]
    owner = np.repeat(np.arange(len(bought)), number)
    at = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number) + np.repeat(start, number)
    delay = batch.occurred_at[bought][owner] - batch.occurred_at[order][at]
    near = np.abs(delay) <= reach_us
    return batch.tags["platform"].codes[order][at][near], delay[near]


def clock_skew(
    batch: EventBatch, *, reach: str | timedelta = "28h", step: str | timedelta = "30s", level: float = 0.9
) -> tuple[ClockSkew, ...]:
    """Estimate the clock skew of each platform from the delays between clicks and conversions of the same users.

    Args:
        batch: Events with users.
        reach: Longest delay looked at, before and after. Skews of up to half of it are found: 14 hours, as far as time zones lie apart.
            What seems to lie beyond may be the end of a larger one, and is answered as unknown.
        step: Width of a bin; the skew is found to within one.
        level: Level of the intervals.

    Returns:
        One estimate per platform, sorted by name. A clock that wanders, or only some servers' clocks, show by about the largest skew.
    """
    reach_us, step_us = (parse_duration(v, n) // _MICROSECOND for v, n in ((reach, "reach"), (step, "step")))
    if not 0 < step_us * 4 <= reach_us or reach_us // step_us > 100_000:
        raise ConfigurationError(
            "a step is smaller than a quarter of the reach, and not tiny", "step", str(step), "choose a longer step or a shorter reach"
        )
    platform, delay = _pairs(batch, reach_us)
    out = []
    for code, name in enumerate(batch.tags["platform"].vocab.tolist()):
        mine = delay[platform == code]
        bins = int(reach_us // step_us)
        counts = np.bincount(np.clip(mine // step_us + bins, 0, 2 * bins - 1), minlength=2 * bins)
        seconds = _jump(counts, step_us / 1e6, bins, level)
        out.append(ClockSkew(source=name, seconds=seconds, n_pairs=len(mine), before=float((mine < 0).mean()) if len(mine) else 0.0))
    return tuple(out)


def _jump(counts: npt.NDArray[np.integer], step: float, zero: int, level: float) -> Interval:
    """The posterior of the place of one upward jump of a Poisson rate over bins (flat prior on the place).

    Rates before the jump, in pieces of doubling width after it (delays thin out), and in what is left, are each integrated out under
    Jeffreys' Gamma(1/2, 0).
    """
    span = zero // 2
    pieces = np.unique(np.append(0, span // 2 ** np.arange(max(span.bit_length() - 3, 1))))
    total = np.append(0, np.cumsum(counts))
    at = np.arange(4, len(counts) - span)
    if not len(at) or total[-1] < 20:
        return _unknown(level)
    before, rest, width = total[at], total[-1] - total[at + span], len(counts) - at - span
    evidence = _evidence(before, at) + np.where(width > 0, _evidence(rest, np.maximum(width, 1)), 0.0)
    for start, stop in itertools.pairwise(pieces.tolist()):
        evidence = evidence + _evidence(total[at + stop] - total[at + start], np.full(len(at), stop - start))
    first = int(pieces[1])
    evidence = np.where((total[at + first] - total[at]) / first > before / at, evidence, -np.inf)
    flat = float(_evidence(total[-1:], np.array([len(counts)]))[0])
    if evidence.max() - flat < 10:  # a jump is not ten e-folds likelier than none: nothing is said
        return _unknown(level)
    mass = np.cumsum(np.exp(evidence - evidence.max()))
    low, high = np.searchsorted(mass, np.array([(1 - level) / 2, (1 + level) / 2]) * mass[-1])
    mode = int(np.clip(np.argmax(evidence), low, high))  # the place itself: halfway between two likely places lies no jump
    ends = [(zero - int(at[i])) * step for i in (high, mode, low)]
    if max(abs(end) for end in ends) > span * step or ends[2] - ends[0] > span * step:
        return _unknown(level)
    return Interval(low=ends[0] - step, estimate=ends[1], high=ends[2] + step, level=level, kind="credible")


def _evidence(n: npt.NDArray[np.integer], bins: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    return np.asarray(gammaln(n + 0.5) - (n + 0.5) * np.log(bins), dtype=np.float64)


def _unknown(level: float) -> Interval:
    return Interval(low=-np.inf, estimate=0.0, high=np.inf, level=level, kind="credible")


def corrected_clocks(batch: EventBatch, seconds: Mapping[str, float]) -> EventBatch:
    """Return the batch with the touches of each named platform moved back by its skew (touches of untagged events too).

    Args:
        batch: Events.
        seconds: By platform, by how much its clock is ahead.
    """

    def moved(part: EventBatch) -> EventBatch:
        codes, vocab = part.tags["platform"].codes, part.tags["platform"].vocab
        shift = np.array([round(seconds.get(name, 0.0) * 1e6) for name in vocab.tolist()] + [0], dtype=np.int64)[codes]
        touch = part.kind != CONVERSION
        return attrs.evolve(part, occurred_at=np.where(touch, part.occurred_at - shift, part.occurred_at))

    untagged = batch.untagged
    return attrs.evolve(moved(batch), untagged=None if untagged is None else moved(untagged))
