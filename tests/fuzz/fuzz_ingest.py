"""Fuzz the doors that read strangers' bytes: CSV, NDJSON and landing URLs.

Run: python tests/fuzz/fuzz_ingest.py csv|ndjson|url|all [seconds]
Whatever the bytes, nothing but `InputError` comes out, rows in are rows out, and no row takes long. With atheris installed the search
for one door is guided by coverage of the ingest room; without it, or for all doors, by mutation of the corpus. What fails is written
beside the corpus, to be kept there once it is mended: `tests/ingest/test_fuzz_corpus.py` replays every file in every test run.
"""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
import time
import warnings
from pathlib import Path

DOORS = ("csv", "ndjson", "url")
atheris = None
if __name__ == "__main__" and len(sys.argv) > 1 and sys.argv[1] in DOORS:
    try:
        import atheris
    except ImportError:
        atheris = None
    else:  # coverage of this room only: all of pandas would take minutes to prepare
        with atheris.instrument_imports(include=["closedloop.ingest"]):
            import closedloop.ingest  # noqa: F401

from closedloop.errors import InputError  # noqa: E402
from closedloop.ingest import TableIngestor, landing_tags  # noqa: E402
from closedloop.records.tags import TagSchema  # noqa: E402

HERE = Path(__file__).parent / "corpus"
INGESTOR = TableIngestor(TagSchema(arm=("platform",)), zone="UTC")
SLOW = 10.0  # seconds of processor time: the clock on the wall also counts what else the machine does
TOKENS = [
    b"event_id",
    b"kind",
    b"occurred_at",
    b"cost",
    b"platform",
    b"click",
    b"spend",
    b"conversion",
    b"2026-01-31T12:00:00Z",
    b"NaN",
    b"inf",
]
TOKENS += [
    b"1e999",
    b'"',
    b'""',
    b",",
    b";",
    b"\t",
    b"\r\n",
    b"\n",
    b"\r",
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"{",
    b"}",
    b"[",
    b'":"',
    b"null",
]
TOKENS += [
    b"=cmd|' /C calc'!A0",
    b"<script>alert(1)</script>",
    b"\xed\xa0\x80",
    b"9" * 400,
    b"-1",
    b"touch_at",
    b"quantity",
    b"%",
    b"&",
    b"?",
    b"utm_source=",
]


def one(door: str, data: bytes) -> None:
    """Feed one input to a door; raise when a promise is broken."""
    start = time.process_time()
    if door == "url":
        try:
            tags = landing_tags(data.decode("utf-8", "surrogateescape"))
        except InputError:
            return
        assert all(isinstance(v, str) for v in tags.values())
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"t.{door}"
            path.write_bytes(data)
            try:
                done = INGESTOR.ingest(path)
            except InputError as error:
                words = str(error)
                if len(words) > 20_000:
                    raise RuntimeError("an error floods the log") from error
                return
            assert done.n_rows == done.n_accepted + len(done.quarantine) + done.n_duplicates
            assert "<script" not in done._repr_html_() + done.quarantine._repr_html_() + done.tags._repr_html_()
            repr(done.quarantine)
    assert time.process_time() - start < SLOW, "too slow"


def mutated(data: bytes, pool: list[bytes], rng: random.Random) -> bytes:
    """Return the bytes with a few changes: flips, cuts, repeats, tokens, pieces of other inputs."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randint(0, len(out))
        choice = rng.random()
        if choice < 0.3:
            out[at:at] = rng.choice(TOKENS)
        elif choice < 0.5 and out:
            out[min(at, len(out) - 1)] = rng.randrange(256)
        elif choice < 0.7:
            del out[at : at + rng.randint(1, 20)]
        elif choice < 0.85:
            other = rng.choice(pool)
            cut = rng.randint(0, len(other))
            out[at:at] = other[cut : cut + rng.randint(1, 60)]
        else:
            out[at:at] = out[at : at + rng.randint(1, 40)] * rng.randint(1, 20)
    return bytes(out[:20_000])


def mutate_for(door: str, seconds: float, seed: int) -> int:
    """Run mutations of the corpus for some seconds and return how many inputs were tried."""
    rng = random.Random(seed)
    pool = [p.read_bytes() for p in sorted((HERE / door).iterdir())]
    tried, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutated(rng.choice(pool), pool, rng)
        try:
            one(door, data)
        except Exception:
            failed = HERE / door / ("failed-" + hashlib.sha256(data).hexdigest()[:12])
            failed.write_bytes(data)
            print(f"{door}: failed, input kept as {failed.name}")  # noqa: T201
            raise
        tried += 1
        if tried % 50 == 0:
            pool.append(data)
    return tried


def main(doors: list[str], seconds: float) -> None:
    """Share the time among the doors."""
    warnings.simplefilter("error", RuntimeWarning)
    if atheris is not None:
        folder = HERE / doors[0]
        with tempfile.TemporaryDirectory() as found:
            options = [f"-max_total_time={int(seconds)}", f"-artifact_prefix={folder}/failed-", "-max_len=20000", "-timeout=300"]
            options += ["-report_slow_units=300", "-rss_limit_mb=3000"]
            atheris.Setup([sys.argv[0], *options, found, str(folder)], lambda data: one(doors[0], data))
            atheris.Fuzz()
        return
    for door in doors:
        tried = mutate_for(door, seconds / len(doors), seed=int(time.time()))
        print(f"{door}: {tried:,} inputs, nothing but InputError")  # noqa: T201


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else "all"
    main(list(DOORS) if chosen == "all" else [chosen], float(sys.argv[2]) if len(sys.argv) > 2 else 600.0)
