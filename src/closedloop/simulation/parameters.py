"""The parameters of a market's arms, drawn once by its seed, and what they are on a day.

Law of this file: one generator for the arms and one for each block of 64 days of drift, so that no day depends on how far one has looked.
"""

from __future__ import annotations

import numpy as np

from closedloop.records.arms import Arm
from closedloop.records.interval import FloatArray
from closedloop.simulation.scenarios import Scenario

_MOST = 0.3  # a click that causes a conversion more often would leave no room for the journeys


class Parameters:
    """The arms of a scenario, as one seed draws them.

    Args:
        scenario: Medians and spreads.
        seed: The market's seed.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario, self.seed = scenario, seed
        specs = [(c, creative) for c in scenario.campaigns for creative in c.creatives]
        self.arms: tuple[Arm, ...] = tuple((c.platform, c.campaign, c.audience, creative, c.placement) for c, creative in specs)
        s, n = scenario, len(specs)
        rng = np.random.default_rng([seed, 1])
        number = np.repeat(np.arange(len(s.campaigns)), [len(c.creatives) for c in s.campaigns])
        campaign = rng.normal(0.0, 1.0, len(s.campaigns))[number] * s.rate_spread[0]
        creative = rng.normal(0.0, 1.0, n) * s.rate_spread[1]
        quality = np.array([c.quality * s.caused_factor.get(c.role, 1.0) for c, _ in specs])
        size = np.array([c.size for c, _ in specs])
        self.rate = np.minimum(s.rate * quality * np.exp(campaign + creative), _MOST)
        self.cpc = s.cpc[0] * np.exp(rng.normal(0.0, 1.0, n) * s.cpc[1])
        self.half = s.total / n * s.half_spend[0] * size * np.exp(rng.normal(0.0, 1.0, n) * s.half_spend[1])
        self.touched = np.array([s.touched.get(c.role, 0.0) for c, _ in specs])
        self.views = np.array([s.view_share.get(c.platform, 0.0) for c, _ in specs])
        self._struck = []
        for at in s.breaks:
            named = np.array([c.campaign in at.campaigns for c, _ in specs])
            chosen = np.zeros(n, dtype=bool)
            chosen[rng.permutation(n)[: round(at.share * n)]] = True
            self._struck.append(named if at.campaigns else chosen)
        self._steps = np.zeros((0, n))

    def on(self, day: int) -> tuple[FloatArray, FloatArray]:
        """Return the rate of caused conversions per click, and the price of a first click, on a day (shape (A,) each)."""
        rate, cpc = self.rate.copy(), self.cpc.copy()
        if self.scenario.drift:
            while len(self._steps) <= day:  # each block of days has its own generator: no day depends on how far one has looked
                block = len(self._steps) // 64
                steps = np.random.default_rng([self.seed, 2, block]).normal(0.0, self.scenario.drift, (64, len(self.arms)))
                self._steps = np.concatenate([self._steps, steps])
            rate *= np.exp(self._steps[: day + 1].sum(axis=0))
        for at, struck in zip(self.scenario.breaks, self._struck, strict=True):
            if day >= at.day:
                rate[struck] *= at.rate
                cpc[struck] *= at.cpc
        return np.minimum(rate, _MOST), cpc

    def weekday(self, day: int) -> float:
        """Return the weekday's factor on demand; the seven have mean 1."""
        factors = np.asarray(self.scenario.weekday)
        return float((factors / factors.mean())[(self.scenario.start.weekday() + day) % 7])

    def curve(self, day: int) -> tuple[FloatArray, FloatArray]:
        """Return conversions caused by the first unit of spend, and the half-saturation spend, on a day (shape (A,) each)."""
        rate, cpc = self.on(day)
        return rate * (1.0 + self.views) / cpc, self.half
