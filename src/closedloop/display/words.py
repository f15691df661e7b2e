"""Numbers in words for people: ranges with unbounded ends said, probabilities never rounded to certainty, a true minus sign.

Law of this file: numbers in, text out; text marked as HTML holds no name from the data.
"""

from __future__ import annotations

import math

from closedloop.display.tables import number


def minus(line: str) -> str:
    """Return the text with true minus signs, which no spreadsheet takes for the start of a formula."""
    return line.replace("-", "−")


def amount(value: float, digits: int = 3) -> str:
    """Return a number.

    >>> amount(-1234.5)
    '−1,234'
    """
    return minus(number(value, digits))


def signed(value: float, digits: int = 3) -> str:
    """Return a number with its sign.

    >>> signed(2.5), signed(-2.5), signed(0.0)
    ('+2.5', '−2.5', '0')
    """
    return ("+" if value > 0 and math.isfinite(value) else "") + amount(value, digits)


def between(low: float, high: float, *, sign: bool = False) -> str:
    """Return a range, unbounded ends said.

    >>> between(1, 2), between(1, float("inf")), between(float("-inf"), float("inf"))
    ('1 to 2', '1 or more', 'not known')
    """
    show = signed if sign else amount
    if math.isinf(low) and math.isinf(high):
        return "not known"
    if math.isinf(high):
        return f"{show(low)} or more"
    if math.isinf(low):
        return f"{show(high)} or less"
    return f"{show(low)} to {show(high)}"


def estimated(low: float, estimate: float, high: float, *, sign: bool = False) -> str:
    """Return an estimate and its range as HTML, the estimate in bold.

    >>> estimated(1, 2, 4)
    '<b>2</b> (1 to 4)'
    """
    if math.isinf(estimate):
        return between(low, high, sign=sign)
    if math.isinf(low) and math.isinf(high):
        return "not known"
    return f"<b>{(signed if sign else amount)(estimate)}</b> ({between(low, high, sign=sign)})"


def percent(share: float) -> str:
    """Return a probability or share in per cent as HTML, never rounded to certainty.

    >>> percent(0.5), percent(0.999), percent(0.001), percent(1.0)
    ('50 %', '&gt; 99 %', '&lt; 1 %', '100 %')
    """
    if 0.0 < share < 0.005:
        return "&lt; 1 %"
    if 0.995 <= share < 1.0:
        return "&gt; 99 %"
    return f"{100 * share:.0f} %"


def seconds(value: float) -> str:
    """Return a duration in the unit that a person would use.

    >>> seconds(0.0421), seconds(75), seconds(7200), seconds(200000)
    ('42.1 ms', '1.25 min', '2 h', '2.31 d')
    """
    for limit, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if value >= limit:
            return f"{amount(value / limit)} {unit}"
    return f"{amount(1000 * value)} ms" if value > 0 else "0 s"


def count(n: int, one: str, many: str | None = None) -> str:
    """Return a number of things.

    >>> count(1, "budget"), count(1200, "budget")
    ('1 budget', '1,200 budgets')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"
