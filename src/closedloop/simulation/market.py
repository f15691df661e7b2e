"""A market with known truth, event by event and day by day.

Law of this file: the day's rows follow from (scenario, seed, day, budgets) and from the users who are still on their way to a conversion.
Each day has its own generator, so a replay of the same budgets gives the same rows in any process. Advertising causes conversions in one
way only: a click (or a view) of an arm causes one with the arm's own rate. Everything else that touches a converter, by any arm, is
credit without cause. So the truth needs no simulation: it is a curve.

How a day goes. Each arm spends about its budget and gets clicks from its Hill curve, times weekday and noise. Each click causes a
conversion with the arm's rate, some time later. Users who would have convert anyway enter the same *pool of users on their way*. Every arm
touches users of that pool, in proportion to its clicks: retargeting often, prospecting seldom. A conversion is then seen after a journey
over one or several arms, and any attribution model sees less than the truth.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from closedloop.errors import ConfigurationError, InputError
from closedloop.records.arms import TAG_COLUMNS, Arm
from closedloop.records.interval import FloatArray
from closedloop.records.moments import US_PER_DAY
from closedloop.simulation.curves import Truth, best_split, conversions_at, slope_at
from closedloop.simulation.holdouts import held_out
from closedloop.simulation.parameters import Parameters
from closedloop.simulation.pool import Claims, Pool, Tally
from closedloop.simulation.rows import Parts, rows_of
from closedloop.simulation.scenarios import Scenario

Int64 = npt.NDArray[np.int64]
Columns = dict[str, Any]
_LONGEST_DAYS = 30.0
_DAY_USERS = 10_000_000  # user numbers of one day; ordinary ones from 0, caused and organic converters from the offsets below
_CAUSED, _VIEWED, _ORGANIC = 4_000_000, 6_000_000, 8_000_000
_MAX_SPEND = 1e9


class Market:
    """A simulated market whose truth is known.

    Args:
        scenario: Its parameters.
        seed: Draws the arms' own parameters and every day's events.

    >>> from closedloop.simulation import small
    >>> market = Market(small(), seed=7)
    >>> rows = market.day(0, market.equal_split())
    >>> sorted(set(rows["kind"])), len(rows["event_id"]) > 1000
    (['click', 'conversion', 'impression', 'spend'], True)
    >>> market.cost_per_incremental(market.best_budgets(1400.0)) < market.cost_per_incremental(market.equal_split())
    True
    """

    def __init__(self, scenario: Scenario, seed: int = 0) -> None:
        self.scenario = scenario
        self.seed = int(seed)
        self.parameters = Parameters(scenario, self.seed)
        self.arms: tuple[Arm, ...] = self.parameters.arms
        self._position = {arm: i for i, arm in enumerate(self.arms)}
        self._pool = Pool.empty()
        self._claims: Claims | None = None
        self._tally: Tally | None = None
        self._held = np.zeros(len(self.arms))
        self._tests: tuple[Int64, Int64] = (np.zeros(len(self.arms), dtype=np.int64), np.zeros(len(self.arms), dtype=np.int64))
        self.next_day = 0

    # ---------------------------------------------------------------- truth

    def truth(self, day: int, budgets: Mapping[Arm, float]) -> Truth:
        """Return expected incremental conversions of a day's budgets, and what the next unit of spend would bring, by arm.

        The weekday's factor is in it; noise has mean 1 and is not.
        """
        spend = self.vector(budgets)
        value, half = self.parameters.curve(day)
        weekday = self.parameters.weekday(day)
        return Truth(conversions=conversions_at(spend, value * weekday, half), marginal=slope_at(spend, value * weekday, half), spend=spend)

    def cost_per_incremental(self, budgets: Mapping[Arm, float], day: int = 0) -> float:
        """Return spend per expected incremental conversion of a mean weekday in the regime of ``day``; infinite when nothing is caused."""
        spend = self.vector(budgets)
        caused = float(conversions_at(spend, *self.parameters.curve(day)).sum())
        return float(spend.sum() / caused) if caused > 0 else float("inf")

    def best_budgets(self, total: float, day: int = 0) -> dict[Arm, float]:
        """Return the split of a total that causes the most conversions in the regime of ``day`` (the oracle's)."""
        return dict(zip(self.arms, best_split(total, *self.parameters.curve(day)).tolist(), strict=True))

    def equal_split(self, total: float | None = None) -> dict[Arm, float]:
        """Return the same budget for every arm, by default of the scenario's total."""
        each = (self.scenario.total if total is None else total) / len(self.arms)
        return dict.fromkeys(self.arms, each)

    def vector(self, budgets: Mapping[Arm, float]) -> FloatArray:
        """Return budgets as an array in the order of ``arms``; an arm that is not named spends nothing.

        Raises:
            ConfigurationError: An arm is unknown.
            InputError: A budget is negative or not finite.
        """
        spend = np.zeros(len(self.arms))
        for arm, amount in budgets.items():
            if tuple(arm) not in self._position:
                raise ConfigurationError("the market has no such arm", "budgets", arm, None, [" / ".join(map(str, a)) for a in self.arms])
            if not 0.0 <= amount <= _MAX_SPEND:
                raise InputError(f"a budget lies between 0 and {_MAX_SPEND:g}", "budgets", amount, f"mend the budget of {arm}")
            spend[self._position[tuple(arm)]] = amount
        return spend

    def day_start(self, day: int) -> datetime:
        """Return midnight UTC at which a day begins."""
        start = self.scenario.start
        return datetime(start.year, start.month, start.day, tzinfo=UTC) + timedelta(days=day)

    # ---------------------------------------------------------------- events

    def day(self, day: int, budgets: Mapping[Arm, float], *, holdouts: Mapping[Arm, float] | None = None) -> Columns:
        """Return the events of one day as columns of equal length, in order of time.

        Times are ISO 8601 text in UTC ("2026-01-05T10:00:00.123456Z"), costs and values floats in units of the currency, missing tags and
        users None. Days come one after another, because conversions are caused days before they are seen.

        Args:
            day: The day, ``next_day`` and no other.
            budgets: Budget by arm in units of the currency.
            holdouts: By arm, the share of users, chosen at random once and for all, who are not shown the arm's ads. Nothing is paid for
                them, and the arm causes so much less. What the two groups did is in `holdout_counts`.

        Raises:
            InputError: It is another day's turn; see `replay` and `load`.
        """
        parts, impressions, money, rng = self._draw_day(day, budgets, holdouts)
        rows = rows_of(self, parts, impressions, money, rng, day)
        self.next_day = day + 1
        return rows

    def advance(self, day: int, budgets: Mapping[Arm, float], *, holdouts: Mapping[Arm, float] | None = None) -> Tally:
        """Let a day pass and return its sums only: the same market as by `day`, without the work of making rows.

        Args:
            day: As in `day`.
            budgets, holdouts: As in `day`.

        Raises:
            InputError: As in `day`.
        """
        self._draw_day(day, budgets, holdouts)
        self.next_day = day + 1
        return self.tally

    @property
    def tally(self) -> Tally:
        """The last day's sums by arm.

        Raises:
            InputError: No day has passed.
        """
        if self._tally is None:
            raise InputError("no day has passed", "next_day", self.next_day, "call day() or advance() first")
        return self._tally

    def _draw_day(
        self, day: int, budgets: Mapping[Arm, float], holdouts: Mapping[Arm, float] | None
    ) -> tuple[Parts, Int64, FloatArray, np.random.Generator]:
        if day != self.next_day:
            raise InputError(f"the market stands at day {self.next_day}", "day", day, "call replay() or load() to stand elsewhere")
        spend = self.vector(budgets)
        self._held = self.vector(holdouts or {})
        if self._held.max() >= 1.0:
            raise InputError(
                "a held-out share lies in [0, 1)", "holdouts", float(self._held.max()), "hold out less, or set the budget to 0"
            )
        rng = np.random.default_rng([self.seed, 3, day])
        s, arms = self.scenario, len(self.arms)
        rate, cpc = self.parameters.on(day)
        first_us = int((self.day_start(day) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))

        spent = spend * np.exp(rng.normal(0.0, 1.0, arms) * s.spend_noise - s.spend_noise**2 / 2)
        noise = rng.normal(0.0, 1.0, arms) * s.day_noise[0] + rng.normal() * s.day_noise[1]
        noise -= (s.day_noise[0] ** 2 + s.day_noise[1] ** 2) / 2
        expected = spent * self.parameters.half / (cpc * (self.parameters.half + spent)) * self.parameters.weekday(day) * np.exp(noise)
        clicks = rng.poisson(expected)
        caused = rng.binomial(clicks, rate)
        seen = rng.poisson(clicks * rate * self.parameters.views)
        parts = Parts(first_us)

        self._add_ordinary(parts, rng, day, clicks - caused)
        self._add_converters(parts, rng, day, caused, seen)
        self._add_pool_touches(parts, rng, day, clicks)
        self._add_conversions(parts, rng, day)
        impressions = (rng.poisson(clicks / s.click_through) * (1.0 - self._held)).astype(np.int64)
        money = np.round(spent * (1.0 - self._held), 2)
        claims = self._claims
        if claims is not None:
            self._tally = Tally(
                clicks=np.bincount(np.concatenate([p[1] for p in parts.pieces if p[0] == 1]), minlength=arms),
                spent=money,
                last_click=np.bincount(claims.last_click_arm, minlength=arms),
                claimed=np.bincount(claims.arm, minlength=arms),
                conversions=claims.conversions,
            )
        return parts, impressions, money, rng

    def _moments(self, rng: np.random.Generator, first_us: int, n: int) -> Int64:
        """Return moments in a day, with a rise to the evening (Beta(2, 1.5) over the day)."""
        return first_us + (rng.beta(2.0, 1.5, n) * (US_PER_DAY - 1)).astype(np.int64)

    def _delays(self, rng: np.random.Generator, n: int) -> Int64:
        """Return delays in microseconds: at once for a share, lognormal cut at 30 days for the others."""
        s = self.scenario
        top = ndtr(np.log(_LONGEST_DAYS / s.delay_days) / s.delay_spread)
        slow = s.delay_days * np.exp(s.delay_spread * ndtri(rng.uniform(1e-9, top, n)))
        fast = rng.exponential(0.3, n).clip(0.01, 1.0) / 24.0
        days = np.where(rng.random(n) < s.at_once, fast, slow)
        return np.maximum((days * US_PER_DAY).astype(np.int64), 1_000_000)

    def _add_ordinary(self, parts: Parts, rng: np.random.Generator, day: int, clicks: Int64) -> None:
        n = int(clicks.sum())
        arm = np.repeat(np.arange(len(clicks)), clicks)
        users = day * _DAY_USERS + np.arange(n)
        back = rng.integers(1, 8, n)
        again = (rng.random(n) < self.scenario.repeat) & (back <= day)
        users[again] = (day - back[again]) * _DAY_USERS + rng.integers(0, max(n, 1), int(again.sum()))
        at = self._moments(rng, parts.first_us, n)
        parts.add("click", *self._shown(arm, users, at))
        views = rng.poisson(clicks * self.scenario.logged_views)
        m = int(views.sum())
        arm, at = np.repeat(np.arange(len(clicks)), views), self._moments(rng, parts.first_us, m)
        parts.add("view", *self._shown(arm, day * _DAY_USERS + n + np.arange(m), at))

    def _shown(self, arm: Int64, users: Int64, at: Int64) -> tuple[Int64, Int64, Int64]:
        """Return the touches of users who are not held out of that arm."""
        kept = ~held_out(users, arm, self._held, self.seed)
        return arm[kept], users[kept], at[kept]

    def _add_converters(self, parts: Parts, rng: np.random.Generator, day: int, caused: Int64, seen: Int64) -> None:
        organic = rng.poisson(self.scenario.organic * self.parameters.weekday(day))
        for kind, counts, offset in (("click", caused, _CAUSED), ("view", seen, _VIEWED)):
            n = int(counts.sum())
            users = day * _DAY_USERS + offset + np.arange(n)
            at = self._moments(rng, parts.first_us, n)
            arm = np.repeat(np.arange(len(counts)), counts)
            delays = self._delays(rng, n)
            if kind == "view":  # what a view causes comes sooner: most platforms count it for a day only
                delays = np.maximum(delays // 4, 1_000_000)
            kept = ~held_out(users, arm, self._held, self.seed)  # who is held out is not shown the ad, and is not convinced
            arm, users, at, delays = arm[kept], users[kept], at[kept], delays[kept]
            parts.add(kind, arm, users, at)
            self._enter(users, at, at + delays, arm, kind)
        users = day * _DAY_USERS + _ORGANIC + np.arange(organic)
        at = self._moments(rng, parts.first_us, organic)
        self._enter(users, at, at + self._delays(rng, organic), None, "click")

    def _enter(self, users: Int64, born: Int64, converts: Int64, arm: Int64 | None, kind: str) -> None:
        pool = self._pool
        pool.user = np.concatenate([pool.user, users])
        pool.born_us = np.concatenate([pool.born_us, born])
        pool.converts_us = np.concatenate([pool.converts_us, converts])
        if arm is not None:
            self._note_touches(users, arm, born, kind)
            pool.note_test(users, arm, self._held[arm] > 0, np.zeros(len(users), dtype=bool))

    def _note_touches(self, users: Int64, arm: Int64, at: Int64, kind: str) -> None:
        pool = self._pool
        pool.touch_user = np.concatenate([pool.touch_user, users])
        pool.touch_arm = np.concatenate([pool.touch_arm, arm])
        pool.touch_us = np.concatenate([pool.touch_us, at])
        pool.touch_kind = np.concatenate([pool.touch_kind, np.full(len(users), 0 if kind == "click" else 1, dtype=np.int64)])

    def _usual_pool(self) -> float:
        """Return the usual number of organic users on their way at one time: those of a day times their mean stay."""
        s = self.scenario
        mean_days = (1 - s.at_once) * min(s.delay_days * float(np.exp(s.delay_spread**2 / 2)), _LONGEST_DAYS)
        return max(s.organic * max(mean_days, 0.5), 1.0)

    def _add_pool_touches(self, parts: Parts, rng: np.random.Generator, day: int, clicks: Int64) -> None:
        """Every arm touches users who are on their way already, and earns nothing by it."""
        pool = self._pool
        here = len(pool.user)
        for kind, per_click in (("click", self.parameters.touched), ("view", self.parameters.touched * self.scenario.logged_views)):
            reach = -np.expm1(-per_click * clicks / self._usual_pool())
            touched = rng.binomial(here, reach)
            n = int(touched.sum())
            who = rng.integers(0, max(here, 1), n)
            if not here:
                return
            begin = np.maximum(pool.born_us[who], parts.first_us)
            end = np.minimum(pool.converts_us[who], parts.first_us + US_PER_DAY - 1)
            at = begin + (rng.random(n) * np.maximum(end - begin, 0)).astype(np.int64)
            inside = at < pool.converts_us[who]
            arm, users, at = np.repeat(np.arange(len(clicks)), touched)[inside], pool.user[who[inside]], at[inside]
            out = held_out(users, arm, self._held, self.seed)
            pool.note_test(users, arm, self._held[arm] > 0, out)
            parts.add(kind, arm[~out], users[~out], at[~out])
            self._note_touches(users[~out], arm[~out], at[~out], kind)

    def _add_conversions(self, parts: Parts, rng: np.random.Generator, day: int) -> None:
        pool = self._pool
        now = pool.converts_us < parts.first_us + US_PER_DAY
        users, at = pool.user[now], pool.converts_us[now]
        value = np.zeros(len(users))
        if self.scenario.value is not None:
            value = np.round(self.scenario.value[0] * np.exp(rng.normal(0.0, 1.0, len(users)) * self.scenario.value[1]), 2)
        parts.add("conversion", np.full(len(users), -1), users, at, value)
        done = np.isin(pool.touch_user, users)
        self._tests = pool.settle_tests(users, len(self.arms))
        touches = (pool.touch_user[done], pool.touch_arm[done], pool.touch_us[done], pool.touch_kind[done])
        self._claims = Claims(self, users, at, value, *touches)
        pool.user, pool.born_us, pool.converts_us = pool.user[~now], pool.born_us[~now], pool.converts_us[~now]
        for name in ("touch_user", "touch_arm", "touch_us", "touch_kind"):
            setattr(pool, name, getattr(pool, name)[~done])

    def holdout_counts(self, arm: Arm) -> tuple[int, int]:
        """Return the last day's conversions of users whom an arm's holdout reached: (treated, held out).

        Counted are users whom the arm touched, or would have touched, while it was tested; each once for an arm. With the odds of treatment
        ``(1 - share) / share``, ``treated - odds * held out`` estimates without bias what the arm caused among them.
        """
        k = self._position[tuple(arm)]
        return int(self._tests[0][k]), int(self._tests[1][k])

    def report(self) -> Columns:
        """Return what each platform says of the last day, in its own window: conversions by platform and campaign.

        A platform sees its own touches only and claims every conversion that one of them precedes within its click window (views: 1 day),
        so the claims of all platforms together exceed the conversions. Columns: platform, campaign, conversions, value, window_days, day.
        """
        return {} if self._claims is None else self._claims.report()

    @property
    def claims(self) -> Claims | None:
        """What platforms claim of the last day's conversions, one by one; None before the first day."""
        return self._claims

    # ---------------------------------------------------------------- memory

    def replay(self, history: Iterable[Mapping[Arm, float]]) -> None:
        """Stand after the days of ``history``, from day 0: the same budgets lead to the same market.

        Args:
            history: The budgets of each day so far, in order.
        """
        self._pool, self.next_day = Pool.empty(), 0
        for day, budgets in enumerate(history):
            self.advance(day, budgets)

    def save(self) -> bytes:
        """Return the market's memory, to go on elsewhere with `load`."""
        store = io.BytesIO()
        arrays = attrs.asdict(self._pool, recurse=False)
        np.savez_compressed(store, stand=np.array([self.seed, self.next_day, len(self.arms)]), **arrays)
        return store.getvalue()

    def load(self, saved: bytes) -> None:
        """Stand where `save` stood.

        Raises:
            InputError: It was saved by a market of another seed or size.
        """
        with np.load(io.BytesIO(saved), allow_pickle=False) as arrays:
            stand = arrays["stand"].tolist()
            if [stand[0], stand[2]] != [self.seed, len(self.arms)]:
                raise InputError(
                    "saved by another market", "saved", (stand[0], stand[2]), f"this one has seed {self.seed}, {len(self.arms)} arms"
                )
            self._pool = Pool(**{f.name: arrays[f.name] for f in attrs.fields(Pool)})
            self.next_day = int(stand[1])


COLUMNS: tuple[str, ...] = (
    "event_id", "kind", "occurred_at", "recorded_at", "user_id", *TAG_COLUMNS, "conversion_type", "cost", "value", "currency", "quantity",
)  # fmt: skip
