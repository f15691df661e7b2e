"""What goes wrong: faults that are laid over a healthy market, one on another.

Law of this file: a fault changes what the loop is *told* (rows) or what a platform *does* (changes), never the market's truth. Each has its
own generator for each day, so that adding one leaves the draws of the others as they were. Every fault may begin on a later day, so
that a loop meets it after a healthy time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.errors import ConfigurationError
from closedloop.platforms.simulated import SimulatedPlatform
from closedloop.records.arms import TAG_COLUMNS
from closedloop.records.moments import format_duration, parse_duration
from closedloop.records.money import Money
from closedloop.records.window import AttributionWindow
from closedloop.simulation.market import Columns, Market
from closedloop.simulation.rows import iso

_US = timedelta(microseconds=1)


class Fault(Protocol):
    """One thing that goes wrong. Whoever writes one needs these two methods; either may do nothing."""

    def rows(self, rows: Columns, day: int, rng: np.random.Generator, market: Market) -> Columns:
        """Return the day's rows as the loop gets them."""
        ...

    def platforms(self, platforms: Mapping[str, SimulatedPlatform], market: Market) -> None:
        """Prepare the platforms before the first day."""
        ...


def _check_share(instance: object, attribute: Any, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ConfigurationError("a share lies between 0 and 1", attribute.name, value)


def select(rows: Columns, index: npt.ArrayLike) -> Columns:
    """Return the rows at the positions, or where a mask is true."""
    at = np.asarray(index)
    return {name: column[at] for name, column in rows.items()}


def join(parts: Sequence[Columns]) -> Columns:
    """Return the rows of several tables, one after another; a column that one of them lacks is None there."""
    names = list(dict.fromkeys(name for part in parts for name in part))
    return {
        name: np.concatenate([p[name] if name in p else np.full(len(p["event_id"]), None, dtype=object) for p in parts]) for name in names
    }


def _duration(value: str | timedelta) -> timedelta:
    return parse_duration(value)


@attrs.frozen
class _Fault:
    """Nothing happens: the part that most faults share."""

    def rows(self, rows: Columns, day: int, rng: np.random.Generator, market: Market) -> Columns:
        """Return the rows as they are."""
        return rows

    def platforms(self, platforms: Mapping[str, SimulatedPlatform], market: Market) -> None:
        """Leave the platforms as they are."""


@attrs.frozen
class MissingTags(_Fault):
    """A share of touch rows loses the tags below the platform.

    Args:
        share: Share of clicks and logged views.
        from_day: First day.
        campaign: Only this campaign's, None for all.
        fields: The tags that are lost.
    """

    share: float = attrs.field(validator=_check_share)
    from_day: int = 0
    campaign: str | None = None
    fields: tuple[str, ...] = ("campaign", "audience", "creative", "placement")

    def rows(self, rows: Columns, day: int, rng: np.random.Generator, market: Market) -> Columns:
        """Return the rows with tags missing."""
        touched = np.isin(rows["kind"], ["click", "impression"]) & (rng.random(len(rows["kind"])) < self.share)
        if self.campaign is not None:
            touched &= rows["campaign"] == self.campaign
        if day < self.from_day:
            return rows
        return {**rows, **{name: np.where(touched, None, rows[name]) for name in self.fields}}


@attrs.frozen
class LateEvents(_Fault):
    """A share of a day's rows is delivered some days late.

    Args:
        share: Share of the rows of these kinds.
        by: How late, such as ``"2d"`` (whole days).
        from_day: First day.
        kinds: Kinds of rows.
    """

    share: float = attrs.field(validator=_check_share)
    by: timedelta = attrs.field(default=timedelta(days=2), converter=_duration)
    from_day: int = 0
    kinds: tuple[str, ...] = ("click", "conversion")
    _waiting: dict[int, list[Columns]] = attrs.field(factory=dict, init=False, repr=False, eq=False)

    def rows(self, rows: Columns, day: int, rng: np.random.Generator, market: Market) -> Columns:
        """Return what arrives on the day: the punctual rows, and those of earlier days."""
        if day == 0:
            self._waiting.clear()
        days = max(1, self.by // timedelta(days=1))
        late = np.isin(rows["kind"], self.kinds) & (rng.random(len(rows["kind"])) < self.share) & (day >= self.from_day)
        if late.any():
            moved = select(rows, late)
            at = np.array([t[:-1] for t in moved["recorded_at"]], dtype="datetime64[us]").astype(np.int64)
            moved["recorded_at"] = iso(at + days * (timedelta(days=1) // _US))
            self._waiting.setdefault(day + days, []).append(moved)
        arrived = self._waiting.pop(day, [])
        return join([select(rows, ~late), *arrived])


@attrs.frozen
class Duplicates(_Fault):
    """A share of rows is delivered twice, under the same event id."""

    share: float = attrs.field(validator=_check_share)
    from_day: int = 0

    def rows(self, rows: Columns, day: int, rng: np.random.Generator, market: Market) -> Columns:
        """Return the rows, some of them twice."""
        again = rng.random(len(rows["kind"])) < self.share
        return rows if day < self.from_day else join([rows, select(rows, again)])


@attrs.frozen
class WindowMismatch(_Fault):
    """A platform's own conversions, counted in its own window, are added to the rows as if they were more conversions.

    The rows carry the arm that the platform credits. Platforms that report at the time of the conversion do not tell when the touch was, so
    the touch stands at the conversion: a layer that adds such rows credits touches outside its window, and counts conversions twice.

    Args:
        window: The platform's click window, such as ``"28d"``.
        platform: Its name, None for every platform.
        from_day: First day.
    """

    window: timedelta = attrs.field(default=timedelta(days=28), converter=_duration)
    platform: str | None = None
    from_day: int = 0

    def names(self, market: Market) -> list[str]:
        """Return the platforms concerned."""
        known = sorted({str(a[0]) for a in market.arms})
        if self.platform is not None and self.platform not in known:
            raise ConfigurationError("the market has no such platform", "platform", self.platform, None, known)
        return known if self.platform is None else [self.platform]

    def platforms(self, platforms: Mapping[str, SimulatedPlatform], market: Market) -> None:
        """Let the platforms say in which window they report."""
        for name in self.names(market):
            vars(platforms[name])["reporting_window"] = AttributionWindow(click=format_duration(self.window), view="1d")

    def rows(self, rows: Columns, day: int, rng: np.random.Generator, market: Market) -> Columns:
        """Return the rows with the platform's claims added."""
        claims = market.claims
        if day < self.from_day or claims is None:
            return rows
        platform = np.array([a[0] for a in market.arms], dtype=object)
        mine = np.flatnonzero(np.isin(platform[claims.arm], self.names(market)))
        n = len(mine)
        added: Columns = {name: np.array([a[k] for a in market.arms], dtype=object)[claims.arm[mine]] for k, name in enumerate(TAG_COLUMNS)}
        at = iso(claims.at[mine])
        added |= {
            "event_id": np.array([f"p{day}-{i}" for i in range(n)], dtype=object),
            "kind": np.full(n, "conversion", dtype=object),
            "occurred_at": at,
            "recorded_at": at,
            "touch_at": at,
            "touch_kind": np.array(["click", "view"], dtype=object)[claims.touch_kind[mine]],
            "user_id": np.full(n, None, dtype=object),
            "conversion_type": np.full(n, "purchase", dtype=object),
            "cost": np.zeros(n),
            "value": claims.value[mine],
            "currency": np.full(n, market.scenario.currency, dtype=object),
            "quantity": np.ones(n, dtype=np.int64),
        }
        return join([rows, added])


@attrs.frozen
class WrongAttribution(_Fault):
    """A tracker stamps one campaign's tags on a share of all other clicks: credit goes where it was not earned.

    Args:
        share: Share of the other campaigns' clicks.
        campaign: The campaign that takes the credit, None for the market's last.
        from_day: First day.
    """

    share: float = attrs.field(validator=_check_share)
    campaign: str | None = None
    from_day: int = 0

    def rows(self, rows: Columns, day: int, rng: np.random.Generator, market: Market) -> Columns:
        """Return the rows with clicks under wrong tags."""
        names = [a[1] for a in market.arms]
        taker = self.campaign or str(names[-1])
        if taker not in names:
            raise ConfigurationError("the market has no such campaign", "campaign", taker, None, sorted({str(n) for n in names}))
        draw = rng.random(len(rows["kind"]))
        if day < self.from_day:
            return rows
        arm = market.arms[names.index(taker)]
        wrong = (rows["kind"] == "click") & (rows["campaign"] != taker) & (draw < self.share)
        return {**rows, **{name: np.where(wrong, arm[k], rows[name]) for k, name in enumerate(TAG_COLUMNS)}}


@attrs.frozen
class SilentPlatform(_Fault):
    """A platform's rows do not come at all for some days, and are lost.

    Args:
        platform: Its name.
        from_day: First day.
        days: How many days.
        share: Share of the rows that are lost.
    """

    platform: str
    from_day: int
    days: int = 1_000_000
    share: float = attrs.field(default=1.0, validator=_check_share)

    def rows(self, rows: Columns, day: int, rng: np.random.Generator, market: Market) -> Columns:
        """Return the rows of the other platforms."""
        lost = (rows["platform"] == self.platform) & (rng.random(len(rows["kind"])) < self.share)
        return select(rows, ~lost) if self.from_day <= day < self.from_day + self.days else rows


@attrs.frozen
class LostReplies(_Fault):
    """Platforms lose replies to changes; one half of those changes is applied all the same.

    Args:
        share: Share of the changes.
    """

    share: float = attrs.field(default=0.2, validator=_check_share)

    def platforms(self, platforms: Mapping[str, SimulatedPlatform], market: Market) -> None:
        """Let replies be lost."""
        for platform in platforms.values():
            platform.lost_replies = self.share


@attrs.frozen
class SlowChanges(_Fault):
    """Changes come into force later than usual.

    Args:
        latency: Shortest time, such as ``"6h"``.
        late_by: How much more, at random.
    """

    latency: timedelta = attrs.field(default=timedelta(hours=6), converter=_duration)
    late_by: timedelta = attrs.field(default=timedelta(hours=12), converter=_duration)

    def platforms(self, platforms: Mapping[str, SimulatedPlatform], market: Market) -> None:
        """Slow the platforms down."""
        for platform in platforms.values():
            platform.latency, platform.late_by = self.latency, self.late_by


@attrs.frozen
class Outage(_Fault):
    """A platform takes no request for some days, and then does again.

    Args:
        platform: Its name, None for every platform.
        from_day: First day.
        days: For how long.
    """

    from_day: int
    days: float
    platform: str | None = None

    def platforms(self, platforms: Mapping[str, SimulatedPlatform], market: Market) -> None:
        """Plan the outage."""
        since = market.day_start(self.from_day)
        for name, platform in platforms.items():
            if self.platform in (None, name):
                platform.outage(since, since + timedelta(days=self.days))


@attrs.frozen
class IgnoredChanges(_Fault):
    """Platforms say yes to a number of changes and apply none of them.

    Args:
        times: How many changes on each platform.
    """

    times: int = 3

    def platforms(self, platforms: Mapping[str, SimulatedPlatform], market: Market) -> None:
        """Let changes be ignored."""
        for platform in platforms.values():
            platform.fault("ignore", times=self.times)


@attrs.frozen
class AlteredBudgets(_Fault):
    """Someone else sets budgets on the platforms: on one day each becomes a multiple of what it was at the start.

    Args:
        day: The day, at 15:00 UTC.
        factor: Multiple of the budget at the start.
        platform: Its name, None for every platform.
    """

    day: int
    factor: float = 0.5
    platform: str | None = None

    def platforms(self, platforms: Mapping[str, SimulatedPlatform], market: Market) -> None:
        """Put the change into the platforms' books beforehand, from the budgets they start with."""
        at = market.day_start(self.day) + timedelta(hours=15)
        for name, platform in platforms.items():
            if self.platform in (None, name):
                for resource in platform.resources():
                    before = platform.budget_at(resource, market.day_start(0))
                    platform.alter(resource, Money(round(before.micros * self.factor), before.currency).rounded(), at=at)
