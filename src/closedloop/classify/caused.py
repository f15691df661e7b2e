"""From attributed to caused: incrementality factors on the posteriors of rates; STATISTICS section 8.

Law of this file: a factor multiplies the attributed rate with its whole uncertainty; an arm without a factor keeps its attributed rate,
and the title of the signals says that factors were applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from scipy import special

from closedloop.classify.evidence import Evidence
from closedloop.errors import ConfigurationError
from closedloop.records.arms import Arm, Arms
from closedloop.records.interval import FloatArray, Interval, Intervals


@runtime_checkable
class CausedShares(Protocol):
    """Caused over attributed conversions of some arms, as incrementality tests give them."""

    @property
    def arms(self) -> Arms:
        """The arms."""
        ...

    @property
    def share(self) -> Intervals:
        """Caused over attributed, one interval per arm."""
        ...


Incrementality = Mapping[Arm, Interval] | CausedShares


# Probabilities of the slices of a factor's distribution, finer towards the tails; within each, mean and variance are kept.
SLICES = np.array([0.02, 0.04, 0.08, 0.16, 0.4, 0.16, 0.08, 0.04, 0.02])


def factors(evidence: Evidence, incrementality: Incrementality) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance of each arm's factor within slices of its distribution, in canonical order, shape (S, A).

    The factor is taken to be Normal with the interval's estimate and width, cut off at zero; an arm without one has 1 and 0.

    Raises:
        ConfigurationError: An interval is unbounded or negative.
    """
    if isinstance(incrementality, CausedShares):
        given = dict(zip(incrementality.arms, incrementality.share, strict=True))
    else:
        given = {tuple(arm): interval for arm, interval in incrementality.items()}
    n = len(evidence.arms)
    centre, spread = np.ones(n), np.zeros(n)
    position = np.argsort(evidence.canonical)
    for i, arm in enumerate(evidence.arms):
        interval = given.get(arm)
        if interval is None:
            continue
        if not (interval.low >= 0.0 and np.isfinite(interval.high) and interval.high > 0.0):
            problem = f"the incrementality of {evidence.arms.label(i)} must be bounded and not negative"
            raise ConfigurationError(problem, "incrementality", str(interval), "give an interval within [0, inf), such as a lift test's")
        centre[position[i]] = interval.estimate
        spread[position[i]] = (interval.high - interval.low) / (2.0 * special.ndtri(0.5 + interval.level / 2.0))
    return _slices(centre, spread)


def _slices(centre: FloatArray, spread: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return means and variances of a Normal cut off at zero within slices, shape (S, A)."""
    safe = np.where(spread > 0, spread, 1.0)
    below = special.ndtr(-centre / safe)
    share = SLICES[:, None] * (1.0 - below)
    edge = special.ndtri(below + np.append(0.0, np.cumsum(SLICES))[:, None] * (1.0 - below))
    edge[-1] = np.inf
    density = np.exp(-0.5 * edge**2) / np.sqrt(2.0 * np.pi)
    moment = np.where(np.isfinite(edge), edge, 0.0) * density
    first = (density[:-1] - density[1:]) / share
    variance = 1.0 + (moment[:-1] - moment[1:]) / share - first**2
    uncertain = spread > 0
    return (
        np.where(uncertain, np.maximum(centre + safe * first, 1e-9), np.maximum(centre, 1e-9)),
        np.where(uncertain, safe**2 * np.maximum(variance, 0.0), 0.0),
    )
