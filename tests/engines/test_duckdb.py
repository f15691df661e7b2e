"""DuckDB reduces events to the same counts as numpy, on any events, with any number of partitions."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("duckdb")

from closedloop.attribute import PathCounts, attribute_paths
from closedloop.engines import reduce_cohorts, reduce_paths
from closedloop.errors import ConfigurationError, InputError, MissingColumnError
from closedloop.records.window import AttributionWindow

DAY0 = 19_000


@settings(max_examples=15, deadline=None)
@given(data=st.data(), partitions=st.integers(1, 3))
def test_duckdb_equals_numpy(batch_of, cases, data, partitions):
    """Journeys, revenue, ties, both ends of the window, exposures, last-touch credit and delays are those of the reference."""
    batch, window = batch_of(data.draw(cases.events())), data.draw(st.sampled_from(cases.windows))
    events = cases.table(batch)
    reduced = reduce_paths(events, window, until=int(batch.recorded_at.max()), partitions=partitions, threads=1)
    assert cases.paths(PathCounts.of_touches(**reduced.by_touch())) == cases.reference_paths(batch, window)
    cohorts = reduce_cohorts(events, window, partitions=partitions, threads=1)
    assert cases.cohorts(cohorts) == cases.reference_cohorts(batch, window)
    keys = list(zip(cohorts.channel, cohorts.day, cohorts.kind, cohorts.delay, strict=True))
    assert keys == sorted(set(keys))
    assert len(cohorts) == len(keys)


def test_it_reads_parquet_and_feeds_every_model(tmp_path, batch_of, cases):
    """From a file to credit: the model sees the same journeys."""
    rows = [{"id": "1", "kind": "click", "user": "u", "at": DAY0 + 1.0, "platform": "a", "campaign": "x"}]
    rows.append({"id": "2", "kind": "conversion", "user": "u", "at": DAY0 + 2.0, "value": 7.0})
    file = tmp_path / "it's events.parquet"
    cases.table(batch_of(rows)).to_parquet(file)
    reduced = reduce_paths(str(file), AttributionWindow(click="7d"), engine="duckdb")
    assert reduced.paths() == [["a"]]
    credits = attribute_paths(PathCounts.of_touches(**reduced.by_touch()), "markov", replicates=20)
    assert (credits.conversions.estimate.tolist(), credits.value.estimate.tolist()) == ([1.0], [7.0])


def test_conversions_without_a_value_are_worth_nothing():
    """A missing revenue is none, not an unknown one."""
    kind, at = ["click", "conversion", "conversion"], [1, 2, 3]
    frame = pd.DataFrame({"user_id": ["u", "u", None], "kind": kind, "at": at, "recorded_at": at, "channel": ["a", None, None]})
    frame = frame.assign(value=np.full(3, np.nan), tie=range(3)).astype({"user_id": "string", "channel": "string", "value": "Float64"})
    reduced = reduce_paths(frame, AttributionWindow())
    assert (reduced.paths(), reduced.conversions.tolist(), reduced.value.tolist()) == ([[], ["a"]], [1.0, 1.0], [0.0, 0.0])
    assert reduce_cohorts(frame, AttributionWindow()).value.tolist() == [0.0, 0.0]


def test_nothing_is_reduced_to_nothing():
    """No events, no counts."""
    columns = ("user_id", "kind", "at", "recorded_at", "channel", "value", "tie")
    frame = pd.DataFrame({c: pd.Series(dtype="int64" if c in ("at", "recorded_at", "tie") else "string") for c in columns})
    frame["value"] = frame["value"].astype("Float64")
    assert len(reduce_cohorts(frame, AttributionWindow())) == 0
    assert reduce_paths(frame, AttributionWindow()).paths() == []


def test_bad_input_is_named():
    """A missing column, a nameless channel and impossible settings are said."""
    frame = pd.DataFrame({"user_id": ["u"], "kind": ["click"], "at": [1], "channel": [None], "value": [0.0], "tie": [1]})
    frame["channel"] = frame["channel"].astype("string")
    with pytest.raises(InputError, match="no channel"):
        reduce_paths(frame, AttributionWindow())
    with pytest.raises(MissingColumnError, match="tie"):
        reduce_paths(frame.drop(columns="tie"), AttributionWindow())
    with pytest.raises(MissingColumnError, match="recorded_at"):
        reduce_cohorts(frame, AttributionWindow())
    with pytest.raises(ConfigurationError):
        reduce_paths(frame, AttributionWindow(), memory_limit="much")
    with pytest.raises(ConfigurationError):
        reduce_paths(frame, AttributionWindow(), partitions=0)
    with pytest.raises(ConfigurationError, match="event_paths"):
        reduce_paths(frame, AttributionWindow(), engine="numpy")


def test_partitions_are_written_once_and_removed(tmp_path, batch_of, cases):
    """In a folder of any name; a hundred parts for five users are as good as one, and nothing is left behind."""
    rows = [
        {"id": f"t{i}", "kind": "click", "user": f"u{i % 5}", "at": DAY0 + i / 10, "platform": "ab"[i % 2], "campaign": "x"}
        for i in range(40)
    ]
    rows += [{"id": f"c{i}", "kind": "conversion", "user": f"u{i}", "at": DAY0 + 4.0, "value": 1.0} for i in range(5)]
    events, folder = cases.table(batch_of(rows)), tmp_path / 'it\'s "full"'
    folder.mkdir()
    one, many = (reduce_paths(events, AttributionWindow(), partitions=n, temp_directory=str(folder)) for n in (1, 100))
    assert cases.paths(PathCounts.of_touches(**one.by_touch())) == cases.paths(PathCounts.of_touches(**many.by_touch()))
    assert list(folder.iterdir()) == []
    nobody = events.assign(user_id=pd.array([None] * len(events), dtype="string"))
    assert reduce_paths(nobody, AttributionWindow(), partitions=4, temp_directory=str(folder)).conversions.tolist() == [5.0]
