"""Money is exact, keeps its currency, and never mixes two."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.errors import ConfigurationError, InputError
from closedloop.records.money import Money

amounts = st.integers(min_value=-(10**15), max_value=10**15)


@given(st.lists(amounts, min_size=1), st.randoms())
def test_sums_do_not_depend_on_order(micros: list[int], random: object) -> None:
    """The sum of money is the same in any order, to the last millionth."""
    shuffled = list(micros)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    def total(values: list[int]) -> Money:
        result = Money(0, "EUR")
        for value in values:
            result = result + Money(value, "EUR")
        return result

    assert total(micros) == total(shuffled) == Money(sum(micros), "EUR")


@given(st.integers(min_value=0, max_value=10**13))
def test_rounding_goes_to_the_nearest_cent(micros: int) -> None:
    """Rounding moves an amount by at most half a cent, onto whole cents."""
    rounded = Money(micros, "USD").rounded()
    assert rounded.micros % 10_000 == 0
    assert abs(Fraction(rounded.micros - micros)) <= 5_000


def test_minor_units_follow_the_currency() -> None:
    """Yen have no minor unit, dinars have three digits (ISO 4217)."""
    assert Money.of("12.34", "EUR").minor_units == 1234
    assert Money.of("12", "JPY").minor_units == 12
    assert Money.of("1.234", "KWD").minor_units == 1234


def test_floats_are_taken_as_written() -> None:
    """0.1 means a tenth, not its binary neighbour."""
    assert Money.of(0.1, "EUR") + Money.of(0.2, "EUR") == Money.of(Decimal("0.3"), "EUR")


@pytest.mark.parametrize("amount", ["nan", float("inf"), "ten", None, [], 10**30])
def test_no_amount_is_refused(amount: object) -> None:
    """What is no finite amount is named."""
    with pytest.raises(InputError):
        Money.of(amount, "EUR")  # type: ignore[arg-type]


def test_currencies_do_not_mix() -> None:
    """Adding or comparing two currencies is an error that says what to do."""
    with pytest.raises(InputError, match="convert"):
        Money.of(1, "EUR") + Money.of(1, "USD")
    with pytest.raises(InputError):
        _ = Money.of(1, "EUR") < Money.of(1, "USD")


@pytest.mark.parametrize("currency", ["eur", "EURO", "", "€", None, 3])
def test_currency_is_a_code(currency: object) -> None:
    """A currency is three capital letters."""
    with pytest.raises(ConfigurationError):
        Money(1, currency)  # type: ignore[arg-type]
