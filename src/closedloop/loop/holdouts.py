"""Rolling holdouts: which arm to test next, what is asked of its platform, and what is learned from both groups.

Law of this file: a holdout is in the ledger before its platform is asked, under an id that makes asking again harmless; so a killed cycle
resumes it. A test is learned from once, in the transaction that closes it. Platforms that cannot hold users out are never asked.

Which next: the arm whose share of all caused conversions, at the current budgets, is least certain. What is uncertain about all arms
alike cancels in that share, so an account of equal arms is not tested for ever. An arm is tested while the answer is worth more than it
costs. The answer moves its budget by about its relative uncertainty ``u``, and on a concave curve of elasticity one half that wins about
``u^2 / 4`` of its conversions a day, for ``use_days`` days (half of the ``u^2 / 2`` of knowing it all: one test halves the variance). The
cost is ``share`` of its conversions for ``days`` days. STATISTICS.md section 8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import attrs
import numpy as np

from closedloop.decide import default_target
from closedloop.errors import ConfigurationError, PlatformError, RejectedError
from closedloop.interfaces import Ledger, RunsHoldouts
from closedloop.loop.recording import holdout_entry, lift_entry
from closedloop.records.action import Entry
from closedloop.records.arms import Arm
from closedloop.records.codec import decode, encode
from closedloop.records.decision import Target
from closedloop.records.holdout import HoldoutCounts
from closedloop.records.interval import FloatArray
from closedloop.records.lift import LiftResult
from closedloop.records.moments import US_PER_DAY, to_us
from closedloop.records.outcomes import Outcomes
from closedloop.records.signal import Signals

_DRAWS = 1000


@attrs.frozen(kw_only=True)
class HoldoutPolicy:
    """How a loop tests whether credit was caused.

    Args:
        share: Share of users who are not shown an arm's ads while it is tested, in (0, 0.5].
        days: How long a test runs.
        at_once: Arms tested at one time.
        stop: Smallest uncertainty that is worth a test: the standard deviation of an arm's share of all caused conversions.
        use_days: Days for which what a test says is used; an arm is tested while the answer is worth more than it costs.
        again: Days after which an arm may be tested again.
        least_days: Days of spend before an arm is tested.
        in_shadow: Test while the loop watches in ``shadow`` mode too: budgets stay, users are held out.
    """

    share: float = 0.2
    days: int = 8
    at_once: int = 2
    stop: float = 0.006
    use_days: int = 60
    again: int = 42
    least_days: int = 3
    in_shadow: bool = False

    def __attrs_post_init__(self) -> None:
        if not 0.0 < self.share <= 0.5:
            raise ConfigurationError("a held-out share lies in (0, 0.5]", "share", self.share)
        for name in ("days", "at_once", "use_days", "again", "least_days"):
            if getattr(self, name) < 1:
                raise ConfigurationError("is at least 1", name, getattr(self, name))
        if not 0.0 <= self.stop < 1.0:
            raise ConfigurationError("lies in [0, 1)", "stop", self.stop)


@attrs.frozen(kw_only=True)
class Holdout:
    """A holdout that the loop asked for.

    Args:
        holdout_id: Its id.
        arm, target: What is tested.
        share, days: As asked.
        asked_at: When.
        state: ``asked`` (perhaps in force), ``running``, ``learned`` (a lift test stands in the ledger), ``void`` (nothing to learn).
        uncertainty: Standard deviation of the arm's share of all caused conversions when it was chosen.
        cost: Conversions that it was expected to cost.
        note: Why it is void, or what the platform said.
        begun_at: When the platform said yes, None before.
    """

    holdout_id: str
    arm: Arm
    target: Target
    share: float
    days: int
    asked_at: datetime
    state: str
    uncertainty: float
    cost: float
    note: str = ""
    begun_at: datetime | None = None

    def body(self) -> dict[str, Any]:
        """Return it as plain content."""
        return {f.name: encode(getattr(self, f.name)) for f in attrs.fields(type(self))}

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Holdout:
        """Return it from plain content."""
        content = {name: decode(part) for name, part in body.items()}
        return cls(**{**content, "arm": tuple(content["arm"])})


def uncertainty(signals: Signals, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return standard deviation and mean of each arm's share of all caused conversions a day, and its mean conversions a day (A,)."""
    draws = signals.draw_conversions_per_day(rng, _DRAWS)
    total = draws.sum(axis=1, keepdims=True)
    share = np.divide(draws, total, out=np.zeros_like(draws), where=total > 0)
    return np.asarray(share.std(axis=0)), np.asarray(share.mean(axis=0)), np.asarray(draws.mean(axis=0))


class Holdouts:
    """Begins, reads and ends the holdouts of a loop.

    Args:
        policy: How to test.
        ledger: Where they are remembered.
        platforms: Adapters by name; only those that run holdouts are asked.
        targets: Target of each arm, None for the default ones.
    """

    def __init__(
        self, policy: HoldoutPolicy, ledger: Ledger, platforms: Mapping[str, Any], targets: Mapping[Arm, Target] | None = None
    ) -> None:
        self.policy, self.ledger, self.platforms, self.targets = policy, ledger, platforms, targets

    def all(self) -> list[Holdout]:
        """Return every holdout that was asked for, as it stands now, oldest first."""
        found = [Holdout.of(r.entry.body) for r in self.ledger.newest("holdout")]
        return sorted(found, key=lambda h: (h.asked_at, h.holdout_id))

    def step(self, cycle: int, outcomes: Outcomes, signals: Signals, n_tests: int, *, begin: bool, seed: int, now: datetime) -> None:
        """Go on with the holdouts of a cycle: resume what was asked, learn from what is over, begin what is worth it.

        Args:
            cycle: Number of the cycle.
            outcomes, signals: Of the cycle.
            n_tests: Lift tests in the ledger.
            begin: Whether new ones may begin.
            seed: The loop's seed.
            now: Time of the cycle.
        """
        known = self.all()
        running = [h for h in known if h.state in ("asked", "running")]
        still = []
        for holdout in running:
            after = self._go_on(holdout, outcomes, n_tests, now)
            n_tests += after.state == "learned"
            if after.state in ("asked", "running"):
                still.append(after)
        room = self.policy.at_once - len(still)
        if begin and room > 0:
            for holdout in self._next(cycle, signals, outcomes, known, room, seed, now):
                self.ledger.append([self._entry(holdout, now)])  # before the platform is asked
                self._start(holdout, now)

    # ---- one holdout

    def _entry(self, holdout: Holdout, now: datetime) -> Entry:
        return holdout_entry(holdout.holdout_id, holdout.state, holdout.body(), now)

    def _platform(self, holdout: Holdout) -> RunsHoldouts | None:
        platform = self.platforms.get(holdout.target.platform)
        return platform if isinstance(platform, RunsHoldouts) else None

    def _start(self, holdout: Holdout, now: datetime) -> Holdout:
        """Ask the platform; what it cannot say now is asked again in the next cycle."""
        platform = self._platform(holdout)
        if platform is None:
            return self._close(holdout, "void", f"platform {holdout.target.platform!r} is gone, or runs no holdouts", now)
        try:
            platform.start_holdout(holdout.holdout_id, [holdout.target], holdout.share, now=now)
        except RejectedError as error:
            return self._close(holdout, "void", str(error), now)
        except PlatformError:
            return holdout
        return self._close(attrs.evolve(holdout, begun_at=now), "running", "", now)

    def _close(self, holdout: Holdout, state: str, note: str, now: datetime, *more: Entry) -> Holdout:
        changed = attrs.evolve(holdout, state=state, note=note)
        self.ledger.append([*more, self._entry(changed, now)])
        return changed

    def _go_on(self, holdout: Holdout, outcomes: Outcomes, n_tests: int, now: datetime) -> Holdout:
        if holdout.state == "asked":
            holdout = self._start(holdout, now)
        if holdout.state != "running" or holdout.begun_at is None or now < holdout.begun_at + timedelta(days=holdout.days):
            return holdout
        platform = self._platform(holdout)
        if platform is None:
            return self._close(holdout, "void", f"platform {holdout.target.platform!r} is gone, or runs no holdouts", now)
        try:
            counts = platform.read_holdout(holdout.holdout_id, now=now)
            platform.end_holdout(holdout.holdout_id, now=now)
        except RejectedError as error:
            return self._close(holdout, "void", str(error), now)
        except PlatformError:
            return holdout  # goes on one day longer
        test = learned(holdout.arm, outcomes, counts, now)
        if test is None:
            return self._close(holdout, "void", "the arm had no exposure while it was tested", now)
        return self._close(holdout, "learned", "", now, lift_entry(n_tests + 1, test, f"loop, {holdout.holdout_id}", now))

    # ---- which next

    def _next(
        self, cycle: int, signals: Signals, outcomes: Outcomes, known: Sequence[Holdout], room: int, seed: int, now: datetime
    ) -> list[Holdout]:
        if not len(signals):
            return []
        spread, part, mean = uncertainty(signals, np.random.default_rng([seed, cycle, 8]))
        relative = np.divide(spread, part, out=np.zeros_like(spread), where=part > 0)
        worth = 0.25 * relative**2 * self.policy.use_days > self.policy.share * self.policy.days
        since = now - timedelta(days=self.policy.again)
        recent = {h.arm for h in known if h.state in ("asked", "running") or (h.state == "learned" and h.asked_at > since)}
        days = np.bincount(outcomes.spend.arm, minlength=len(outcomes.arms))
        spent = dict(zip(outcomes.arms, days.tolist(), strict=True))
        targets = {arm: self._target(signals, arm) for arm in signals.arms}
        uses = [t for t in targets.values() if t is not None]
        chosen: list[Holdout] = []
        for i in np.argsort(-spread, kind="stable").tolist():
            if len(chosen) == room or spread[i] < self.policy.stop:
                break
            arm = signals.arms[i]
            target = targets[arm]
            if not worth[i] or arm in recent or target is None or uses.count(target) > 1 or spent.get(arm, 0) < self.policy.least_days:
                continue
            if not signals.spend_per_day[i] > 0 or not isinstance(self.platforms.get(target.platform), RunsHoldouts):
                continue
            chosen.append(
                Holdout(
                    holdout_id=f"holdout-{cycle}-{len(chosen) + 1}",
                    arm=arm,
                    target=target,
                    share=self.policy.share,
                    days=self.policy.days,
                    asked_at=now,
                    state="asked",
                    uncertainty=float(spread[i]),
                    cost=float(mean[i]) * self.policy.share * self.policy.days,
                )
            )
        return chosen

    def _target(self, signals: Signals, arm: Arm) -> Target | None:
        return default_target(signals.arms.columns, arm) if self.targets is None else self.targets.get(arm)


def learned(arm: Arm, outcomes: Outcomes, counts: HoldoutCounts, now: datetime) -> LiftResult | None:
    """Return what a holdout of one arm says, with its credit and exposure on the days it was in force; None without exposure.

    A day counts when the holdout was in force for more than half of it. Clicks count, views where the arm has no clicks, each with the
    share of its conversions seen by now.
    """
    first = (to_us(counts.since) + US_PER_DAY // 2) // US_PER_DAY
    end = (to_us(min(counts.until or now, now)) + US_PER_DAY // 2) // US_PER_DAY
    c, joined = outcomes.cohorts, None if outcomes.participation is None else outcomes.participation.cohorts
    try:
        position = outcomes.arms.index(arm)
    except (KeyError, ValueError, ConfigurationError):
        return None
    mine = (c.arm == position) & (c.day >= first) & (c.day < end)
    clicks = mine & (c.kind == 0)
    shown = clicks if (c.exposures[clicks] > 0).any() else mine
    exposures = float((c.exposures * c.maturity)[shown].sum())
    if exposures <= 0.0:
        return None
    return LiftResult(
        where={name: str(tag) for name, tag in zip(outcomes.arms.columns, arm, strict=True) if tag is not None},
        attributed=float(c.credit[mine].sum()),
        treated=counts.treated,
        control=counts.control,
        treated_users=counts.treated_users,
        control_users=counts.control_users,
        exposures=exposures,
        participated=None
        if joined is None
        else float(joined.credit[(joined.arm == position) & (joined.day >= first) & (joined.day < end)].sum()),
        conversions_per_day=outcomes.daily.per_day(first, end - 1),
    )
