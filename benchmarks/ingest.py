"""Ingestion against hand-written vectorised checks and against pandera alone: ratios of medians, one run.

Run: python benchmarks/ingest.py [speed|memory|linear|stream|curve|recorder rows]
With CLOSEDLOOP_FULL=1 the curve goes to 50 million streamed rows, and the frame at once to 10 million.
The same pandas frame (5 % bad rows) goes (a) through `TableIngestor`: validate, tag, dedupe, encode; (b) through hand-written pandas
and numpy masks that find the same bad rows; (c) through a plain pandera schema with the same checks, lazily.
"""

from __future__ import annotations

import gc
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from closedloop.ingest import EventRecorder, TableIngestor

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


def by_hand_encoded(frame: pd.DataFrame) -> list[object]:
    """Return what a batch needs, by hand: the checks, then codes over sorted vocabularies, microseconds and millionths of the good rows."""
    good = frame[by_hand(frame)]
    out: list[object] = [good["event_id"].to_numpy(dtype=object), good["occurred_at"].dt.as_unit("us").astype("int64").to_numpy()]
    for name in ("kind", "user_id", "platform", "campaign", "audience", "creative", "placement", "conversion_type", "currency"):
        out.append(pd.factorize(good[name], sort=True))
    for name in ("cost", "value"):
        out.append(np.rint(good[name].to_numpy() * 1e6).astype(np.int64))
    return out


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
    """Return the median processor time of each task over ``runs`` rounds; every round runs every task once.

    Processor time, because a busy machine multiplies wall time by chance; all tasks run on one core.
    """
    took: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(runs):
        for name, task in tasks.items():
            gc.collect()
            start = time.process_time()
            task()
            took[name].append(time.process_time() - start)
    return {name: statistics.median(times) for name, times in took.items()}


def speed(n: int) -> None:
    """Print times and ratios for one frame of n rows."""
    frame = table(n)
    ingestor = TableIngestor()
    done = ingestor.ingest(frame)
    good = by_hand(frame)
    assert int(good.sum()) == done.n_accepted, (int(good.sum()), done.n_accepted)
    took = medians(
        {
            "hand": lambda: by_hand(frame),
            "encoded": lambda: by_hand_encoded(frame),
            "ours": lambda: ingestor.ingest(frame),
            "pandera": lambda: by_pandera(frame),
        }
    )
    hand, encoded, ours, alone = took["hand"], took["encoded"], took["ours"], took["pandera"]
    print(f"{n:,} rows: accepted {done.n_accepted:,}, quarantined {len(done.quarantine):,}, duplicates {done.n_duplicates:,}")
    print(f"hand-written checks      {hand:7.2f} s")
    print(f"the same, and encoded    {encoded:7.2f} s")
    print(f"pandera alone            {alone:7.2f} s")
    print(f"TableIngestor            {ours:7.2f} s   {n / ours:,.0f} rows/s")
    print(f"ratios: {ours / hand:.2f}x hand, {ours / encoded:.2f}x hand and encoded, {ours / alone:.2f}x pandera alone")


def memory(n: int) -> None:
    """Print the peak memory of ingesting one frame, beside the frame's own size (in this process: run it in a fresh one)."""
    TableIngestor().ingest(table(100))  # imports
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "events.parquet", n)
        before = resident_mb()
        frame = pd.read_parquet(path)
        size = resident_mb() - before
        TableIngestor().ingest(frame)
    print(
        f"{n:,} rows: frame {size:,.0f} MB, peak while ingesting {peak_mb() - before:,.0f} MB, {(peak_mb() - before) / size:.2f}x the frame"
    )


def stream(n: int) -> None:
    """Print time and peak memory of streaming one Parquet file of n rows (in this process: run it in a fresh one)."""
    TableIngestor().ingest(table(100))
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "events.parquet", n)
        before, start, rows, accepted = resident_mb(), time.process_time(), 0, 0
        for done in TableIngestor().stream(path):
            rows, accepted = rows + done.n_rows, accepted + done.n_accepted
    took = time.process_time() - start
    print(
        f"{rows:>11,} rows streamed: {accepted:,} accepted, peak {peak_mb() - before:,.0f} MB above the start, "
        f"{took:,.1f} s, {1e6 * took / rows:.2f} s a million",
        flush=True,
    )


def curve(n: int) -> None:
    """Print the curve of memory and time from one million rows to n, each in a fresh process."""
    for rows in (1_000_000, 3_000_000, 12_000_000, 50_000_000):
        if rows <= n:
            subprocess.run([sys.executable, __file__, "stream", str(rows)], check=True)


def linear(n: int) -> None:
    """Print the processor time of ingesting one frame in memory of a tenth of n rows, and of n rows."""
    ingestor = TableIngestor()
    times = []
    for rows in (n // 10, n):
        frame = table(rows)
        times.append(statistics.median(medians({"": lambda frame=frame: ingestor.ingest(frame)}, runs=3).values()))
        print(f"{rows:>11,} rows at once: {times[-1]:.2f} s, {1e6 * times[-1] / rows:.2f} s a million", flush=True)
    print(f"ten times the rows take {times[1] / times[0]:.1f} times the time")


def write(path: Path, n: int) -> Path:
    """Write n rows as Parquet, a quarter of a million at a time in another process, so that writing leaves no memory here."""
    code = (
        "import importlib.util as u, sys, pyarrow as pa, pyarrow.parquet as pq\n"
        "s = u.spec_from_file_location('b', sys.argv[1]); b = u.module_from_spec(s); s.loader.exec_module(b)\n"
        "n, w, k, base = int(sys.argv[3]), None, 0, b.table(250_000)\n"
        "while n > 0:\n"
        "    f = base.iloc[:n].copy()\n"
        "    for name in ('event_id', 'user_id'):\n"
        "        f[name] = f[name] + f'-{k}'\n"  # new events of new users in every part
        "    t = pa.Table.from_pandas(f, preserve_index=False)\n"
        "    w = w or pq.ParquetWriter(sys.argv[2], t.schema); w.write_table(t); n -= 250_000; k += 1\n"
        "w.close()\n"
    )
    subprocess.run([sys.executable, "-c", code, __file__, str(path), str(n)], check=True)
    return path


def resident_mb() -> float:
    """Memory held now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def peak_mb() -> float:
    """Most memory held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def recorder(n: int) -> None:
    """Print how many events a second one core records, with explicit tags and from distinct landing URLs."""
    at = datetime(2026, 1, 31, tzinfo=UTC)
    urls = [f"https://shop.example/?utm_source=google&utm_campaign=c{i % 50}&gclid=x{i}" for i in range(n)]
    tags = {"platform": "a", "campaign": "b", "audience": "c", "creative": "d", "placement": "e"}
    for name in ("explicit tags", "landing URLs"):
        made = EventRecorder(TableIngestor(), sink=lambda rows: None)
        start = time.process_time()
        for url in urls:
            made.record("click", at=at, user_id="u", url=url) if name == "landing URLs" else made.record(
                "click", at=at, user_id="u", **tags
            )
        print(f"recorder, {name}: {n / (time.process_time() - start):,.0f} events/s")


if __name__ == "__main__":
    task, size = (sys.argv[1] if len(sys.argv) > 1 else "all"), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    if task == "all":
        for each, rows in (
            ("speed", 1_000_000),
            ("memory", 1_000_000),
            ("linear", 10_000_000 if os.environ.get("CLOSEDLOOP_FULL") else 2_000_000),
            ("curve", 50_000_000 if os.environ.get("CLOSEDLOOP_FULL") else 3_000_000),
            ("recorder", 200_000),
        ):
            subprocess.run([sys.executable, __file__, each, str(rows)], check=True)
    else:
        {"speed": speed, "memory": memory, "linear": linear, "stream": stream, "curve": curve, "recorder": recorder}[task](size)
