"""Is the credit true? Findings with evidence and size, and what each would do to decisions.

Law of this file: it looks and never changes credit. Everything is re-attributed from the same events, never taken from another window's
sum. Each finding measures with an interval, is held against a threshold, and says which arm would gain or lose budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
import numpy as np

from closedloop.attribute.attribution import WindowedAttribution
from closedloop.attribute.incrementality import GRID, share_posterior
from closedloop.display import number
from closedloop.errors import InputError
from closedloop.records.arms import Arm, Coded
from closedloop.records.batch import CLICK, CONVERSION, IMPRESSION, EventBatch
from closedloop.records.feedback import Finding, Severity
from closedloop.records.interval import Interval
from closedloop.records.lift import LiftResult
from closedloop.records.outcomes import Outcomes
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

MODELS_COMPARED = ("last", "first", "linear", "shapley", "markov")


@attrs.frozen(kw_only=True)
class PlatformReport:
    """What a platform says of itself.

    Args:
        platform: Its name, as in the platform tag.
        conversions: Conversions that it claims.
        window: Under which window, None when it does not say.
    """

    platform: str
    conversions: float
    window: AttributionWindow | None = None


def proportion(part: float, whole: float, level: float = 0.9) -> Interval:
    """Return a share with its Jeffreys interval; all of [0, 1] when there is nothing."""
    from scipy.special import betaincinv

    if whole <= 0:
        return Interval(low=0.0, estimate=0.0, high=1.0, level=level, kind="credible")
    tail, share = (1 - level) / 2, part / whole
    a, b = part + 0.5, max(whole - part, 0.0) + 0.5
    low, high = float(betaincinv(a, b, tail)), float(betaincinv(a, b, 1 - tail))
    return Interval(low=min(low, share), estimate=share, high=max(high, share), level=level, kind="credible")


def _severity(measured: Interval, threshold: float) -> Severity:
    return "critical" if measured.low > 2 * threshold else "warning" if measured.estimate > threshold else "ok"


def _shares(outcomes: Outcomes) -> dict[Arm, float]:
    credit = outcomes.per_arm("credit")
    total = credit.sum()
    return {arm: float(c / total) if total > 0 else 0.0 for arm, c in zip(outcomes.arms, credit, strict=True)}


def _label(arm: Arm) -> str:
    return " / ".join("?" if tag is None else tag for tag in arm)


def _moved(one: Mapping[Arm, float], other: Mapping[Arm, float]) -> tuple[float, str]:
    """Return the share of credit that changes hands, and in words who gains and who loses most."""
    arms = sorted({*one, *other}, key=str)
    change = {a: other.get(a, 0.0) - one.get(a, 0.0) for a in arms}
    moved = sum(abs(x) for x in change.values()) / 2
    if moved == 0:
        return 0.0, "no arm gains or loses"
    up, down = max(arms, key=lambda a: change[a]), min(arms, key=lambda a: change[a])
    return moved, f"{_label(up)} would gain {change[up]:.1%} of all credit, {_label(down)} would lose {-change[down]:.1%}"


def _best(outcomes: Outcomes) -> str:
    credit, spend = outcomes.per_arm("credit"), outcomes.spend_per_arm()
    if not len(credit):
        return "none"
    return outcomes.arms.label(int(np.argmax(np.where(spend > 0, credit / np.maximum(spend, 1e-12), credit if not spend.any() else 0.0))))


def _range(values: Sequence[float], level: float = 0.9) -> Interval:
    return Interval.of_draws(np.array(values), level=level, kind="bootstrap")


def audit(
    outcomes: Outcomes,
    platform_reports: Sequence[PlatformReport] = (),
    *,
    batch: EventBatch | None = None,
    tests: Sequence[LiftResult] = (),
    tags: TagSchema | None = None,
    repeats: int = 20,
    lost_share: float = 0.1,
    rng: np.random.Generator | None = None,
) -> list[Finding]:
    """Return what is wrong, or might be, with credit.

    Args:
        outcomes: The credited outcomes.
        platform_reports: What the platforms claim.
        batch: The events, for everything that needs another attribution of them; these checks are left out without.
        tests: Lift tests to hold credit against.
        tags: The tags of the arms; those of ``outcomes`` when None.
        repeats: Random repetitions of the two sensitivity checks.
        lost_share: Share of touches dropped, and of touches given to another identity, in those checks.
        rng: Where chance comes from; seeded with 0 when None.

    Raises:
        InputError: A report claims a number of conversions that is none.
    """
    rng = rng if rng is not None else np.random.default_rng(0)
    for report in platform_reports:
        if not (np.isfinite(report.conversions) and report.conversions >= 0):
            raise InputError("a platform claims no number of conversions", "conversions", report.conversions, "use numbers from 0 up")
    tags = tags or TagSchema(arm=outcomes.arms.columns)
    found = [_claimed_twice(outcomes, platform_reports), _view_through(outcomes)]
    found += [_against_test(outcomes, test) for test in tests]
    if batch is not None:

        def again(events: EventBatch, window: AttributionWindow = outcomes.window, model: str = "last") -> Outcomes:
            layer = WindowedAttribution(window, model=model, tags=tags, conversion_type=outcomes.conversion_type, replicates=20)
            return layer.attribute(events)

        base = again(batch)
        found += [
            _window_mismatch(base, again(batch, report.window), report)
            for report in platform_reports
            if report.window is not None and report.window != outcomes.window
        ]
        found.append(_rank_stability(base, batch, again))
        found.append(
            _sensitivity("dropped_touchpoints", base, [again(_dropped(batch, lost_share, rng)) for _ in range(repeats)], lost_share)
        )
        found.append(
            _sensitivity("fragmented_identities", base, [again(_split(batch, lost_share, rng)) for _ in range(repeats)], lost_share)
        )
    return found


def _claimed_twice(outcomes: Outcomes, reports: Sequence[PlatformReport]) -> Finding:
    claimed, total = sum(r.conversions for r in reports), outcomes.n_conversions
    measured = proportion(max(claimed - total, 0.0), max(claimed, 1e-9)) if claimed else proportion(0.0, 0.0)
    sure = max(claimed - total, 0.0)
    return Finding(
        name="claimed_twice",
        severity="ok" if not claimed else _severity(measured, 0.05),
        scope="account",
        measured=measured,
        threshold=0.05,
        evidence=f"platforms claim {number(claimed)} conversions, {number(total)} happened: {number(sure)} or more are claimed twice",
        mend="never add platform reports; budgets set on them would pay twice for the same conversions",
    )


def _view_through(outcomes: Outcomes) -> Finding:
    credit = outcomes.cohorts.credit
    by_view, total = float(credit[outcomes.cohorts.kind == 1].sum()), float(credit.sum())
    per_arm = outcomes.per_arm("credit", 1)
    most = outcomes.arms.label(int(np.argmax(per_arm))) if by_view > 0 else "no arm"
    measured = proportion(by_view, total)
    return Finding(
        name="view_through",
        severity=_severity(measured, 0.3),
        scope="account",
        measured=measured,
        threshold=0.3,
        evidence=f"{by_view / total if total else 0:.1%} of credit comes from views alone, most of it to {most}",
        mend=f"shorten the view window or test it: without views {most} would lose the budget that this credit brings",
    )


def _against_test(outcomes: Outcomes, test: LiftResult) -> Finding:
    weights = np.cumsum(share_posterior([test], (0.75, 10.0)))  # nearly flat: the test speaks alone
    low, mid, high = (float(GRID[int(np.searchsorted(weights, q))]) for q in (0.05, 0.5, 0.95))
    measured = Interval(low=low, estimate=mid, high=high, level=0.9, kind="credible")
    gap = max(low - 1.0, 1.0 - high, 0.0)
    where = ", ".join(f"{k}={v}" for k, v in test.where.items()) or "account"
    credit = float(outcomes.per_arm("credit")[test.covers(outcomes.arms)].sum())
    return Finding(
        name="credit_against_caused",
        severity="critical" if gap > 0.25 else "warning" if gap > 0 else "ok",
        scope=where,
        measured=measured,
        threshold=1.0,
        evidence=f"a test found {mid:.0%} of the credited conversions to be caused; {number(credit)} are credited in all",
        mend=f"count about {number(mid * credit)} for {where}; on credit alone it looks {1 / max(mid, 0.01):.1f} times too good",
    )


def _window_mismatch(ours: Outcomes, theirs: Outcomes, report: PlatformReport) -> Finding:
    a, b = float(ours.credits.estimate.sum()), float(theirs.credits.estimate.sum())
    moved, words = _moved(_shares(ours), _shares(theirs))
    measured = proportion(abs(b - a), max(a, b))
    return Finding(
        name="window_mismatch",
        severity=_severity(measured, 0.05) if measured.estimate > moved else _severity(proportion(moved * a, a), 0.05),
        scope=report.platform,
        measured=measured,
        threshold=0.05,
        evidence=f"the same events give {number(a)} credited conversions under {ours.window} and {number(b)} under {theirs.window}",
        mend=f"compare, never add, this platform's report; decided under its window {words}",
    )


def _rank_stability(base: Outcomes, batch: EventBatch, attribute: Callable[[EventBatch, AttributionWindow, str], Outcomes]) -> Finding:
    click, view = base.window.click, base.window.view
    shorter = AttributionWindow(click=None if click is None else click / 2, view=None if view is None else view / 2)
    others = {f"model {m}": attribute(batch, base.window, m) for m in MODELS_COMPARED if m != "last"}
    others |= {f"{shorter}": attribute(batch, shorter, "last")}
    moved = {name: _moved(_shares(base), _shares(o))[0] for name, o in others.items()}
    worst = max(moved, key=lambda n: moved[n])
    best = {name: _best(o) for name, o in others.items()}
    changed = [f"{b} under {name}" for name, b in best.items() if b != _best(base)]
    measured = _range(list(moved.values()))
    return Finding(
        name="rank_stability",
        severity="warning" if changed else _severity(measured, 0.2),
        scope="account",
        measured=measured,
        threshold=0.2,
        evidence=f"up to {moved[worst]:.1%} of credit changes hands ({worst})",
        mend=f"the best arm, {_best(base)}, stays the best"
        if not changed
        else f"the best arm changes to {'; '.join(changed)}: test before moving budget",
    )


def _sensitivity(name: str, base: Outcomes, others: Sequence[Outcomes], share: float) -> Finding:
    moves = [_moved(_shares(base), _shares(o)) for o in others]
    measured = _range([m for m, _ in moves])
    changed = float(np.mean([_best(o) != _best(base) for o in others]))
    lost = 1 - float(np.mean([o.credits.estimate.sum() for o in others])) / max(float(base.credits.estimate.sum()), 1e-9)
    what = "touches are lost" if name == "dropped_touchpoints" else "touches belong to unlinked identities"
    return Finding(
        name=name,
        severity=_severity(measured, 0.1),
        scope="account",
        measured=measured,
        threshold=0.1,
        evidence=f"if {share:.0%} of {what}, {measured.estimate:.1%} of credit changes hands, {lost:.1%} is lost; so {moves[0][1]}",
        mend=f"the best arm changes in {changed:.0%} of the repetitions",
    )


def _dropped(batch: EventBatch, share: float, rng: np.random.Generator) -> EventBatch:
    touch = (batch.kind == CLICK) | (batch.kind == IMPRESSION)
    return batch.take(~(touch & (rng.random(len(batch)) < share)))


def _split(batch: EventBatch, share: float, rng: np.random.Generator) -> EventBatch:
    touch = (batch.kind != CONVERSION) & (batch.user_id.codes >= 0)
    away = touch & (rng.random(len(batch)) < share)
    n = len(batch.user_id.vocab)
    vocab = np.concatenate([batch.user_id.vocab, np.array([f"{u} elsewhere" for u in batch.user_id.vocab], dtype=object)])
    return attrs.evolve(
        batch, user_id=Coded(codes=np.where(away, batch.user_id.codes + n, batch.user_id.codes).astype(np.int32), vocab=vocab)
    )


__all__ = ["PlatformReport", "audit", "proportion"]
