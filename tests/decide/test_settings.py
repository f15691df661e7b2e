"""What a decider may be told, and what it refuses by name."""

from __future__ import annotations

import pytest

from closedloop.decide import BudgetDecider
from closedloop.errors import ConfigurationError
from closedloop.records.decision import Constraints

WRONG = [
    ("level", 1.0), ("level", 0.0), ("draws", 99), ("response", "guessed"), ("observed_weight", 0.0), ("observed_weight", 1.01),
    ("objective", "best"), ("learning_loss", 1.01), ("alike", -0.01), ("alike", 1.01), ("discrepancy", 3.01), ("risk", 0.0), ("risk", 0.51),
]  # fmt: skip
AT_THE_END = {"level": 0.999, "draws": 100, "observed_weight": 1.0, "learning_loss": 1.0, "alike": 1.0, "discrepancy": 3.0, "risk": 0.5}


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_setting_is_named(name, value):
    """Each setting just outside its range is refused with its name and value."""
    with pytest.raises(ConfigurationError) as caught:
        BudgetDecider(**{name: value})
    assert (caught.value.field, caught.value.value) == (name, value)


def test_the_ends_of_settings_are_allowed():
    """What the documented ranges include is accepted."""
    decider = BudgetDecider(**AT_THE_END)
    assert (decider.level, decider.draws) == (0.999, 100)
    assert BudgetDecider(learning_loss=0.0, alike=0.0, discrepancy=0.0, observed_weight=1e-9, risk=1e-9)


def test_an_arm_of_another_length_is_named(signals_of):
    """A floor of an arm with one tag too few is an error; one of an arm that has no data today is not."""
    signals = signals_of([10, 30], [100, 100])
    with pytest.raises(ConfigurationError, match="2 tags"):
        BudgetDecider(Constraints(floors={("google",): 10})).decide(signals)
    without = BudgetDecider(Constraints()).decide(signals)
    known = BudgetDecider(Constraints(floors={("google", "gone"): 10})).decide(signals)
    assert [d.after for d in known.decisions] == [d.after for d in without.decisions]


def test_a_rounding_below_the_smallest_coin_is_refused(signals_of):
    """Half a yen does not exist, nor does a cent and a half."""
    for rounding, currency in ((0.5, "JPY"), (0.015, "EUR")):
        with pytest.raises(ConfigurationError, match=f"budgets in {currency} move by whole minor units"):
            BudgetDecider(Constraints(rounding=rounding)).decide(signals_of([10, 30], [100, 100], currency=currency))


def test_a_move_as_large_as_the_smallest_one_is_made(signals_of):
    """Where the largest step is just the smallest change that is worth a call, moves are made; a hair less is none."""
    signals = signals_of([10, 30], [100, 100])
    assert len(BudgetDecider(looks=(), draws=500, constraints=Constraints(max_step=0.05, min_change=0.05)).decide(signals).decisions) == 2
    assert not BudgetDecider(looks=(), draws=500, constraints=Constraints(max_step=0.05, min_change=0.0501)).decide(signals).decisions
    assert len(BudgetDecider(looks=(), draws=500, constraints=Constraints(max_step=0.05, min_step=5.0)).decide(signals).decisions) == 2
    assert not BudgetDecider(looks=(), draws=500, constraints=Constraints(max_step=0.05, min_step=5.01)).decide(signals).decisions
