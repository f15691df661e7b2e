"""What plans promise and what comes of it, in the simulator's markets where every credited conversion is caused.

    python benchmarks/plans.py intervals [--seeds 30] [--scenario healthy] [--half mixed|own] [--rooms]
    python benchmarks/plans.py identical [--seeds 20] [--gate evidence|volume] [--alike 0.05]
    python benchmarks/plans.py excitation [--seeds 8] [--scenario healthy ...]
    python benchmarks/plans.py timing [--seeds 24]

No touches of users who would have converted anyway and no views: credit is cause, and what is left is what a plan itself may get wrong
(levels, curves, delays, weekdays, scatter, moves). Clicks, spend, weekdays, noise and the truth are the market's own; cohorts are drawn
from them without events, which is a hundred times faster. ``--rooms`` draws the events and sends them through ingest and attribution.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime, timedelta

import attrs
import numpy as np
from scipy.special import ndtr, ndtri

from closedloop import AttributionWindow, BayesClassifier, BudgetDecider, Constraints, TableIngestor, WindowedAttribution
from closedloop.decide import Excitation
from closedloop.records.arms import TAG_COLUMNS, Arms
from closedloop.records.interval import Intervals
from closedloop.records.moments import US_PER_DAY
from closedloop.records.money import Money
from closedloop.records.outcomes import Cohorts, DelayCurve, Outcomes, SpendDays
from closedloop.records.signal import GammaMixture
from closedloop.simulation import SCENARIOS, Market, Scenario
from closedloop.simulation.curves import conversions_at
from closedloop.stats.delay import PRIOR_STRENGTH, posterior, prior_shares, reverse_sums, share_seen
from closedloop.stats.response import ResponsePrior
from decide import signals_of

WINDOW = AttributionWindow(click="7d", view=None)
BINS, WARM_UP, STEP = 8, 14, 0.2


def scenario(name: str, seed: int, half: str = "own") -> Scenario:
    """Return a scenario in which credit is cause; with ``half="mixed"`` how saturated the account is differs by seed (median 2.5)."""
    base = SCENARIOS[name]()
    centre = base.half_spend[0]
    if half == "mixed":
        centre = float(2.5 * np.exp(0.8 * np.random.default_rng([99, seed]).standard_normal()))
    return attrs.evolve(base, touched={}, view_share={}, organic=0.0, half_spend=(centre, base.half_spend[1]))


def delay_shares(s: Scenario) -> np.ndarray:
    """Return the shares of conversions by days from the click, inside the window; what comes later is missing from the sum."""
    rng, n = np.random.default_rng(0), 1_000_000
    slow = s.delay_days * np.exp(s.delay_spread * ndtri(rng.uniform(1e-9, ndtr(np.log(30 / s.delay_days) / s.delay_spread), n)))
    delay = np.where(rng.random(n) < s.at_once, rng.exponential(0.3, n).clip(0.01, 1.0) / 24, slow)
    days = np.floor(rng.beta(2.0, 1.5, n) + delay).astype(int)
    return np.bincount(days[delay <= 7.0], minlength=BINS)[:BINS] / n


class Account:
    """An account of a market, day by day."""

    def __init__(self, chosen: Scenario, seed: int, *, rooms: bool = False) -> None:
        self.market = Market(chosen, seed)
        self.shares = delay_shares(chosen)
        self.arms = self.market.arms
        self.equal = np.full(len(self.arms), chosen.total / len(self.arms))
        self.rng = np.random.default_rng([seed, 77])
        self.table = Arms.of(TAG_COLUMNS, self.arms)
        self.first = (self.market.day_start(0) - datetime(1970, 1, 1, tzinfo=UTC)).days
        self.clicks: list[np.ndarray] = []
        self.spend: list[np.ndarray] = []
        self.caused: list[np.ndarray] = []
        self.rooms = (TableIngestor(), WindowedAttribution(WINDOW)) if rooms else None
        self.last: Outcomes | None = None

    @property
    def day(self) -> int:
        return self.market.next_day if self.rooms else len(self.clicks)

    @property
    def now(self) -> datetime:
        return self.market.day_start(self.day) + (timedelta(hours=2) if self.rooms else timedelta(0))

    def advance(self, budgets: np.ndarray) -> None:
        """Let a day pass."""
        if self.rooms:
            rows = self.market.day(self.day, dict(zip(self.arms, budgets.tolist(), strict=True)))
            batch = self.rooms[0].ingest(rows).batch
            self.last = self.rooms[1].attribute(batch, state=None if self.last is None else self.last.state, now=self.now)
            return
        s, p, rng, n = self.market.scenario, self.market.parameters, self.rng, len(self.arms)
        rate, cpc = p.on(self.day)
        spent = budgets * np.exp(rng.normal(size=n) * s.spend_noise - s.spend_noise**2 / 2)
        noise = rng.normal(size=n) * s.day_noise[0] + rng.normal() * s.day_noise[1] - (s.day_noise[0] ** 2 + s.day_noise[1] ** 2) / 2
        clicks = rng.poisson(spent * p.half / (cpc * (p.half + spent)) * p.weekday(self.day) * np.exp(noise))
        shares = [*self.shares, 1.0 - self.shares.sum()]
        self.caused.append(np.array([rng.multinomial(k, shares)[:BINS] for k in rng.binomial(clicks, rate)]))
        self.spend.append(np.round(spent, 2))
        self.clicks.append(clicks)

    def outcomes(self) -> Outcomes:
        """Return what attribution would have made of the days so far."""
        if self.last is not None:
            return attrs.evolve(self.last, state=None)
        days, n = self.day, len(self.arms)
        age = days - np.arange(days)
        caused = np.array(self.caused, dtype=float)
        credit = (caused * (np.arange(BINS) < age[:, None, None])).sum(axis=2)
        observed, at_risk = reverse_sums(np.tile(np.arange(BINS), days), np.repeat(age, BINS), caused.sum(axis=1).ravel(), BINS)
        a, b = posterior(observed, at_risk, prior_shares(BINS), PRIOR_STRENGTH)
        seen = share_seen(a / (a + b))
        curve = DelayCurve(observed=observed, at_risk=at_risk, shape_a=a, shape_b=b, share_seen=seen)
        arm, day = np.repeat(np.arange(n, dtype=np.int32), days), np.tile(self.first + np.arange(days, dtype=np.int32), n)
        none, total = np.zeros(n * days), credit.sum(axis=0)

        def flat(x: object) -> np.ndarray:
            return np.asarray(x, dtype=float).T.ravel()

        cohorts = Cohorts(
            arm=arm, day=day, kind=np.zeros(n * days, dtype=np.int8), exposures=flat(self.clicks), credit=flat(credit),
            credit_squared=flat(credit), value=none, value_squared=none, maturity=np.tile(seen[np.minimum(age, BINS) - 1], n),
            age=np.tile(age, n).astype(np.int32),
        )  # fmt: skip
        return Outcomes(
            window=WINDOW, arms=self.table, cohorts=cohorts, spend=SpendDays(arm=arm, day=day, spend=flat(self.spend)),
            delay={"click": curve}, credits=Intervals(low=total, estimate=total, high=total, level=0.9, kind="bootstrap"),
            conversion_type=None, model="last", currency=self.market.scenario.currency,
            watermark={str(a[0]): (self.first + days) * US_PER_DAY for a in self.arms}, revision=1, n_conversions=int(total.sum()),
            n_uncredited=0,
        )  # fmt: skip

    def truth(self, budgets: np.ndarray) -> np.ndarray:
        """Return expected conversions a day inside the window, of a mean weekday, by arm."""
        return conversions_at(budgets, *self.market.parameters.curve(self.day)) * self.shares.sum()


def play(account: Account, decider: BudgetDecider, days: int, see: object = None) -> tuple[float, int, int]:
    """Run daily cycles after a warm-up of equal budgets.

    Returns:
        Outcome over holding still, as a share; moves; moves called certain.
    """
    classifier, budgets, position = BayesClassifier(WINDOW), account.equal.copy(), {arm: i for i, arm in enumerate(account.arms)}
    won = held = 0.0
    moves = certain = 0
    for day in range(WARM_UP + days):
        if day >= WARM_UP:
            won, held = won + account.truth(budgets).sum(), held + account.truth(account.equal).sum()
        account.advance(budgets)
        if day + 1 < WARM_UP:
            continue
        signals = classifier.classify(account.outcomes(), now=account.now)
        money = {arm: Money.of(round(float(b), 2), account.market.scenario.currency) for arm, b in zip(account.arms, budgets, strict=True)}
        plan = decider.decide(signals, money, now=account.now)
        after = budgets.copy()
        for d in plan.decisions:
            after[position[d.arm]] = d.after.units
        if see is not None:
            see(day + 1, plan, account, budgets, after, position)
        moves, certain = moves + len(plan.decisions), certain + sum(d.triggers["certain"] is True for d in plan.decisions)
        budgets = after
    return won / held - 1.0, moves, certain


def intervals(options: argparse.Namespace) -> None:
    """Print how often the true gain of a plan, and of each of its moves, lies inside its interval: every seventh day's plan."""
    inside: dict[int, list[list[float]]] = {}
    alone: list[bool] = []
    decider = BudgetDecider(Constraints(gate="evidence", max_step=STEP), looks=())
    for seed in range(options.seeds):
        rows: list[list[float]] = []

        def see(day, plan, account, before, after, position, rows=rows):  # type: ignore[no-untyped-def]
            if (day - WARM_UP) % 7 == 0 and plan.decisions:
                gain = account.truth(after) - account.truth(before)
                rows.append([plan.gain.low, plan.gain.estimate, plan.gain.high, gain.sum()])
                alone.extend(d.gain.low <= gain[position[d.arm]] <= d.gain.high for d in plan.decisions)

        play(Account(scenario(options.scenario[0], seed, options.half), seed, rooms=options.rooms), decider, options.days, see)
        inside[seed] = rows
    every = np.array([r for rows in inside.values() for r in rows])
    hit = (every[:, 3] >= every[:, 0]) & (every[:, 3] <= every[:, 2])
    by_seed = np.array([np.mean([r[0] <= r[3] <= r[2] for r in rows]) for rows in inside.values() if rows])
    print(
        f"{options.scenario[0]}, half-saturation {options.half}: {len(every)} plans of {len(by_seed)} accounts; true gain inside the 90 % "
        f"interval {hit.mean():.1%} (standard error over accounts {by_seed.std() / len(by_seed) ** 0.5:.1%}), above "
        f"{np.mean(every[:, 3] > every[:, 2]):.1%}, below {np.mean(every[:, 3] < every[:, 0]):.1%}; of single moves {np.mean(alone):.1%} "
        f"of {len(alone)}; stated over true gain, median {np.median(every[:, 1] / every[:, 3]):.2f}"
    )


def identical(options: argparse.Namespace) -> None:
    """Print what 56 daily cycles on identical arms cost against holding still, and how often a move was called certain."""
    decider = BudgetDecider(Constraints(gate=options.gate, max_step=STEP), looks=(), alike=options.alike)
    runs = [play(Account(scenario("identical", s), s), decider, 56) for s in range(options.seeds)]
    cost = -np.array([r[0] for r in runs])
    print(
        f"identical arms, {options.gate} gate, alike {options.alike}: cost against holding still {cost.mean():.2%} (standard error "
        f"{cost.std() / len(cost) ** 0.5:.2%}, worst {cost.max():.2%}); runs with a move called certain {sum(r[2] > 0 for r in runs)} of "
        f"{len(runs)}; runs with any move {sum(r[1] > 0 for r in runs)}"
    )


def excitation(options: argparse.Namespace) -> None:
    """Print outcome with random changes over without, on paired seeds."""
    for name in options.scenario:
        gains = []
        for seed in range(options.seeds):
            both = []
            for e in (None, Excitation(amplitude=options.amplitude, block_days=7, max_cost=0.02)):
                decider = BudgetDecider(Constraints(gate="evidence", max_step=STEP), looks=(), excitation=e)
                both.append(play(Account(scenario(name, seed, options.half), seed), decider, options.days)[0])
            gains.append((both[0], both[1], (1 + both[1]) / (1 + both[0]) - 1))
        g = np.array(gains)
        print(
            f"{name}, half-saturation {options.half}, {options.days} days: gain over an equal split {g[:, 0].mean():.1%} without, "
            f"{g[:, 1].mean():.1%} with random changes; paired difference {g[:, 2].mean():+.2%} (standard error "
            f"{g[:, 2].std() / len(g) ** 0.5:.2%})",
            flush=True,
        )


def wait_or_act(policy: str, truth: np.ndarray, seed: int, *, days: int = 20, loss: float = 0.08, learning: int = 2) -> float:
    """Return the outcome of one policy where levels and curve (square root) are exact and each change costs some days of learning."""
    rng, n = np.random.default_rng([seed, 5]), len(truth)
    budgets, counts, seen = np.full(n, 100.0), rng.poisson(truth * 4.0).astype(float), np.full(n, 4.0)
    decider = BudgetDecider(
        Constraints(minimum_volume=0, min_probability=0.0, min_change=0.0), prior=ResponsePrior(power=(0.0, 1e-6)), response="prior",
        draws=200, learning_loss=loss if policy == "rule" else 0.0, learning_days=learning, scenarios=12,
        looks=(2.0, 5.0) if policy == "rule" else (),
    )  # fmt: skip
    blank, shape, rate, total = signals_of(n), 4.0, 4.0 / truth.mean(), 0.0
    for day in range(days):
        if policy != "wait" and day % 2 == 0 and day < days - 2:
            known = rate + seen
            gamma = GammaMixture(shape=(shape + counts)[:, None], rate=(100.0 * known)[:, None], weight=np.ones((n, 1)))
            volume = (shape + counts) / known
            signals = attrs.evolve(
                blank, posteriors={"click": gamma}, spend_per_day=np.full(n, 100.0), effective_volume=shape + counts,
                weekly_conversions=7.0 * volume,
            )  # fmt: skip
            money = {arm: Money.of(round(float(b), 2), "EUR") for arm, b in zip(signals.arms, budgets, strict=True)}
            plan = decider.decide(signals, money, horizon=float(days - day))
            after = budgets.copy()
            for d in plan.decisions:
                after[int(d.arm[1][1:])] = d.after.units
            changed = np.abs(after - budgets) > 1e-6
            total -= float((loss * learning * truth * np.sqrt(budgets / 100.0))[changed].sum())
            budgets = after
        x = np.sqrt(budgets / 100.0)
        counts, seen, total = counts + rng.poisson(truth * x), seen + x, total + float((truth * x).sum())
    return total


def timing(options: argparse.Namespace) -> None:
    """Print the regret of acting at every look, of never acting, and of the rule, against the rule, on paired seeds and over volumes."""
    for volume in (0.5, 2.0, 8.0, 30.0, 200.0):
        rows = []
        for seed in range(options.seeds):
            truth = volume * np.random.default_rng([seed, 6]).gamma(4.0, 0.25, 5)
            rows.append([wait_or_act(policy, truth, seed) / (20.0 * truth.sum()) for policy in ("rule", "act", "wait")])
        found = np.array(rows)
        words = [
            f"{name} {(found[:, 0] - found[:, k]).mean():+.2%} (standard error {(found[:, 0] - found[:, k]).std() / len(found) ** 0.5:.2%})"
            for k, name in ((1, "always acting"), (2, "always waiting"))
        ]
        won = f"{found[:, 0].mean() - 1:+.2%} over standing still"
        print(f"{volume:g} conversions an arm and day: the rule wins {won}; over {', over '.join(words)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["intervals", "identical", "excitation", "timing"])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--days", type=int, default=29)
    parser.add_argument("--scenario", nargs="*", default=["healthy"])
    parser.add_argument("--half", choices=["own", "mixed"], default="mixed")
    parser.add_argument("--rooms", action="store_true")
    parser.add_argument("--gate", choices=["evidence", "volume"], default="evidence")
    parser.add_argument("--alike", type=float, default=0.05)
    parser.add_argument("--amplitude", type=float, default=0.1)
    options = parser.parse_args()
    started = time.process_time()
    {"intervals": intervals, "identical": identical, "excitation": excitation, "timing": timing}[options.what](options)
    print(f"({time.process_time() - started:.0f} s of CPU)")


if __name__ == "__main__":
    main()
