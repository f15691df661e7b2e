"""Columns to a data frame of the library that the caller asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from closedloop.errors import ConfigurationError, MissingExtraError

FrameLibrary = Literal["pandas", "polars"]


def frame(columns: Mapping[str, Sequence[Any] | Any], library: FrameLibrary = "pandas") -> Any:
    """Return ``columns`` as a pandas or polars DataFrame.

    Raises:
        ConfigurationError: ``library`` is neither.
        MissingExtraError: polars was asked for and is not installed.
    """
    if library == "pandas":
        import pandas

        return pandas.DataFrame(dict(columns))
    if library == "polars":
        try:
            import polars
        except ImportError as error:
            raise MissingExtraError("polars is not installed", "library", library, "pip install 'closedloop[polars]'") from error
        return polars.DataFrame(dict(columns), strict=False)  # a column of 1 and 0.95 is a column of numbers
    raise ConfigurationError("unknown frame library", "library", library, None, ("pandas", "polars"))
