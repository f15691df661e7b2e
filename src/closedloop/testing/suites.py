"""The checks as pytest classes: subclass one, override one fixture.

Law of this file: pytest is imported here and nowhere else in the library. Every check is one test; a last test counts them, so that a
check lost by deselection, a mark or an overridden method is noticed, and a fixture that skips fails. Nothing rests on the order of
tests or on one process, so that they may be shuffled and spread. To skip all of it, where an SDK is not installed say, mark the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from closedloop.testing.certificate import Check, known_excuses
from closedloop.testing.classifier_checks import CLASSIFIER_CHECKS
from closedloop.testing.ledger_checks import LEDGER_CHECKS
from closedloop.testing.platform_checks import PLATFORM_CHECKS


class _Conformance:
    checks: ClassVar[Sequence[Check]] = ()

    def __init_subclass__(cls) -> None:
        for name in ("test_check", "test_every_check_is_accounted_for"):
            if name in vars(cls) and cls.__module__ != __name__:
                raise TypeError(f"{cls.__name__} overrides {name}: excuse a check in the subject, with a reason, instead")

    @pytest.fixture  # type: ignore[untyped-decorator]
    def subject(self) -> Any:
        """Override: return or yield the subject, fresh for each check."""
        pytest.fail("override the fixture `subject` of the conformance suite", pytrace=False)

    def _run(self, each: Check, request: Any) -> None:
        try:
            subject = request.getfixturevalue("subject")
        except pytest.skip.Exception as skipped:
            pytest.fail(
                f"the fixture skipped ({skipped}), and with it this check: mark the class instead, or excuse the check", pytrace=False
            )
        known_excuses(subject.excused, self.checks)
        reason = each.excuse(subject)
        if reason is not None:
            pytest.skip(f"excused: {reason}")
        each.run(subject)

    def _account(self, request: Any) -> None:
        there = [item.callspec.params["each"].name for item in request.session.items if _of(item) is type(self) and _will_run(item)]
        lost = [each.name for each in self.checks if each.name not in there]
        total = len(self.checks)
        assert not lost, f"{total - len(lost)} of {total} checks run here, these do not: {', '.join(lost)} (run the whole class, unmarked)"
        assert len(there) == total, f"{len(there)} tests for {total} checks"


def _of(item: Any) -> Any:
    return getattr(item, "cls", None)  # a doctest is of no class


def _will_run(item: Any) -> bool:
    """Whether a collected test is a check that nothing but the subject can excuse."""
    if "each" not in getattr(getattr(item, "callspec", None), "params", {}):
        return False
    marks = [*item.iter_markers("skip"), *item.iter_markers("xfail"), *(m for m in item.iter_markers("skipif") if m.args[:1] != (False,))]
    return not marks


class PlatformConformance(_Conformance):
    """Certify a platform adapter: subclass, and override ``subject`` to give a `PlatformSubject`."""

    checks = PLATFORM_CHECKS

    @pytest.mark.parametrize("each", PLATFORM_CHECKS, ids=lambda each: each.name)  # type: ignore[untyped-decorator]
    def test_check(self, each: Check, request: Any) -> None:
        """The promise of one check is kept."""
        self._run(each, request)

    def test_every_check_is_accounted_for(self, request: Any) -> None:
        """Every check runs or is excused with a reason: none is lost on the way."""
        self._account(request)


class LedgerConformance(_Conformance):
    """Certify a ledger: subclass, and override ``subject`` to give a `LedgerSubject`."""

    checks = LEDGER_CHECKS

    @pytest.mark.parametrize("each", LEDGER_CHECKS, ids=lambda each: each.name)  # type: ignore[untyped-decorator]
    def test_check(self, each: Check, request: Any) -> None:
        """The promise of one check is kept."""
        self._run(each, request)

    def test_every_check_is_accounted_for(self, request: Any) -> None:
        """Every check runs or is excused with a reason: none is lost on the way."""
        self._account(request)


class ClassifierConformance(_Conformance):
    """Certify a classifier: subclass, and override ``subject`` to give a `ClassifierSubject`."""

    checks = CLASSIFIER_CHECKS

    @pytest.mark.parametrize("each", CLASSIFIER_CHECKS, ids=lambda each: each.name)  # type: ignore[untyped-decorator]
    def test_check(self, each: Check, request: Any) -> None:
        """The promise of one check is kept."""
        self._run(each, request)

    def test_every_check_is_accounted_for(self, request: Any) -> None:
        """Every check runs or is excused with a reason: none is lost on the way."""
        self._account(request)
