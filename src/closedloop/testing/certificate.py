"""Run checks against somebody's implementation and say, check by check, what held.

Law of this file: nothing is left out in silence. A check passes, fails, or is excused with a reason by a capability that the author
declares to be missing; an excuse for something that is there fails, and so does a missing part without an excuse. The number
of checks accounted for always equals the number of checks there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import attrs

from closedloop.display import frame, html_table, text_table
from closedloop.errors import ConfigurationError, InvariantError, shorten

Outcome = Literal["passed", "failed", "excused"]


class CheckFailedError(AssertionError):
    """A promise was not kept."""


@attrs.frozen(kw_only=True)
class Check:
    """One promise, and the function that tries it.

    Args:
        name: What is checked, in words with underscores.
        promise: One sentence: what an implementation must do.
        run: Tries it on a subject; raises `CheckFailedError` when it is not kept.
        needs: What the subject must offer for it: names of its parts, ``fault:<name>`` for scripted faults.
    """

    name: str
    promise: str
    run: Callable[[Any], None]
    needs: tuple[str, ...] = ()

    def missing(self, subject: Any) -> tuple[str, ...]:
        """Return the needs that a subject does not offer."""
        return tuple(need for need in self.needs if not subject.offers(need))

    def excuse(self, subject: Any) -> str | None:
        """Return the author's reason for not running the check, None when it is to be run.

        Raises:
            CheckFailedError: An excuse without a reason, an excuse for what is there, or something missing without excuse.
        """
        missing = self.missing(subject)
        reason: str | None = subject.excused.get(self.name)
        if reason is not None and not reason.strip():
            raise CheckFailedError(f"{self.name} is excused without a reason")
        if reason is not None and not missing:
            raise CheckFailedError(f"{self.name} is excused ({reason}), yet all it needs is there: run it")
        if missing and reason is None:
            raise CheckFailedError(f"{self.name} cannot be run: {', '.join(missing)} missing; offer it, or excuse the check with a reason")
        return reason


def check(checks: list[Check], *needs: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register a function as a check; its name and the first line of its docstring are the check's."""

    def register(run: Callable[[Any], None]) -> Callable[[Any], None]:
        if not run.__doc__:
            raise InvariantError("a check needs a docstring that says the promise", "check", run.__name__)
        checks.append(Check(name=run.__name__, promise=run.__doc__.strip().splitlines()[0], run=run, needs=needs))
        return run

    return register


def need(holds: bool, words: str) -> None:
    """Fail the running check with ``words`` unless something holds."""
    if not holds:
        raise CheckFailedError(words)


@attrs.frozen(kw_only=True)
class Certificate:
    """What held and what did not, check by check.

    Args:
        about: What was examined.
        names, promises, outcomes, explanations: One of each per check, in order.
    """

    about: str
    names: tuple[str, ...]
    promises: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    explanations: tuple[str, ...]

    def _of(self, outcome: Outcome) -> tuple[str, ...]:
        return tuple(name for name, each in zip(self.names, self.outcomes, strict=True) if each == outcome)

    @property
    def passed(self) -> tuple[str, ...]:
        """Names of the checks that held."""
        return self._of("passed")

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that did not hold."""
        return self._of("failed")

    @property
    def excused(self) -> tuple[str, ...]:
        """Names of the checks not run, each with a reason of the author."""
        return self._of("excused")

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    def to_columns(self) -> dict[str, list[Any]]:
        """Return one row per check."""
        return {
            "check": list(self.names),
            "outcome": list(self.outcomes),
            "why": list(self.explanations),
            "promise": list(self.promises),
        }

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return the checks as a frame."""
        return frame(self.to_columns(), library)

    def _title(self) -> str:
        counts = f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.excused)} excused of {len(self.names)}"
        return f"Certificate of {self.about}: {counts}"

    def __repr__(self) -> str:
        return text_table(self.to_columns(), title=self._title(), limit=100)

    def _repr_html_(self) -> str:
        return html_table(self.to_columns(), title=self._title(), limit=100)


def certify(
    open_subject: Callable[[], AbstractContextManager[Any]], checks: Sequence[Check], *, about: str = "an implementation"
) -> Certificate:
    """Run every check on a subject of its own and return the certificate.

    Args:
        open_subject: Opens a fresh subject for each check, as a context manager.
        checks: `PLATFORM_CHECKS` or `LEDGER_CHECKS`.
        about: What is examined, for the title.

    Raises:
        ConfigurationError: A subject excuses a check that does not exist.
    """
    outcomes: list[Outcome] = []
    explanations: list[str] = []
    for each in checks:
        with open_subject() as subject:
            known_excuses(subject.excused, checks)
            outcome, why = _outcome(each, subject)
        outcomes.append(outcome)
        explanations.append(why)
    if len(outcomes) != len(checks):
        raise InvariantError("every check is accounted for", "checks", len(outcomes))
    return Certificate(
        about=about,
        names=tuple(c.name for c in checks),
        promises=tuple(c.promise for c in checks),
        outcomes=tuple(outcomes),
        explanations=tuple(explanations),
    )


def _outcome(each: Check, subject: Any) -> tuple[Outcome, str]:
    try:
        reason = each.excuse(subject)
        if reason is not None:
            return "excused", reason
        each.run(subject)
    except Exception as error:  # noqa: BLE001 - whatever an implementation raises is what this check has to say of it
        return "failed", str(error) if isinstance(error, CheckFailedError) else f"{type(error).__name__}: {shorten(str(error), 300)}"
    return "passed", ""


def known_excuses(excused: Mapping[str, str], checks: Sequence[Check]) -> None:
    """Refuse excuses for checks that do not exist: a slip of the pen would excuse nothing, or everything.

    Raises:
        ConfigurationError: Such an excuse.
    """
    names = tuple(c.name for c in checks)
    for name in excused:
        if name not in names:
            raise ConfigurationError("there is no such check to excuse", "excused", name, None, names)
