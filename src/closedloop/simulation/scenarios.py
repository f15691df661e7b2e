"""Markets to try a loop in: named sets of parameters, with sources where there are any.

Law of this file: parameters only, drawn by nobody and tuned to no loop. `Market` draws each arm's own parameters from the spreads given
here with its seed, so one scenario is a population of markets.

References:
    Chapelle (2014), Modeling delayed feedback in display advertising, KDD: in Criteo's traffic with a 30-day last-click window about 35 %
    of the conversions come within one hour and 50 % within 24 hours. Here: a share of conversions at once, and a lognormal for the others.
    Johnson, Lewis & Nubbemeyer (2017), Ghost ads, J. Marketing Research 54: a retargeting campaign lifted purchases by 10.5 %; most
    purchases credited to retargeting would have come anyway.
    Blake, Nosko & Tadelis (2015), Consumer heterogeneity and paid search effectiveness, Econometrica 83: no measurable short-term effect of
    brand-keyword advertising.
    The spreads of the large scenarios were set before any loop ran in them, so that an oracle can halve the cost of an equal split in the
    median market (a spread of 1.2 in log rate between campaigns is wide; with half of it the oracle gains about a third).
    The other figures (spreads between arms, half-saturation, noise) are assumptions of ours, said as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Literal

import attrs

from closedloop.errors import ConfigurationError

CampaignRole = Literal["prospecting", "retargeting", "brand"]
_ROLES = ("prospecting", "retargeting", "brand")


@attrs.frozen(kw_only=True)
class Campaign:
    """One campaign of a simulated account; each of its creatives is an arm with a budget of its own.

    Args:
        platform, campaign, audience, placement: Tags.
        creatives: Names of the creatives.
        role: ``prospecting`` causes conversions; ``retargeting`` and ``brand`` mostly meet users who would have converted anyway.
        quality: Factor on the rate of caused conversions.
        size: Factor on the half-saturation spend and on the starting budget.
    """

    platform: str
    campaign: str
    audience: str
    creatives: tuple[str, ...] = ("video", "image")
    placement: str = "feed"
    role: CampaignRole = "prospecting"
    quality: float = 1.0
    size: float = 1.0

    def __attrs_post_init__(self) -> None:
        if self.role not in _ROLES:
            raise ConfigurationError("unknown role of a campaign", "role", self.role, None, _ROLES)
        for name in ("quality", "size"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError("a factor is zero or more", name, getattr(self, name))


@attrs.frozen(kw_only=True)
class Break:
    """From one day on, something is different.

    Args:
        day: First day of the new regime.
        rate: Factor on the rate of caused conversions.
        cpc: Factor on the price of a click.
        share: Share of the arms that it strikes, chosen with the market's seed, when ``campaigns`` is empty.
        campaigns: Names of the campaigns that it strikes.
    """

    day: int
    rate: float = 1.0
    cpc: float = 1.0
    share: float = 0.5
    campaigns: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Scenario:
    """Parameters of a market.

    Args:
        name: Name of the scenario.
        campaigns: The campaigns.
        total: Budget a day in units of ``currency``.
        rate: Median rate of caused conversions per click of a prospecting creative.
        rate_spread: Standard deviation of log rate between campaigns, and between the creatives of a campaign (two numbers).
        cpc: Median price of a first click, and standard deviation of its log between arms.
        half_spend: Spend at which half of the reachable clicks are bought, as a multiple of an equal share of ``total``, and the standard
            deviation of its log between arms (Hill curve of exponent 1: clicks = h / cpc * s / (h + s)).
        organic: Conversions a day that come without any advertising.
        touched: By role, pool touches per click: how many of an arm's clicks are made by users who were about to convert anyway (or
            because of another arm), at the usual size of that pool.
        caused_factor: By role, factor on the rate of caused conversions.
        view_share: By platform, conversions caused by views alone, per conversion caused by clicks.
        logged_views: User-level views per click; all other impressions come as one aggregated row for each arm and day.
        click_through: Clicks per impression.
        at_once: Share of conversions within the hour.
        delay_days, delay_spread: Median in days of the other delays, and standard deviation of their log; cut at 30 days.
        repeat: Share of clicks made by users seen in the week before.
        day_noise: Standard deviation of log clicks by arm and day, and of a factor common to all arms on a day.
        spend_noise: Standard deviation of log(spend / budget) by arm and day.
        weekday: Seven factors on demand, Monday first; scaled to mean 1.
        drift: Standard deviation of the daily step of each arm's log rate (random walk).
        breaks: Breaks.
        value: Median revenue of a conversion and standard deviation of its log; None for no revenue.
        currency: ISO code.
        start: Date of day 0.
        reporting: By platform, the click window in days under which the platform counts conversions in its own report.
    """

    name: str
    campaigns: tuple[Campaign, ...]
    total: float
    rate: float = 0.02
    rate_spread: tuple[float, float] = (0.5, 0.35)
    cpc: tuple[float, float] = (0.6, 0.3)
    half_spend: tuple[float, float] = (4.0, 0.5)
    organic: float = 15.0
    touched: Mapping[CampaignRole, float] = attrs.field(factory=lambda: {"prospecting": 0.001, "retargeting": 0.006, "brand": 0.01})
    caused_factor: Mapping[CampaignRole, float] = attrs.field(factory=lambda: {"prospecting": 1.0, "retargeting": 0.5, "brand": 0.3})
    view_share: Mapping[str, float] = attrs.field(factory=lambda: {"meta": 0.15, "google": 0.05, "tiktok": 0.2})
    logged_views: float = 0.25
    click_through: float = 0.01
    at_once: float = 0.3
    delay_days: float = 1.5
    delay_spread: float = 1.1
    repeat: float = 0.2
    day_noise: tuple[float, float] = (0.15, 0.05)
    spend_noise: float = 0.03
    weekday: tuple[float, ...] = (1.05, 1.05, 1.0, 1.0, 0.95, 0.9, 1.05)
    drift: float = 0.0
    breaks: tuple[Break, ...] = ()
    value: tuple[float, float] | None = None
    currency: str = "EUR"
    start: date = date(2026, 1, 5)
    reporting: Mapping[str, int] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if not self.campaigns:
            raise ConfigurationError("a market needs campaigns", "campaigns", ())
        names = [(c.platform, c.campaign, c.audience, creative, c.placement) for c in self.campaigns for creative in c.creatives]
        if len(set(names)) != len(names):
            raise ConfigurationError("two arms have the same tags", "campaigns", next(n for n in names if names.count(n) > 1))
        for field, low, high in (("total", 0, 1e12), ("rate", 0, 0.5), ("organic", 0, 1e7), ("click_through", 1e-6, 1), ("repeat", 0, 1)):
            if not low <= getattr(self, field) <= high:
                raise ConfigurationError(f"the parameter lies between {low} and {high}", field, getattr(self, field))
        for field, low in (
            ("at_once", 0),
            ("delay_days", 1e-6),
            ("delay_spread", 1e-6),
            ("spend_noise", 0),
            ("drift", 0),
            ("logged_views", 0),
        ):
            if not getattr(self, field) >= low:
                raise ConfigurationError(f"the parameter is at least {low}", field, getattr(self, field))
        if len(self.weekday) != 7:
            raise ConfigurationError("a week has seven days", "weekday", self.weekday)


def small(**changes: Any) -> Scenario:
    """Return the demo's market: 4 campaigns of 2 creatives on 2 platforms, about 2,000 clicks a day.

    The audience "lookalike" is good, "interests" middling, "broad" poor, and "visitors" is a retargeting campaign. Some campaigns have
    50 conversions a week and more, some have not.
    """
    campaigns = (
        Campaign(platform="google", campaign="search", audience="lookalike", placement="results", quality=2.0),
        Campaign(platform="google", campaign="display", audience="broad", placement="banner", quality=0.35),
        Campaign(platform="meta", campaign="social", audience="interests", quality=1.0),
        Campaign(platform="meta", campaign="reminder", audience="visitors", role="retargeting", quality=1.0, size=0.6),
    )
    base = Scenario(name="small", campaigns=campaigns, total=1400.0, rate_spread=(0.1, 0.3), cpc=(0.6, 0.15))
    return attrs.evolve(base, **changes)


def healthy(**changes: Any) -> Scenario:
    """Return a market in good order: 8 campaigns of 2 creatives on 3 platforms, about 100 conversions a day."""
    return attrs.evolve(Scenario(name="healthy", campaigns=_account(), **_LARGE), **changes)


def retargeting(**changes: Any) -> Scenario:
    """Return the healthy market with two retargeting campaigns and a brand campaign that take credit they did not earn."""
    roles: Sequence[CampaignRole] = ("prospecting",) * 5 + ("retargeting", "retargeting", "brand")
    base = Scenario(
        name="retargeting",
        campaigns=tuple(attrs.evolve(c, role=role, audience=a) for c, role, a in zip(_account(), roles, _AUDIENCES, strict=True)),
        **{**_LARGE, "organic": 60.0},
        touched={"prospecting": 0.001, "retargeting": 0.02, "brand": 0.02},
        caused_factor={"prospecting": 1.0, "retargeting": 0.25, "brand": 0.1},
    )
    return attrs.evolve(base, **changes)


def breaks(**changes: Any) -> Scenario:
    """Return the healthy market with slow drift, two breaks of rates and one of prices."""
    shifts = (Break(day=28, rate=0.35, share=0.4), Break(day=42, rate=2.0, share=0.3), Break(day=56, cpc=1.6, share=0.4))
    return attrs.evolve(Scenario(name="breaks", campaigns=_account(), **_LARGE, drift=0.02, breaks=shifts), **changes)


def identical(**changes: Any) -> Scenario:
    """Return a market whose arms are all the same: nothing is to be gained, and every move costs."""
    same = {**_LARGE, "rate_spread": (0.0, 0.0), "cpc": (0.8, 0.0), "half_spend": (6.0, 0.0), "rate": 0.02}
    campaigns = tuple(attrs.evolve(c, quality=1.0) for c in _account())
    base = Scenario(name="identical", campaigns=campaigns, **same, view_share={})
    return attrs.evolve(base, **changes)


def low_volume(**changes: Any) -> Scenario:
    """Return the healthy market at an eighth of its budget: about ten conversions a week for each campaign."""
    base = Scenario(name="low_volume", campaigns=_account(), **{**_LARGE, "total": _LARGE["total"] / 8, "organic": 4.0})
    return attrs.evolve(base, **changes)


def flaky(**changes: Any) -> Scenario:
    """Return the healthy market for runs on platforms that are late, lose replies and go down; the platform makes it flaky."""
    return attrs.evolve(healthy(name="flaky"), **changes)


_AUDIENCES = ("lookalike", "broad", "interests", "broad", "lookalike", "visitors", "cart", "brand")
_LARGE: Mapping[str, Any] = {
    "total": 4800.0,
    "rate": 0.01,
    "rate_spread": (1.2, 0.6),
    "cpc": (0.8, 0.35),
    "half_spend": (6.0, 0.6),
    "organic": 30.0,
}


def _account() -> tuple[Campaign, ...]:
    names = ("search", "display", "shopping", "feed", "stories", "reels", "spark", "topview")
    platforms = ("google",) * 3 + ("meta",) * 3 + ("tiktok",) * 2
    audiences = ("lookalike", "broad", "interests", "broad", "lookalike", "interests", "broad", "lookalike")
    return tuple(Campaign(platform=p, campaign=n, audience=a) for p, n, a in zip(platforms, names, audiences, strict=True))


SCENARIOS = {f.__name__: f for f in (small, healthy, retargeting, breaks, identical, low_volume, flaky)}
