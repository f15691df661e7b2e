"""Normalised leave-one-out on conversion probabilities, as Google's and Snowplow's ``fractribution`` does it.

Law of this file: each touch of a path is worth ``max(P(path) - P(path without it), 0)`` where ``P`` is the observed share of conversions
of exactly that path (0 for a path never seen); a converting path's conversions are shared in proportion, and go to its last touch when no
touch is worth anything. Their files call this Shapley value; it is not: only single removals from the whole path are looked at.

References:
    google/fractribution and snowplow/dbt-snowplow-fractribution (public repositories, Apache-2.0).
"""

from __future__ import annotations

import numpy as np

from closedloop.attribute.paths import PathCounts, path_keys
from closedloop.records.arms import IntArray
from closedloop.records.interval import FloatArray


def without_each(paths: PathCounts) -> IntArray:
    """Return, for each touch, the row of the path that is left without it, -1 where no journey took that path; ``paths`` are distinct."""
    whole, left = path_keys(paths)
    order = np.argsort(whole, kind="stable")
    place = np.searchsorted(whole[order], left)
    place = np.minimum(place, max(len(whole) - 1, 0))
    found = order[place] if len(order) else np.zeros(0, dtype=np.int64)
    return np.where(whole[found] == left, found, -1) if len(found) else found


def touch_weights(paths: PathCounts, left: IntArray, conversions: FloatArray, nulls: FloatArray) -> FloatArray:
    """Return the weight of each touch in its path, shape (T,); each path's sum is above 0.

    Args:
        paths: Distinct paths.
        left: What `without_each` returned.
        conversions, nulls: Counts of each path, shape (P,).
    """
    seen = conversions + nulls
    rate = np.append(np.divide(conversions, seen, out=np.zeros(len(seen)), where=seen > 0), 0.0)  # the last entry serves -1
    worth = np.maximum(np.repeat(rate[:-1], paths.lengths) - rate[left], 0.0)
    touched = np.flatnonzero(paths.lengths > 0)
    totals = np.add.reduceat(worth, paths.starts[:-1][touched]) if len(touched) else np.zeros(0)
    worthless = touched[totals <= 0]
    worth[paths.starts[1:][worthless] - 1] = 1.0
    return np.asarray(worth)
