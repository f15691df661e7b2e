"""The checks as pytest classes: subclass one, override one fixture.

Law of this file: pytest is imported here and nowhere else in the library. Every check is one test; a last test counts them, so that a
check lost by deselection, by a skip of the fixture or by an overridden method is noticed. To skip all of it, where an SDK is not
installed say, mark the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from closedloop.testing.certificate import Check, CheckFailedError, known_excuses
from closedloop.testing.ledger_checks import LEDGER_CHECKS
from closedloop.testing.platform_checks import PLATFORM_CHECKS


class _Conformance:
    checks: ClassVar[Sequence[Check]] = ()
    _accounted: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls) -> None:
        cls._accounted = {}
        for name in ("test_check", "test_every_check_is_accounted_for"):
            if name in vars(cls) and cls.__module__ != __name__:
                raise TypeError(f"{cls.__name__} overrides {name}: excuse a check in the subject, with a reason, instead")

    @pytest.fixture  # type: ignore[untyped-decorator]
    def subject(self) -> Any:
        """Override: return or yield the subject, fresh for each check."""
        pytest.fail("override the fixture `subject` of the conformance suite", pytrace=False)

    def _run(self, each: Check, subject: Any) -> None:
        known_excuses(subject.excused, self.checks)
        try:
            reason = each.excuse(subject)
        except CheckFailedError:
            self._accounted[each.name] = "failed"
            raise
        self._accounted[each.name] = "run" if reason is None else "excused"
        if reason is not None:
            pytest.skip(f"excused: {reason}")
        each.run(subject)

    def test_every_check_is_accounted_for(self) -> None:
        """Every check ran or was excused with a reason: none was lost on the way."""
        lost = [each.name for each in self.checks if each.name not in self._accounted]
        total = len(self.checks)
        assert not lost, (
            f"{total - len(lost)} of {total} checks ran here, these did not: {', '.join(lost)} (run the whole class in one process)"
        )
        assert len(self._accounted) == total


class PlatformConformance(_Conformance):
    """Certify a platform adapter: subclass, and override ``subject`` to give a `PlatformSubject`."""

    checks = PLATFORM_CHECKS

    @pytest.mark.parametrize("each", PLATFORM_CHECKS, ids=lambda each: each.name)  # type: ignore[untyped-decorator]
    def test_check(self, each: Check, subject: Any) -> None:
        """The promise of one check is kept."""
        self._run(each, subject)

    def test_every_check_is_accounted_for(self) -> None:
        """Every check ran or was excused with a reason."""
        super().test_every_check_is_accounted_for()


class LedgerConformance(_Conformance):
    """Certify a ledger: subclass, and override ``subject`` to give a `LedgerSubject`."""

    checks = LEDGER_CHECKS

    @pytest.mark.parametrize("each", LEDGER_CHECKS, ids=lambda each: each.name)  # type: ignore[untyped-decorator]
    def test_check(self, each: Check, subject: Any) -> None:
        """The promise of one check is kept."""
        self._run(each, subject)

    def test_every_check_is_accounted_for(self) -> None:
        """Every check ran or was excused with a reason."""
        super().test_every_check_is_accounted_for()
