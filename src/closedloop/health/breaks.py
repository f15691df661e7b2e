"""Days on which an arm's clicks per unit of spend changed, and still are changed.

Law of this file: an arm is compared with itself, before and after a day. Clicks saturate, so that a moved budget alone changes clicks
per unit of spend: clicks are expected to go with spend to the power 0.8, and the doubt about that power (0.15) widens the error. Every
day of the last 150 is tried. All days since then are weighed, so what lasts is seen ever more clearly; the newest three must still show
it, so what was mended is found no more.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import numpy as np
import numpy.typing as npt

from closedloop.health.daily import Daily
from closedloop.records.interval import FloatArray

BEFORE, SCANNED, AFTER = 28, 150, 3  # days of usual before a break; how far back breaks are sought; newest days that must still show it
_LEAST_BEFORE, _LEAST_CLICKS, _LEAST_KNOWN = 7, 30, 10
_ELASTICITY, _ELASTICITY_SPREAD = 0.8, 0.15  # of clicks to spend: 1 without saturation, 1/2 at half-saturation
_MOST_MOVED = 20.0  # an arm whose spend moved by more is not compared
_LARGE = 200_000  # arms times days


@attrs.frozen(kw_only=True, eq=False)
class Break:
    """One day tried as the day of a change.

    Args:
        ago: Days from the change to the newest day, at least 1.
        ratio: Clicks since then, as a multiple of what the spend should have brought, 1 where not comparable (shape (A,)).
        error: Standard error of its logarithm (shape (A,)).
        recent: The same multiple over the newest three days only (shape (A,)).
        comparable: Arms with enough clicks and a spend that has moved by less than a factor of twenty (shape (A,)).
        counts: Clicks before by day, clicks they should have been, and the same since then: four arrays of shape (A, days).
    """

    ago: int
    ratio: FloatArray
    error: FloatArray
    recent: FloatArray
    comparable: npt.NDArray[np.bool_]
    counts: tuple[FloatArray, FloatArray, FloatArray, FloatArray]

    def of_sum(self, arms: npt.NDArray[np.bool_]) -> tuple[float, float]:
        """Return the ratio of the arms taken together, and the standard error of its logarithm."""
        c0, e0, c1, e1 = (part[arms].sum(axis=0, keepdims=True) for part in self.counts)
        chance = scatter(c0, e0)[0] * np.sqrt(1.0 / c1.shape[1] + 1.0 / c0.shape[1])
        moved = float(np.log(max(e1.sum() / c1.shape[1], 1e-9) / max(e0.sum() / c0.shape[1], 1e-9))) / _ELASTICITY
        return float(c1.sum() / max(e1.sum(), 1e-9)), float(np.hypot(chance, _ELASTICITY_SPREAD * moved))


def breaks(sums: Daily, accepted_day: int | None = None) -> Iterator[Break]:
    """Yield every day of the last 150 that has a week before it, as a break (oldest first).

    Args:
        sums: Daily sums.
        accepted_day: Days before it are not looked at.
    """
    keep = np.ones(len(sums.days), dtype=bool) if accepted_day is None else sums.days >= accepted_day
    clicks, spend, days = sums.clicks[:, keep], sums.spend[:, keep], int(keep.sum())
    if not clicks.sum() or not spend.sum():
        return
    splits = np.arange(max(_LEAST_BEFORE, days - SCANNED), days)
    if clicks.size > _LARGE:  # tens of thousands of arms: of what is older than two weeks, every seventh day will do
        splits = splits[(days - splits <= 14) | ((days - splits) % 7 == 0)]
    for split in splits.tolist():
        before = slice(max(0, split - BEFORE), split)
        c0, s0, c1, s1 = clicks[:, before], spend[:, before], clicks[:, split:], spend[:, split:]
        price = c0.sum(axis=1, keepdims=True) / np.maximum(s0.sum(axis=1, keepdims=True), 1e-9)
        usual = np.maximum(s0.mean(axis=1, keepdims=True), 1e-9)
        e0, e1 = (price * usual * (s / usual) ** _ELASTICITY for s in (s0, s1))
        level = np.log(np.maximum(s1.mean(axis=1, keepdims=True), 1e-9) / usual)
        # An arm that should have had few clicks and has had many is the one to see: either number will do, where its price is known.
        known, most = c0.sum(axis=1), np.maximum(e1, c1).sum(axis=1)
        comparable = (known >= _LEAST_KNOWN) & (most >= _LEAST_CLICKS) & (np.abs(level[:, 0]) < np.log(_MOST_MOVED))
        ratio, recent = (
            np.where(comparable, c1[:, part].sum(axis=1) / np.maximum(e1[:, part].sum(axis=1), 1e-9), 1.0)
            for part in (slice(None), slice(-AFTER, None))
        )
        chance = scatter(c0, e0) * np.sqrt(1.0 / (days - split) + 1.0 / (before.stop - before.start))
        # Scatter by day knows no chance under one click a day: of few clicks in all the sums say how little they tell.
        chance = np.maximum(chance, np.sqrt(1.0 / np.maximum(known, 1.0) + 1.0 / np.maximum(most, 1.0)))
        error = np.hypot(chance, _ELASTICITY_SPREAD * level[:, 0])
        yield Break(ago=days - split, ratio=ratio, error=error, recent=recent, comparable=comparable, counts=(c0, e0, c1, e1))


def scatter(counts: FloatArray, expected: FloatArray) -> FloatArray:
    """Return the standard deviation of log(count / expected) by day, at least Poisson's and at least 5 % (shape (A,)).

    >>> scatter(np.array([[100.0, 150.0, 100.0, 150.0]]), np.full((1, 4), 125.0)).round(2)
    array([0.23])
    """
    inside = expected > 0
    relative = np.log((counts + 0.5) / (expected + 0.5))
    n = np.maximum(inside.sum(axis=1), 1)
    mean = np.where(inside, relative, 0.0).sum(axis=1) / n
    variance = np.where(inside, (relative - mean[:, None]) ** 2, 0.0).sum(axis=1) / np.maximum(n - 1, 1)
    poisson = 1.0 / np.maximum(np.where(inside, expected, 0.0).sum(axis=1) / n, 1.0)
    return np.asarray(np.sqrt(np.maximum(variance, np.maximum(poisson, 0.05**2))))
