"""What every classifier must do, tried through the `Classifier` Protocol on small markets whose truth is known.

Law of this file: expected values come from the market that was made, never from another classifier. Each check names one fault of a
classifier; what a classifier does not claim (coverage, maturity, fractional credit) its author declares, with a reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
import numpy as np

from closedloop.errors import InputError, WindowMismatchError
from closedloop.interfaces import Classifier
from closedloop.records.arms import Arm, Arms
from closedloop.records.interval import FloatArray, Intervals
from closedloop.records.moments import US_PER_DAY
from closedloop.records.outcomes import Cohorts, Outcomes, SpendDays
from closedloop.records.signal import Signals
from closedloop.records.window import AttributionWindow
from closedloop.testing.certificate import Check, CheckFailedError, check, need

CLASSIFIER_CHECKS: list[Check] = []
_WINDOW = AttributionWindow(click="7d", view="1d")
_FIRST_DAY = 20_000
_ARMS: tuple[Arm, ...] = tuple(("google" if i % 2 else "meta", f"campaign {i:02d}") for i in range(30))


@attrs.define(kw_only=True)
class ClassifierSubject:
    """A classifier together with what it claims.

    Args:
        build: Makes the classifier for a window and a level of its intervals.
        covers: Its intervals claim to hold the arm's true rate with their level.
        matures: It counts exposure whose conversions are not yet seen for less (or not at all).
        fractional: It takes fractional (multi-touch) credit.
        excused: By name of a check, why it cannot be run: which claim the classifier does not make.
    """

    build: Callable[[AttributionWindow, float], Any]
    covers: bool = True
    matures: bool = True
    fractional: bool = True
    excused: Mapping[str, str] = attrs.field(factory=dict)

    def offers(self, part: str) -> bool:
        """Return whether the classifier makes a claim."""
        return bool(getattr(self, part))

    def classify(self, outcomes: Outcomes, *, level: float = 0.9, now: datetime | None = None) -> Signals:
        """Return the signals of a classifier made for the window of the checks."""
        found: Signals = self.build(_WINDOW, level).classify(outcomes, now=now)
        return found


def evidence(
    arms: Sequence[Arm],
    exposures: FloatArray,
    credit: FloatArray,
    *,
    spend: FloatArray | None = None,
    maturity: FloatArray | None = None,
    window: AttributionWindow = _WINDOW,
) -> Outcomes:
    """Return outcomes of clicks on consecutive days.

    Args:
        arms: A arms; a tag may be None.
        exposures, credit, spend: Shape (A, D); None for no spend.
        maturity: Share of each day's conversions that are seen, shape (D,); None for all.
        window: The attribution window.
    """
    n, days = exposures.shape
    arm, day = (a.ravel() for a in np.meshgrid(np.arange(n), _FIRST_DAY + np.arange(days), indexing="ij"))
    seen = np.ones((n, days)) if maturity is None else np.broadcast_to(maturity, (n, days))
    total = credit.sum(axis=1)
    zero = np.zeros(n * days)
    money = None if spend is None else spend.ravel()
    return Outcomes(
        window=window,
        arms=Arms.of(("platform", "campaign"), list(arms)),
        cohorts=Cohorts(
            arm=arm.astype(np.int32),
            day=day.astype(np.int32),
            kind=np.zeros(n * days, dtype=np.int8),
            exposures=exposures.ravel().astype(np.float64),
            credit=credit.ravel().astype(np.float64),
            credit_squared=(credit**2 if (credit != np.round(credit)).any() else credit).ravel().astype(np.float64),
            value=zero,
            value_squared=zero,
            maturity=seen.ravel().astype(np.float64),
            age=(_FIRST_DAY + days - day).astype(np.int32),
        ),
        spend=SpendDays(
            arm=(arm if money is not None else arm[:0]).astype(np.int32),
            day=(day if money is not None else day[:0]).astype(np.int32),
            spend=np.empty(0) if money is None else money,
        ),
        delay={},
        credits=Intervals(low=total, estimate=total, high=total, level=0.9, kind="bootstrap"),
        conversion_type=None,
        model="last",
        currency=None if money is None else "EUR",
        watermark=dict.fromkeys(("google", "meta"), (_FIRST_DAY + days) * US_PER_DAY),
        revision=1,
        n_conversions=int(total.sum()),
        n_uncredited=0,
    )


def _market(seed: int = 0, *, n: int = 30, days: int = 28, volume: float = 200.0) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return true rates (A,), exposures and conversions (A, D) of a calm market."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(3.0, 0.02 / 3.0, n)
    exposures = rng.poisson(volume, (n, days)).astype(np.float64)
    return rate, exposures, rng.poisson(rate[:, None] * exposures).astype(np.float64)


def _close(one: FloatArray, two: FloatArray, what: str, rtol: float = 1e-6) -> None:
    same = np.isclose(one, two, rtol=rtol, atol=1e-12) | (one == two)
    at = np.flatnonzero(~same)
    need(not len(at), f"{what} differs: {one[at[0]]:g} and {two[at[0]]:g}" if len(at) else "")


@check(CLASSIFIER_CHECKS)
def is_a_classifier(subject: ClassifierSubject) -> None:
    """It has the window it was made for, and classifies."""
    made = subject.build(_WINDOW, 0.9)
    need(isinstance(made, Classifier), "it lacks `window` or `classify`")
    need(made.window == _WINDOW, f"it was made for {_WINDOW!r} and says {made.window!r}")


@check(CLASSIFIER_CHECKS)
def ranks_every_complete_arm_once(subject: ClassifierSubject) -> None:
    """Every arm with all its tags is ranked once, arms with a missing tag are not, and the evidence comes along."""
    _, exposures, credit = _market(n=6)
    arms = [*_ARMS[:5], ("google", None)]
    outcomes = evidence(arms, exposures, credit, spend=exposures)
    signals = subject.classify(outcomes)
    need(sorted(signals.arms) == sorted(_ARMS[:5]), f"of five complete arms it ranks {list(signals.arms)}")
    need(sorted(signals.order.tolist()) == list(range(5)), f"the order of five arms is {signals.order.tolist()}")
    need(signals.outcomes is outcomes and signals.window == _WINDOW, "the signals carry other outcomes or another window")


@check(CLASSIFIER_CHECKS)
def intervals_are_in_order_at_their_level(subject: ClassifierSubject) -> None:
    """Each interval has the level asked for; a higher level gives no narrower interval."""
    _, exposures, credit = _market()
    narrow, wide = (subject.classify(evidence(_ARMS, exposures, credit, spend=exposures), level=level) for level in (0.5, 0.95))
    need((narrow.rate.level, wide.rate.level) == (0.5, 0.95), f"asked for 0.5 and 0.95, got {narrow.rate.level} and {wide.rate.level}")
    finite = np.isfinite(wide.rate.high)
    shorter = (wide.rate.high - wide.rate.low)[finite] < (narrow.rate.high - narrow.rate.low)[finite]
    need(not shorter.any(), "a 95 % interval is narrower than the 50 % interval of the same arm")


@check(CLASSIFIER_CHECKS)
def refuses_another_window(subject: ClassifierSubject) -> None:
    """Outcomes of another attribution window are refused with `WindowMismatchError`."""
    _, exposures, credit = _market(n=3)
    other = evidence(_ARMS[:3], exposures, credit, window=AttributionWindow(click="1d"))
    try:
        subject.classify(other)
    except WindowMismatchError:
        return
    raise CheckFailedError("outcomes of another window were taken")


@check(CLASSIFIER_CHECKS)
def refuses_the_future(subject: ClassifierSubject) -> None:
    """A cohort that lies days after ``now`` is refused with `InputError`."""
    _, exposures, credit = _market(n=3)
    now = datetime.fromtimestamp(_FIRST_DAY * 86_400, tz=UTC)
    try:
        subject.classify(evidence(_ARMS[:3], exposures, credit), now=now)
    except InputError:
        return
    raise CheckFailedError("a cohort four weeks after now was taken")


@check(CLASSIFIER_CHECKS)
def refuses_counts_that_are_none(subject: ClassifierSubject) -> None:
    """Negative credit and exposures that are not finite are refused with `InputError`."""
    _, exposures, credit = _market(n=3)
    for name, bad_exposures, bad_credit in (("credit", exposures, credit.copy()), ("exposures", exposures.copy(), credit)):
        (bad_credit if name == "credit" else bad_exposures)[1, 1] = -1.0 if name == "credit" else math.nan
        try:
            subject.classify(evidence(_ARMS[:3], bad_exposures, bad_credit))
        except InputError:
            continue
        raise CheckFailedError(f"{name} that is no count was taken")


@check(CLASSIFIER_CHECKS)
def answers_the_same_again(subject: ClassifierSubject) -> None:
    """The same evidence twice gives the same numbers: no hidden state, no unseeded chance."""
    _, exposures, credit = _market()
    outcomes = evidence(_ARMS, exposures, credit, spend=exposures)
    one, two = subject.classify(outcomes), subject.classify(outcomes)
    _close(one.rate.high, two.rate.high, "the upper end of a rate", 0.0)
    _close(one.p_best, two.p_best, "P(best)", 0.0)
    need(one.order.tolist() == two.order.tolist(), "the order differs")


@check(CLASSIFIER_CHECKS)
def does_not_heed_the_listing_of_arms(subject: ClassifierSubject) -> None:
    """Arms listed in another order get the same numbers and the same ranks."""
    _, exposures, credit = _market(1)
    other = np.random.default_rng(0).permutation(len(_ARMS))
    one = subject.classify(evidence(_ARMS, exposures, credit, spend=exposures * 0.5))
    arms = [_ARMS[i] for i in other]
    two = subject.classify(evidence(arms, exposures[other], credit[other], spend=exposures[other] * 0.5))
    _close(one.rate.low[other], two.rate.low, "the lower end of a rate")
    _close(one.expected_loss[other], two.expected_loss, "the expected loss")
    need([one.arms[i] for i in one.order] == [two.arms[i] for i in two.order], "the ranks differ")


@check(CLASSIFIER_CHECKS)
def does_not_heed_the_unit_of_currency(subject: ClassifierSubject) -> None:
    """Spend in cents instead of euros makes costs a hundred times larger and changes nothing else."""
    _, exposures, credit = _market(2)
    one, two = (subject.classify(evidence(_ARMS, exposures, credit, spend=exposures * unit)) for unit in (0.5, 50.0))
    _close(one.cost_per_conversion.estimate * 100.0, two.cost_per_conversion.estimate, "a cost per conversion times 100")
    _close(one.rate.estimate, two.rate.estimate, "a rate")
    need(one.order.tolist() == two.order.tolist(), "the order differs")


@check(CLASSIFIER_CHECKS)
def probabilities_are_probabilities(subject: ClassifierSubject) -> None:
    """P(best) is not negative and sums to one; expected losses, borrowed and mature shares lie in [0, 1]."""
    _, exposures, credit = _market(3)
    signals = subject.classify(evidence(_ARMS, exposures, credit, spend=exposures))
    need(
        bool((signals.p_best >= 0).all()) and math.isclose(signals.p_best.sum(), 1.0, abs_tol=1e-6),
        f"P(best) sums to {signals.p_best.sum():g}",
    )
    for name in ("expected_loss", "borrowed_share", "maturity", "tagged_share"):
        values = getattr(signals, name)
        need(bool(((values >= 0) & (values <= 1)).all()), f"{name} leaves [0, 1]")


@check(CLASSIFIER_CHECKS)
def finds_a_clear_winner(subject: ClassifierSubject) -> None:
    """An arm with five times the conversions of all others, at equal cost and much volume, comes first."""
    exposures = np.full((30, 28), 500.0)
    credit = np.full((30, 28), 5.0)
    credit[17] = 25.0
    signals = subject.classify(evidence(_ARMS, exposures, credit, spend=exposures))
    need(int(signals.order[0]) == 17, f"first comes {signals.arms.label(int(signals.order[0]))}")
    need(int(signals.p_best.argmax()) == 17, "another arm has the highest P(best)")


@check(CLASSIFIER_CHECKS)
def knows_less_from_less(subject: ClassifierSubject) -> None:
    """With a hundredth of the data the intervals are wider, and the effective volume smaller."""
    _, exposures, credit = _market(4, volume=20_000.0)
    many = subject.classify(evidence(_ARMS, exposures, credit))
    few = subject.classify(evidence(_ARMS, exposures / 100.0, np.round(credit / 100.0)))
    wider = few.rate.high - few.rate.low > many.rate.high - many.rate.low
    need(bool(wider.all()), f"{int((~wider).sum())} of 30 intervals are no wider")
    need(bool((few.effective_volume < many.effective_volume).all()), "the effective volume is no smaller")


@check(CLASSIFIER_CHECKS)
def survives_thin_and_strange_evidence(subject: ClassifierSubject) -> None:
    """No arms, one arm, zero clicks, zeros only, more conversions than clicks, 1e12 clicks: intervals, and no NaN anywhere."""
    for exposures, credit in (
        ([[0.0]], [[0.0]]),
        ([[5.0]], [[9.0]]),
        ([[10.0], [20.0], [30.0]], [[0.0], [0.0], [0.0]]),
        ([[1e12], [3.0]], [[1e9], [1.0]]),
        (np.empty((0, 3)), np.empty((0, 3))),
    ):
        x, c = np.asarray(exposures, dtype=np.float64), np.asarray(credit, dtype=np.float64)
        signals = subject.classify(evidence(_ARMS[: len(x)], x, c, spend=x))
        need(len(signals) == len(x), f"of {len(x)} arms {len(signals)} are ranked")
        numbers = [
            signals.rate.estimate,
            signals.cost_per_conversion.estimate,
            signals.p_best,
            signals.expected_loss,
            signals.weekly_conversions,
        ]
        need(not any(np.isnan(v).any() for v in numbers), f"NaN for exposures {x.tolist()} and conversions {c.tolist()}")


@check(CLASSIFIER_CHECKS)
def says_what_it_cannot_know(subject: ClassifierSubject) -> None:
    """Without any exposure the rate is unbounded above; without spend the cost per conversion is."""
    nothing = subject.classify(evidence(_ARMS[:2], np.zeros((2, 3)), np.zeros((2, 3))))
    need(bool(np.isinf(nothing.rate.high).all()), f"with no exposure at all a rate is at most {nothing.rate.high.min():g}")
    _, exposures, credit = _market(n=4)
    free = subject.classify(evidence(_ARMS[:4], exposures, credit))
    need(bool(np.isinf(free.cost_per_conversion.high).all()), "a cost per conversion is bounded without spend")


@check(CLASSIFIER_CHECKS, "covers")
def intervals_hold_the_truth(subject: ClassifierSubject) -> None:
    """In calm markets 90 % intervals hold the true rate in at least 90 % of arms, within chance."""
    inside = []
    for seed in range(6):
        rate, exposures, credit = _market(100 + seed, volume=60.0)
        signals = subject.classify(evidence(_ARMS, exposures, credit))
        inside.append((signals.rate.low <= rate) & (rate <= signals.rate.high))
    held = float(np.mean(inside))
    need(held > 0.9 - 4.0 * math.sqrt(0.09 / 180), f"90 % intervals hold the truth in {held:.1%} of 180 arms")


@check(CLASSIFIER_CHECKS, "matures")
def waits_for_late_conversions(subject: ClassifierSubject) -> None:
    """Where only a third of the last days' conversions can be seen, the rate is not taken to have fallen."""
    _, exposures, credit = _market(5, volume=2000.0)
    seen = np.where(np.arange(28) < 20, 1.0, 1.0 / 3.0)
    signals = subject.classify(evidence(_ARMS, exposures, np.round(credit * seen), maturity=seen))
    whole = credit.sum(axis=1) / exposures.sum(axis=1)
    ratio = float(np.median(signals.rate.estimate / whole))
    need(0.93 < ratio < 1.07, f"rates are taken to be {ratio:.2f} of what they are")


@check(CLASSIFIER_CHECKS, "fractional")
def takes_fractional_credit(subject: ClassifierSubject) -> None:
    """Credit of multi-touch models is taken as it is: half of every conversion is half the rate."""
    _, exposures, credit = _market(6, volume=5000.0)
    half = subject.classify(evidence(_ARMS, exposures, credit * 0.5))
    ratio = float(np.median(half.rate.estimate * 2.0 * exposures.sum(axis=1) / credit.sum(axis=1)))
    need(0.97 < ratio < 1.03, f"half the credit gives {ratio:.2f} times half the rate")
