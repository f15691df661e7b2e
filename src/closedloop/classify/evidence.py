"""Cohorts to sufficient statistics per arm and kind of touch: weighted counts, mature exposure, age and volume.

Law of this file: it reads `Outcomes` and returns arrays in the canonical order of arms (sorted by their tags), so that
everything computed from them, draws included, does not depend on the order in which arms were listed.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import InputError
from closedloop.records.arms import Arms
from closedloop.records.interval import FloatArray
from closedloop.records.moments import US_PER_DAY
from closedloop.records.outcomes import Outcomes
from closedloop.records.window import TOUCH_KINDS
from closedloop.stats.gamma_poisson import totals

Rows = slice | npt.NDArray[np.intp]

_RECENT_DAYS = 7  # days over which exposure and spend a day are measured
_VOLUME_DAYS = 28  # most days over which conversions a week are counted
_BLOCK_EDGES = np.array([1, 2, 3, 5, 7, 10, 14, 21, 28, 42, 56, 84, 126])  # ages in days between which a break can be placed
_AHEAD_DAYS = 1  # a cohort may lie this far after now: clocks of sources differ


@attrs.frozen(kw_only=True, eq=False)
class KindEvidence:
    """The evidence of one kind of touch, per arm in canonical order (A arms) and block of days (B blocks, oldest first).

    Args:
        kind: 0 click, 1 view.
        rows: Positions of the cohorts used, N of them.
        unit, block: Arm and block of each cohort used, shape (N,).
        weight: Recency weight of each cohort (half-life), shape (N,).
        block_days: Length of each block in days, shape (B,).
        block_age: Greatest age of each block in days, shape (B,).
        counts, exposures: Credit, and exposure x maturity, shape (A, B).
        untagged_counts, untagged_exposures: The same of the untagged cohorts that could belong to the arm, shape (A, B), None when
            everything is tagged.
        count, exposure: Recency-weighted sums, shape (A,).
        full_exposure: Recency-weighted exposure without maturity.
        cost_exposure: The same with the weights of the spend: what the weighted spend bought.
        exposure_age: Recency-weighted exposure x age in days.
        credit_dispersion: Sum of squared credits over sum of credits, 1 for whole credits.
        squared: Sum of squared recency weights x credit.
        per_day: Exposures a day over the recent days.
        weekly: Mature conversions a week.
    """

    kind: int
    rows: Rows
    unit: npt.NDArray[np.intp]
    block: npt.NDArray[np.intp]
    weight: FloatArray
    block_days: FloatArray
    block_age: FloatArray
    counts: FloatArray
    exposures: FloatArray
    untagged_counts: FloatArray | None
    untagged_exposures: FloatArray | None
    count: FloatArray
    exposure: FloatArray
    full_exposure: FloatArray
    cost_exposure: FloatArray
    exposure_age: FloatArray
    credit_dispersion: FloatArray
    squared: FloatArray
    per_day: FloatArray
    weekly: FloatArray


@attrs.frozen(kw_only=True, eq=False)
class Evidence:
    """The evidence of all complete arms, in canonical order.

    Args:
        arms: The complete arms in the order of the outcomes.
        canonical: Position in ``arms`` of each arm in canonical order, shape (A,).
        kinds: Evidence by name of the kind of touch, only kinds with a cohort.
        watermark_day: First day not complete, per arm, shape (A,).
        spend, spend_weighted: Spend per arm, raw and recency-weighted, shape (A,).
        spend_per_day: Over the recent days, shape (A,).
        value, value_squared, value_count: Revenue, its squares and the credit behind it, all kinds, shape (A,).
        tagged_share: Shape (A,).
    """

    arms: Arms
    canonical: npt.NDArray[np.intp]
    kinds: dict[str, KindEvidence]
    watermark_day: FloatArray
    spend: FloatArray
    spend_weighted: FloatArray
    spend_per_day: FloatArray
    value: FloatArray
    value_squared: FloatArray
    value_count: FloatArray
    tagged_share: FloatArray


def gather(
    outcomes: Outcomes,
    *,
    half_life_days: float | None,
    now_us: int | None,
    cost_half_life_days: float = 28.0,
    last_days: float | None = None,
) -> Evidence:
    """Return the evidence of the complete arms.

    Args:
        outcomes: As attribution gave them.
        half_life_days: Half-life of the recency weights, None for equal weights.
        now_us: Microseconds UTC, None to trust the watermark.
        cost_half_life_days: Half-life of the weights of spend and of the exposure that it bought.
        last_days: Leave out what is older than so many days before the watermark.

    Raises:
        InputError: A cohort lies in the future, or a number is negative or not finite.
    """
    complete = np.flatnonzero(outcomes.arms.complete)
    arms = outcomes.arms.take(complete)
    canonical = _canonical(arms)
    position = np.full(len(outcomes.arms) + 1, -1, dtype=np.intp)
    position[complete[canonical]] = np.arange(len(complete))
    _check(outcomes, now_us)
    marks = _watermark_days(outcomes, now_us)
    watermark = marks[complete[canonical]]
    n = len(complete)
    c = outcomes.cohorts
    unit_all = position[c.arm]
    first = np.full(n, np.inf)
    ranked = unit_all >= 0
    if last_days is not None:
        ranked &= marks[c.arm] - c.day <= last_days
    np.minimum.at(first, unit_all[ranked], c.day[ranked].astype(np.float64))
    kinds: dict[str, KindEvidence] = {}
    patterns = _patterns(outcomes.arms, complete[canonical])
    oldest = float((marks[c.arm] - c.day).max(initial=1.0))
    for code, name in enumerate(TOUCH_KINDS):
        mine = (c.kind == code) & ranked
        if mine.any():
            rows = slice(None) if mine.all() else np.flatnonzero(mine)
            kinds[name] = _kind(
                outcomes, code, name, rows, unit_all[rows], marks, watermark, first, half_life_days, cost_half_life_days, oldest, patterns
            )
    s = outcomes.spend
    spend_unit = position[s.arm]
    kept = spend_unit >= 0
    if last_days is not None:
        kept &= marks[s.arm] - s.day <= last_days
    rows = slice(None) if kept.all() else np.flatnonzero(kept)
    unit, spend, day = spend_unit[rows], s.spend[rows], s.day[rows].astype(np.float64)
    np.minimum.at(first, unit, day)
    weights = _recency(watermark[unit] - day, cost_half_life_days)
    return Evidence(
        arms=arms,
        canonical=canonical,
        kinds=kinds,
        watermark_day=watermark,
        spend=totals(unit, spend, n),
        spend_weighted=totals(unit, weights * spend, n),
        spend_per_day=_per_day(spend, day, unit, watermark, first),
        value=totals(unit_all[ranked], c.value[ranked], n),
        value_squared=totals(unit_all[ranked], c.value_squared[ranked], n),
        value_count=totals(unit_all[ranked], c.credit[ranked], n),
        tagged_share=_tagged_share(outcomes, complete[canonical], patterns),
    )


def _canonical(arms: Arms) -> npt.NDArray[np.intp]:
    """Return the positions of arms sorted by their tags."""
    keys = []
    for k, vocab in enumerate(arms.vocabs):
        rank = np.empty(len(vocab), dtype=np.int64)
        rank[np.argsort(vocab)] = np.arange(len(vocab))
        keys.append(rank[arms.codes[:, k]])
    return np.lexsort(keys[::-1]) if keys else np.arange(len(arms))


def _check(outcomes: Outcomes, now_us: int | None) -> None:
    c = outcomes.cohorts
    for name, values in (("exposures", c.exposures), ("credit", c.credit), ("maturity", c.maturity), ("spend", outcomes.spend.spend)):
        if len(values) and not (values.min() >= 0.0 and values.max() < np.inf):
            wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
            row = int(wrong[0])
            arm = (outcomes.spend if name == "spend" else c).arm[row]
            problem = f"row {row} of arm {outcomes.arms.label(int(arm))} must be zero or more and finite"
            raise InputError(problem, name, float(values[row]), "correct the source rows; credit of another sign cannot enter a rate")
    if now_us is not None and len(c):
        row = int(np.argmax(c.day))
        if c.day[row] > now_us // US_PER_DAY + _AHEAD_DAYS:
            problem = f"a cohort of arm {outcomes.arms.label(int(c.arm[row]))} lies in the future"
            raise InputError(problem, "day", str(np.datetime64(int(c.day[row]), "D")), "check the clock of the source, or pass a later now")


def _watermark_days(outcomes: Outcomes, now_us: int | None) -> FloatArray:
    """Return the day of the data watermark of each arm's platform (the first day not complete), shape (arms,)."""
    n = len(outcomes.arms)
    if outcomes.watermark:
        fallback = max(outcomes.watermark.values()) // US_PER_DAY
    elif now_us is not None:
        fallback = now_us // US_PER_DAY
    else:
        days = [int(t.day.max()) + 1 for t in (outcomes.cohorts, outcomes.spend) if len(t)]
        fallback = max(days, default=0)
    if "platform" not in outcomes.arms.columns:
        return np.full(n, float(fallback))
    platform = outcomes.arms.column("platform")
    by_code = [float(outcomes.watermark[p] // US_PER_DAY) if p in outcomes.watermark else float(fallback) for p in platform.vocab]
    return np.array([*by_code, float(fallback)])[platform.codes]


def _recency(age: FloatArray, half_life_days: float | None) -> FloatArray:
    """Return the weight of each age in whole days."""
    if half_life_days is None:
        return np.ones_like(age)
    whole = np.maximum(age, 0.0).astype(np.intp)
    return np.asarray(np.exp2(-np.arange(whole.max(initial=0) + 1) / half_life_days)[whole])


def _per_day(amount: FloatArray, day: FloatArray, unit: npt.NDArray[np.intp], watermark: FloatArray, first: FloatArray) -> FloatArray:
    """Return amounts a day over the last whole days before the watermark; over the first day itself for what began on it."""
    n = len(watermark)
    age = watermark[unit] - day
    days = np.clip(np.where(np.isfinite(first), watermark - first, 1.0), 0.0, float(_RECENT_DAYS))
    recent = np.where(days[unit] >= 1.0, (age >= 1.0) & (age <= _RECENT_DAYS), age <= 0.0)
    return np.asarray(totals(unit, amount * recent, n) / np.maximum(days, 1.0))


def _kind(
    outcomes: Outcomes,
    code: int,
    name: str,
    rows: Rows,
    unit: npt.NDArray[np.intp],
    marks: FloatArray,
    watermark: FloatArray,
    first: FloatArray,
    half_life_days: float | None,
    cost_half_life_days: float,
    oldest: float,
    patterns: list[Pattern],
) -> KindEvidence:
    n = len(watermark)
    c = outcomes.cohorts
    exposures, credit, day = c.exposures[rows], c.credit[rows], c.day[rows].astype(np.float64)
    mature = exposures * c.maturity[rows]
    age = watermark[unit] - day
    weight = _recency(age, half_life_days)
    edges = _BLOCK_EDGES[oldest > _BLOCK_EDGES]
    blocks = len(edges) + 1
    block = _block(age, edges)
    cell = unit * blocks + block
    untagged_counts: FloatArray | None = None
    untagged_exposures: FloatArray | None = None
    if patterns:
        other = np.flatnonzero((c.kind == code) & ~outcomes.arms.complete[c.arm])
        other_age = marks[c.arm[other]] - c.day[other]
        other_block = _block(other_age, edges)
        discount = _recency(other_age, half_life_days)
        untagged_counts, untagged_exposures = np.zeros((n, blocks)), np.zeros((n, blocks))
        for pattern in patterns:
            cells = pattern.cell_of_arm[c.arm[other]]
            inside = np.flatnonzero(cells >= 0)
            place, size = cells[inside] * blocks + other_block[inside], pattern.n_cells * blocks
            at = other[inside]
            credits = totals(place, discount[inside] * c.credit[at], size).reshape(-1, blocks)
            seen = totals(place, discount[inside] * c.exposures[at] * c.maturity[at], size).reshape(-1, blocks)
            untagged_counts += credits[pattern.cell_of_ranked]
            untagged_exposures += seen[pattern.cell_of_ranked]
    raw = totals(unit, credit, n)
    squares = totals(unit, c.credit_squared[rows], n)
    counts, mature_blocks = totals(cell, credit, n * blocks).reshape(n, blocks), totals(cell, mature, n * blocks).reshape(n, blocks)
    if half_life_days is None:
        full, count, exposure, squared = exposures, raw, mature_blocks.sum(axis=1), raw
    else:
        full, count, exposure = weight * exposures, totals(unit, weight * credit, n), totals(unit, weight * mature, n)
        squared = totals(unit, weight**2 * credit, n)
    ends = np.concatenate([edges, [max(oldest, float(edges[-1]) + 1.0) if len(edges) else oldest]])[::-1].astype(np.float64)
    return KindEvidence(
        kind=code,
        rows=rows,
        unit=unit,
        block=block,
        weight=weight,
        block_days=-np.diff(np.append(ends, 0.0)),
        block_age=ends,
        counts=counts,
        exposures=mature_blocks,
        untagged_counts=untagged_counts,
        untagged_exposures=untagged_exposures,
        count=count,
        exposure=exposure,
        full_exposure=totals(unit, full, n),
        cost_exposure=totals(unit, _recency(age, cost_half_life_days) * exposures, n),
        exposure_age=totals(unit, full * age, n),
        credit_dispersion=np.where((raw > 0) & (squares > 0), squares / np.where(raw > 0, raw, 1.0), 1.0),
        squared=squared,
        per_day=_per_day(exposures, day, unit, watermark, first),
        weekly=_weekly(credit, age, unit, watermark, first, _shares(outcomes, name)),
    )


def _block(age: FloatArray, edges: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Return the block of each age in whole days, counted from the oldest block."""
    whole = np.clip(age, 0, edges[-1] + 1 if len(edges) else 0).astype(np.intp)
    table = len(edges) - np.searchsorted(edges, np.arange(whole.max(initial=0) + 1), side="left")
    return np.asarray(table[whole])


def _shares(outcomes: Outcomes, name: str) -> FloatArray:
    """Return the share of conversions seen by age in days, shape (29,): zero at age 0, 1 beyond the window."""
    shares = np.ones(_VOLUME_DAYS + 1)
    shares[0] = 0.0
    curve = outcomes.delay.get(name)
    if curve is not None:
        upto = min(len(curve.share_seen), _VOLUME_DAYS)
        shares[1 : upto + 1] = curve.share_seen[:upto]
    return shares


def _weekly(
    credit: FloatArray, age: FloatArray, unit: npt.NDArray[np.intp], watermark: FloatArray, first: FloatArray, shares: FloatArray
) -> FloatArray:
    """Return conversions a week over the last 28 days, each day counted with the share of its conversions seen by now."""
    n = len(watermark)
    days = np.clip(np.where(np.isfinite(first), watermark - first, 7.0), 7.0, float(_VOLUME_DAYS)).astype(np.intp)
    recent = (age >= 1.0) & (age <= _VOLUME_DAYS)
    mature_days = np.maximum(np.cumsum(shares)[days], 1.0)
    return np.asarray(7.0 * totals(unit, credit * recent, n) / mature_days)


@attrs.frozen(kw_only=True, eq=False)
class Pattern:
    """Incomplete arms with the same tags missing, joined to the complete arms that they could be.

    Args:
        n_cells: Number of distinct combinations of the known tags.
        cell_of_ranked: Cell of each ranked arm, shape (A,).
        cell_of_arm: Cell of each arm of the outcomes that has this pattern, -1 for the others.
    """

    n_cells: int
    cell_of_ranked: npt.NDArray[np.intp]
    cell_of_arm: npt.NDArray[np.intp]


def _patterns(arms: Arms, ranked: npt.NDArray[np.intp]) -> list[Pattern]:
    missing = ~arms.complete
    if not missing.any():
        return []
    known = arms.codes >= 0
    codes = arms.codes[ranked]
    out = []
    for pattern in np.unique(known[missing], axis=0):
        at = np.flatnonzero(missing & (known == pattern).all(axis=1))
        both = np.concatenate([codes[:, pattern], arms.codes[at][:, pattern]])
        distinct, cell = np.unique(both, axis=0, return_inverse=True)
        cell = cell.reshape(-1).astype(np.intp)
        of_arm = np.full(len(arms), -1, dtype=np.intp)
        of_arm[at] = cell[len(ranked) :]
        out.append(Pattern(n_cells=max(len(distinct), 1), cell_of_ranked=cell[: len(ranked)], cell_of_arm=of_arm))
    return out


def _tagged_share(outcomes: Outcomes, ranked: npt.NDArray[np.intp], patterns: list[Pattern]) -> FloatArray:
    """Return, per ranked arm, the share of exposures that carry all tags among those that could be its own, shape (A,).

    Untagged exposures compatible with several arms are split in proportion to the arms' tagged ones.
    """
    share = np.ones(len(ranked))
    if not patterns:
        return share
    for kind in (0, 1):
        exposures = outcomes.per_arm("exposures", kind)
        ratio = np.zeros(len(ranked))
        for p in patterns:
            tagged = totals(p.cell_of_ranked, exposures[ranked], p.n_cells)
            at = np.flatnonzero(p.cell_of_arm >= 0)
            untagged = totals(p.cell_of_arm[at], exposures[at], p.n_cells)
            ratio += (untagged / np.where(tagged > 0, tagged, np.inf))[p.cell_of_ranked]
        share = np.minimum(share, 1.0 / (1.0 + ratio))
    return share


def now_microseconds(outcomes: Outcomes, now_us: int | None) -> int:
    """Return ``now`` or, without one, the newest watermark (the end of the newest cohort where there is none either)."""
    if now_us is not None:
        return now_us
    if outcomes.watermark:
        return max(outcomes.watermark.values())
    return (int(outcomes.cohorts.day.max()) + 1) * US_PER_DAY if len(outcomes.cohorts) else 0
