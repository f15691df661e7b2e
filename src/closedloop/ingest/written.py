"""Times and amounts as people write them elsewhere, put into the form that the readers know.

Law of this file: nothing is guessed. What the caller says is tried on each text; a text that it does not fit cannot be read, and its row is
set aside as it came.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from closedloop.errors import ConfigurationError

DECIMALS = (".", ",")
SIGNS = {  # currencies that a sign may stand for, the one it mostly means first
    "€": ("EUR",),
    "$": ("USD", "AUD", "CAD", "HKD", "MXN", "NZD", "SGD"),
    "£": ("GBP",),
    "¥": ("JPY", "CNY"),
    "kr": ("SEK", "DKK", "NOK"),
    "zł": ("PLN",),
    "₹": ("INR",),
    "Fr.": ("CHF",),
}
_LONGEST = 64  # characters of a time or an amount
# A sign and a currency before, digits in groups of three or none, the fraction, a currency behind.
_AMOUNT = r"^([+-]?)\s*([^\d\s+-]{{0,3}})\s*([+-]?)\s*(\d{{1,3}}(?:{group}\d{{3}})+|\d+)(?:{decimal}(\d+))?\s*([^\d\s]{{0,3}})$"
_AMOUNTS = {
    ",": re.compile(_AMOUNT.format(group=r"[.'’\s]", decimal=",")),
    ".": re.compile(_AMOUNT.format(group=r"[,'’\s]", decimal=r"\.")),
}


def check_written(time_format: str | None, decimal: str | None) -> None:
    """Raise where these say nothing that could be read.

    Raises:
        ConfigurationError: The format does not give a day, or the decimal is neither a point nor a comma.
    """
    if decimal is not None and decimal not in DECIMALS:
        raise ConfigurationError("no decimal sign", "decimal", decimal, None, DECIMALS)
    if time_format is None:
        return
    import pandas as pd

    moment = datetime(2026, 11, 25, tzinfo=UTC)  # only its day is looked at
    try:
        day = pd.to_datetime([moment.strftime(time_format)], format=time_format)[0].date()
    except (ValueError, re.error):  # the second where a part is named twice
        day = None
    if day != moment.date():
        raise ConfigurationError(
            "the format gives no day", "time_format", time_format, "write it as strftime does, such as %d.%m.%Y %H:%M for 31.12.2026 18:30"
        )


def as_read(
    columns: Mapping[str, Any],
    times: tuple[str, ...],
    numbers: tuple[str, ...],
    form: str | None,
    decimal: str | None,
    currency: str | None,
) -> dict[str, Any]:
    """Return the columns with texts of times in ISO 8601 and texts of numbers with a point and nothing else.

    Args:
        columns: pandas Series by field.
        times, numbers: Fields that hold them.
        form: How times are written (`datetime.strftime`), None for ISO 8601.
        decimal: The decimal sign of amounts that may carry a currency and groups of three digits, None for plain numbers.
        currency: The currency whose sign or code an amount may carry; None lets it carry none, so that no two are ever mixed.
    """
    out = dict(columns)
    for field in times if form is not None else ():
        if field in out:
            out[field] = _times(out[field], str(form))
    for field in numbers if decimal is not None else ():
        if field in out:
            out[field] = _amounts(out[field], str(decimal), currency)
    return out


def _texts(column: Any) -> Any:
    """Return the column with its texts and nothing in place of all else (a column of objects)."""
    values = column.astype(object)
    return values.where([isinstance(v, str) and len(v) <= _LONGEST for v in values], None)


def _times(column: Any, form: str) -> Any:
    import pandas as pd

    texts = _texts(column)
    if not texts.notna().any():
        return column
    parsed = pd.to_datetime(texts.str.strip(), format=form, errors="coerce", utc="%z" in form)
    iso = parsed.dt.strftime("%Y-%m-%dT%H:%M:%S.%f" + "Z" * ("%z" in form)).astype(object)
    return column.astype(object).where(parsed.isna(), iso)


def _amounts(column: Any, decimal: str, currency: str | None) -> Any:
    texts = _texts(column)
    if not texts.notna().any():
        return column
    marks = {"", *(() if currency is None else (currency, *(sign for sign, codes in SIGNS.items() if currency in codes)))}

    def plain(text: str | None) -> str | None:
        if not text or not text.strip():
            return None
        found = _AMOUNTS[decimal].match(text.strip())
        if found is None or (found[1] and found[3]) or (found[2] and found[6]) or not marks >= {found[2], found[6]}:
            # With a decimal comma 1.50 must not pass for a plain number, for 1.500 is a thousand and a half.
            return f"{text} (decimal comma)" if decimal == "," else None
        return f"{found[1] or found[3]}{re.sub(r'[^0-9]', '', found[4])}.{found[5] or '0'}"

    read = texts.map(plain)
    return column.astype(object).where(read.isna(), read)
