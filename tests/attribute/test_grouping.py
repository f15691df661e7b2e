"""Touch rows to journeys: every road gives the order of a stable sort by journey and time."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.attribute import PathCounts


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 3)), max_size=40), timed=st.booleans(), sort=st.booleans()
)
def test_grouping_is_a_stable_sort(rows, timed, sort):
    """Rows in order of time, in no order, and without times are grouped as Python's stable sort groups them."""
    if sort:
        rows = sorted(rows, key=lambda r: r[1])
    journey, at, channel = (np.array([r[i] for r in rows], dtype=np.int64) for i in range(3))
    found = PathCounts.of_touches(journey, channel, list("abcd"), at=at if timed else None, n_journeys=6)
    expected = sorted(rows, key=lambda r: (r[0], r[1]) if timed else r[0])
    assert found.codes.tolist() == [r[2] for r in expected]
    assert found.lengths.tolist() == [sum(r[0] == j for r in rows) for j in range(6)]
