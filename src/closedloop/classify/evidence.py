"""Cohorts to sufficient statistics per arm and kind of touch: weighted counts, mature exposure, age and volume, in one pass.

Law of this file: it reads `Outcomes` and returns arrays in the canonical order of arms (sorted by their tags), so that
everything computed from them, draws included, does not depend on the order in which arms were listed.
"""

from __future__ import annotations

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.classify.grid import AgeGrid
from closedloop.errors import InputError
from closedloop.records.arms import Arms
from closedloop.records.interval import FloatArray
from closedloop.records.moments import US_PER_DAY
from closedloop.records.outcomes import Outcomes
from closedloop.records.window import TOUCH_KINDS
from closedloop.stats.gamma_poisson import PearsonSums, pearson_sums, totals

Rows = slice | npt.NDArray[np.intp]

_RECENT_DAYS = 7  # days over which exposure and spend a day are measured
_VOLUME_DAYS = 28  # most days over which conversions a week are counted
_BLOCK_EDGES = np.array([1, 2, 4, 8, 14, 28, 56, 112])  # ages in days between which a break can be placed
_AHEAD_DAYS = 1  # a cohort may lie this far after now: clocks of sources differ


@attrs.frozen(kw_only=True, eq=False)
class KindEvidence:
    """The evidence of one kind of touch, per arm in canonical order (A arms) and block of days (B blocks, oldest first).

    Args:
        kind: 0 click, 1 view.
        rows: Positions of the cohorts used, N of them.
        arm_of_row: Arm in the outcomes of each cohort, all of them.
        position: Canonical position of each arm of the outcomes, -1 for the incomplete.
        mark: First day not complete of each arm, shape (A,).
        half_life_days: Half-life of the recency weights, None for equal weights.
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
        pearson: Residuals of the cohorts around their arm's and block's mean, summed per arm.
    """

    kind: int
    rows: Rows
    arm_of_row: npt.NDArray[np.int32]
    position: npt.NDArray[np.intp]
    mark: FloatArray
    half_life_days: float | None
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
    pearson: PearsonSums

    @property
    def unit(self) -> npt.NDArray[np.intp]:
        """Canonical position of the arm of each cohort used, shape (N,)."""
        return np.asarray(self.position[self.arm_of_row[self.rows]])


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
    ranked = complete[canonical]
    position = np.full(len(outcomes.arms), -1, dtype=np.intp)
    position[ranked] = np.arange(len(complete))
    _check(outcomes, now_us)
    marks = _watermark_days(outcomes, now_us)
    c, s = outcomes.cohorts, outcomes.spend
    kept = None if last_days is None else np.flatnonzero(marks[c.arm] - c.day <= last_days)
    first = np.full(len(outcomes.arms), np.inf)
    rows_of: dict[str, npt.NDArray[np.intp] | None] = {}
    for code, touch in enumerate(TOUCH_KINDS):
        rows = _rows_of_kind(c.kind, code, kept)
        if (rows is None or len(rows)) and len(c):
            rows_of[touch] = rows
    grids = {name: AgeGrid.of(c.arm, c.day, marks, rows) for name, rows in rows_of.items()}
    kept = None if last_days is None else np.flatnonzero(marks[s.arm] - s.day <= last_days)
    of_spend = AgeGrid.of(s.arm, s.day, marks, kept)
    for grid in (*grids.values(), of_spend):
        _earliest(grid, marks, first)
    watermark, first = marks[ranked], first[ranked]
    patterns = _patterns(outcomes.arms, ranked)
    oldest = max([float(g.ages[0]) for g in grids.values()], default=1.0)
    kinds, money = {}, np.zeros((3, len(ranked)))
    for name, grid in grids.items():
        weights = AgeWeights.of(grid.ages, oldest, half_life_days, cost_half_life_days)
        kinds[name], value = _kind(
            outcomes, name, _tagged(c.arm, position, rows_of[name]), grid, weights, position, ranked, watermark, first, patterns
        )
        money += value
    spend = _spend(s.spend, of_spend, ranked, cost_half_life_days)
    return Evidence(
        arms=arms,
        canonical=canonical,
        kinds={name: e for name, e in kinds.items() if _seen(e, grids[name], ranked)},
        watermark_day=watermark,
        spend=spend[0],
        spend_weighted=spend[1],
        spend_per_day=_per_day(spend[2], spend[3], watermark, first),
        value=money[0],
        value_squared=money[1],
        value_count=money[2],
        tagged_share=_tagged_share(outcomes, ranked, patterns),
    )


def _rows_of_kind(kind: npt.NDArray[np.int8], code: int, kept: npt.NDArray[np.intp] | None) -> npt.NDArray[np.intp] | None:
    """Return the positions of the cohorts of a kind among those kept, None for all cohorts."""
    mine = kind == code if kept is None else kind[kept] == code
    if kept is None:
        return None if mine.all() else np.flatnonzero(mine)
    return np.asarray(kept[mine])


def _tagged(arm: npt.NDArray[np.int32], position: npt.NDArray[np.intp], rows: npt.NDArray[np.intp] | None) -> Rows:
    """Return the positions of those cohorts whose arm is complete."""
    if not (position < 0).any():
        return slice(None) if rows is None else rows
    mine = np.arange(len(arm)) if rows is None else rows
    return np.asarray(mine[position[arm[mine]] >= 0])


def _seen(e: KindEvidence, grid: AgeGrid, ranked: npt.NDArray[np.intp]) -> bool:
    """Whether any ranked arm has a cohort of the kind."""
    return bool((grid.start[ranked + 1] > grid.start[ranked]).any())


def _earliest(grid: AgeGrid, marks: FloatArray, first: FloatArray) -> None:
    """Lower each arm's first day to that of its oldest row."""
    some = np.flatnonzero(grid.start[1:] > grid.start[:-1])
    if not len(some):
        return
    oldest = np.full(len(some), grid.ages[0]) if grid.age is None else np.maximum.reduceat(grid.age, grid.start[some])
    first[some] = np.minimum(first[some], marks[some] - oldest)


@attrs.frozen(kw_only=True, eq=False)
class AgeWeights:
    """What each age counts for, D ages: columns by which tables of rows are multiplied.

    Args:
        age: In days, shape (D,).
        recency, cost, recent, today, month: Weights, shape (D,).
        member: Which block each age belongs to, shape (D, B) of zeros and ones.
        ends: Greatest age of each block, oldest block first, shape (B,).
        half_life_days: Of the recency.
    """

    age: FloatArray
    recency: FloatArray
    cost: FloatArray
    recent: FloatArray
    today: FloatArray
    month: FloatArray
    member: FloatArray
    ends: FloatArray
    half_life_days: float | None

    @classmethod
    def of(cls, age: FloatArray, oldest: float, half_life_days: float | None, cost_half_life_days: float) -> AgeWeights:
        """Return the weights of some ages, blocks cut by the oldest age of all."""
        edges = _BLOCK_EDGES[oldest > _BLOCK_EDGES]
        block = _block(age, edges)
        ends = np.concatenate([edges, [max(oldest, float(edges[-1]) + 1.0) if len(edges) else max(oldest, 1.0)]])[::-1].astype(np.float64)
        return cls(
            age=age,
            recency=_recency(age, half_life_days),
            cost=_recency(age, cost_half_life_days),
            recent=((age >= 1.0) & (age <= _RECENT_DAYS)).astype(np.float64),
            today=(age <= 0.0).astype(np.float64),
            month=((age >= 1.0) & (age <= _VOLUME_DAYS)).astype(np.float64),
            member=(block[:, None] == np.arange(len(ends))).astype(np.float64),
            ends=ends,
            half_life_days=half_life_days,
        )


def _spend(amount: FloatArray, grid: AgeGrid, ranked: npt.NDArray[np.intp], cost_half_life_days: float) -> FloatArray:
    """Return spend per ranked arm: all, weighted, of the recent days and of today; shape (4, A)."""
    w = AgeWeights.of(grid.ages, 1.0, None, cost_half_life_days)
    by = np.stack([np.ones_like(w.age), w.cost, w.recent, w.today], axis=1)
    out = np.zeros((4, len(ranked)))
    for at, cut in grid.cuts(ranked):
        out[:, at] = (cut.table(amount) @ by).T
    return out


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


def _per_day(recent: FloatArray, today: FloatArray, watermark: FloatArray, first: FloatArray) -> FloatArray:
    """Return amounts a day over the last whole days before the watermark; over the first day itself for what began on it."""
    days = np.clip(np.where(np.isfinite(first), watermark - first, 1.0), 0.0, float(_RECENT_DAYS))
    return np.asarray(np.where(days >= 1.0, recent, today) / np.maximum(days, 1.0))


def _kind(
    outcomes: Outcomes,
    name: str,
    rows: Rows,
    grid: AgeGrid,
    w: AgeWeights,
    position: npt.NDArray[np.intp],
    ranked: npt.NDArray[np.intp],
    watermark: FloatArray,
    first: FloatArray,
    patterns: list[Pattern],
) -> tuple[KindEvidence, FloatArray]:
    """Return the evidence of one kind of touch, and value, squared value and credit per arm, shape (3, A)."""
    c = outcomes.cohorts
    n, blocks = len(ranked), len(w.ends)
    by_exposure = np.stack([w.recency, w.cost, w.recency * w.age, w.recent, w.today], axis=1)
    by_mature = np.concatenate([w.member, w.recency[:, None]], axis=1)
    by_credit = np.concatenate([w.member, np.stack([w.recency, w.recency**2, w.month, np.ones_like(w.age)], axis=1)], axis=1)
    of_exposure, of_mature, of_credit = np.empty((n, 5)), np.empty((n, blocks + 1)), np.empty((n, blocks + 4))
    squares, money, pearson = np.empty(n), np.zeros((3, n)), PearsonSums.empty(n)
    valued = bool(c.value.any())
    for at, cut in grid.cuts(ranked):
        credit, exposure = cut.table(c.credit), cut.table(c.exposures)
        mature = exposure * cut.table(c.maturity) if cut.cell is None else cut.table(c.exposures, c.maturity)
        of_exposure[at] = exposure @ by_exposure
        of_mature[at] = mature @ by_mature
        of_credit[at] = credit @ by_credit
        counts, exposures = of_credit[at, :blocks], of_mature[at, :blocks]
        own = np.divide(counts, exposures, out=np.zeros_like(counts), where=exposures > 0)
        # Cells are compared with the mean of their arm and block, so that breaks and drift are not taken for noise.
        pearson.put(at, pearson_sums(credit, (own @ w.member.T) * mature, w.member))
        squares[at] = cut.sum(c.credit_squared)
        if valued:
            money[0, at], money[1, at] = cut.sum(c.value), cut.sum(c.value_squared)
    raw = of_credit[:, blocks + 3]
    money[2] = raw
    untagged_counts, untagged_exposures = _untagged(grid, w, c.credit, c.exposures, c.maturity, patterns, n)
    shares = _shares(outcomes, name)
    days = np.clip(np.where(np.isfinite(first), watermark - first, 7.0), 7.0, float(_VOLUME_DAYS)).astype(np.intp)
    evidence = KindEvidence(
        kind=TOUCH_KINDS.index(name),
        rows=rows,
        arm_of_row=c.arm,
        position=position,
        mark=watermark,
        half_life_days=w.half_life_days,
        block_days=-np.diff(np.append(w.ends, 0.0)),
        block_age=w.ends,
        counts=np.ascontiguousarray(of_credit[:, :blocks]),
        exposures=np.ascontiguousarray(of_mature[:, :blocks]),
        untagged_counts=untagged_counts,
        untagged_exposures=untagged_exposures,
        count=of_credit[:, blocks],
        exposure=of_mature[:, blocks],
        full_exposure=of_exposure[:, 0],
        cost_exposure=of_exposure[:, 1],
        exposure_age=of_exposure[:, 2],
        credit_dispersion=np.where((raw > 0) & (squares > 0), squares / np.where(raw > 0, raw, 1.0), 1.0),
        squared=of_credit[:, blocks + 1],
        per_day=_per_day(of_exposure[:, 3], of_exposure[:, 4], watermark, first),
        # Conversions a week over the last 28 days, each day counted with the share of its conversions seen by now.
        weekly=7.0 * of_credit[:, blocks + 2] / np.maximum(np.cumsum(shares)[days], 1.0),
        pearson=pearson,
    )
    return evidence, money


def _untagged(
    grid: AgeGrid, w: AgeWeights, credit: FloatArray, exposures: FloatArray, maturity: FloatArray, patterns: list[Pattern], n: int
) -> tuple[FloatArray | None, FloatArray | None]:
    """Return credit and mature exposure of the untagged cohorts that could belong to each arm, by block, shape (A, B) each."""
    if not patterns:
        return None, None
    blocks = len(w.ends)
    by = w.member * w.recency[:, None]
    found = np.zeros((2, n, blocks))
    for pattern in patterns:
        arms = np.flatnonzero(pattern.cell_of_arm >= 0)
        sums = np.zeros((2, pattern.n_cells, blocks))
        for at, cut in grid.cuts(arms):
            cells = pattern.cell_of_arm[arms[at]]
            np.add.at(sums[0], cells, cut.table(credit) @ by)
            np.add.at(sums[1], cells, cut.table(exposures, maturity) @ by)
        found += sums[:, pattern.cell_of_ranked]
    return found[0], found[1]


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
