"""The five ways in which loops compound errors, each with a detector and its evidence.

Law of this file: a detector looks at records and says what it saw in numbers; no finding without evidence. Each is quiet on healthy
data: when it can fire is stated in its docstring, and the rate of false alarms is tested over simulated histories. A failure that
lasts goes on being found, so that what was noticed once is not forgotten when it has become the usual.

1. missing tags -> blended signals: `missing_tags`, `uneven_tags`
2. low volume -> hidden uncertainty: in `conditions.volume`, campaign by campaign
3. attribution mismatch -> wrong optimisation: `double_counting`, `comparisons.compare_reports`
4. API delay -> incomplete actions, late or absent data: `conditions.integrations`, `data_gaps`
5. wrong attribution -> reinforced errors: `moved_credit`, `comparisons.credit_against_tests`
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

from closedloop.display import number
from closedloop.health.breaks import AFTER, BEFORE, SCANNED, Break, breaks
from closedloop.health.daily import Daily, daily
from closedloop.health.gaps import expected_last_day
from closedloop.health.measures import share
from closedloop.health.thresholds import Thresholds
from closedloop.records.batch import CONVERSION, NO_TIME
from closedloop.records.feedback import Finding, Severity
from closedloop.records.interval import Interval
from closedloop.records.outcomes import Outcomes
from closedloop.records.quarantine import Ingested
from closedloop.stats.rates import ratio_interval

_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0


def detect(outcomes: Outcomes, ingested: Ingested | None, limits: Thresholds) -> tuple[Finding, ...]:
    """Return what the detectors that need no further data find."""
    sums = daily(outcomes, BEFORE + SCANNED)
    return (
        *missing_tags(sums, limits),
        *double_counting(ingested, limits),
        *data_gaps(sums, limits),
        *changed_hands(sums, limits),
    )


def missing_tags(sums: Daily, limits: Thresholds) -> list[Finding]:
    """Find platforms whose touches of the last three days lack tags.

    The condition `tagging` counts the rows of this cycle; this looks at the touches that attribution has, by platform: at clicks, and at
    views where there are no clicks, because views often come many in one row. On fully tagged data it cannot fire.
    """
    complete = sums.arms.complete
    code, names = (
        sums.arms.groups(("platform",)) if "platform" in sums.arms.columns else (np.zeros(len(sums.arms), dtype=np.int32), ["account"])
    )
    newest = sums.touches()[:, -AFTER:].sum(axis=1)
    whole = np.bincount(code, weights=newest, minlength=len(names))
    tagged = np.bincount(code, weights=newest * complete, minlength=len(names))
    found = []
    for name, part, n in zip(names, tagged.tolist(), whole.tolist(), strict=True):
        measured = share(part, n, limits.level)
        if n <= 0 or measured.high >= limits.tagged_warning:
            continue
        severity: Severity = "critical" if measured.high < limits.tagged_critical else "warning"
        evidence = f"{n - part:,.0f} of {n:,.0f} touches of {name} in the last {AFTER} days lack tags"
        mend = f"mend the links of {name}; until then its arms are not comparable"
        found.append(
            Finding(
                name="missing_tags",
                severity=severity,
                scope=name,
                measured=measured,
                threshold=limits.tagged_warning,
                evidence=evidence,
                mend=mend,
            )
        )
    return found


def double_counting(ingested: Ingested | None, limits: Thresholds) -> list[Finding]:
    """Find two counters of the same conversions in one batch: a tracker's, with users, and a platform's, credited by itself.

    A batch whose conversions of one type come from one counter cannot raise it. The share measured is that of the smaller counter.
    """
    if ingested is None or not len(ingested.batch):
        return []
    batch = ingested.batch
    conversions = batch.kind == CONVERSION
    by_source = conversions & (batch.touch_at != NO_TIME)
    by_user = conversions & ~by_source & (batch.user_id.codes >= 0)
    found = []
    for code in np.unique(batch.conversion_type.codes[conversions]):
        same = batch.conversion_type.codes == code
        source, user = (float(batch.quantity[mask & same].sum()) for mask in (by_source, by_user))
        if min(source, user) <= 0:
            continue
        kind = "conversions" if code < 0 else str(batch.conversion_type.vocab[code])
        measured = share(min(source, user), source + user, limits.level)
        severity: Severity = "critical" if measured.low > limits.double_counted else "warning"
        evidence = f"{user:,.0f} {kind} come with a user and {source:,.0f} more as platforms credit them: the same ones are counted twice"
        mend = "keep one counter for each conversion type; compare a platform's report, never add it"
        found.append(
            Finding(
                name="attribution_mismatch",
                severity=severity,
                scope="account",
                measured=measured,
                threshold=limits.double_counted,
                evidence=evidence,
                mend=mend,
            )
        )
    return found


def data_gaps(sums: Daily, limits: Thresholds) -> list[Finding]:
    """Find platforms whose newest whole day brought less than half of what it should.

    At most one false alarm in ten thousand platform days if the model holds; see `gaps`.
    """
    names, counts = sums.platforms()
    expected = expected_last_day(counts, (sums.days + _EPOCH_WEEKDAY) % 7) if counts.shape[1] else None
    if expected is None:
        return []
    found = []
    for i in np.flatnonzero(expected.is_gap(share=limits.gap_share)):
        low, middle, high = ratio_interval(float(expected.count[i]), 1.0, max(float(expected.mean[i]), 1e-9), 1.0, level=limits.level)
        found.append(
            Finding(
                name="data_gap",
                severity="critical",
                scope=names[i],
                measured=Interval(low=low, estimate=middle, high=high, level=limits.level, kind="credible"),
                threshold=limits.gap_share,
                evidence=f"{number(float(expected.count[i]))} touches of {names[i]} on the last day, not {number(float(expected.mean[i]))}",
                mend=f"look at the export of {names[i]}, then ingest the missing day again",
            )
        )
    return found


def changed_hands(sums: Daily, limits: Thresholds) -> list[Finding]:
    """Return what the days on which clicks per unit of spend changed say of lost and of moved tags."""
    lost: dict[str, tuple[float, Break, int]] = {}
    moved: tuple[bool, float, Break, int] | None = None  # the gravest, and of these the clearest
    for at in breaks(sums, limits.accepted_day):
        for arm in uneven_tags(at, sums):
            name = _campaign(sums, arm)
            z = -float(np.log(max(at.ratio[arm], 1e-9)) / at.error[arm])
            if name not in lost or z > lost[name][0]:
                lost[name] = (z, at, arm)
        taken = moved_credit(at)
        if taken is not None:
            taker, severity = taken
            rank = (severity == "critical", float(np.log(at.ratio[taker]) / at.error[taker]))
            if moved is None or rank > moved[:2]:
                moved = (*rank, at, taker)
    found = [_lost_finding(name, at, arm, sums, limits) for name, (_, at, arm) in sorted(lost.items())]
    if moved is None:
        return found
    grave, _, at, arm = moved
    return [*found, _moved_finding(at, arm, "critical" if grave else "warning", sums, limits)]


def uneven_tags(at: Break, sums: Daily) -> list[int]:
    """Return arms whose clicks per unit of spend fell while touches without tags appeared on their platform in about the same number.

    Tags that are lost evenly leave the ranking alone; tags that one campaign loses make it look bad, and money leaves it. Fires when an
    arm's clicks per unit of spend are under 0.7 of what they were and five standard errors low, and the platform's untagged clicks have
    grown by at least half of all clicks that fell away. Without untagged touches it cannot fire.
    """
    fell = at.comparable & sums.arms.complete & (at.ratio < 0.7) & (np.log(np.maximum(at.ratio, 1e-9)) / at.error < -5.0)
    fell &= at.recent < 0.8
    if not fell.any() or sums.arms.complete.all():
        return []
    code, _ = sums.arms.groups(("platform",)) if "platform" in sums.arms.columns else (np.zeros(len(sums.arms), dtype=np.int32), [])
    c0, _, c1, e1 = at.counts
    untagged = np.where(sums.arms.complete, 0.0, c1.sum(axis=1) - c0.mean(axis=1) * c1.shape[1])
    appeared = np.bincount(code, weights=untagged, minlength=int(code.max()) + 1)
    gone = np.bincount(code, weights=np.where(fell, (e1 - c1).sum(axis=1), 0.0), minlength=int(code.max()) + 1)
    return [int(i) for i in np.flatnonzero(fell & (appeared >= 0.5 * gone)[code])]


def moved_credit(at: Break) -> tuple[int, Severity] | None:
    """Return the arm that took other arms' clicks, if there is one, and how grave it is.

    Prices move arms one way; tags that are overwritten take from many what they give to one. It takes an arm whose clicks per unit of
    spend rose while those of all others together fell by at least 5 % and two standard errors. Many arms and days are looked at, so one
    of them at the usual 5 % would be a daily alarm. Therefore it is

    * critical where the arm is above 1.5 times what it was and five standard errors high: such a rise is no matter of prices;
    * a warning where the arm is two standard errors high, the two changes together are eight, and the arm gained between 0.4 and 2.5 times
      the clicks that the others lost. A large arm that takes from small ones rises little, but what it takes they lose. Prices that wander
      by 2 % a day look like this in one account of thirty over two months, so it does not hold the loop.
    """
    rise = np.where(at.comparable & (at.ratio > 1.1) & (at.recent > 1.0), np.log(np.maximum(at.ratio, 1e-9)) / at.error, 0.0)
    taker = int(np.argmax(rise))
    others = at.comparable & (np.arange(len(rise)) != taker)
    if rise[taker] < 2.0 or others.sum() < 2:
        return None
    ratio, error = at.of_sum(others)
    fall = -float(np.log(max(ratio, 1e-9)))
    if fall < 0.05 or fall < 2.0 * error:
        return None
    if rise[taker] >= 5.0 and at.ratio[taker] > 1.5 and at.recent[taker] > 1.3:
        return taker, "critical"
    _, _, c1, e1 = at.counts
    gained, lost = float((c1 - e1)[taker].sum()), float((e1 - c1)[others].sum())
    return (taker, "warning") if rise[taker] + fall / error >= 8.0 and 0.4 * lost < gained < 2.5 * lost else None


def _campaign(sums: Daily, arm: int) -> str:
    tags = dict(zip(sums.arms.columns, sums.arms[arm], strict=True))
    return " / ".join(str(tags[c] or "?") for c in ("platform", "campaign") if c in tags) or sums.arms.label(arm)


def _ratio(at: Break, arm: int, level: float) -> Interval:
    spread = float(np.exp(ndtri(0.5 + level / 2) * at.error[arm]))
    ratio = float(at.ratio[arm])
    return Interval(low=ratio / spread, estimate=ratio, high=ratio * spread, level=level, kind="credible")


def _since(at: Break) -> str:
    return f"since {at.ago} day{'s' * (at.ago != 1)}"


def _lost_finding(name: str, at: Break, arm: int, sums: Daily, limits: Thresholds) -> Finding:
    measured = _ratio(at, arm, limits.level)
    evidence = (
        f"{_since(at)} clicks per unit of spend of {sums.arms.label(arm)} are {number(measured.estimate)} times what they were, "
        "while touches without tags appeared on its platform"
    )
    mend = f"mend the links of {name}; until then its arms look worse than they are"
    return Finding(name="missing_tags", severity="critical", scope=name, measured=measured, threshold=0.7, evidence=evidence, mend=mend)


def _moved_finding(at: Break, arm: int, severity: Severity, sums: Daily, limits: Thresholds) -> Finding:
    measured = _ratio(at, arm, limits.level)
    others = at.comparable & (np.arange(len(at.ratio)) != arm)
    evidence = (
        f"{_since(at)} clicks per unit of spend of {sums.arms.label(arm)} are {number(measured.estimate)} times what they were, "
        f"those of the others together {number(at.of_sum(others)[0])} times: clicks carry another arm's tags"
    )
    mend = "look at the tracker and the links; when the change is meant, set Thresholds(accepted_day=...)"
    return Finding(
        name="wrong_attribution",
        severity=severity,
        scope="account",
        measured=measured,
        threshold=1.5 if severity == "critical" else 1.1,
        evidence=evidence,
        mend=mend,
    )
