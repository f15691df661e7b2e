"""One counter for each type of conversion: what platforms report of purchases that have users is compared, never added.

Law of this file: where conversions of one type come with users and also as their source credits them, they are the same purchases counted
twice. Those with users count, by the loop's own attribution and under its own window; the source's are set aside *before* attribution
and held against ours, arm by arm. So another window or a second claim on a platform harms no decision, because none rests on its report.
A type that once had two counters keeps this in the ledger, because a batch may bring only one of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, Literal

import attrs
import numpy as np

from closedloop.attribute import WindowedAttribution
from closedloop.display import frame, html_table, number, text_table
from closedloop.health import Thresholds, compare_reports
from closedloop.health.measures import share
from closedloop.records.batch import CONVERSION, NO_TIME, EventBatch
from closedloop.records.feedback import Finding
from closedloop.records.interval import FloatArray, Intervals
from closedloop.records.outcomes import Outcomes
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow
from closedloop.stats.rates import ratio_intervals

TYPES, REPORTS = "counters", "reports"  # names of the states in the ledger
_COMPARED_DAYS = 28
_EPOCH = date(1970, 1, 1)


@attrs.frozen(kw_only=True, eq=False)
class ReportComparison:
    """What platforms report of each arm beside what we credit to it, over the same days.

    Args:
        arms: Tags of the arms by column, each of shape (A,).
        claimed: Conversions that the platform claims (shape (A,)).
        credited: Conversions that we credit (shape (A,)).
        ratio: Claimed as a multiple of credited.
        since: First day of both sums.
        findings: What follows for the account and for each platform; warnings, because no decision rests on the reports.
    """

    arms: Mapping[str, list[str | None]]
    claimed: FloatArray
    credited: FloatArray
    ratio: Intervals
    since: date
    findings: tuple[Finding, ...]

    def __len__(self) -> int:
        return len(self.claimed)

    def to_columns(self) -> dict[str, Any]:
        """Return one row per arm: tags, both counts, and their ratio with its interval."""
        return {
            **self.arms,
            "claimed": self.claimed,
            "credited": self.credited,
            "ratio": self.ratio.estimate,
            "ratio_low": self.ratio.low,
            "ratio_high": self.ratio.high,
        }

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the comparison as a frame."""
        return frame(self.to_columns(), library)

    def _title(self) -> str:
        return f"Platforms' reports beside our credit since {self.since}: compared, never added"

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title=self._title())

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=self._title())


def set_aside(batch: EventBatch, known: frozenset[str], limits: Thresholds) -> tuple[EventBatch, EventBatch, frozenset[str]]:
    """Return the batch with one counter for each type, the events set aside, and the types that have two counters.

    A type gets into the last once the smaller of its two counters is credibly more than ``limits.double_counted`` of both.

    Args:
        batch: What was ingested.
        known: Types that had two counters before ("" for conversions without a type).
        limits: Thresholds.
    """
    types = known | _two_counters(batch, limits)
    if not types:
        return batch, EventBatch.empty(), types
    ours, theirs = _split(batch, types)
    if batch.untagged is None:
        return ours, theirs, types
    untagged, more = _split(batch.untagged, types)
    return attrs.evolve(ours, untagged=untagged), attrs.evolve(theirs, untagged=more), types


def _by_source(batch: EventBatch) -> np.ndarray:
    return np.asarray((batch.kind == CONVERSION) & (batch.touch_at != NO_TIME))


def _two_counters(batch: EventBatch, limits: Thresholds) -> frozenset[str]:
    codes, quantity = batch.conversion_type.codes + 1, batch.quantity.astype(np.float64)
    by_source = _by_source(batch)
    by_user = (batch.kind == CONVERSION) & ~by_source & (batch.user_id.codes >= 0)
    names = ["", *(str(v) for v in batch.conversion_type.vocab)]
    source, user = (np.bincount(codes[mask], weights=quantity[mask], minlength=len(names)) for mask in (by_source, by_user))
    smaller = np.minimum(source, user)
    return frozenset(
        names[i]
        for i in np.flatnonzero(smaller > 0)
        if share(float(smaller[i]), float(source[i] + user[i]), limits.level).low > limits.double_counted
    )


def _split(batch: EventBatch, types: frozenset[str]) -> tuple[EventBatch, EventBatch]:
    concerned = np.array(["" in types, *(str(v) in types for v in batch.conversion_type.vocab)], dtype=bool)
    away = _by_source(batch) & concerned[batch.conversion_type.codes + 1]
    theirs = batch.take(away)
    # A platform counts a conversion when it happens: its own window, whatever it is, must not decide which of its claims are seen.
    return batch.take(~away), attrs.evolve(theirs, touch_at=theirs.occurred_at, untagged=None)


class Counters:
    """Sets second counters aside, remembers them, and compares them with the loop's own.

    Args:
        window, tags, conversion_type: Those of the loop.
        limits: Thresholds of its health.
    """

    def __init__(self, window: AttributionWindow, tags: TagSchema, conversion_type: str | None, limits: Thresholds) -> None:
        self._limits = limits
        self._attribution = WindowedAttribution(window, tags=tags, conversion_type=conversion_type, history="60d")

    def part(self, batch: EventBatch, known: bytes | None) -> tuple[EventBatch, EventBatch, bytes | None]:
        """Return what counts, what is set aside, and what to keep under `TYPES` (None while every type has one counter)."""
        before = frozenset(json.loads(known)) if known is not None else frozenset()
        ours, theirs, types = set_aside(batch, before, self._limits)
        return ours, theirs, json.dumps(sorted(types)).encode() if types else None

    def compare(
        self, theirs: EventBatch, outcomes: Outcomes, saved: bytes | None, windows: Mapping[str, AttributionWindow], now: datetime
    ) -> tuple[ReportComparison | None, bytes | None]:
        """Return the comparison of the last 28 days, and what to keep under `REPORTS`.

        Args:
            theirs: The events set aside in this cycle.
            outcomes: The loop's own.
            saved: What was kept the last time.
            windows: By platform, the window it says it reports under.
            now: Time of the cycle.
        """
        if saved is None and not len(theirs) and theirs.untagged is None:
            return None, None
        state = None if saved is None else self._attribution.load(saved)
        claims = self._attribution.attribute(theirs, state=state, now=now)
        kept = claims.state.to_bytes()
        days = claims.cohorts.day[claims.cohorts.credit > 0]
        if not len(days):
            return None, kept
        since = max(int(days.min()), int(days.max()) - _COMPARED_DAYS + 1)
        return self._beside(claims, outcomes, since, windows), kept

    def _beside(self, claims: Outcomes, outcomes: Outcomes, since: int, windows: Mapping[str, AttributionWindow]) -> ReportComparison:
        columns, level = outcomes.arms.columns, self._limits.level
        claimed, credited = (_by_arm(o, since) for o in (claims, outcomes))
        names = list(dict.fromkeys((*credited, *claimed)))
        a, b = (np.array([counts.get(arm, 0.0) for arm in names]) for counts in (claimed, credited))
        low, middle, high = ratio_intervals(a, b, level=level)
        at = columns.index("platform") if "platform" in columns else None
        platforms = [str(arm[at] or "?") if at is not None else "account" for arm in names]
        theirs, ours = (dict.fromkeys(platforms, 0.0) for _ in range(2))
        for name, x, y in zip(platforms, a.tolist(), b.tolist(), strict=True):
            theirs[name] += x
            ours[name] += y
        everything = outcomes.per_arm("credit").sum()
        total = b.sum() * (outcomes.n_conversions / everything if everything > 0 else 1.0)  # with those that no arm is credited with
        measured = share(min(a.sum(), total), a.sum() + total, level)
        apart = [i for i in np.argsort(-np.abs(a - b), kind="stable")[:3].tolist() if a[i] != b[i]]
        by_arm = "; ".join(f"{' / '.join(str(t) for t in names[i])} {number(a[i])} for our {number(b[i])}" for i in apart)
        day = _EPOCH + timedelta(days=since)
        mismatch = Finding(
            name="attribution_mismatch",
            severity="warning",
            scope="account",
            measured=measured,
            threshold=self._limits.double_counted,
            evidence=(
                f"since {day} {number(total)} conversions come with a user and {number(float(a.sum()))} more as platforms credit them: the "
                f"same ones counted twice, so that only those with a user count; most apart: {by_arm or 'none'}"
            ),
            mend="nothing rests on these reports; take them out of the rows, or give them a conversion type of their own",
        )
        others = compare_reports(ours, theirs, float(total), self._limits, windows={name: str(w) for name, w in windows.items()})
        return ReportComparison(
            arms={c: [arm[k] for arm in names] for k, c in enumerate(columns)},
            claimed=a,
            credited=b,
            ratio=Intervals(low=low, estimate=middle, high=high, level=level, kind="credible"),
            since=day,
            findings=(mismatch, *others),
        )


def _by_arm(outcomes: Outcomes, since: int) -> dict[tuple[str | None, ...], float]:
    c = outcomes.cohorts
    recent = c.day >= since
    sums = np.bincount(c.arm[recent], weights=c.credit[recent], minlength=len(outcomes.arms))
    return dict(zip(outcomes.arms, sums.tolist(), strict=True))
