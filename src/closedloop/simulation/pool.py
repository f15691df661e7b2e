"""Users on their way to a conversion, and what platforms and last clicks make of their journeys.

Law of this file: bookkeeping of what was drawn; nothing is drawn here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.records.interval import FloatArray
from closedloop.records.moments import US_PER_DAY

if TYPE_CHECKING:
    from closedloop.simulation.market import Market

Int64 = npt.NDArray[np.int64]


@attrs.define(eq=False)
class Pool:
    """Users on their way to a conversion: the only memory of the market, with the touches that platforms count in their reports."""

    user: Int64
    born_us: Int64
    converts_us: Int64
    touch_user: Int64
    touch_arm: Int64
    touch_us: Int64
    touch_kind: Int64
    test_user: Int64
    test_arm: Int64
    test_out: Int64

    @classmethod
    def empty(cls) -> Pool:
        """Return a pool without users."""
        return cls(*(np.empty(0, dtype=np.int64) for _ in range(10)))

    def note_test(self, users: Int64, arm: Int64, tested: npt.NDArray[np.bool_], out: npt.NDArray[np.bool_]) -> None:
        """Remember converters whom a tested arm touched, or would have touched were they not held out (all shape (N,))."""
        if tested.any():
            self.test_user = np.concatenate([self.test_user, users[tested]])
            self.test_arm = np.concatenate([self.test_arm, arm[tested]])
            self.test_out = np.concatenate([self.test_out, out[tested].astype(np.int64)])

    def settle_tests(self, converted: Int64, arms: int) -> tuple[Int64, Int64]:
        """Return conversions of treated and of held-out users by arm, and forget these users."""
        done = np.isin(self.test_user, converted)
        seen = np.unique(np.stack([self.test_user[done], self.test_arm[done], self.test_out[done]], axis=1), axis=0)
        counts = (
            np.bincount(seen[seen[:, 2] == 0, 1], minlength=arms).astype(np.int64),
            np.bincount(seen[seen[:, 2] == 1, 1], minlength=arms).astype(np.int64),
        )
        self.test_user, self.test_arm, self.test_out = self.test_user[~done], self.test_arm[~done], self.test_out[~done]
        return counts


@attrs.frozen(kw_only=True, eq=False)
class Tally:
    """The day's sums by arm (shape (A,)): what a policy that looks at totals needs.

    Args:
        clicks: Clicks.
        spent: Spend in units of the currency.
        last_click: Conversions of the day whose last click within 7 days was the arm's, over all platforms.
        claimed: Conversions of the day that the arm's own platform claims for it.
        conversions: Conversions of the day, whatever led to them.
    """

    clicks: Int64
    spent: FloatArray
    last_click: Int64
    claimed: Int64
    conversions: int


class Claims:
    """What platforms claim of one day's conversions, each by its own last touch inside its own window.

    Args:
        market: For its tags and the platforms' windows.
        users, at, value: The conversions (shape (C,)).
        touch_user, touch_arm, touch_us, touch_kind: The touches of these users (shape (T,)); kind 0 click, 1 view.
    """

    def __init__(
        self,
        market: Market,
        users: Int64,
        at: Int64,
        value: FloatArray,
        touch_user: Int64,
        touch_arm: Int64,
        touch_us: Int64,
        touch_kind: Int64,
    ) -> None:
        platform = np.array([a[0] for a in market.arms], dtype=object)
        self.market, self.day = market, market.next_day
        self.windows = {p: market.scenario.reporting.get(p, 7) for p in sorted(set(platform.tolist()))}
        self.conversions = len(users)
        order = np.argsort(users, kind="stable")
        where = order[np.searchsorted(users, touch_user, sorter=order)] if len(users) else np.empty(0, dtype=np.int64)
        waited = at[where] - touch_us if len(touch_us) else where

        def last(fits: npt.NDArray[np.bool_]) -> Int64:
            chosen = np.flatnonzero(fits)
            # By conversion, clicks after views, so that the last of each is its last click if it has one.
            newest = chosen[np.lexsort((touch_us[chosen], -touch_kind[chosen], where[chosen]))]
            return newest[np.append(where[newest][1:] != where[newest][:-1], True)] if len(newest) else newest

        own = [
            last((platform[touch_arm] == name) & (waited <= np.where(touch_kind == 0, window, 1) * US_PER_DAY))
            for name, window in self.windows.items()
        ]
        self.last_click_arm = touch_arm[last((touch_kind == 0) & (waited <= 7 * US_PER_DAY))]
        chosen = np.concatenate(own).astype(np.int64)
        self.arm, self.at, self.value = touch_arm[chosen], at[where[chosen]], value[where[chosen]]
        self.touch_us, self.touch_kind = touch_us[chosen], touch_kind[chosen]

    def report(self) -> dict[str, Any]:
        """Return the claims by platform and campaign, with the window they were made under."""
        campaigns = sorted({(str(a[0]), str(a[1])) for a in self.market.arms})
        table = np.array([campaigns.index((str(a[0]), str(a[1]))) for a in self.market.arms], dtype=np.int64)
        code = table[self.arm]
        return {
            "platform": [p for p, _ in campaigns],
            "campaign": [c for _, c in campaigns],
            "conversions": np.bincount(code, minlength=len(campaigns)).tolist(),
            "value": np.bincount(code, weights=self.value, minlength=len(campaigns)).tolist(),
            "window_days": [self.windows[p] for p, _ in campaigns],
            "day": [self.day] * len(campaigns),
        }
