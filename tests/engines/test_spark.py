"""Spark reduces events to the same counts as numpy, in a session that is there already."""

import os
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closedloop.attribute import PathCounts
from closedloop.engines import reduce_cohorts, reduce_paths
from closedloop.errors import InputError, MissingColumnError
from closedloop.records.window import AttributionWindow

SCHEMA = "user_id string, kind string, at long, recorded_at long, channel string, value double, tie long"


def test_what_is_no_spark_frame_is_named():
    """A pandas frame has no session; a frame without a needed column says which one (neither needs Spark itself)."""
    with pytest.raises(InputError, match="Spark"):
        reduce_paths(pd.DataFrame(), AttributionWindow(), engine="spark")
    with pytest.raises(MissingColumnError, match="channel"):
        reduce_paths(SimpleNamespace(sparkSession=None, columns=["user_id", "kind", "at"]), AttributionWindow(), engine="spark")


@pytest.fixture(scope="module")
def session():
    if os.environ.get("CLOSEDLOOP_FULL") != "1":
        pytest.skip("a Java machine takes a minute; set CLOSEDLOOP_FULL=1")
    sql = pytest.importorskip("pyspark.sql")
    build = sql.SparkSession.builder.master("local[2]").appName("closedloop")
    settings = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2", "spark.driver.bindAddress": "127.0.0.1"}
    for key, value in {**settings, "spark.driver.host": "127.0.0.1", "spark.ui.showConsoleProgress": "false"}.items():
        build = build.config(key, value)
    session = build.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield session
    session.stop()


def frame_of(session, table):
    rows = [tuple(None if pd.isna(x) else x for x in row) for row in table.astype(object).itertuples(index=False)]
    return session.createDataFrame(rows, SCHEMA)


# One case holds as many users as a hundred of DuckDB's: a query costs seconds whatever it reads.
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_spark_equals_numpy(session, batch_of, cases, data):
    """The same strategy as for DuckDB: journeys, revenue, ties, both ends of the window, cohorts and delays are those of the reference."""
    users = [None, *(f"u{i}" for i in range(40))]
    batch, window = batch_of(data.draw(cases.events(users, 200))), data.draw(st.sampled_from(cases.windows))
    events = frame_of(session, cases.table(batch))
    reduced = reduce_paths(events, window, engine="spark", until=int(batch.recorded_at.max()))
    assert cases.paths(PathCounts.of_touches(**reduced.by_touch())) == cases.reference_paths(batch, window)
    assert cases.cohorts(reduce_cohorts(events, window, engine="spark")) == cases.reference_cohorts(batch, window)


def test_spark_meets_nothing_and_missing_values(session):
    """No events give no counts; a conversion without revenue is worth nothing; the session keeps no view of ours."""
    empty = session.createDataFrame([], SCHEMA)
    assert reduce_paths(empty, AttributionWindow(), engine="spark").paths() == []
    assert len(reduce_cohorts(empty, AttributionWindow(), engine="spark")) == 0
    bare = session.createDataFrame([("u", "conversion", 1, 1, None, None, 1), (None, "conversion", 1, 1, None, None, 2)], SCHEMA)
    reduced = reduce_paths(bare, AttributionWindow(), engine="spark")
    assert (reduced.paths(), reduced.conversions.tolist(), reduced.value.tolist()) == ([[]], [2.0], [0.0])
    with pytest.raises(InputError, match="no channel"):
        reduce_paths(session.createDataFrame([("u", "click", 1, 1, None, None, 1)], SCHEMA), AttributionWindow(), engine="spark")
    assert session.catalog.listTables() == []
