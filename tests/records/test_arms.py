"""Arms are the distinct rows of their tag columns, whatever the vocabulary."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closedloop.errors import ConfigurationError
from closedloop.records.arms import Arms, Coded

tag = st.one_of(st.none(), st.sampled_from(["a", "b", "ü", "<x>", ""]))


@given(st.lists(st.tuples(tag, tag, tag), max_size=30))
def test_distinct_rows_are_found_and_sorted(rows: list[tuple[str | None, ...]]) -> None:
    """The arms are the sorted set of rows (missing first), and each row points at its own arm."""
    columns = [Coded.of([row[k] for row in rows]) for k in range(3)]
    arms, of_row = Arms.distinct(("campaign", "audience", "creative"), columns)
    assert list(arms) == sorted(set(rows), key=lambda r: tuple((t is not None, t or "") for t in r))
    assert [arms[i] for i in of_row] == rows
    assert arms.complete.tolist() == [None not in arm for arm in arms]


@given(st.lists(st.lists(st.one_of(st.none(), st.text(max_size=3)), max_size=8), min_size=1, max_size=4))
def test_joined_columns_keep_their_values(parts: list[list[str | None]]) -> None:
    """Joining coded columns keeps every value and sorts the vocabulary."""
    joined = Coded.concat([Coded.of(part) for part in parts])
    assert list(joined.decode()) == [v for part in parts for v in part]
    assert list(joined.vocab) == sorted(joined.vocab)


def test_many_wide_columns_do_not_overflow() -> None:
    """Five columns of 10,000 distinct tags (10^20 combinations) still give the right arms."""
    rng = np.random.default_rng(1)
    columns = [Coded.of([f"{v:05d}" for v in rng.permutation(10_000)]) for _ in range(5)]
    arms, of_row = Arms.distinct(("platform", "campaign", "audience", "creative", "placement"), columns)
    assert len(arms) == 10_000
    assert arms[int(of_row[17])] == tuple(c.decode()[17] for c in columns)


def test_position_of_an_arm_and_an_unknown_one() -> None:
    """An arm is found by its tags; an unknown one lists those that are there."""
    arms = Arms.of(("platform", "campaign"), [("google", "a"), ("meta", None)])
    assert arms.index(("meta", None)) == 1
    with pytest.raises(ConfigurationError, match="google / a"):
        arms.index(("google", "b"))
    with pytest.raises(ConfigurationError):
        arms.index(("google",))


def test_groups_use_the_columns_there_are() -> None:
    """Grouping by a column that arms do not have falls back to those they have, or to one group."""
    arms = Arms.of(("platform", "campaign"), [("google", "a"), ("google", "b"), ("meta", "a")])
    codes, names = arms.groups(("platform", "audience"))
    assert codes.tolist() == [0, 0, 1]
    assert names == ["google", "meta"]
    assert arms.groups(("audience",))[1] == ["all"]
