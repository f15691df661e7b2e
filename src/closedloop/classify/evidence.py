"""Cohorts to sufficient statistics per arm and kind of touch: weighted counts, mature exposure, age and volume, in one pass.

Law of this file: it reads `Outcomes` and returns arrays in the canonical order of arms (sorted by their tags), so that
everything computed from them, draws included, does not depend on the order in which arms were listed.
"""

from __future__ import annotations

from typing import Literal

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.classify.ages import VOLUME_DAYS, AgeWeights
from closedloop.classify.grid import AgeGrid
from closedloop.classify.lost import RECENT, lost_days, per_day
from closedloop.classify.untagged import Pattern, at_random, by_block, incomplete, patterns_of, pool_of
from closedloop.errors import InputError
from closedloop.records.arms import Arms
from closedloop.records.interval import FloatArray
from closedloop.records.moments import US_PER_DAY
from closedloop.records.outcomes import Outcomes
from closedloop.records.pool import Pool
from closedloop.records.window import TOUCH_KINDS
from closedloop.stats.gamma_poisson import PearsonSums, pearson_sums

Rows = slice | npt.NDArray[np.intp]
Untagged = float | Literal["left out", "bounded"]

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
            everything is tagged or tags are taken to be lost at random.
        blind, blind_recent: Untagged exposures of its own per tagged one, if tags are lost at random, under the weights of the spend and
            over the recent days, shape (A,).
        blind_spread: Standard deviation of the log rate for not knowing that share, shape (A,); zero where nothing is taken for random.
        count, exposure: Recency-weighted sums, shape (A,).
        full_exposure: Recency-weighted exposure without maturity.
        cost_exposure: The same with the weights of the spend: what the weighted spend bought.
        exposure_age: Recency-weighted exposure x age in days.
        credit_dispersion: Sum of squared credits over sum of credits, 1 for whole credits.
        squared: Sum of squared recency weights x credit.
        per_day: Exposures a day over the recent days, with the untagged ones that are the arm's own if tags are lost at random.
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
    blind: FloatArray
    blind_recent: FloatArray
    blind_spread: FloatArray
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
        spend_blind: Untagged spend of its own per tagged unit, if tags are lost at random, shape (A,).
        tagged_share: Shape (A,).
        pools: Untagged credit of all kinds, and untagged spend (exposures where nothing is spent), to be owned jointly; None where
            everything is tagged, or tags are taken to be lost at random.
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
    spend_blind: FloatArray
    tagged_share: FloatArray
    pools: tuple[Pool, Pool] | None


def gather(
    outcomes: Outcomes,
    *,
    half_life_days: float | None,
    now_us: int | None,
    cost_half_life_days: float = 28.0,
    last_days: float | None = None,
    untagged: Untagged = "left out",
) -> Evidence:
    """Return the evidence of the complete arms.

    Args:
        outcomes: As attribution gave them.
        half_life_days: Half-life of the recency weights, None for equal weights.
        now_us: Microseconds UTC, None to trust the watermark.
        cost_half_life_days: Half-life of the weights of spend and of the exposure that it bought.
        last_days: Leave out what is older than so many days before the watermark.
        untagged: What incomplete arms count for: nothing, bounds on what complete arms may own, or what these own if tags are lost at
            random, as a number: how far the log of an arm's share of them may be from that.

    Raises:
        InputError: A cohort lies in the future, or a number is negative or not finite.
    """
    complete = np.flatnonzero(outcomes.arms.complete)
    arms = outcomes.arms.take(complete)
    ranked = complete[canonical := _canonical(arms)]
    position = np.full(len(outcomes.arms), -1, dtype=np.intp)
    position[ranked] = np.arange(len(complete))
    _check(outcomes, now_us)
    marks = _watermark_days(outcomes, now_us)
    c, s = outcomes.cohorts, outcomes.spend
    kept = None if last_days is None else np.flatnonzero((marks[c.arm] - c.day <= last_days) & ~np.isin(c.day, outcomes.blind))
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
    out = lost_days(outcomes, ranked, watermark, first, RECENT)
    patterns = patterns_of(outcomes.arms, ranked)
    used = [] if untagged == "left out" else patterns
    oldest = max([float(g.ages[0]) for g in grids.values()], default=1.0)
    kinds, money = {}, np.zeros((3, len(ranked)))
    for name, grid in grids.items():
        weights = AgeWeights.of(grid.ages, oldest, half_life_days, cost_half_life_days)
        rows_used = _tagged(c.arm, position, rows_of[name])
        kinds[name], value = _kind(outcomes, name, rows_used, grid, weights, position, ranked, watermark, first, used, untagged)
        money += value
    of_ages = _spend_weights(of_spend.ages, cost_half_life_days)
    spend = np.zeros((4, len(ranked)))
    for at, cut in of_spend.cuts(ranked):
        spend[:, at] = (cut.table(s.spend) @ of_ages).T
    lost_spend = incomplete(of_spend, of_ages, (s.spend,), used)
    pools = None
    if used and untagged == "bounded":
        credit, exposures = np.zeros(len(outcomes.arms)), np.zeros(len(outcomes.arms))
        for grid in grids.values():
            w = AgeWeights.of(grid.ages, oldest, half_life_days, cost_half_life_days)
            credit += incomplete(grid, w.recency[:, None], (c.credit,), used)[:, 0]
            exposures += incomplete(grid, w.cost[:, None], (c.exposures,), used)[:, 0]
        pools = pool_of(credit, used), pool_of(lost_spend[:, 1] if spend[1].any() else exposures, used)
    return Evidence(
        arms=arms,
        canonical=canonical,
        kinds={name: e for name, e in kinds.items() if _seen(e, grids[name], ranked)},
        watermark_day=watermark,
        spend=spend[0],
        spend_weighted=spend[1],
        spend_per_day=per_day(spend[2], spend[3], watermark, first, out),
        value=money[0],
        value_squared=money[1],
        value_count=money[2],
        spend_blind=at_random(spend[1], lost_spend[:, 1], used),
        tagged_share=_tagged_share(outcomes, ranked, patterns),
        pools=pools,
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


def _spend_weights(age: FloatArray, cost_half_life_days: float) -> FloatArray:
    """Return by age what spend counts for in all, weighted, over the recent days and today; shape (D, 4)."""
    w = AgeWeights.of(age, 1.0, None, cost_half_life_days)
    return np.stack([np.ones_like(w.age), w.cost, w.recent, w.today], axis=1)


def _tagged_share(outcomes: Outcomes, ranked: npt.NDArray[np.intp], patterns: list[Pattern]) -> FloatArray:
    """Return, per ranked arm, the share of its own exposures, lost at random, that carry all tags; kinds count by their credit; (A,)."""
    if not patterns:
        return np.ones(len(ranked))
    exposures = [outcomes.per_arm("exposures", kind) for kind in (0, 1)]
    shares = np.stack([1.0 / (1.0 + at_random(x[ranked], x, patterns)) for x in exposures])
    credit = np.array([outcomes.per_arm("credit", kind).sum() for kind in (0, 1)])
    return np.asarray(credit / credit.sum() @ shares) if credit.sum() > 0.0 else np.asarray(shares.min(axis=0))


def _canonical(arms: Arms) -> npt.NDArray[np.intp]:
    """Return the positions of arms sorted by their tags."""
    keys = []
    for k, vocab in enumerate(arms.vocabs):
        rank = np.arange(len(vocab))
        if not bool((vocab[1:] >= vocab[:-1]).all()):
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
    untagged: Untagged,
) -> tuple[KindEvidence, FloatArray]:
    """Return the evidence of one kind of touch, and value, squared value and credit per arm, shape (3, A)."""
    c, n, blocks = outcomes.cohorts, len(ranked), len(w.ends)
    by_exposure = np.stack([w.recency, w.cost, w.recency * w.age, w.recent, w.today], axis=1)
    by_mature = np.concatenate([w.member, w.recency[:, None]], axis=1)
    by_either = np.concatenate([by_exposure, by_mature], axis=1)
    by_credit = np.concatenate([w.member, np.stack([w.recency, w.recency**2, w.month, np.ones_like(w.age)], axis=1)], axis=1)
    of_exposure, of_credit = np.empty((n, blocks + 6)), np.empty((n, blocks + 4))
    of_mature = of_exposure[:, 5:]
    money, pearson = np.zeros((3, n)), PearsonSums.empty(n)
    valued, grown = bool(c.value.any()), not bool((c.maturity < 1.0).any())
    whole = np.array_equal(c.credit, c.credit_squared)  # whole credits are their own squares
    squares = of_credit[:, blocks + 3] if whole else np.empty(n)
    for at, cut in grid.cuts(ranked):
        credit, exposure = cut.table(c.credit), cut.table(c.exposures)
        of_credit[at], of_exposure[at] = credit @ by_credit, exposure @ by_either
        mature = exposure
        if not grown:
            mature = exposure * cut.table(c.maturity) if cut.cell is None else cut.table(c.exposures, c.maturity)
            of_mature[at] = mature @ by_mature
        # Cells are compared with the mean of their arm and block, so that breaks and drift are not taken for noise.
        pearson.put(at, pearson_sums(credit, mature, w.member, of_credit[at, :blocks], of_mature[at, :blocks]))
        if not whole:
            squares[at] = cut.sum(c.credit_squared)
        if valued:
            money[0, at], money[1, at] = cut.sum(c.value), cut.sum(c.value_squared)
    money[2] = raw = of_credit[:, blocks + 3]
    more_counts = more_exposures = None
    if patterns and untagged == "bounded":
        by = w.member * w.recency[:, None]
        more_counts = by_block(grid, by, (c.credit,), patterns, n)
        more_exposures = by_block(grid, by, (c.exposures, c.maturity), patterns, n)
    lost = incomplete(grid, np.stack([w.cost, w.recent], axis=1), (c.exposures,), patterns)
    blind, blind_recent = (at_random(of_exposure[:, 1 + 2 * i], lost[:, i], patterns) for i in (0, 1))
    shares = _shares(outcomes, name)
    days = np.clip(np.where(np.isfinite(first), watermark - first, 7.0), 7.0, float(VOLUME_DAYS)).astype(np.intp)
    out, unseen = (lost_days(outcomes, ranked, watermark, first, worth, blind=worth is shares) for worth in (RECENT, shares))
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
        untagged_counts=more_counts,
        untagged_exposures=more_exposures,
        blind=blind,
        blind_recent=blind_recent,
        blind_spread=blind / (1.0 + blind) * (untagged if isinstance(untagged, float) else 0.0),
        count=of_credit[:, blocks],
        exposure=of_mature[:, blocks],
        full_exposure=of_exposure[:, 0],
        cost_exposure=of_exposure[:, 1],
        exposure_age=of_exposure[:, 2],
        credit_dispersion=np.where((raw > 0) & (squares > 0), squares / np.where(raw > 0, raw, 1.0), 1.0),
        squared=of_credit[:, blocks + 1],
        per_day=per_day(of_exposure[:, 3], of_exposure[:, 4], watermark, first, out) * (1.0 + blind_recent),
        # Conversions a week over the last 28 days, each day counted with the share of its conversions seen by now, lost days not at all.
        weekly=7.0 * of_credit[:, blocks + 2] / np.maximum(np.cumsum(shares)[days] - unseen, 1.0),
        pearson=pearson,
    )
    return evidence, money


def _shares(outcomes: Outcomes, name: str) -> FloatArray:
    """Return the share of conversions seen by age in days, shape (29,): zero at age 0, 1 beyond the window."""
    shares = np.ones(VOLUME_DAYS + 1)
    shares[0] = 0.0
    curve = outcomes.delay.get(name)
    if curve is not None:
        upto = min(len(curve.share_seen), VOLUME_DAYS)
        shares[1 : upto + 1] = curve.share_seen[:upto]
    return shares


def now_microseconds(outcomes: Outcomes, now_us: int | None) -> int:
    """Return ``now`` or, without one, the newest watermark (the end of the newest cohort where there is none either)."""
    if now_us is not None:
        return now_us
    if outcomes.watermark:
        return max(outcomes.watermark.values())
    return (int(outcomes.cohorts.day.max()) + 1) * US_PER_DAY if len(outcomes.cohorts) else 0
