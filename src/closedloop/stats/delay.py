"""Delay curves by reverse hazards, and how mature a cohort is.

Law of this file: arrays in, arrays out. A delay is counted in calendar days between the day something began and the day its outcome was
seen; only outcomes already *seen* enter, so the data are right-truncated and a curve is estimated backwards: ``g[j]`` is the share, among
outcomes with delay ``<= j``, of those with delay exactly ``j``. Cohorts that are too young to have shown delay ``j`` say nothing about it.

References:
    Lagakos, Barraj & De Gruttola (1988), Nonparametric analysis of truncated survival data, with application to AIDS. Biometrika 75.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import betaln, ndtr

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

PRIOR_MEDIAN = 1.5  # days
PRIOR_SIGMA = 1.2  # of the logarithm of the delay
PRIOR_STRENGTH = 4.0  # the prior weighs as much as this many outcomes
PRIOR_LATE_SHARE = 0.02  # share of outcomes that the prior expects to be written down only after the window


def prior_shares(
    n_window: int,
    n_late: int = 0,
    *,
    longest: float | None = None,
    median: float = PRIOR_MEDIAN,
    sigma: float = PRIOR_SIGMA,
    late_share: float = PRIOR_LATE_SHARE,
) -> FloatArray:
    """Return the default distribution of delays: lognormal, cut at the window, starts spread evenly over a day.

    Args:
        n_window: Calendar-day bins that a delay inside the window can reach.
        n_late: Further bins that exist only because outcomes may be written down late.
        longest: The window in days; by default ``n_window - 1``, at least one day.
        median: Median delay in days.
        sigma: Standard deviation of the logarithm of the delay.
        late_share: Total share put into the late bins, spread evenly.

    Returns:
        Shares of shape ``(n_window + n_late,)``, positive, sum 1.

    >>> prior_shares(8).round(2).tolist()
    [0.2, 0.35, 0.19, 0.11, 0.07, 0.05, 0.03, 0.01]
    """
    limit = max(1e-6, float(max(1, n_window - 1)) if longest is None else longest)
    # The share seen by the end of calendar day j is the delay's distribution averaged over the start within day 0.
    start = (np.arange(64) + 0.5) / 64
    ends = np.arange(1, n_window + 1)[:, None] - start[None, :]
    until = np.minimum(np.maximum(ends, 1e-12), limit)
    seen = (ndtr(np.log(until / median) / sigma) / ndtr(np.log(limit / median) / sigma)).mean(axis=1)
    seen[-1] = 1.0
    shares = np.maximum(np.diff(seen, prepend=0.0), 1e-6)
    if n_late:
        shares = np.concatenate([shares / shares.sum() * (1.0 - late_share), np.full(n_late, late_share / n_late)])
    return np.asarray(shares / shares.sum())


def reverse_sums(bins: npt.ArrayLike, age: npt.ArrayLike, weight: npt.ArrayLike, n: int) -> tuple[FloatArray, FloatArray]:
    """Return ``N[j]`` and ``R[j]`` of right-truncated outcomes.

    Args:
        bins: Delay bin of each outcome, shape (E,), in [0, n).
        age: Whole bins that the outcome's cohort has shown, shape (E,); its bins ``0..age-1`` are complete.
        weight: Outcomes that each entry stands for, shape (E,).
        n: Number of delay bins J.

    Returns:
        Outcomes with delay exactly ``j``, and with delay ``<= j``, both among cohorts of age ``> j``; shape (J,).

    >>> reverse_sums([0, 1, 0], [2, 2, 1], [1.0, 1.0, 1.0], 2)
    (array([2., 1.]), array([2., 2.]))
    """
    at, shown, w = np.asarray(bins), np.minimum(np.asarray(age), n), np.asarray(weight, dtype=np.float64)
    complete = at < shown  # an outcome in a bin that is not complete yet says nothing
    at, shown, w = at[complete], shown[complete], w[complete]
    observed = np.bincount(at, weights=w, minlength=n).astype(np.float64)
    ends = np.bincount(shown, weights=w, minlength=n + 1).astype(np.float64)
    return observed, np.maximum(np.cumsum(observed - ends[:n]), 0.0)


def reverse_sums_by_group(
    group: npt.ArrayLike, bins: npt.ArrayLike, age: npt.ArrayLike, weight: npt.ArrayLike, n_groups: int, n: int
) -> tuple[FloatArray, FloatArray]:
    """Return what `reverse_sums` returns for each of G groups, shape (G, J).

    Args:
        group: Group of each outcome, shape (E,), in [0, n_groups).
        bins, age, weight: As for `reverse_sums`.
        n_groups: Number of groups G.
        n: Number of delay bins J.
    """
    of, at, shown, w = np.asarray(group), np.asarray(bins), np.minimum(np.asarray(age), n), np.asarray(weight, dtype=np.float64)
    complete = at < shown
    of, at, shown, w = of[complete], at[complete], shown[complete], w[complete]
    observed = np.bincount(of * n + at, weights=w, minlength=n_groups * n).reshape(n_groups, n).astype(np.float64)
    ends = np.bincount(of * (n + 1) + shown, weights=w, minlength=n_groups * (n + 1)).reshape(n_groups, n + 1)
    return observed, np.maximum(np.cumsum(observed - ends[:, :n], axis=1), 0.0)


_STRENGTHS = 4.0 ** np.arange(1, 8)  # 4 to 16,384 outcomes


def shrinkage(observed: FloatArray, at_risk: FloatArray, shares: FloatArray) -> float:
    """Return how many outcomes of the pooled curve to give each group's curve: the number under which the groups' counts are likeliest.

    Args:
        observed, at_risk: ``N[j]`` and ``R[j]`` by group, shape (G, J).
        shares: Distribution of the pooled curve, shape (J,).

    Returns:
        One of the powers of 4 from 4 to 16,384: groups that mature alike borrow much, groups that differ little.
    """
    before = np.cumsum(shares) - shares
    prior_a, prior_b = (np.maximum(x, 1e-9)[1:] for x in (shares, before))
    n, missed = observed[:, 1:], np.maximum(at_risk - observed, 0.0)[:, 1:]
    likelihood = [(betaln(k * prior_a + n, k * prior_b + missed) - betaln(k * prior_a, k * prior_b)).sum() for k in _STRENGTHS]
    return float(_STRENGTHS[int(np.argmax(likelihood))])


def posterior(
    observed: npt.ArrayLike, at_risk: npt.ArrayLike, shares: npt.ArrayLike, strength: float | FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the Beta posteriors of the reverse hazards under a prior that weighs ``strength`` outcomes.

    Args:
        observed: ``N[j]``, shape (..., J).
        at_risk: ``R[j]``, shape (..., J), ``R >= N``.
        shares: Prior distribution of the delay, shape (J,).
        strength: Pseudo-outcomes of the prior, above 0; one number, or one for each bin.

    Returns:
        Parameters ``a`` and ``b``, both above 0, shape (..., J). ``b[0]`` is a formality: ``g[0]`` is 1 by definition.
    """
    n, r, prior = (np.asarray(x, dtype=np.float64) for x in (observed, at_risk, shares))
    before = np.maximum(np.cumsum(prior) - prior, 1e-9)
    return strength * np.maximum(prior, 1e-9) + n, strength * before + np.maximum(r - n, 0.0)


def share_seen(hazard: npt.ArrayLike) -> FloatArray:
    """Return ``F[j] = prod_{l > j} (1 - g[l])`` from reverse hazards of shape (..., J); the last is 1.

    >>> share_seen([1.0, 0.5, 0.5]).tolist()
    [0.25, 0.5, 1.0]
    """
    keep = 1.0 - np.asarray(hazard, dtype=np.float64)
    after = np.ones_like(keep)
    after[..., :-1] = np.cumprod(keep[..., :0:-1], axis=-1)[..., ::-1]
    return after


def draw_share_seen(shape_a: FloatArray, shape_b: FloatArray, rng: np.random.Generator, size: int) -> FloatArray:
    """Return posterior draws of ``F``, shape (size, J): the uncertainty of the curve, to be integrated over."""
    return share_seen(rng.beta(shape_a, shape_b, (size, len(shape_a))))


def maturity(seen: FloatArray, age: npt.ArrayLike, fraction: npt.ArrayLike, group: npt.ArrayLike | None = None) -> FloatArray:
    """Return the share of a cohort's outcomes expected to be seen by now.

    A cohort of age ``A`` has shown the bins ``0..A-1`` whole and the share ``fraction`` of bin ``A`` (the part of the day that has passed);
    on its first day its exposure, too, is spread over that part only.

    Args:
        seen: ``F``, shape (..., J); of G groups, shape (G, J).
        age: Whole bins elapsed, shape (R,); below 0 where the data do not reach the cohort's day.
        fraction: Part of the newest day covered by data, in [0, 1], shape (R,).
        group: Group of each cohort, shape (R,), where each has a curve of its own.

    Returns:
        Shape (..., R), in [0, 1]; (R,) with groups.

    >>> maturity(np.array([0.4, 0.8, 1.0]), [0, 1, 5], [0.5, 0.5, 0.5]).round(3).tolist()
    [0.2, 0.6, 1.0]
    """
    whole = np.asarray(age)
    n = seen.shape[-1]
    padded = np.concatenate([np.zeros((*seen.shape[:-1], 1)), seen], axis=-1)  # padded[A] = F[A-1], padded[0] = 0
    low = np.clip(whole, 0, n)
    high = np.clip(whole + 1, 0, n)
    part = np.where(whole < 0, 0.0, np.asarray(fraction, dtype=np.float64))
    of = Ellipsis if group is None else np.asarray(group)
    first, then = padded[of, low], padded[of, high]
    return np.asarray(np.clip(first + part * (then - first), 0.0, 1.0))


def reach(last: float, first: float, n: int, ceiling: float) -> float:
    """Return up to when a feed is complete, judged by its ``n`` records alone: the last one plus the mean gap, at most ``ceiling``.

    The last of ``n`` records spread evenly lies below the end of what was observed by one mean gap (the serial-number problem); without
    this step a feed with one record a day would always look half a day late.

    >>> reach(9.0, 0.0, 10, 100.0)
    10.0
    """
    gap = (last - first) / (n - 1) if n > 1 else 0.0
    return min(ceiling, last + gap)
