"""Time, memory and disk of deriving co-engagement edges, from a million to a hundred million events.

    python -m benchmarks.co_engagement --events 1000000 10000000 100000000

Events are generated: users with a skewed number of events (one of them has 100,000), entities of skewed popularity,
times over a year. Reading them from the store is not part of it. Each size runs in a process of its own; memory is its
peak (DuckDB may hold 2 GiB and writes the rest to disk).
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks._results import Results
from graph_store.co_engagement.engines import compute_edges
from graph_store.schema import CoEngagement

_HEAVY = 100_000
_BLOCK = 2_000_000
_YEAR_US = 365 * 86_400 * 1_000_000


def write_events(path: Path, events: int) -> None:
    """About twenty events a user, and an entity for every hundred events."""
    rng = np.random.default_rng(1)
    users, entities = max(events // 20, 2), max(events // 100, 10)
    schema = pa.schema(
        [("user", pa.string()), ("entity", pa.string()), ("weight", pa.float64()), ("time", pa.timestamp("us"))]
    )
    with pq.ParquetWriter(path, schema, compression="lz4") as writer:
        for start in range(0, events, _BLOCK):
            count = min(_BLOCK, events - start)
            user = (users * rng.random(count) ** 1.5).astype(np.int64)
            if start == 0:
                user[: min(_HEAVY, count // 10)] = users
            entity = (entities * rng.random(count) ** 2).astype(np.int64)
            when = rng.integers(0, _YEAR_US, count)
            writer.write_table(
                pa.table(
                    {
                        "user": pa.array(user).cast(pa.string()),
                        "entity": pa.array(entity).cast(pa.string()),
                        "weight": np.ones(count),
                        "time": pa.array(when).cast(pa.timestamp("us")),
                    },
                    schema=schema,
                )
            )


def measure(events: int) -> dict[str, Any]:
    """Figures of one size, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (events,))


def _measure(events: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_events(place / "engagements.parquet", events)
        written = sum(each.stat().st_size for each in place.iterdir())
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        most, stop = [0], threading.Event()

        def watch() -> None:
            while not stop.wait(0.5):
                most[0] = max(most[0], sum(each.stat().st_size for each in place.rglob("*") if each.is_file()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        begun = time.perf_counter()
        edges = compute_edges(CoEngagement(via="TOUCHED", max_per_user=200), place, "duckdb", newest_first=True)
        took = time.perf_counter() - begun
        stop.set()
        watcher.join()
        return {
            "edges": len(edges),
            "seconds": round(took, 1),
            "microseconds_an_event": round(took / events * 1e6, 2),
            "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            "peak_mib_before": round(before / 1024),
            "spilled_mib": round((most[0] - written) / 2**20),
        }


def main() -> None:
    """Measure what is asked and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--again", action="store_true", help="measure rows that are there already, too")
    chosen = parser.parse_args()
    results = Results("co_engagement", again=chosen.again)
    for events in chosen.events:
        found = results.row({"events": events, "max_per_user": 200}, lambda events=events: measure(events))
        print(f"{events:>11,}: " + ", ".join(f"{key} {value}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
