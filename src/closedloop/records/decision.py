"""What decision hands on: a plan of decisions and holds, each with its interval and its reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import attrs

from closedloop.display import frame, html_table, text_table
from closedloop.errors import ConfigurationError, InvariantError
from closedloop.records.arms import Arm
from closedloop.records.interval import Interval
from closedloop.records.money import Money
from closedloop.records.window import AttributionWindow

HoldReason = Literal[
    "low_volume", "immature", "untagged", "window_mismatch", "integration", "learning",
    "thin_evidence", "no_gain", "no_spend", "paused", "approval", "health", "guardrail", "limits", "waiting",
]  # fmt: skip


@attrs.frozen
class Target:
    """The one thing on a platform whose budget an arm controls.

    Args:
        platform: The platform's name, as registered with the loop.
        resource: The platform's own id of the budget, campaign or ad set.
    """

    platform: str
    resource: str

    def __attrs_post_init__(self) -> None:
        if not self.platform or not self.resource:
            raise ConfigurationError("a target needs a platform and a resource", "target", (self.platform, self.resource))

    def __str__(self) -> str:
        return f"{self.platform}:{self.resource}"


def _positive(name: str, value: float | None, *, zero: bool = True) -> None:
    if value is not None and not (0 < value < math.inf or (zero and value == 0)):
        raise ConfigurationError("the limit must be finite and " + ("zero or more" if zero else "above zero"), name, value)


@attrs.frozen(kw_only=True)
class GroupLimit:
    """Ends of the summed budget a day of all arms that carry some tags, such as one platform or one campaign.

    Args:
        tags: The tags that an arm must carry, for example ``{"platform": "google"}``.
        floor: Smallest sum.
        ceiling: Largest sum, None for no limit.
    """

    tags: Mapping[str, str]
    floor: float = 0.0
    ceiling: float | None = None

    def __attrs_post_init__(self) -> None:
        if not self.tags:
            raise ConfigurationError("a group needs tags", "tags", self.tags, 'for example {"platform": "google"}')
        _positive("floor", self.floor)
        _positive("ceiling", self.ceiling)
        if self.ceiling is not None and self.floor > self.ceiling:
            raise ConfigurationError("the floor of a group lies above its ceiling", "floor", self.floor)

    def __str__(self) -> str:
        return " / ".join(f"{k}={v}" for k, v in self.tags.items())


@attrs.frozen(kw_only=True)
class Constraints:
    """What a plan must respect; amounts are per day, in units of the currency of the data.

    Args:
        total: The total budget a day; None keeps the sum of the current budgets.
        max_step: Largest relative change of one budget per plan (0.2 is 20 %).
        floor: Smallest budget of any arm.
        ceiling: Largest budget of any arm, None for no limit.
        floors, ceilings: The same for single arms.
        min_change: Changes smaller than this share of the budget are not worth a call to the platform.
        minimum_volume: Conversions a week that a campaign needs before it may be steered (the field's rule of thumb, 50).
        min_probability: Probability of a gain that a move needs.
        cool_down_days: Days after a change in which the same arm is left alone.
        groups: Ends of the sums of campaigns, platforms or other tags; any two groups are nested or disjoint.
        max_changes: Largest number of changes per platform and plan; the most valuable ones are kept.
        min_step: Smallest absolute change that is worth a call to the platform.
        rounding: Budgets are multiples of this amount; None for the currency's minor unit.
        gate: ``volume`` holds campaigns under `minimum_volume`, the field's rule of thumb; ``evidence`` lets the intervals alone decide. In
            simulated accounts that gained more and cost next to nothing where there was nothing to gain: see "When not to close the loop".
        min_maturity: Share of an arm's conversions that must be expected to be seen by now.
        min_tagged_share: Share of an arm's compatible exposures that must carry all tags. By default the share under which health too says
            that signals are blended; from there up to 1 the missing tags widen intervals and are reported, and do not hold.
        target_cost: Largest average cost per conversion of the plan. With it (or `target_roas`) the total is a ceiling, not a duty.
        target_roas: Smallest average revenue per unit of spend of the plan.
    """

    total: float | None = None
    max_step: float = 0.2
    floor: float = 0.0
    ceiling: float | None = None
    floors: Mapping[Arm, float] = attrs.field(factory=dict)
    ceilings: Mapping[Arm, float] = attrs.field(factory=dict)
    min_change: float = 0.01
    minimum_volume: float = 50.0
    min_probability: float = 0.8
    cool_down_days: float = 0.0
    groups: tuple[GroupLimit, ...] = attrs.field(default=(), converter=tuple)
    max_changes: int | None = None
    min_step: float = 0.0
    rounding: float | None = None
    gate: Literal["volume", "evidence"] = "volume"
    min_maturity: float = 0.3
    min_tagged_share: float = 0.7
    target_cost: float | None = None
    target_roas: float | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("total", "floor", "ceiling", "min_change", "minimum_volume", "cool_down_days", "max_changes", "min_step"):
            _positive(name, getattr(self, name))
        for name in ("max_step", "rounding", "target_cost", "target_roas"):
            _positive(name, getattr(self, name), zero=False)
        for name in ("min_maturity", "min_tagged_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigurationError("a share lies in [0, 1]", name, getattr(self, name))
        if self.gate not in ("volume", "evidence"):
            raise ConfigurationError("no such gate", "gate", self.gate, None, ("volume", "evidence"))
        if self.target_cost is not None and self.target_roas is not None:
            raise ConfigurationError("give one target", "target_roas", self.target_roas, "drop target_cost or target_roas")
        if not 0.0 <= self.min_probability < 1.0:
            raise ConfigurationError("a probability lies in [0, 1)", "min_probability", self.min_probability)
        for name in ("floors", "ceilings"):
            for value in getattr(self, name).values():
                _positive(name, value)


@attrs.frozen(kw_only=True)
class Decision:
    """Move one budget.

    Args:
        decision_id: Stable id, the idempotency key of the action; the same plan replayed gives the same id.
        arm: The arm.
        target: What is changed on which platform.
        before, after: Budget a day.
        gain: Change of conversions a day (of value a day where values are given) if this move alone is made.
        p_gain: Probability that the arm's part of the plan helps, at the plan's price of a unit of money.
        reason: In plain words.
        triggers: The numbers that triggered it.
    """

    decision_id: str
    arm: Arm
    target: Target
    before: Money
    after: Money
    gain: Interval
    p_gain: float
    reason: str
    triggers: Mapping[str, Any] = attrs.field(factory=dict)

    action = "set_budget"


@attrs.frozen(kw_only=True)
class Hold:
    """Leave one budget alone, and say why.

    Args:
        arm: The arm.
        target: Its target, None when it has none.
        budget: The budget that stays, None when unknown.
        reason: One of the fixed reasons.
        explanation: In plain words, with numbers.
        lift: What would lift the hold.
        gain: Interval of what the best move would have changed a day; unbounded when nothing is known.
        triggers: The numbers behind it.
    """

    arm: Arm
    target: Target | None
    budget: Money | None
    reason: HoldReason
    explanation: str
    lift: str
    gain: Interval
    triggers: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Plan:
    """All decisions and holds of one cycle.

    Args:
        plan_id: Stable id.
        made_at: When (aware UTC).
        window: The attribution window of the evidence.
        decisions: Moves, most valuable first.
        holds: Arms left alone.
        gain: Change of conversions a day of the whole plan, from joint draws.
        p_gain: Probability that the plan helps.
        expected_shortfall: Expected loss of conversions a day in the cases where it does not help (0 or more).
        horizon_days: For how long the plan is meant.
        unit: What `gain` counts: "conversions" or the currency of the values.
        provenance: Seed, versions, watermark and constraints.
    """

    plan_id: str
    made_at: datetime
    window: AttributionWindow
    decisions: tuple[Decision, ...]
    holds: tuple[Hold, ...]
    gain: Interval
    p_gain: float
    expected_shortfall: float
    horizon_days: float
    unit: str = "conversions"
    provenance: Mapping[str, Any] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        targets = [d.target for d in self.decisions]
        if len(set(targets)) != len(targets):
            raise InvariantError("a plan moves each target once", "decisions", [str(t) for t in targets])

    def __len__(self) -> int:
        return len(self.decisions)

    def to_columns(self) -> dict[str, list[Any]]:
        """Return one row per decision and per hold."""
        lines: list[tuple[Any, ...]] = [
            (_name(d.arm), "move", d.before.units, d.after.units, d.after.currency, d.gain, d.p_gain, d.reason) for d in self.decisions
        ]
        for h in self.holds:
            units, currency = (None, None) if h.budget is None else (h.budget.units, h.budget.currency)
            lines.append((_name(h.arm), f"hold ({h.reason})", units, units, currency, h.gain, None, f"{h.explanation} {h.lift}".strip()))
        names = ("arm", "act", "before", "after", "currency", "gain", "p_gain", "reason")
        columns: dict[str, list[Any]] = {n: [line[i] for line in lines] for i, n in enumerate(names)}
        gains = columns.pop("gain")
        for end in ("low", "estimate", "high"):
            columns[f"gain_{end}"] = [getattr(g, end) for g in gains]
        return columns

    def to_frame(self, library: Literal["pandas", "polars"] = "pandas") -> Any:
        """Return decisions and holds as a frame."""
        return frame(self.to_columns(), library)

    def plot(self, ax: Any = None) -> Any:
        """Draw the budgets that move, before and after, with the interval of each gain; return the Axes of the budgets."""
        from closedloop.display import plots

        moves = self.decisions
        currencies = {d.after.currency for d in moves}
        several = len(currencies) > 1  # then each bar is in the account's own, and its label says which
        currency = "each in its own currency" if several else "".join(currencies)
        return plots.budgets_before_after(
            [_name(d.arm) + (f" ({d.after.currency})" if several else "") for d in moves],
            [d.before.units for d in moves],
            [d.after.units for d in moves],
            [d.gain.low for d in moves],
            [d.gain.estimate for d in moves],
            [d.gain.high for d in moves],
            title=f"{len(moves)} moves, {len(self.holds)} holds",
            unit=f"budget a day, {currency}".rstrip(", "),
            gain_unit=f"({self.unit})",
            ax=ax,
        )

    def explain(self) -> str:
        """Return the plan in plain words: each decision and hold with its numbers, what else was considered, and where it comes from."""
        from closedloop.records.explanation import explain

        return explain(self)

    def _table(self) -> dict[str, list[Any]]:
        acts: list[Decision | Hold] = [*self.decisions, *self.holds]
        return {
            "arm": [_name(a.arm) for a in acts],
            "act": ["move" if isinstance(a, Decision) else f"hold: {a.reason}" for a in acts],
            "before": [_money(a.before if isinstance(a, Decision) else a.budget) for a in acts],
            "after": [_money(a.after if isinstance(a, Decision) else a.budget) for a in acts],
            f"gain a day ({self.unit})": [str(a.gain) for a in acts],
            "why": [a.reason if isinstance(a, Decision) else a.explanation for a in acts],
        }

    def _title(self) -> str:
        return (
            f"Plan {self.plan_id}: {len(self.decisions)} moves, {len(self.holds)} holds; gain a day {self.gain!r} {self.unit}, "
            f"P(gain > 0) {self.p_gain:.2f}, {self.window}"
        )

    def __repr__(self) -> str:
        return text_table(self._table(), title=self._title(), wrap=("why",))

    def _repr_html_(self) -> str:
        return html_table(self._table(), title=self._title(), wrap=("why",))


def _name(arm: Arm) -> str:
    return " / ".join("?" if t is None else t for t in arm)


def _money(amount: Money | None) -> str:
    return "" if amount is None else repr(amount)
