"""How many edges a second does the uniform sampler draw, by threads, beside plain NumPy?

    python -m benchmarks.sampler --nodes 1000000 --edges 20000000 --seeds 1024 --fan-out 10 10

The graph is random with a skewed degree (fixed seed). NumPy draws with replacement, the usual shortcut, and numbers the
nodes by sorting; ours draws without. Prints a table, and JSON with the machine and the commit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from graph_store.schema import Triple
from model_store.csr import Csr, EdgeType
from training.export.order import counting_order
from training.sampling import UniformSampler, prefetch

OUT = EdgeType(Triple("Node", "NEAR", "Node"))


def skewed_graph(nodes: int, edges: int) -> Csr:
    """Edges between random nodes, some nodes far more often than others."""
    rng = np.random.default_rng(1)
    source = (nodes * rng.random(edges) ** 2).astype(np.int32)
    target = rng.integers(0, nodes, edges).astype(np.int32)
    order, indptr = counting_order(source, nodes)
    return Csr(indptr=indptr, indices=target[order])


def numpy_sample(csr: Csr, seeds: NDArray[np.int64], fan_out: list[int], rng: np.random.Generator) -> int:
    """The peer: with replacement, vectorised; returns the edges drawn."""
    found, frontier, drawn = seeds, seeds, 0
    for count in fan_out:
        degree = csr.indptr[frontier + 1] - csr.indptr[frontier]
        frontier, degree = frontier[degree > 0], degree[degree > 0]
        offset = (rng.random((len(frontier), count)) * degree[:, None]).astype(np.int64)
        neighbours = csr.indices[(csr.indptr[frontier][:, None] + offset).ravel()].astype(np.int64)
        drawn += len(neighbours)
        new = np.setdiff1d(neighbours, found)
        found, frontier = np.concatenate([found, new]), new
    return drawn


def timed(run: Callable[[], int]) -> tuple[int, float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--edges", type=int, default=20_000_000)
    parser.add_argument("--seeds", type=int, default=1024)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--fan-out", type=int, nargs="+", default=[10, 10])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()

    csr = skewed_graph(arguments.nodes, arguments.edges)
    rng = np.random.default_rng(2)
    batches = [rng.integers(0, arguments.nodes, arguments.seeds) for _ in range(arguments.batches)]
    sampler = UniformSampler({OUT: csr}, {"Node": arguments.nodes}, fan_out=arguments.fan_out)
    sampler.sample({"Node": batches[0]})  # compiles

    def ours(threads: int) -> int:
        jobs = [
            lambda key=key, batch=batch: sampler.sample({"Node": batch}, key=key) for key, batch in enumerate(batches)
        ]
        return sum(part.edge_index[OUT].shape[1] for part in prefetch(jobs, threads=threads))

    rows = []
    for threads in arguments.threads:
        edges, seconds = timed(lambda threads=threads: ours(threads))
        rows.append({"sampler": "uniform (Numba)", "threads": threads, "edges": edges, "seconds": seconds})
    edges, seconds = timed(lambda: sum(numpy_sample(csr, batch, arguments.fan_out, rng) for batch in batches))
    rows.append({"sampler": "NumPy, with replacement", "threads": 1, "edges": edges, "seconds": seconds})
    print(f"{'sampler':24} {'threads':>7} {'edges':>12} {'seconds':>8} {'M edges/s':>10}")
    for row in rows:
        rate = row["edges"] / row["seconds"] / 1e6
        print(f"{row['sampler']:24} {row['threads']:7} {row['edges']:12,} {row['seconds']:8.2f} {rate:10.2f}")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(json.dumps({"parameters": vars(arguments), "rows": rows, "machine": machine, "commit": commit}))


if __name__ == "__main__":
    main()
