"""Attribution beside its peers and its floor: same journeys, one run, medians of CPU seconds; and what one more day of events costs.

Run: ``python benchmarks/attribution.py [journeys]`` (a million by default). Peers that are not installed are left out and said so:
``pip install ChannelAttribution==2.2.5 do-attribution==0.0.2 matplotlib``. Peers get ready-made path strings (their making is not timed);
closedloop starts from touch rows, grouping included. Heuristics need converting journeys alone, so both are also timed on those. Only
ratios mean something on another machine.
"""

from __future__ import annotations

import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from closedloop.attribute import PathCounts, WindowedAttribution, attribute_paths, markov
from closedloop.records.arms import TAG_COLUMNS, Coded
from closedloop.records.batch import CLICK, CONVERSION, NO_TIME, EventBatch
from closedloop.records.moments import US_PER_DAY
from closedloop.records.tags import TagSchema
from closedloop.records.window import AttributionWindow

CA_ALL = "ChannelAttribution heuristics, all journeys"
CA_CONVERTING = "ChannelAttribution heuristics, converting journeys alone"
HEURISTICS = "closedloop heuristics (first, last, linear), all journeys"
HEURISTICS_CONVERTING = "closedloop heuristics, converting journeys picked from all touch rows"
EXACT = "closedloop Markov-1, exact, with intervals from 200 replicates"
CHANNELS = [f"channel {i:02d}" for i in range(12)]


def median_cpu(work: Callable[[], object], rounds: int = 5) -> float:
    times = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def make_touches(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Touch rows of n journeys, about four touches each, in order of time (journeys interleaved), 5 % converting."""
    rng = np.random.default_rng(20261124)
    lengths = rng.geometric(0.25, n)
    journey = np.repeat(np.arange(n), lengths)
    share = 1.0 / np.arange(1, 13)
    channel = rng.choice(12, size=len(journey), p=share / share.sum()).astype(np.int32)
    at = rng.integers(0, 30 * US_PER_DAY, len(journey))
    order = np.argsort(at, kind="stable")
    return journey[order], channel[order], at[order], rng.random(n) < 0.05


def floor(journey: np.ndarray, channel: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Sort and count pairs with packed keys: what no model can be faster than."""
    day = at // US_PER_DAY
    packed = np.sort(((journey * 31 + day) << 4) | channel)
    same = (packed[1:] >> 4) // 31 == (packed[:-1] >> 4) // 31
    pair = (packed[:-1] & 15) * 12 + (packed[1:] & 15)
    return np.bincount(pair[same], minlength=192)


def peers(paths: list[str], won: np.ndarray) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {}
    import pandas as pd

    table = pd.DataFrame({"path": paths, "conversions": won.astype(int), "nulls": (~won).astype(int)})
    try:
        import ChannelAttribution as ca

        found["ChannelAttribution Markov-1, sampled"] = lambda: ca.markov_model(
            table, "path", "conversions", var_null="nulls", order=1, verbose=False, flg_pro=False
        )
        found[CA_ALL] = lambda: ca.heuristic_models(table, "path", "conversions", flg_pro=False)
        converting = table[table.conversions > 0]
        found[CA_CONVERTING] = lambda: ca.heuristic_models(converting, "path", "conversions", flg_pro=False)
    except ImportError:
        print("ChannelAttribution is not installed")
    try:
        from do_attribution import MarkovAttribution

        found["do-attribution Markov-1, exact"] = lambda: MarkovAttribution(removal_strategy="redirect_to_null").fit(paths, won.astype(int))
    except ImportError:
        print("do-attribution is not installed")
    return found


def day_of_events(day: int, users: int, rng: np.random.Generator) -> EventBatch:
    """One day: each user clicks once, 5 % convert later that day or from an earlier click."""
    n = users + users // 20
    who = np.concatenate([rng.integers(0, users * 5, users), rng.integers(0, users * 5, users // 20)])
    names = np.array([f"user {i}" for i in range(users * 5)], dtype=object)
    kind = np.concatenate([np.full(users, CLICK), np.full(users // 20, CONVERSION)]).astype(np.int8)
    at = day * US_PER_DAY + rng.integers(0, US_PER_DAY, n)
    tag = {"platform": Coded(codes=rng.integers(0, 12, n).astype(np.int32), vocab=np.array(CHANNELS, dtype=object))}
    none = Coded.missing(n)
    zero = np.zeros(n, dtype=np.int64)
    return EventBatch(
        event_id=np.array([f"{day}-{i}" for i in range(n)], dtype=object),
        kind=kind,
        occurred_at=at,
        recorded_at=at,
        user_id=Coded(codes=who.astype(np.int32), vocab=names),
        tags={name: tag.get(name, none) for name in TAG_COLUMNS},
        conversion_type=none,
        cost=zero,
        value=zero,
        quantity=np.ones(n, dtype=np.int64),
        touch_kind=np.full(n, -1, dtype=np.int8),
        touch_at=np.full(n, NO_TIME, dtype=np.int64),
    )


def one_more_day(histories: tuple[int, int], users: int = 20_000, rounds: int = 15) -> list[float]:
    """Median CPU seconds of one more day after so many days of history, in turns (window 2 days, lateness 1: most of it is settled)."""
    layer = WindowedAttribution(AttributionWindow(click="2d", view=None), tags=TagSchema(arm=("platform",)), lateness="1d")
    prepared = []
    for history in histories:
        rng, state = np.random.default_rng(1), None
        for day in range(history):
            state = layer.attribute(day_of_events(20_000 + day, users, rng), state=state).state
        prepared.append((day_of_events(20_000 + history, users, rng), state))
    times: list[list[float]] = [[] for _ in histories]
    for _ in range(rounds + 1):
        for store, (batch, state) in zip(times, prepared, strict=True):
            start = time.process_time()
            layer.attribute(batch, state=state)
            store.append(time.process_time() - start)
    return [statistics.median(t[1:]) for t in times]  # the first round fills the memory


def main(n: int) -> None:
    journey, channel, at, won = make_touches(n)
    print(f"{n:,} journeys, {len(journey):,} touch rows, 12 channels, {won.mean():.2%} converting; median CPU seconds")
    lost = (~won).astype(np.float64)

    def reduced() -> PathCounts:
        return PathCounts.of_touches(journey, channel, CHANNELS, at=at, n_journeys=n, conversions=won.astype(np.float64), nulls=lost)

    def heuristics(paths: PathCounts) -> None:
        for model in ("first", "last", "linear"):
            attribute_paths(paths, model)

    def converting() -> PathCounts:
        """The touch rows of converting journeys, picked out and grouped: all that heuristics need."""
        rows = np.flatnonzero(won[journey])
        new = np.cumsum(won) - 1
        ones = np.ones(int(won.sum()))
        return PathCounts.of_touches(new[journey[rows]], channel[rows], CHANNELS, at=at[rows], n_journeys=len(ones), conversions=ones)

    def point_credit() -> None:
        paths = reduced()
        links = markov.chain(paths, 1)
        markov.removal_effects(links, markov.steps_of(paths, links), len(CHANNELS))

    ours = {
        "floor: sort and count pairs": lambda: floor(journey, channel, at),
        "closedloop grouping alone": reduced,
        "closedloop Markov-1, exact, without intervals": point_credit,
        EXACT: lambda: attribute_paths(reduced(), "markov", replicates=200),
        HEURISTICS: lambda: heuristics(reduced()),
        HEURISTICS_CONVERTING: lambda: heuristics(converting()),
    }
    times = {}
    for name, work in ours.items():
        times[name] = median_cpu(work)
        print(f"{times[name]:9.3f}  {name}")
    tracemalloc.start()
    attribute_paths(reduced(), "markov", replicates=200)
    print(f"{tracemalloc.get_traced_memory()[1] / 1e6:9.0f}  MB peak above the input, Markov-1 with 200 replicates")
    tracemalloc.stop()
    paths = reduced()
    words = paths.channels[paths.codes]
    strings = [" > ".join(words[a:b]) for a, b in zip(paths.starts[:-1], paths.starts[1:], strict=True)]
    for name, work in peers(strings, won).items():
        times[name] = median_cpu(work, 3)
        ours_name = {CA_ALL: HEURISTICS, CA_CONVERTING: HEURISTICS_CONVERTING}.get(name, EXACT)
        print(f"{times[name]:9.3f}  {name}: {times[name] / times[ours_name]:.1f} times ours with its intervals")
    for name in times:
        if name.startswith("closedloop"):
            print(f"{times[name] / times['floor: sort and count pairs']:9.1f}  times the floor: {name}")
    added = times[EXACT] / times["closedloop Markov-1, exact, without intervals"]
    print(f"{added:9.2f}  times the cost of exact credit alone, with 200 replicates beside it")
    week, quarter = one_more_day((7, 90))
    print(
        f"{quarter / week:9.2f}  cost of one more day after 90 days of history, over the same after 7 days ({quarter:.3f} / {week:.3f} s)"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
