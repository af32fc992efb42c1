"""How many searches a second do servers of nearest neighbours answer, each through its own Python client?

    python -m benchmarks.servers --entities 100000 --dimension 64 --seconds 10

Kithkin (one worker, everything on), Neo4j's vector index, LanceDB and pgvector hold the same generated unit vectors
with an id and two properties, and are asked for the ten nearest of vectors that are not among them. Each is turned to
the least effort whose recall@10 against exact search is at least 0.95; then two processes ask one after the other, each
waiting for its answer. Build time is from vectors in memory to the first answer. Memory is the server's (proportional
set size); LanceDB runs within the process that asks. One server is up at a time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._catalogue import clustered_vectors, item_ids
from benchmarks._peers import PEERS, Vectors
from benchmarks._results import Results

TARGET = 0.95
K = 10
_ASKING = 2


def queries(entities: int, dimension: int, count: int) -> Vectors:
    """Vectors near those of the catalogue, none of them in it."""
    rng = np.random.default_rng(3)
    vectors = clustered_vectors(entities, dimension)
    near = vectors[rng.choice(entities, count, replace=False)]
    near = near + 0.3 * rng.normal(size=near.shape).astype(np.float32) / np.sqrt(dimension)
    return np.asarray(near / np.linalg.norm(near, axis=1, keepdims=True), dtype=np.float32)


def nearest(entities: int, dimension: int, asked: Vectors) -> list[set[str]]:
    """The right answers."""
    vectors, ids = clustered_vectors(entities, dimension), item_ids(entities)
    best = np.argpartition(asked @ vectors.T, -K, axis=1)[:, -K:]
    return [{ids[row] for row in rows} for rows in best.tolist()]


def ask_for(name: str, address: str, effort: int, asked: Vectors, seconds: float, ready: Any) -> list[float]:
    """The time of each call of one process, in milliseconds."""
    taken = []
    with PEERS[name][1](address, effort) as ask:
        for vector in asked[:50]:
            ask(vector, K)
        ready.wait()
        end = time.perf_counter() + seconds
        number = 0
        while (begun := time.perf_counter()) < end:
            ask(asked[number % len(asked)], K)
            taken.append((time.perf_counter() - begun) * 1000)
            number += 1
    return taken


def measure(name: str, entities: int, dimension: int, seconds: float) -> dict[str, Any]:
    """Figures of one peer."""
    start, connect, efforts = PEERS[name]
    asked = queries(entities, dimension, 1000)
    right = nearest(entities, dimension, asked)
    with tempfile.TemporaryDirectory() as folder, start(Path(folder), entities, dimension) as running:
        recall, chosen = 0.0, efforts[0]
        for chosen in efforts:
            with connect(running.address, chosen) as ask:
                found = [ask(vector, K) for vector in asked[:500]]
            recall = float(np.mean([len(set(each) & best) / K for each, best in zip(found, right, strict=False)]))
            if recall >= TARGET:
                break
        context = multiprocessing.get_context("spawn")
        with context.Manager() as manager, context.Pool(_ASKING) as pool:
            ready = manager.Barrier(_ASKING)
            parts = [
                pool.apply_async(ask_for, (name, running.address, chosen, asked[number::_ASKING], seconds, ready))
                for number in range(_ASKING)
            ]
            taken = np.concatenate([part.get() for part in parts])
        memory = running.memory_mib()
        return {
            "recall_at_10": round(recall, 4),
            "effort": chosen,
            "per_second": round(len(taken) / seconds),
            "p50_ms": round(float(np.percentile(taken, 50)), 3),
            "p99_ms": round(float(np.percentile(taken, 99)), 3),
            "build_s": round(running.build_s, 1),
            "memory_mib": None if memory != memory else round(memory),
        }


def main() -> None:
    """Measure what is asked and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--peers", nargs="+", choices=sorted(PEERS), default=list(PEERS))
    parser.add_argument("--again", action="store_true", help="measure rows that are there already, too")
    chosen = parser.parse_args()
    results = Results("servers", again=chosen.again)
    for name in chosen.peers:
        settings = {"server": name, "entities": chosen.entities, "dimension": chosen.dimension, "k": K}
        found = results.row(
            settings, lambda name=name: measure(name, chosen.entities, chosen.dimension, chosen.seconds)
        )
        print(f"{name:10}" + ", ".join(f"{key} {value}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
