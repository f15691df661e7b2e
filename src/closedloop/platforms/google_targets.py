"""What stands behind a target on Google Ads, and the operation that changes it.

Law of this file: pure over rows and messages of the API; nothing is sent here. A budget belongs to a campaign only when no other
campaign shares it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from closedloop.platforms.google_errors import Refusal, enum_name
from closedloop.records.action import AttemptResult, Change
from closedloop.records.decision import Target
from closedloop.records.money import Money

CAMPAIGN = (
    "SELECT customer.currency_code, campaign.id, campaign.status, campaign.bidding_strategy_system_status, "
    "campaign_budget.resource_name, campaign_budget.amount_micros, campaign_budget.explicitly_shared, "
    "campaign_budget.reference_count, campaign_budget.period FROM campaign WHERE campaign.id IN ({ids})"
)
BUDGET = (
    "SELECT customer.currency_code, campaign_budget.id, campaign_budget.resource_name, campaign_budget.amount_micros, "
    "campaign_budget.status, campaign_budget.period FROM campaign_budget WHERE campaign_budget.id IN ({ids})"
)
_SWITCH: Mapping[str, int] = {"resume": 2, "pause": 3}  # CampaignStatus.ENABLED, PAUSED


@attrs.frozen(kw_only=True)
class Looked:
    """What was found about the budget and the campaign behind a target."""

    budget: str
    amount: Money | None
    shared: bool
    active: bool
    learning: bool | None


def seen(row: Any, is_budget: bool, target: Target) -> Looked | Refusal:
    """Return what a row of `CAMPAIGN` (or of `BUDGET`) says of a target, or why it cannot be steered."""
    budget = row.campaign_budget
    owner = budget if is_budget else row.campaign
    status = enum_name(owner, "status")
    if status == "REMOVED":
        return Refusal(status="rejected", code="REMOVED", message=f"{target} is removed")
    daily = enum_name(budget, "period") == "DAILY"
    strategy = "" if is_budget else enum_name(row.campaign, "bidding_strategy_system_status")
    known = strategy not in ("", "UNSPECIFIED", "UNKNOWN", "UNAVAILABLE", "MULTIPLE")
    return Looked(
        budget=budget.resource_name,
        amount=Money(budget.amount_micros, row.customer.currency_code) if daily else None,
        shared=not is_budget and (budget.explicitly_shared or budget.reference_count > 1),
        active=status == "ENABLED",
        learning=("LEARNING" in strategy) if known else None,
    )


def operation_of(
    change: Change, looked: Looked | Refusal | None, *, operation: Any, customer: str, currency: str | None
) -> tuple[Any, str] | AttemptResult:
    """Return the operation of a change and the resource it touches, or why it cannot be one.

    Args:
        change: The change.
        looked: What was found about its target, for a change of a budget.
        operation: An empty ``MutateOperation``, which is filled.
        customer: Digits of the account.
        currency: Currency of the account.
    """
    if isinstance(looked, Refusal):
        return looked.attempt()
    if change.kind == "set_budget" and looked is not None:
        if change.budget is None:
            return AttemptResult(status="rejected", code="budget", message="set_budget needs a budget")
        if change.budget.currency != currency:
            words = f"the account is in {currency}, the budget in {change.budget.currency}"
            return AttemptResult(status="rejected", code="currency", message=words)
        if looked.shared:
            words = f"{change.target} shares its budget with other campaigns: steer {_budget_target(looked.budget)} instead"
            return AttemptResult(status="rejected", code="shared_budget", message=words)
        if looked.amount is None:
            words = f"{change.target} has no daily budget (its budget is for a whole period)"
            return AttemptResult(status="rejected", code="no_daily_budget", message=words)
        update = operation.campaign_budget_operation.update
        update.resource_name, update.amount_micros = looked.budget, change.budget.micros
        operation.campaign_budget_operation.update_mask.paths.append("amount_micros")
        return operation, looked.budget
    if change.kind not in _SWITCH:
        return AttemptResult(status="rejected", code="kind", message=f"this adapter does not {change.kind} on Google Ads")
    if not change.target.resource.isdigit():
        words = f"{change.target}: only a campaign can be paused or resumed"
        return AttemptResult(status="rejected", code="target", message=words)
    resource = f"customers/{customer}/campaigns/{change.target.resource}"
    update = operation.campaign_operation.update
    update.resource_name = resource
    update.status = _SWITCH[change.kind]
    operation.campaign_operation.update_mask.paths.append("status")
    return operation, resource


def _budget_target(resource_name: str) -> str:
    return "budget/" + resource_name.rpartition("/")[2]
