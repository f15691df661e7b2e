"""What is known, and what is assumed, of the share of credit that was caused: lift tests, types of audience and stated priors.

Law of this file: every assumption is a number with a name, a default and a source; none is hidden in code.

References:
    Johnson, Lewis & Nubbemeyer (2017), Ghost ads, J. Marketing Research 54: a retargeting campaign lifted purchases by 10.5 %; most
    purchases credited to it would have come anyway. Blake, Nosko & Tadelis (2015), Econometrica 83: no measurable short-term effect of
    brand keywords. Gordon, Zettelmeyer, Bhargava & Chapsky (2019), Marketing Science 38: observed against randomised effects of 15
    campaigns, often apart by a factor of two and more. The medians and spreads are ours, wide on purpose, and said as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs
import numpy as np

from closedloop.errors import ConfigurationError
from closedloop.records.arms import Arms
from closedloop.records.lift import LiftResult


@attrs.frozen(kw_only=True)
class TypePrior:
    """What is assumed of the arms of one type before anything is measured; rates relative to the account's typical credited rate.

    Args:
        caused: Median of the type's typical caused rate, and standard deviation of its log.
        background: The same of its background: conversions that would have come anyway and were touched on the way.
        caused_spreads, background_spreads: Spreads of the arms around them (standard deviation of the log, with heavy tails) that are
            weighed against one another, alike likely.
        nothing: Chance that an arm causes next to nothing: no tail of a log reaches there, and tests have found it (Blake et al.).
    """

    caused: tuple[float, float]
    background: tuple[float, float]
    caused_spreads: tuple[float, ...] = (0.1, 0.3, 0.6, 1.0, 1.6)
    background_spreads: tuple[float, ...] = (0.15, 0.4, 0.8)
    nothing: float = 0.1

    def __attrs_post_init__(self) -> None:
        for name in ("caused", "background"):
            median, spread = getattr(self, name)
            if not (0.0 < median < 100.0 and 0.0 < spread < 10.0):
                raise ConfigurationError("a prior needs a median and a spread above zero", name, (median, spread))
        for name in ("caused_spreads", "background_spreads"):
            if not getattr(self, name) or min(getattr(self, name)) <= 0.0:
                raise ConfigurationError("spreads are above zero", name, getattr(self, name))
        if not 0.0 <= self.nothing < 1.0:
            raise ConfigurationError("a chance lies in [0, 1)", "nothing", self.nothing)


PRIORS: Mapping[str, TypePrior] = {
    "prospecting": TypePrior(caused=(0.7, 1.0), background=(0.15, 1.0), nothing=0.05),
    "retargeting": TypePrior(caused=(0.3, 1.2), background=(0.7, 1.0), background_spreads=(0.3, 0.6, 1.0), nothing=0.2),
    "brand": TypePrior(caused=(0.15, 1.2), background=(0.8, 1.0), background_spreads=(0.3, 0.6, 1.0), nothing=0.3),
    "other": TypePrior(caused=(0.6, 1.1), background=(0.25, 1.2)),
}
_WORDS: Mapping[str, tuple[str, ...]] = {
    "retargeting": ("retargeting", "remarketing", "retarget", "visitors", "cart", "abandoners", "returning", "customers"),
    "brand": ("brand", "branded"),
    "prospecting": ("prospecting", "lookalike", "lookalikes", "interests", "interest", "broad", "new"),
}


def _all(tests: Iterable[LiftResult]) -> tuple[LiftResult, ...]:
    return tuple(tests)


@attrs.frozen(kw_only=True)
class CausalEvidence:
    """Lift tests and priors that turn credited conversions into caused ones.

    Per exposure, conversions that the arm took part in = caused-and-seen + background; caused = ``unseen`` x caused-and-seen. The
    background is users on their way to a conversion anyway (or because of another arm): it grows with all conversions of the account.

    Args:
        tests: Lift tests.
        audience_type: By audience tag, a key of ``priors``. An audience that is not named has the type that its tag says (a word such as
            "retargeting", "visitors", "cart", "brand", "lookalike", "broad"), else ``other``.
        priors: What is assumed of each type.
        unseen: Caused conversions per caused conversion in whose journey the arm is seen (others come after the window, on another
            device, or through a view that is not logged): median, standard deviation of the log over accounts, and over the platforms of
            one account.
        elsewhere: The same of caused conversions per one that is credited to the arm (others go to a later touch), median and standard
            deviation over accounts: used where only credit is known, ``Outcomes.participation`` being None.
        moved: Relative standard deviation of what a background does between a test and now.
        late: Share of caused conversions that come after the window, and so after a test is read.
        follows: Chance that an arm's background grew with the conversions that others brought, by which an account that grew tells caused
            from met; the rest, in equal parts, that its whole rate rose with demand, and that it followed neither. 0 reads no growth.
    """

    tests: tuple[LiftResult, ...] = attrs.field(default=(), converter=_all)
    audience_type: Mapping[str, str] = attrs.field(factory=dict)
    priors: Mapping[str, TypePrior] = attrs.field(factory=lambda: dict(PRIORS))
    unseen: tuple[float, float, float] = (1.15, 0.15, 0.1)
    elsewhere: tuple[float, float] = (1.1, 0.2)
    moved: float = 0.2
    late: float = 0.06
    follows: float = 0.5

    def __attrs_post_init__(self) -> None:
        if "other" not in self.priors:
            raise ConfigurationError("the priors need the type 'other'", "priors", tuple(self.priors))
        for kind in self.audience_type.values():
            if kind not in self.priors:
                raise ConfigurationError("no prior for this type of audience", "audience_type", kind, None, tuple(self.priors))
        if not (0.0 < self.unseen[0] < 10.0 and min(self.unseen[1:]) > 0.0 and max(self.unseen[1:]) < 3.0):
            raise ConfigurationError("the unseen share needs a median and a spread above zero", "unseen", self.unseen)
        if not (0.0 < self.elsewhere[0] < 10.0 and 0.0 <= self.elsewhere[1] < 3.0):
            raise ConfigurationError("the share credited elsewhere needs a median above zero and a spread", "elsewhere", self.elsewhere)
        if not 0.0 <= self.moved < 3.0:
            raise ConfigurationError("a relative spread lies in [0, 3)", "moved", self.moved)
        if not 0.0 <= self.late < 1.0:
            raise ConfigurationError("a share lies in [0, 1)", "late", self.late)
        if not 0.0 <= self.follows <= 1.0:
            raise ConfigurationError("a chance lies in [0, 1]", "follows", self.follows)

    def view(self, *, participation: bool) -> tuple[float, float, float]:
        """Return median and spreads of caused conversions per caused one that is counted: in journeys, or only where it is credited."""
        median, accounts, platforms = self.unseen
        if participation:
            return median, accounts, platforms
        return median * self.elsewhere[0], float(np.hypot(accounts, self.elsewhere[1])), platforms

    def types(self, arms: Arms) -> tuple[str, ...]:
        """Return the type of each arm, a key of ``priors``.

        >>> arms = Arms.of(("platform", "audience"), [("meta", "Cart abandoners 7d"), ("meta", "broad"), ("meta", "x42")])
        >>> CausalEvidence(audience_type={"x42": "brand"}).types(arms)
        ('retargeting', 'prospecting', 'brand')
        """
        if "audience" not in arms.columns:
            return ("other",) * len(arms)
        column = arms.column("audience")
        known = [self.audience_type.get(str(tag)) or self._said(str(tag)) for tag in column.vocab]
        return tuple(known[code] if code >= 0 else "other" for code in column.codes.tolist())

    def _said(self, tag: str) -> str:
        words = "".join(c if c.isalnum() else " " for c in tag.lower()).split()
        return next((kind for kind, named in _WORDS.items() if kind in self.priors and any(w in named for w in words)), "other")
