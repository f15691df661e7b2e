"""Every exception of closedloop, sorted by what the caller does next.

Law of this file: it imports nothing of ours, and an exception here never carries a secret. Each class says whose move it is:
mend the set-up, mend the data, wait and send again, look before sending again, stop. Holds, quarantined rows, unknown
actions, findings and wide intervals are values, not exceptions.

Attributes are positional, so that instances survive ``pickle`` and ``copy``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

_SHOWN = 120  # a hostile value must not flood a log line


def shorten(value: object, limit: int = _SHOWN) -> str:
    """Return ``repr(value)`` cut to ``limit`` characters, with the full length said.

    >>> shorten("a" * 1000, 20)
    "'aaaaaaaaa... (1000 characters)"
    """
    if isinstance(value, str):
        text = repr(value[: limit + 1])
        return text if len(value) <= limit and len(text) <= limit + 2 else f"{text[: limit // 2]}... ({len(value)} characters)"
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a stranger's object: the message about it must come out all the same
        text = f"<{type(value).__name__} that cannot be shown>"
    return text if len(text) <= limit else f"{text[: limit // 2]}..."


class ClosedLoopError(Exception):
    """Base of every exception raised on purpose by this library.

    Args:
        problem: One sentence: what is wrong.
        field: The name of the field, argument or column at fault.
        value: The value found there.
        mend: One sentence: what to do about it.
        valid: What would have been valid, listed.
    """

    def __init__(
        self,
        problem: str,
        field: str | None = None,
        value: object = None,
        mend: str | None = None,
        valid: Sequence[str] = (),
    ) -> None:
        super().__init__(problem, field, value, mend, tuple(valid))
        self.problem = problem
        self.field = field
        self.value = value
        self.mend = mend
        self.valid = tuple(valid)

    def __str__(self) -> str:
        parts = [self.problem]
        if self.field is not None:
            parts.append(f"field {self.field!r}" + ("" if self.value is None else f" has {shorten(self.value)}"))
        elif self.value is not None:
            parts.append(f"found {shorten(self.value)}")
        if self.valid:
            parts.append("valid: " + ", ".join(self.valid[:40]))
        if self.mend:
            parts.append(self.mend)
        return "; ".join(parts)


class ConfigurationError(ClosedLoopError, ValueError):
    """The set-up is wrong: mend the arguments."""


class WindowMismatchError(ConfigurationError):
    """Two layers were given different attribution windows."""


class UnknownPlatformError(ConfigurationError):
    """No platform of that name is registered; the valid ones are listed."""


class InfeasibleError(ConfigurationError):
    """The constraints contradict each other; the conflicting ones are named."""


class MissingExtraError(ConfigurationError, ImportError):
    """An optional dependency is needed; the extra that brings it is named."""


class InputError(ClosedLoopError, ValueError):
    """The data cannot be read at all: mend the data (single bad rows are quarantined, not raised)."""


class MissingColumnError(InputError):
    """A needed column is not in the table; the columns that are there and the mapping that would mend it are named."""


class PlatformError(ClosedLoopError):
    """A platform did not do what was asked."""


class NotSentError(PlatformError):
    """The change certainly did not reach the platform: it may be sent again, not before ``retry_at``."""

    def __init__(
        self,
        problem: str,
        field: str | None = None,
        value: object = None,
        mend: str | None = None,
        valid: Sequence[str] = (),
        retry_at: datetime | None = None,
    ) -> None:
        super().__init__(problem, field, value, mend, valid)
        self.args = (problem, field, value, mend, tuple(valid), retry_at)
        self.retry_at = retry_at


class OutcomeUnknownError(PlatformError):
    """The change was perhaps applied: look before anything is sent again."""


class RejectedError(PlatformError):
    """The platform refused the change for good; its own code and words are kept."""


class AuthenticationError(PlatformError):
    """The credentials do not serve: renew them."""


class LedgerError(ClosedLoopError):
    """The ledger cannot be trusted or written: stop, and keep the store as it is."""


class ConflictError(LedgerError):
    """Another writer recorded something else under the same key: read what stands, then decide again."""


class InvariantError(ClosedLoopError, AssertionError):
    """A promise of this library was broken by this library: a bug, please report it."""
