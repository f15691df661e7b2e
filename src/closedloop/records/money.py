"""Exact money: whole millionths of a currency unit, so that sums never depend on order."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation

import attrs

from closedloop.errors import ConfigurationError, InputError

MICROS = 1_000_000
_LARGEST = 2**62
# ISO 4217 currencies whose minor unit is not a hundredth (facts of the standard, 2024 list).
_EXPONENT = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}


@attrs.frozen(order=False)
class Money:
    """An exact amount in one currency.

    Args:
        micros: Millionths of the currency's unit.
        currency: ISO 4217 code, upper case.

    >>> Money.of("12.34", "EUR"), Money.of(5, "JPY").minor_units
    (12.34 EUR, 5)
    """

    micros: int
    currency: str

    def __attrs_post_init__(self) -> None:
        if not (isinstance(self.currency, str) and len(self.currency) == 3 and self.currency.isascii() and self.currency.isupper()):
            raise ConfigurationError("a currency is three capital letters", "currency", self.currency, "use a code such as EUR")
        if not -_LARGEST < self.micros < _LARGEST:
            raise InputError("the amount is too large", "amount", self.micros)

    @classmethod
    def of(cls, amount: str | int | float | Decimal, currency: str) -> Money:
        """Return money from units of the currency (``"12.34"``, 12, 12.34), rounded to a millionth.

        Raises:
            InputError: The amount is no finite number.
        """
        try:
            exact = Decimal(repr(float(amount)) if isinstance(amount, float) else amount)
            if not exact.is_finite():
                raise InputError("an amount must be finite", "amount", str(amount))
            return cls(int((exact * MICROS).to_integral_value()), currency)
        except (InvalidOperation, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("not an amount of money", "amount", amount, "write a number such as 12.34") from error

    @property
    def units(self) -> float:
        """The amount in units of the currency."""
        return self.micros / MICROS

    @property
    def minor_units(self) -> int:
        """The amount in the currency's minor units (cents), rounded half to even."""
        exponent: int = _EXPONENT.get(self.currency, 2)
        return int((Decimal(self.micros).scaleb(exponent - 6)).to_integral_value())

    def rounded(self, step_micros: int | None = None) -> Money:
        """Return the amount rounded to a step, by default to the currency's minor unit."""
        step = step_micros or 10 ** (6 - _EXPONENT.get(self.currency, 2))
        return Money(math.floor(self.micros / step + 0.5) * step if self.micros < 2**52 else self.micros // step * step, self.currency)

    def _same(self, other: Money) -> None:
        if self.currency != other.currency:
            problem = f"amounts in {self.currency} and {other.currency} cannot be combined"
            raise InputError(problem, "currency", other.currency, "convert with a stated rate first")

    def __add__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.micros + other.micros, self.currency)

    def __sub__(self, other: Money) -> Money:
        self._same(other)
        return Money(self.micros - other.micros, self.currency)

    def __lt__(self, other: Money) -> bool:
        self._same(other)
        return self.micros < other.micros

    def __le__(self, other: Money) -> bool:
        self._same(other)
        return self.micros <= other.micros

    def __repr__(self) -> str:
        return f"{self.units:,.{_EXPONENT.get(self.currency, 2)}f} {self.currency}"
