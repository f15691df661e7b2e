"""Where a plan comes from: the digest of all that determines it, the ids made of it, and its provenance.

Law of this file: equal inputs give equal ids on every machine; a changed number gives another id. Everything here is ready for JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from closedloop.decide.reasons import out_of_reach
from closedloop.records.arms import Arm
from closedloop.records.decision import Constraints, HoldReason
from closedloop.records.money import MICROS

if TYPE_CHECKING:
    from closedloop.decide.choose import Chosen
    from closedloop.decide.decider import BudgetDecider
    from closedloop.decide.problem import Problem


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: arms as lists, numpy numbers as numbers, infinities as text.

    >>> plain({("a", None): np.float64("inf"), "n": (1, 2)})
    {'["a", null]': 'inf', 'n': [1, 2]}
    """
    if attrs.has(type(value)):
        return {f.name: plain(getattr(value, f.name)) for f in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {k if isinstance(k, str) else json.dumps(plain(k)): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value


def constraints_of(constraints: Constraints) -> dict[str, Any]:
    """Return the constraints that differ from none at all, as JSON."""
    default = Constraints()
    return {k: v for k, v in plain(constraints).items() if v != plain(getattr(default, k)) or k in ("total", "max_step", "min_probability")}


def digest_of(
    problem: Problem,
    decider: BudgetDecider,
    *,
    now_us: int,
    horizon: float,
    rng: np.random.Generator | None,
    changed: Mapping[Arm, datetime] | None,
    held: Mapping[Arm, HoldReason] | None,
) -> str:
    """Return the digest of everything that determines a plan."""
    signals = problem.signals
    whole = hashlib.sha256()
    settings = {
        "constraints": plain(decider.constraints),
        "seed": decider.seed if rng is None else plain_state(rng),
        "draws": decider.draws,
        "level": decider.level,
        "prior": plain(decider.prior),
        "response": [decider.response, decider.observed_weight],
        "rules": plain(decider.rules),
        "excitation": plain(decider.excitation),
        "discrepancy": decider.discrepancy,
        "now": now_us,
        "horizon": horizon,
        "window": str(signals.window),
        "classifier": signals.classifier,
        "model": signals.outcomes.model,
        "conversion_type": signals.outcomes.conversion_type,
        "watermark": dict(sorted(signals.outcomes.watermark.items())),
        "revision": signals.outcomes.revision,
        "currency": problem.currency,
        "changed": sorted((json.dumps(list(a)), t.isoformat()) for a, t in (changed or {}).items()),
        "held": sorted((json.dumps(list(a)), r) for a, r in (held or {}).items()),
        "columns": signals.arms.columns,
        "targets": sorted((json.dumps(list(a)), str(t)) for a, t in decider.targets.items()),
    }
    whole.update(json.dumps(settings, sort_keys=True).encode())
    whole.update(json.dumps([list(arm) for arm in signals.arms]).encode())
    arrays = [
        problem.budgets, problem.known, signals.spend_per_day, signals.value_per_conversion, signals.weekly_conversions,
        signals.maturity, signals.tagged_share, signals.effective_volume,
    ]  # fmt: skip
    for kind in sorted(signals.posteriors):
        posterior = signals.posteriors[kind]
        arrays += [posterior.shape, posterior.rate, posterior.weight, signals.exposures_per_day[kind]]
    response = problem.response
    arrays += [response.shape, response.location, response.scale, response.common, problem.doubt]
    for array in arrays:
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def plain_state(rng: np.random.Generator) -> str:
    """Return a digest of a generator's state: the same state draws the same numbers."""
    return hashlib.sha256(repr(rng.bit_generator.state).encode()).hexdigest()


def plan_id(digest: str) -> str:
    """Return the id of the plan with this digest."""
    return f"plan-{digest[:16]}"


def decision_id(digest: str, arm: Arm, after_micros: int) -> str:
    """Return the id of a decision: the plan, the arm and the new budget determine it."""
    body = json.dumps([digest, list(arm), after_micros])
    return f"{digest[:8]}-{hashlib.sha256(body.encode()).hexdigest()[:16]}"


@cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("closedloop")
    except PackageNotFoundError:
        return "unknown (not installed)"


def provenance_of(problem: Problem, decider: BudgetDecider, digest: str, chosen: Chosen) -> dict[str, Any]:
    """Return where a plan comes from, ready for JSON."""
    p, signals, money, allocation = problem, problem.signals, problem.limits.step / MICROS, chosen.allocation
    short = out_of_reach(p, allocation.after, chosen.asked)
    return {
        "digest": digest,
        "version": _version(),
        "seed": decider.seed,
        "draws": decider.draws,
        "objective": decider.rules.objective,
        "classifier": signals.classifier,
        "model": signals.outcomes.model,
        "conversion_type": signals.outcomes.conversion_type,
        "revision": signals.outcomes.revision,
        "watermark": {k: int(v) for k, v in sorted(signals.outcomes.watermark.items())},
        "evidence_at": int(signals.now_us),
        "constraints": constraints_of(decider.constraints),
        "response_prior": plain(decider.prior),
        "currency": p.currency,
        "total_before": float(p.limits.now[p.known].sum()) * money,
        "total_after": float(allocation.after[p.known].sum()) * money,
        "unallocated": allocation.unallocated * money,
        "price": allocation.price / money,
    } | ({} if short is None else {"total": short})
