"""`WindowedAttribution`: events to credited outcomes by arm and cohort, inside one window.

Law of this file: pure; time comes in as ``now`` and never makes data look more complete than their own watermark. Every cohort that can
still change is restated at every call, none is ever incremented.

References:
    STATISTICS sections 2 and 10. Brown, Cai & DasGupta (2001), Interval estimation for a binomial proportion (the Jeffreys interval).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs
import numpy as np

from closedloop.attribute.absorb import absorb
from closedloop.attribute.chains import channel_codes, unit_credits, whole_journeys
from closedloop.attribute.cohorts import Open, closed_before, delay_bins, settle
from closedloop.attribute.curves import curves_of, groups_of
from closedloop.attribute.event_credit import arm_intervals, channel_credit
from closedloop.attribute.global_credit import GLOBAL
from closedloop.attribute.heuristics import Rule
from closedloop.attribute.intervals import credit_intervals
from closedloop.attribute.journeys import Credits, join, journeys_of, last_touch, own_credits, participations, rule_credits
from closedloop.attribute.path_credit import RULES, rule_of
from closedloop.attribute.pathbook import PathBook
from closedloop.attribute.rewindow import rewindow
from closedloop.attribute.rows import CONVERSION
from closedloop.attribute.state import AttributionState, Terms
from closedloop.attribute.tables import ONE, Table
from closedloop.errors import ConfigurationError
from closedloop.interfaces import State
from closedloop.records.action import Receipt
from closedloop.records.arms import IntArray
from closedloop.records.batch import EventBatch
from closedloop.records.interval import FloatArray, Intervals
from closedloop.records.moments import US_PER_DAY, format_duration, parse_duration, to_us
from closedloop.records.money import MICROS
from closedloop.records.outcomes import Cohorts, ConversionDays, DelayCurve, Outcomes, SpendDays
from closedloop.records.tags import TagSchema
from closedloop.records.window import TOUCH_KINDS, AttributionWindow
from closedloop.stats.delay import maturity, reach

MODELS = (*RULES, *GLOBAL)
_DAY = timedelta(days=1)


def _whole_days(value: str | timedelta, field: str) -> int:
    days = math.ceil(parse_duration(value, field) / _DAY)
    if not 0 <= days <= 10_000:
        raise ConfigurationError("a number of days lies between 0 and 10000", field, str(value))
    return days


def _model_name(
    model: str | Rule, direct: Sequence[str], half_life: str | timedelta, ends: tuple[float, float], channel: str, order: int
) -> str:
    """Return a name that tells models with different options apart."""
    if not isinstance(model, str):
        return f"own:{getattr(model, '__name__', type(model).__name__)}"
    options = {
        "last_non_direct": "/".join(sorted(direct)),
        "time_decay": format_duration(parse_duration(half_life, "half_life")),
        "position": f"{ends[0]:g}-{ends[1]:g}",
        "markov": channel if order == 1 else f"{channel}, order {order}",
        "fractribution": channel,
        "shapley_rate": channel,
    }
    return f"{model}({options[model]})" if model in options else model


@attrs.frozen(kw_only=True, eq=False)
class _Clock:
    """Up to when the data behind each arm are complete.

    ``until`` is microseconds UTC per arm; ``newest`` is the newest day of all data.
    """

    until: IntArray
    newest: int


class WindowedAttribution:
    """Credit conversions to touches inside one window, restated at every call.

    Conversions with a user are matched to that user's touches: clicks at most ``window.click`` before, impressions at most
    ``window.view`` before. Conversions that carry ``touch_at`` were credited by their own source and are checked against the window.
    With ``last`` the last click beats any view; every other model shares a conversion among clicks *and* views inside their windows.
    Models of whole journeys (``markov``, ``fractribution``, ``shapley_rate``) credit channels from all kept journeys, and hand a channel's
    credit to its touches, evenly over the converting journeys that contain it; their intervals come from the bootstrap over journeys.
    Untagged events take part as incomplete arms.

    Args:
        window: The attribution window.
        model: One of `MODELS`, or a function that weighs `Touches` (their channel is the arm, their age in days).
        tags: The tag columns of an arm.
        conversion_type: The conversion type that counts; None counts all.
        lateness: How long after it happened an event may still be written down (whole days, rounded up); later ones are refused and
            counted.
        history: How long settled cohorts are kept.
        level: Level of the intervals of credit.
        direct: For ``last_non_direct``: values of the arm's first tag that mean direct traffic.
        half_life: For ``time_decay``.
        ends: For ``position``: shares of the first and the last touch.
        channel: For models of whole journeys: the tag whose values are the channels, by default platform, or else the arm's first tag.
        order: For ``markov``: how many of the last channels make a state.
        replicates: For models of whole journeys: bootstrap replicates, at least 20.
        delay_groups: Tags of the arm that make groups with a delay curve of their own, shrunk to the pooled one; platform, where it is one,
            when None.
        keep: How long events are kept as rows at least, so that `rewindow` can go on with another window or model.
        participation: Also return ``Outcomes.participation``: what each arm took part in, whoever is credited. Days that a state settled
            before it was asked for stand there as they were credited.

    Raises:
        ConfigurationError: An argument is not valid.

    >>> WindowedAttribution(AttributionWindow()).attribute(EventBatch.empty()).n_conversions
    0
    """

    def __init__(
        self,
        window: AttributionWindow,
        *,
        model: str | Rule = "last",
        tags: TagSchema | None = None,
        conversion_type: str | None = None,
        lateness: str | timedelta = "3d",
        history: str | timedelta = "180d",
        level: float = 0.9,
        direct: Sequence[str] = (),
        half_life: str | timedelta = "7d",
        ends: tuple[float, float] = (0.4, 0.4),
        channel: str | None = None,
        order: int = 1,
        replicates: int = 200,
        delay_groups: Sequence[str] | None = None,
        keep: str | timedelta = "0d",
        participation: bool = False,
    ) -> None:
        if isinstance(model, str) and model not in MODELS:
            mend = "give a function of Touches, or use attribute_paths(event_paths(...))"
            raise ConfigurationError("unknown attribution model", "model", model, mend, MODELS)
        columns = (tags or TagSchema()).arm
        channel = channel or ("platform" if "platform" in columns else columns[0])
        if channel not in columns:
            raise ConfigurationError("a channel is a tag of the arm", "channel", channel, None, columns)
        if delay_groups is None:
            delay_groups = ("platform",) if "platform" in columns else ()
        for name in delay_groups:
            if name not in columns:
                raise ConfigurationError("groups of delays are made of tags of the arm", "delay_groups", name, None, columns)
        if not 1 <= order <= 8:
            raise ConfigurationError("a Markov order lies between 1 and 8", "order", order)
        if replicates < 20:
            raise ConfigurationError("a bootstrap has at least 20 replicates", "replicates", replicates, "use 200")
        if not 0.0 < level < 1.0:
            raise ConfigurationError("a level lies between 0 and 1", "level", level, "use 0.9 for a 90 % interval")
        self._terms = Terms(
            window=window,
            columns=columns,
            conversion_type=conversion_type,
            lateness=_whole_days(lateness, "lateness"),
            history=_whole_days(history, "history"),
            model=_model_name(model, direct, half_life, ends, channel, order),
            keep=_whole_days(keep, "keep"),
        )
        self._level = level
        self._channel, self._order, self._replicates = channel, order, replicates
        self._delay_groups = tuple(delay_groups)
        self._model = model
        self._direct = tuple(direct)
        self._participation = participation
        self._half_life, self._ends = parse_duration(half_life, "half_life") / _DAY, ends
        if model not in GLOBAL:
            self._rule(["?"])  # says now what is wrong with the options

    @property
    def window(self) -> AttributionWindow:
        """The attribution window."""
        return self._terms.window

    def __repr__(self) -> str:
        return f"WindowedAttribution({self.window}, model={self._terms.model!r}, arm={'/'.join(self._terms.columns)})"

    def attribute(
        self, batch: EventBatch, receipts: Sequence[Receipt] = (), *, state: State | None = None, now: datetime | None = None
    ) -> Outcomes:
        """Return the outcomes of all events seen: those in ``state`` and the batch's.

        Args:
            batch: New events, in any order; copies of events seen before are harmless.
            receipts: Not needed by this attribution: what was done to budgets does not change who converted.
            state: ``outcomes.state`` of the call before, None to start. It is not changed.
            now: When this is; data from after it do not count as complete. The newest record of the data when None.

        Raises:
            WindowMismatchError: The state was made under another window.
            ConfigurationError: The state is of another kind or was made under other terms.
            InputError: The batch has another currency than the events before.
        """
        if state is None:
            state = AttributionState.start(self._terms)
        if not isinstance(state, AttributionState):
            raise ConfigurationError("not a state of this attribution", "state", type(state).__name__, "give outcomes.state back")
        self._terms.check(state.terms)
        now_us = None if now is None else to_us(now)
        before = absorb(attrs.evolve(state, terms=self._terms), batch, now_us)
        limits = self.window.limits_us()
        own = own_credits(before.rows, limits)
        group = groups_of(before.arms, self._delay_groups)[2]
        journeys = None
        if self._model not in GLOBAL:
            credits = join([own, self._matched(before, limits)])
        else:
            names, code = channel_codes(before.arms, self._channel)
            j = journeys_of(before.rows, limits)
            until = max(before.watermark.values(), default=0)
            journeys, rows = whole_journeys(before.rows, j, own, names, code, limits, closed_before(before), until)
            credits = join([own, unit_credits(before.rows, j, code)])
            before = attrs.evolve(before, rows=rows)
        settled, open_part = settle(before, credits, group, journeys)
        clock = self._clock(settled, now_us)
        if not self._participation:
            return self._outcomes(settled.without_participation(), open_part, clock)
        joined, open_joined = settle(before.of_participation(), join([own, participations(before.rows, limits)]), group)
        settled = attrs.evolve(settled, joined=joined.cohorts, joined_delays=joined.delays)
        outcomes = self._outcomes(settled, open_part, clock)
        return attrs.evolve(outcomes, participation=self._outcomes(joined, open_joined, clock, participation=True))

    def _matched(self, state: AttributionState, limits: IntArray) -> Credits:
        if self._model == "last":  # clicks before views, and no need to list whole journeys
            return last_touch(state.rows, limits)
        first_tag = state.arms.column(self._terms.columns[0]).decode()
        return rule_credits(state.rows, limits, self._rule(["" if tag is None else tag for tag in first_tag]))

    def _rule(self, channels: Sequence[str]) -> Rule:
        return rule_of(self._model, channels, direct=self._direct, half_life=self._half_life, ends=self._ends)

    def load(self, data: bytes) -> AttributionState:
        """Return the state saved by its ``to_bytes``.

        Raises:
            InputError: The bytes are no saved state.
            ConfigurationError: The state was made under other terms.
        """
        state = AttributionState.from_bytes(data)
        self._terms.check(state.terms)
        return state

    def rewindow(self, state: State) -> AttributionState:
        """Return a state of this attribution from the events that another one's still holds: another window or model, nothing read again.

        Outcomes begin on the first day that is whole: one window after the first day whose rows are all held. Set ``keep`` to hold more
        days than the window needs.

        Args:
            state: ``outcomes.state`` of an attribution with the same tags and conversion type.

        Raises:
            ConfigurationError: It is no state of attribution, or one of other tags or another conversion type.
        """
        if not isinstance(state, AttributionState):
            raise ConfigurationError("not a state of attribution", "state", type(state).__name__, "give outcomes.state")
        return rewindow(state, self._terms)

    def merge(self, one: AttributionState, other: AttributionState) -> AttributionState:
        """Return the state of both; exact when they were fed different users, or when neither has settled a day yet."""
        return one.merge(other)

    def _clock(self, state: AttributionState, now_us: int | None) -> _Clock:
        """Return up to when each arm's conversions are complete.

        An arm whose platform credits its own conversions is complete up to that platform's watermark; otherwise the conversions come from a
        feed of their own, judged by its last record plus its mean gap, at most the newest watermark.
        """
        arms, rows = state.arms, state.rows
        newest = max(state.watermark.values(), default=0)
        until = np.full(len(arms), newest, dtype=np.int64)
        own = rows.own_credit
        matched = np.sort(rows.seen[(rows.kind == CONVERSION) & ~own])
        if "platform" in arms.columns and len(arms):
            platform = arms.column("platform")
            by_platform = np.array([state.watermark.get(p, newest) for p in [*platform.vocab, ""]], dtype=np.int64)
            until = by_platform[platform.codes]
            reports = np.zeros(len(by_platform), dtype=np.bool_)
            reports[platform.codes[rows.arm[own]]] = True
            credits_itself = reports[platform.codes]
        else:
            credits_itself = np.full(len(arms), bool(own.any()))
        if len(matched):
            feed = int(reach(float(matched[-1]), float(matched[0]), len(matched), float(newest)))
            until = np.where(credits_itself, until, feed)
        return _Clock(until=until if now_us is None else np.minimum(until, now_us), newest=newest // US_PER_DAY)

    def _outcomes(self, state: AttributionState, now_open: Open, clock: _Clock, *, participation: bool = False) -> Outcomes:
        cohorts = Table.add([state.cohorts, now_open.cohorts])
        arm, day, kind = (cohorts.keys[name] for name in ("arm", "day", "kind"))
        closed = clock.newest - self._terms.lateness - self.window.longest_days
        reached = clock.until // US_PER_DAY
        age = np.where(day < closed, np.maximum(clock.newest - day, 0), reached[arm] - day)
        fraction = (clock.until % US_PER_DAY / US_PER_DAY)[arm]
        used = np.unique(arm)
        group = np.zeros(len(state.arms), dtype=np.int64)
        labels, group[used], _ = groups_of(state.arms.take(used), self._delay_groups)
        curves: dict[str, DelayCurve] = {}
        by_group: dict[str, dict[str, DelayCurve]] = {}
        mature = np.zeros(len(cohorts))
        for code, name in enumerate(TOUCH_KINDS):
            if delay_bins(self._terms, code):
                found = curves_of(code, state, now_open.entries, now_open.is_open, reached, labels, group)
                curves[name] = found.pooled
                of_kind = kind == code
                of_group = group[arm[of_kind]] if found.by_group else np.zeros(int(of_kind.sum()), dtype=np.int64)
                mature[of_kind] = maturity(found.seen, age[of_kind], fraction[of_kind], of_group)
                if found.by_group:
                    by_group[name] = dict(found.by_group)
        mature[day < closed] = 1.0
        seen = {name: state.days.sums[name] for name in ("conversions", "uncredited")}
        days = Table.add([Table(keys=state.days.keys, sums=seen), now_open.days])
        sums = cohorts.sums
        credit, credit_squared = sums["credit"] / ONE, sums["credit_squared"] / ONE
        value, value_squared = sums["value"] / MICROS, np.asarray(sums["value_squared"], dtype=np.float64)
        intervals = None
        if self._model in GLOBAL and not participation:
            factor, intervals = self._scaled(state, now_open, arm, credit, credit_squared, value)
            credit, credit_squared = credit * factor[0][arm], credit_squared * factor[0][arm] ** 2
            value, value_squared = value * factor[1][arm], value_squared * factor[1][arm] ** 2
        spend = Table.add([state.spend, now_open.spend])
        compact = None if participation else state.compact()
        # An arm without exposure or spend is only a conversion's own lack of tags: nothing to rank or to hold.
        shown = np.unique(np.concatenate([arm, spend.keys["arm"]]))
        position = np.full(len(state.arms), -1, dtype=np.int32)
        position[shown] = np.arange(len(shown))
        shown_arms = state.arms.take(shown)
        return Outcomes(
            window=self.window,
            arms=shown_arms,
            cohorts=Cohorts(
                arm=position[arm],
                day=day.astype(np.int32),
                kind=kind.astype(np.int8),
                exposures=sums["exposures"].astype(np.float64),
                credit=credit,
                credit_squared=credit_squared,
                value=value,
                value_squared=value_squared,
                maturity=mature,
                age=np.maximum(age, 0).astype(np.int32),
            ),
            spend=SpendDays(arm=position[spend.keys["arm"]], day=spend.keys["day"].astype(np.int32), spend=spend.sums["spend"] / MICROS),
            delay=curves,
            credits=credit_intervals(position[arm].astype(np.int64), credit, credit_squared, len(shown), self._level)
            if intervals is None
            else intervals.take(shown),
            conversion_type=self._terms.conversion_type,
            model="participation" if participation else self._terms.model,
            currency=state.currency,
            watermark=dict(state.watermark),
            revision=state.revision,
            n_conversions=int(days.sums["conversions"].sum()),
            n_uncredited=int(days.sums["uncredited"].sum()),
            daily=ConversionDays.of(days.keys["day"], days.sums["conversions"], days.sums["uncredited"]),
            n_too_late=state.n_too_late,
            state=None if participation else compact,
            delay_by_group=by_group,
        )

    def _scaled(
        self, state: AttributionState, now_open: Open, arm: IntArray, credit: FloatArray, squared: FloatArray, value: FloatArray
    ) -> tuple[tuple[FloatArray, FloatArray], Intervals]:
        """Return what a unit of credit (in conversions, in revenue) of each arm is worth under the model, and the arms' intervals."""
        n = len(state.arms)
        own_names, channel = channel_codes(state.arms, self._channel)
        book = PathBook.add([state.book, now_open.book])
        names = tuple(sorted({*own_names, *book.channels}))  # a path may hold a channel whose arms are forgotten already
        channel = np.searchsorted(np.array(names, dtype=str), np.array(own_names, dtype=str))[channel] if n else channel
        paths = book.over(names).paths()
        units, units_squared, value_units = (np.bincount(arm, weights=x, minlength=n).astype(np.float64) for x in (credit, squared, value))
        of_channel = [np.bincount(channel, weights=x, minlength=len(names)).astype(np.float64) for x in (units, value_units)]
        rng = np.random.default_rng(0)  # the same events have the same intervals
        found = channel_credit(paths, str(self._model), self._order, of_channel[0], of_channel[1], self._replicates, rng)
        worth = _per_unit(found.conversions, of_channel[0])[channel], _per_unit(found.value, of_channel[1])[channel]
        return worth, arm_intervals(channel, units * worth[0], units, units_squared, found, self._level, rng)


def _per_unit(total: FloatArray, units: FloatArray) -> FloatArray:
    """Return what one unit share of each channel is worth: the channel's credit over its summed unit shares (0 without any)."""
    return np.divide(total, units, out=np.zeros(len(total)), where=units > 0)


__all__ = ["MODELS", "WindowedAttribution"]
