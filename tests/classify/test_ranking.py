"""Places among hundreds of thousands of returns, against counting."""

import numpy as np
import pytest

from closedloop.classify.ranking import _SORTED, _places


@pytest.mark.parametrize("kind", ["wide", "with outliers", "nearly equal", "narrow heaps"])
@pytest.mark.parametrize("n", [1000, _SORTED])
def test_a_value_stands_where_so_many_are_smaller(kind, n):
    """Of few points exactly, of very many to a two-hundredth, outliers among them, and nothing overflows."""
    rng = np.random.default_rng(7)
    value = {
        "wide": np.exp(rng.normal(0, 3, n)),
        "with outliers": np.append(np.exp(rng.normal(0, 0.1, n - 4)), [0.0, 1e-200, 1e200, 1e250]),
        "nearly equal": 2.0 * (1.0 + 1e-7 * rng.random(n)),
        "narrow heaps": np.append(rng.normal(1, 1e-3, n // 2), rng.normal(1e6, 1e3, n - n // 2)),
    }[kind]
    points = rng.permutation(value)[: n - n % 3].reshape(3, -1)
    with np.errstate(all="raise"):
        _, place = _places(points)
        _, twice = _places(np.concatenate([points, points], axis=1))
    pool = np.sort(points.ravel())
    smaller = (np.searchsorted(pool, points, side="left") + np.searchsorted(pool, points, side="right")) / (2 * points.size)
    assert np.abs(place - smaller).max() < (1e-12 if n < _SORTED else 5e-3)
    assert np.abs(twice[:, : points.shape[1]] - smaller).max() < (1e-12 if n < _SORTED else 5e-3)
