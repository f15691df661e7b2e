"""Ingestion against hand-written vectorised checks and against pandera alone: ratios of medians, one run.

Run: python benchmarks/ingest.py [rows]
The same pandas frame (5 % bad rows) goes (a) through `TableIngestor`: validate, tag, dedupe, encode; (b) through hand-written pandas
and numpy masks that find the same bad rows; (c) through a plain pandera schema with the same checks, lazily.
"""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd

from closedloop.ingest import TableIngestor

KINDS = ("impression", "click", "conversion", "spend")


def table(n: int, seed: int = 1) -> pd.DataFrame:
    """Return n rows of events with 5 % bad ones, of five sorts, and 1 % re-sent ids."""
    rng = np.random.default_rng(seed)
    pick = lambda names, p=None: np.array(names, dtype=object)[rng.choice(len(names), n, p=p)]  # noqa: E731
    ids = np.char.add("e", np.arange(n).astype(str)).astype(object)
    again = rng.choice(n, n // 100, replace=False)
    ids[again] = ids[again - 1]
    frame = pd.DataFrame(
        {
            "event_id": ids,
            "kind": pick(KINDS, [0.6, 0.3, 0.05, 0.05]),
            "occurred_at": pd.to_datetime(1_767_225_600_000_000 + rng.integers(0, 86_400_000_000 * 60, n), unit="us", utc=True),
            "user_id": np.char.add("u", rng.integers(0, max(n // 4, 1), n).astype(str)).astype(object),
            "platform": pick(["google", "meta", "tiktok"]),
            "campaign": pick([f"campaign_{i}" for i in range(50)]),
            "audience": pick([f"audience_{i}" for i in range(20)]),
            "creative": pick([f"creative_{i}" for i in range(500)]),
            "placement": pick(["feed", "story", "search", "display"]),
            "conversion_type": pick(["purchase", "lead"]),
            "cost": np.round(rng.gamma(1.0, 0.5, n), 2),
            "value": np.round(rng.gamma(2.0, 20.0, n), 2),
            "currency": np.full(n, "EUR", dtype=object),
        }
    )
    bad = rng.choice(n, n // 20, replace=False)
    parts = np.array_split(bad, 5)
    frame.loc[parts[0], "kind"] = "hover"
    frame.loc[parts[1], "cost"] = -1.0
    frame.loc[parts[2], "occurred_at"] = pd.NaT
    frame.loc[parts[3], "campaign"] = "x" * 600
    frame.loc[parts[4], "currency"] = "euro"
    return frame


def by_hand(frame: pd.DataFrame) -> np.ndarray:
    """Return the mask of good rows: what `TableIngestor` checks, written out for this frame."""
    good = frame["kind"].isin(KINDS) & frame["occurred_at"].notna()
    good &= frame["occurred_at"].between(pd.Timestamp("1990-01-01", tz="UTC"), pd.Timestamp("2200-01-01", tz="UTC"))
    for name in ("event_id", "user_id", "platform", "campaign", "audience", "creative", "placement", "conversion_type"):
        length = frame[name].str.len()
        good &= (length > 0) & (length <= 500)
    good &= (frame["cost"] >= 0) & (frame["cost"] <= 1e11) & (frame["value"].abs() <= 1e11)
    good &= frame["currency"].str.fullmatch("[A-Z]{3}")
    good &= ~frame["event_id"].where(good).duplicated() | ~good
    return good.to_numpy()


def by_pandera(frame: pd.DataFrame) -> np.ndarray:
    """Return the mask of good rows by a plain pandera schema on the raw frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandera.pandas as pa
    from pandera.errors import SchemaErrors

    text = lambda: pa.Column(checks=pa.Check.str_length(1, 500))  # noqa: E731
    schema = pa.DataFrameSchema(
        {
            "event_id": pa.Column(checks=pa.Check.str_length(1, 500), unique=True, report_duplicates="exclude_first"),
            "kind": pa.Column(checks=pa.Check.isin(KINDS)),
            "occurred_at": pa.Column(checks=pa.Check.in_range(pd.Timestamp("1990-01-01", tz="UTC"), pd.Timestamp("2200-01-01", tz="UTC"))),
            **{n: text() for n in ("user_id", "platform", "campaign", "audience", "creative", "placement", "conversion_type")},
            "cost": pa.Column(checks=pa.Check.in_range(0, 1e11)),
            "value": pa.Column(checks=pa.Check.in_range(-1e11, 1e11)),
            "currency": pa.Column(checks=pa.Check.str_matches("^[A-Z]{3}$")),
        }
    )
    good = np.ones(len(frame), dtype=bool)
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as found:
        good[found.failure_cases["index"].astype(int).unique()] = False
    return good


def medians(tasks: dict[str, Callable[[], object]], runs: int = 5) -> dict[str, float]:
    """Return the median time of each task over ``runs`` rounds; each round runs every task once, so that a busy machine hits all alike."""
    took: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(runs):
        for name, task in tasks.items():
            gc.collect()
            start = time.perf_counter()
            task()
            took[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in took.items()}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(n: int) -> None:
    frame = table(n)
    size = frame.memory_usage(deep=True).sum() / 2**20
    ingestor = TableIngestor()
    done = ingestor.ingest(frame)
    good = by_hand(frame)
    assert int(good.sum()) == done.n_accepted, (int(good.sum()), done.n_accepted)
    took = medians({"hand": lambda: by_hand(frame), "ours": lambda: ingestor.ingest(frame), "pandera": lambda: by_pandera(frame)})
    hand, ours, alone = took["hand"], took["ours"], took["pandera"]
    print(
        f"{n:,} rows, {size:,.0f} MB: accepted {done.n_accepted:,}, quarantined {len(done.quarantine):,}, duplicates {done.n_duplicates:,}"
    )
    print(f"hand-written checks      {hand:7.2f} s")
    print(f"pandera alone            {alone:7.2f} s")
    print(f"TableIngestor            {ours:7.2f} s   {ours / hand:.2f}x hand   {ours / alone:.2f}x pandera alone   {n / ours:,.0f} rows/s")
    print(f"peak memory of the process {peak_mb():,.0f} MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
