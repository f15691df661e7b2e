"""DuckDB reduces events to the same path counts as numpy, on any events, with any number of partitions."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("duckdb")

from closedloop.attribute import PathCounts, attribute_paths, event_paths
from closedloop.attribute.rows import keys_of
from closedloop.engines.duckdb import reduce_paths
from closedloop.errors import ConfigurationError, InputError, MissingColumnError
from closedloop.records.batch import EVENT_KINDS
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

TAGS = TagSchema(arm=("platform", "campaign"))
DAY0 = 19_000


@st.composite
def events(draw):
    """Quarter-day times of three users, so that boundaries and ties happen."""
    rows = []
    for i in range(draw(st.integers(1, 40))):
        row = {"id": f"e{i}", "at": DAY0 + draw(st.integers(0, 60)) / 4, "user": draw(st.sampled_from(["u", "v", "w", None]))}
        kind = draw(st.sampled_from(["click", "impression", "conversion"]))
        tags = (
            {"value": float(draw(st.integers(0, 9)))}
            if kind == "conversion"
            else {"platform": draw(st.sampled_from("abc")), "campaign": "x"}
        )
        rows.append({**row, "kind": kind, **tags})
    return rows


def table(batch):
    return pd.DataFrame({
        "user_id": batch.user_id.decode(),
        "kind": np.array(EVENT_KINDS, dtype=object)[batch.kind],
        "at": batch.occurred_at,
        "channel": batch.tags["platform"].decode(),
        "value": batch.value / 1e6,
        "tie": keys_of(batch.event_id),
    })  # fmt: skip


def counted(paths):
    c = paths.distinct().to_columns()
    return sorted(zip(c["path"], c["conversions"], c["value"], c["nulls"], strict=True))


@settings(max_examples=40, deadline=None)
@given(rows=events(), partitions=st.integers(1, 3), window=st.sampled_from([("3d", "1d"), ("1d", None), (None, "2d"), ("0s", "0s")]))
def test_duckdb_equals_numpy(batch_of, rows, partitions, window):
    """Converted, null and bare journeys, their revenue, ties and both ends of the window are those of the reference."""
    batch, window = batch_of(rows), AttributionWindow(*window)
    reduced = reduce_paths(table(batch), window, partitions=partitions, threads=1)
    assert counted(PathCounts.of_touches(**reduced.by_touch())) == counted(event_paths(batch, window, tags=TAGS))


def test_it_reads_parquet_and_feeds_every_model(tmp_path, batch_of):
    """From a file to credit: the model sees the same journeys."""
    rows = [{"id": "1", "kind": "click", "user": "u", "at": DAY0 + 1.0, "platform": "a", "campaign": "x"}]
    rows.append({"id": "2", "kind": "conversion", "user": "u", "at": DAY0 + 2.0, "value": 7.0})
    file = tmp_path / "it's events.parquet"
    table(batch_of(rows)).to_parquet(file)
    reduced = reduce_paths(str(file), AttributionWindow(click="7d"))
    assert reduced.paths() == [["a"]]
    credits = attribute_paths(PathCounts.of_touches(**reduced.by_touch()), "markov", replicates=20)
    assert (credits.conversions.estimate.tolist(), credits.value.estimate.tolist()) == ([1.0], [7.0])


def test_bad_input_is_named():
    """A missing column, a nameless channel and impossible settings are said."""
    frame = pd.DataFrame({"user_id": ["u"], "kind": ["click"], "at": [1], "channel": [None], "value": [0.0], "tie": [1]})
    frame["channel"] = frame["channel"].astype("string")
    with pytest.raises(InputError, match="no channel"):
        reduce_paths(frame, AttributionWindow())
    with pytest.raises(MissingColumnError, match="tie"):
        reduce_paths(frame.drop(columns="tie"), AttributionWindow())
    with pytest.raises(ConfigurationError):
        reduce_paths(frame, AttributionWindow(), memory_limit="much")
    with pytest.raises(ConfigurationError):
        reduce_paths(frame, AttributionWindow(), partitions=0)
