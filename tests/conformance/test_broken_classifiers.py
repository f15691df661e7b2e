"""The classifier suite finds faults: a sound one passes every check, and each faulty one fails exactly the check that names its fault."""

from contextlib import contextmanager

import attrs
import numpy as np
import pytest

from closedloop.classify import BayesClassifier
from closedloop.errors import ConfigurationError, InputError, WindowMismatchError
from closedloop.records.interval import Intervals
from closedloop.testing import CLASSIFIER_CHECKS, ClassifierSubject, certify


class Faulty:
    """The Bayes classifier with what it is given, or what it says, spoilt."""

    def __init__(self, window, level):
        self.window = window
        self.inner = BayesClassifier(window, level=level)

    def before(self, outcomes):
        return outcomes

    def after(self, signals):
        return signals

    def classify(self, outcomes, *, now=None):
        signals = self.inner.classify(self.before(outcomes), now=now)
        return self.after(attrs.evolve(signals, outcomes=outcomes))


def cohorts(outcomes, **columns):
    return attrs.evolve(outcomes, cohorts=attrs.evolve(outcomes.cohorts, **columns))


def scaled(intervals, width):
    half = [intervals.estimate + width * (end - intervals.estimate) for end in (intervals.low, intervals.high)]
    return Intervals(low=half[0], estimate=intervals.estimate, high=half[1], level=intervals.level, kind=intervals.kind)


class OtherWindow(Faulty):
    @property
    def window(self):
        return None

    @window.setter
    def window(self, window):
        pass


class DropsTheLast(Faulty):
    def after(self, signals):
        return signals.take(np.arange(len(signals)) < max(len(signals) - 1, 1)) if len(signals) == 5 else signals


class OneLevelForAll(Faulty):
    def __init__(self, window, level):
        super().__init__(window, 0.9)


class AnyWindow(Faulty):
    def before(self, outcomes):
        return attrs.evolve(outcomes, window=self.window)


class TrustsClocks(Faulty):
    def classify(self, outcomes, *, now=None):
        return super().classify(outcomes)


class CutsOffNegatives(Faulty):
    def before(self, outcomes):
        return cohorts(outcomes, credit=np.maximum(outcomes.cohorts.credit, 0.0))


class Restless(Faulty):
    calls = 0

    def after(self, signals):
        Restless.calls += 1
        return attrs.evolve(signals, rate=scaled(signals.rate, 1.0 + 1e-9 * Restless.calls)) if len(signals) == 30 else signals


class BreaksTiesByListing(Faulty):
    def after(self, signals):
        return attrs.evolve(signals, expected_loss=np.minimum(signals.expected_loss + 1e-3 * np.arange(len(signals)), 1.0))


class CountsInEuros(Faulty):
    def after(self, signals):
        by_cost = np.argsort(
            signals.cost_per_conversion.estimate if signals.cost_per_conversion.estimate.max(initial=0) > 200 else -signals.p_best
        )
        return attrs.evolve(signals, order=by_cost[::-1]) if signals.spend_per_day.max(initial=0) > 2000 and len(signals) == 30 else signals


class Hopeful(Faulty):
    def after(self, signals):
        return attrs.evolve(signals, p_best=signals.p_best * 1.1)


class WorstFirst(Faulty):
    def after(self, signals):
        return attrs.evolve(signals, order=signals.order[::-1])


class NeverLessSure(Faulty):
    def after(self, signals):
        low = signals.effective_volume.sum() > 50_000
        return attrs.evolve(signals, effective_volume=np.full(len(signals), 7.0)) if low or len(signals) == 30 else signals


class NotANumber(Faulty):
    def after(self, signals):
        weekly = np.where(signals.weekly_conversions == 0, np.nan, signals.weekly_conversions)
        return attrs.evolve(signals, weekly_conversions=weekly)


class BoundsTheUnknown(Faulty):
    def after(self, signals):
        c = signals.cost_per_conversion
        high = np.where(np.isinf(c.high), 1e6, c.high)
        return attrs.evolve(
            signals, cost_per_conversion=Intervals(low=c.low, estimate=np.minimum(c.estimate, high), high=high, level=c.level, kind=c.kind)
        )


class TooSure(Faulty):
    def after(self, signals):
        return attrs.evolve(signals, rate=scaled(signals.rate, 0.5) if np.isfinite(signals.rate.high).all() else signals.rate)


class Impatient(Faulty):
    def before(self, outcomes):
        return cohorts(outcomes, maturity=np.ones(len(outcomes.cohorts)))


class HalvesAreWhole(Faulty):
    def before(self, outcomes):
        halved = bool((outcomes.cohorts.credit % 1 == 0.5).any())
        return cohorts(outcomes, credit=outcomes.cohorts.credit * (2.0 if halved else 1.0))


FAULTS = {
    OtherWindow: "is_a_classifier",
    DropsTheLast: "ranks_every_complete_arm_once",
    OneLevelForAll: "intervals_are_in_order_at_their_level",
    AnyWindow: "refuses_another_window",
    TrustsClocks: "refuses_the_future",
    CutsOffNegatives: "refuses_counts_that_are_none",
    Restless: "answers_the_same_again",
    BreaksTiesByListing: "does_not_heed_the_listing_of_arms",
    CountsInEuros: "does_not_heed_the_unit_of_currency",
    Hopeful: "probabilities_are_probabilities",
    WorstFirst: "finds_a_clear_winner",
    NeverLessSure: "knows_less_from_less",
    NotANumber: "survives_thin_and_strange_evidence",
    BoundsTheUnknown: "says_what_it_cannot_know",
    TooSure: "intervals_hold_the_truth",
    Impatient: "waits_for_late_conversions",
    HalvesAreWhole: "takes_fractional_credit",
}


def certificate(build, **more):
    @contextmanager
    def opened():
        yield ClassifierSubject(build=build, **more)

    return certify(opened, CLASSIFIER_CHECKS, about="a classifier")


def test_a_sound_one_passes():
    """What spoils nothing fails nothing."""
    found = certificate(Faulty)
    assert found.passed == tuple(c.name for c in CLASSIFIER_CHECKS), found


def test_every_check_has_a_fault():
    """No check is there that nothing can fail."""
    assert sorted(FAULTS.values()) == sorted(c.name for c in CLASSIFIER_CHECKS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_each_fault_fails_its_own_check_alone(fault):
    """The check that names the fault finds it; no other one is disturbed by it."""
    found = certificate(fault)
    assert found.failed == (FAULTS[fault],), found


def test_claims_not_made_are_excused_and_no_others():
    """An excuse needs a claim that is not made; a claim that is not made needs an excuse."""
    found = certificate(Faulty, covers=False)
    assert found.failed == ("intervals_hold_the_truth",)
    found = certificate(Faulty, covers=False, excused={"intervals_hold_the_truth": "it claims no coverage"})
    assert found.excused == ("intervals_hold_the_truth",)
    with pytest.raises(ConfigurationError, match="no such check"):
        certificate(Faulty, excused={"intervals_hold": "slip"})


def test_errors_of_other_kinds_are_not_taken_for_refusals():
    """A crash on another window is no refusal."""

    class Crashes(Faulty):
        def classify(self, outcomes, *, now=None):
            try:
                return super().classify(outcomes, now=now)
            except (WindowMismatchError, InputError):
                raise RuntimeError("broken") from None

    found = certificate(Crashes)
    assert set(found.failed) == {"refuses_another_window", "refuses_the_future", "refuses_counts_that_are_none"}
