"""Uptime of each source: on which days it brought what it should, and what to do with the days on which it did not.

Law of this file: a day without data is *missing*, never zero. A gap is told from real quiet by what the source's own earlier days
foretell (`closedloop.health.gaps`: by day of the week, gaps themselves left out), and by its spend: a platform that brings less and
charges less in proportion is quiet, one that charges as before has lost rows. `without_gaps` takes a platform's lost day out of outcomes
altogether, touches, conversions and spend; where the feed of conversions was out, exposures and spend stand and nothing is said of what
they brought. So a lost day widens intervals and bends no rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Literal

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.display import frame, html_table, text_table
from closedloop.health.daily import daily
from closedloop.health.gaps import expected
from closedloop.health.measures import share
from closedloop.records.arms import Arms
from closedloop.records.batch import CLICK, CONVERSION, IMPRESSION, EventBatch
from closedloop.records.interval import FloatArray, Interval
from closedloop.records.moments import US_PER_DAY
from closedloop.records.money import MICROS
from closedloop.records.outcomes import Cohorts, ConversionDays, Outcomes, SpendDays

CONVERSIONS = "conversions"  # the source of conversions that carry a user: the site or shop itself
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday
_EPOCH = date(1970, 1, 1)
_LEAST_DAYS = 7
_LONGEST = 28  # days that foretell the next; a gap longer than this is what the source is like now
_SEEN = 0.9  # share of a cohort's conversions: days whose conversions came by then are not touched by a later gap


@attrs.frozen(kw_only=True)
class Uptime:
    """How reliably one source delivers.

    Args:
        source: A platform, or ``"conversions"``.
        days: Days that could be judged.
        gaps: The days on which less than half came of what should have.
        share: Share of days without a gap, in [0, 1], with its credible interval.
        missing: Events that should have come on the gap days and did not.
    """

    source: str
    days: int
    gaps: tuple[date, ...]
    share: Interval
    missing: float


@attrs.frozen(kw_only=True)
class Uptimes:
    """The sources' uptimes."""

    rows: tuple[Uptime, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, source: str) -> Uptime:
        return next(r for r in self.rows if r.source == source)

    def to_columns(self) -> dict[str, list[Any]]:
        """Return one row per source."""
        return {
            "source": [r.source for r in self.rows],
            "days": [r.days for r in self.rows],
            "uptime": [r.share.estimate for r in self.rows],
            "uptime_low": [r.share.low for r in self.rows],
            "uptime_high": [r.share.high for r in self.rows],
            "gaps": [", ".join(d.isoformat() for d in r.gaps) for r in self.rows],
            "missing": [round(r.missing) for r in self.rows],
        }

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the uptimes as a frame."""
        return frame(self.to_columns(), library)

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title="Uptime of sources")

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title="Uptime of sources")


def uptimes(
    seen: EventBatch | Outcomes, *, level: float = 0.9, rarity: float = 1e-4, least_share: float = 0.5, longest: int = 180
) -> Uptimes:
    """Return the uptime of each source over the days that can be judged: from its eighth day on.

    Args:
        seen: Events of several weeks, or outcomes. Conversions are judged too, as a source of their own, ``"conversions"``; in outcomes up
            to the day before their newest, because attribution knows how far their feed has come.
        level: Of the intervals.
        rarity: A day is a gap when so low a count is rarer than this,
        least_share: and less than this share of what should have come.
        longest: Days looked at.
    """
    names, counts, spend, first, ends = _of_batch(seen) if isinstance(seen, EventBatch) else _of_outcomes(seen, longest)
    older = max(0, counts.shape[1] - longest)
    counts, spend, first = counts[:, older:], spend[:, older:], first + older
    rows = []
    for i, name in enumerate(names):
        end = max(ends[i] - older, 0)
        begun = int(np.argmax(counts[i] > 0)) if counts[i].any() else end
        gap, expected = judged(counts[i, begun:end], first + begun, spend[i, begun:end], rarity=rarity, least_share=least_share)
        days, lost = int(np.isfinite(expected).sum()), np.flatnonzero(gap)
        rows.append(
            Uptime(
                source=name,
                days=days,
                gaps=tuple(_EPOCH + timedelta(days=int(first + begun + d)) for d in lost),
                share=share(days - len(lost), days, level),
                missing=float((expected[lost] - counts[i, begun:][lost]).sum()),
            )
        )
    return Uptimes(rows=tuple(rows))


def judged(
    counts: FloatArray, first_day: int, spend: FloatArray | None = None, *, rarity: float = 1e-4, least_share: float = 0.5
) -> tuple[npt.NDArray[np.bool_], FloatArray]:
    """Return which days of one source are gaps, and what each day should have brought (NaN where that cannot be said).

    Args:
        counts: Events by day, shape (D,).
        first_day: The first one, in days since 1970-01-01.
        spend: Spend by day, where known: a day on which it fell as well should have brought less.
        rarity, least_share: As for `uptimes`.
    """
    n = len(counts)
    gap, mean = np.zeros(n, dtype=bool), np.full(n, np.nan)
    if n <= _LEAST_DAYS:
        return gap, mean
    weekday, paid = (first_day + np.arange(n) + _EPOCH_WEEKDAY) % 7, np.zeros(n) if spend is None else spend
    while True:  # a day's verdict rests on those before it: each round settles at least one gap more
        days = _usual(gap)
        known = days >= 0
        found = expected(counts[_LEAST_DAYS:], weekday[_LEAST_DAYS:], counts[days], weekday[days], known)
        found = found.times(_quiet(paid, days, known))
        again = np.append(np.zeros(_LEAST_DAYS, dtype=bool), found.is_gap(rarity, least_share))
        mean[_LEAST_DAYS:] = found.mean
        if np.array_equal(again, gap):
            return gap, mean
        gap = again


def _usual(gap: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return for each day from the eighth on the last days before it that say what is usual, -1 for none, shape (D - 7, 28)."""
    out = np.full((len(gap) - _LEAST_DAYS, _LONGEST), -1, dtype=np.int64)
    usual: list[int] = list(range(_LEAST_DAYS))
    run = 0
    for day, lost in enumerate(gap[_LEAST_DAYS:].tolist(), _LEAST_DAYS):
        before = usual[-_LONGEST:]
        out[day - _LEAST_DAYS, : len(before)] = before
        run = run + 1 if lost else 0
        if run > _LONGEST:  # it is no outage any more: the source is like this now, and is judged by what it has been since
            usual = list(range(day - run + 1, day))
            run = 0
        if not lost:
            usual.append(day)
    return out


def _quiet(spend: FloatArray, days: npt.NDArray[np.int64], known: npt.NDArray[np.bool_]) -> FloatArray:
    """By how much the source charged less than on the days before, at most 1; 1 where it does not charge, shape (D - 7,)."""
    own, before = spend[_LEAST_DAYS:], np.where(known, spend[days], 0.0)
    usual = before.sum(axis=1, where=before > 0) / np.maximum((before > 0).sum(axis=1), 1)
    return np.where((own > 0) & (usual > 0), np.minimum(1.0, own / np.where(usual > 0, usual, 1.0)), 1.0)


def _of_outcomes(outcomes: Outcomes, longest: int) -> tuple[list[str], FloatArray, FloatArray, int, list[int]]:
    sums = daily(outcomes, longest)
    names, counts = sums.platforms()
    spend = np.zeros(counts.shape)
    np.add.at(spend, _platforms(outcomes.arms)[0], sums.spend)
    width = len(sums.days)
    ends = [width] * len(names)
    known = outcomes.daily
    if len(known) and width:
        at = known.day - int(sums.days[0])
        inside = (at >= 0) & (at < width)
        conversions = np.bincount(at[inside], known.conversions[inside], width)
        # All that is charged leads to conversions: a day on which the account spent less should have brought less.
        counts, spend = np.vstack([counts, conversions]), np.vstack([spend, spend.sum(axis=0)])
        names, ends = [*names, CONVERSIONS], [*ends, min(max(int(at.max()), 0), width)]
    return names, counts, spend, int(sums.days[0]) if width else 0, ends


def _platforms(arms: Arms) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Return the platform of each arm and their names: "account" where arms have none."""
    return arms.groups(("platform",)) if "platform" in arms.columns else (np.zeros(len(arms), dtype=np.int32), ["account"])


def _of_batch(batch: EventBatch) -> tuple[list[str], FloatArray, FloatArray, int, list[int]]:
    """Counts and spend by source and whole day; the last day counts as over when its data reach 22 h."""
    parts = [batch] if batch.untagged is None else [batch, batch.untagged]
    newest = max((int(p.occurred_at.max()) for p in parts if len(p)), default=0)
    last = newest // US_PER_DAY - (0 if newest % US_PER_DAY >= 22 * 3_600_000_000 else 1)
    first = min((int(p.occurred_at.min()) for p in parts if len(p)), default=0) // US_PER_DAY
    names = sorted({str(t) for p in parts for t in p.tags["platform"].vocab.tolist()})
    width = max(last - first + 1, 0)
    kinds = np.zeros((4, len(names) + 1, width))  # the last source is the conversions' own
    spend = np.zeros((len(names) + 1, width))
    for part in parts:
        where = np.array([names.index(str(t)) for t in part.tags["platform"].vocab.tolist()] + [-1], dtype=np.int64)
        source = where[part.tags["platform"].codes]
        source[part.kind == CONVERSION] = len(names)
        day = part.occurred_at // US_PER_DAY - first
        good = (source >= 0) & (day < width)
        for kind in (IMPRESSION, CLICK, CONVERSION):
            at = good & (part.kind == kind)
            np.add.at(kinds[kind], (source[at], day[at]), part.quantity[at])
        paid = good & (part.kind != CONVERSION)
        np.add.at(spend, (source[paid], day[paid]), part.cost[paid] / MICROS)
    touches = np.where(kinds[CLICK].any(axis=1, keepdims=True), kinds[CLICK], kinds[IMPRESSION])
    counts = touches + kinds[CONVERSION]
    kept = counts.any(axis=1)
    sources = [*names, CONVERSIONS]
    spend[-1] = spend[:-1].sum(axis=0)  # all that is charged leads to conversions
    names = [s for s, k in zip(sources, kept.tolist(), strict=True) if k]
    bought = np.flatnonzero((counts[:-1] + spend[:-1]).any(axis=0))  # where touches of all platforms end, none lost a day
    end = width if not len(bought) or bought[-1] == width - 1 else int(bought[-1])
    return names, counts[kept], spend[kept], first, [width if s == CONVERSIONS else end for s in names]


def without_gaps(outcomes: Outcomes, gaps: Uptimes | Mapping[str, Sequence[date]]) -> Outcomes:
    """Return the outcomes without what days on which a source was out would say wrongly: missing, not zero.

    A platform's gap takes out that day's touches, credit and spend of its arms; ``missing`` of the outcomes says so. A gap of
    ``"conversions"`` blinds, for every arm, that day and those before it whose conversions were still to come by then (by the delay
    curve, until nine tenths are seen): their exposures and spend stand, and none of their conversions counts as seen.

    Args:
        outcomes: As attribution gave them; their state is not touched, and forgets nothing.
        gaps: As `uptimes` found them, or days by source (``"account"`` where arms have no platform).
    """
    days = {r.source: r.gaps for r in gaps.rows} if isinstance(gaps, Uptimes) else gaps
    numbers = {source: np.array([(d - _EPOCH).days for d in found], dtype=np.int32) for source, found in days.items() if len(found)}
    if not numbers:
        return outcomes
    code, names = _platforms(outcomes.arms)
    nothing = np.empty(0, dtype=np.int32)
    feed = numbers.get(CONVERSIONS, nothing)
    reach = max((int(np.argmax(np.asarray(c.share_seen) >= _SEEN)) for c in outcomes.delay.values()), default=0)
    blind = np.unique((feed[:, None] - np.arange(reach + 1, dtype=np.int32)).ravel()).astype(np.int32)

    def seen(arm: npt.NDArray[np.int32], day: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        out = np.ones(len(arm), dtype=bool)
        for i, name in enumerate(names):
            if name in numbers:
                out &= (code[arm] != i) | ~np.isin(day, numbers[name])
        return out

    c, s, d = outcomes.cohorts, outcomes.spend, outcomes.daily
    cohorts, spend = seen(c.arm, c.day), seen(s.arm, s.day)
    kept = Cohorts(**{a.name: getattr(c, a.name)[cohorts] for a in attrs.fields(Cohorts)})
    unknown = np.isin(kept.day, blind)
    zeroed = ("credit", "credit_squared", "value", "value_squared", "maturity")
    known = ~np.isin(d.day, feed)
    return attrs.evolve(
        outcomes,
        cohorts=attrs.evolve(kept, **{name: np.where(unknown, 0.0, getattr(kept, name)) for name in zeroed}),
        spend=SpendDays(**{a.name: getattr(s, a.name)[spend] for a in attrs.fields(SpendDays)}),
        daily=ConversionDays(day=d.day[known], conversions=d.conversions[known], uncredited=d.uncredited[known], missing=feed),
        missing={name: numbers[name] for name in names if name in numbers},
        blind=blind,
        participation=None if outcomes.participation is None else without_gaps(outcomes.participation, gaps),
    )


__all__ = ["CONVERSIONS", "Uptime", "Uptimes", "judged", "uptimes", "without_gaps"]
