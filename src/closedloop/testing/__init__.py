"""Certify anyone's platform adapter, ledger or classifier, with pytest or without.

With pytest: subclass `PlatformConformance`, `LedgerConformance` or `ClassifierConformance` and override the fixture ``subject``. Without:
`certify` returns a `Certificate`. Capabilities declared to be missing excuse checks; whatever is missing without a reason fails.
"""

from typing import TYPE_CHECKING, Any

from closedloop.testing.certificate import Certificate, Check, CheckFailedError, certify
from closedloop.testing.classifier_checks import CLASSIFIER_CHECKS, ClassifierSubject
from closedloop.testing.ledger_checks import LEDGER_CHECKS, LedgerSubject
from closedloop.testing.platform_checks import PLATFORM_CHECKS
from closedloop.testing.platform_subject import PLATFORM_FAULTS, PlatformSubject

if TYPE_CHECKING:
    from closedloop.testing.suites import ClassifierConformance, LedgerConformance, PlatformConformance

__all__ = [
    "CLASSIFIER_CHECKS",
    "LEDGER_CHECKS",
    "PLATFORM_CHECKS",
    "PLATFORM_FAULTS",
    "Certificate",
    "Check",
    "CheckFailedError",
    "ClassifierConformance",
    "ClassifierSubject",
    "LedgerConformance",
    "LedgerSubject",
    "PlatformConformance",
    "PlatformSubject",
    "certify",
]


def __getattr__(name: str) -> Any:
    if name in ("PlatformConformance", "LedgerConformance", "ClassifierConformance"):  # they need pytest, the rest does not
        from closedloop.testing import suites

        return getattr(suites, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
