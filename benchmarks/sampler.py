"""How many edges a second does the uniform sampler draw, by threads, beside a bare Numba loop, NumPy and torch?

    python -m benchmarks.sampler --nodes 1000000 --edges 20000000 --seeds 1024 --fan-out 10 10

The graph is random with a skewed degree (fixed seed). Ours draws without replacement and numbers the nodes found.
NumPy and torch draw with replacement, the usual shortcut, and number the nodes by sorting. The bare loop draws with
replacement for the nodes that ours looks at, and keeps nothing. Rates are by the processor's seconds of all threads,
which do not depend on what else the machine does. Prints a table; rows that ``results/sampler.json`` has are not
measured again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._results import Results
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


def torch_sample(indptr: torch.Tensor, indices: torch.Tensor, seeds: torch.Tensor, fan_out: list[int]) -> int:
    """The same in torch."""
    found, frontier, drawn = seeds.unique(), seeds, 0
    for count in fan_out:
        degree = indptr[frontier + 1] - indptr[frontier]
        frontier, degree = frontier[degree > 0], degree[degree > 0]
        offset = (torch.rand(len(frontier), count) * degree[:, None]).long()
        neighbours = indices[(indptr[frontier][:, None] + offset).ravel()].long()
        drawn += len(neighbours)
        unique = neighbours.unique()
        place = torch.searchsorted(found, unique).clamp_max(len(found) - 1)
        frontier = unique[found[place] != unique]
        found = torch.cat([found, frontier]).sort().values
    return drawn


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def bare_loop(indptr: NDArray[np.int64], indices: NDArray[np.int32], nodes: NDArray[np.int64], count: int) -> int:
    """So many random neighbours of each node, nothing kept; returns a sum so that nothing is optimised away."""
    total = 0
    state = np.uint64(88172645463325252)
    for node in nodes:
        first, degree = indptr[node], np.uint64(indptr[node + 1] - indptr[node])
        for _ in range(count if degree > 0 else 0):
            state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
            drawn = (state ^ (state >> np.uint64(29))) >> np.uint64(32)
            total += indices[first + np.int64((drawn * degree) >> np.uint64(32))]
    return total


class Graph:
    """The graph and the batches, made when they are first needed."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments

    @cached_property
    def csr(self) -> Csr:
        return skewed_graph(self.arguments.nodes, self.arguments.edges)

    @cached_property
    def batches(self) -> list[NDArray[np.int64]]:
        rng = np.random.default_rng(2)
        return [rng.integers(0, self.arguments.nodes, self.arguments.seeds) for _ in range(self.arguments.batches)]

    @cached_property
    def sampler(self) -> UniformSampler:
        sampler = UniformSampler({OUT: self.csr}, {"Node": self.arguments.nodes}, fan_out=self.arguments.fan_out)
        sampler.sample({"Node": self.batches[0]})  # compiles
        return sampler

    def ours(self, threads: int) -> dict[str, Any]:
        jobs = [partial(self.sampler.sample, {"Node": batch}, key=key) for key, batch in enumerate(self.batches)]
        return timed(lambda: sum(part.edge_index[OUT].shape[1] for part in prefetch(jobs, threads=threads)))

    def bare(self) -> dict[str, Any]:
        """Over the nodes whose neighbours ours draws: the seeds, then those found by all hops but the last."""
        csr, fan_out = self.csr, self.arguments.fan_out
        bare_loop(csr.indptr, csr.indices, self.batches[0][:1], 1)
        work = []
        for key, batch in enumerate(self.batches):
            part = self.sampler.sample({"Node": batch}, key=key)
            ends = np.cumsum([0, *part.nodes_per_hop["Node"]])
            work += [
                (part.node_ids["Node"][first:last], count)
                for first, last, count in zip(ends, ends[1:], fan_out, strict=False)
            ]
        edges = sum(int(np.sum(np.diff(csr.indptr)[nodes] > 0)) * count for nodes, count in work)
        found = timed(lambda: sum(bare_loop(csr.indptr, csr.indices, nodes, count) for nodes, count in work))
        return {**found, "edges": edges}

    def with_numpy(self) -> dict[str, Any]:
        rng = np.random.default_rng(3)
        return timed(lambda: sum(numpy_sample(self.csr, batch, self.arguments.fan_out, rng) for batch in self.batches))

    def with_torch(self) -> dict[str, Any]:
        indptr, indices = torch.from_numpy(self.csr.indptr), torch.from_numpy(self.csr.indices)
        batches = [torch.from_numpy(batch) for batch in self.batches]
        return timed(lambda: sum(torch_sample(indptr, indices, each, self.arguments.fan_out) for each in batches))


def timed(run: Callable[[], int]) -> dict[str, Any]:
    """Edges drawn, seconds of the processor over all threads, and on the wall's clock."""
    wall, processor = time.perf_counter(), time.process_time()
    edges = run()
    spent = time.process_time() - processor
    return {"edges": int(edges), "processor_seconds": spent, "seconds": time.perf_counter() - wall}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--edges", type=int, default=20_000_000)
    parser.add_argument("--seeds", type=int, default=1024)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--fan-out", type=int, nargs="+", default=[10, 10])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    results, graph = Results("sampler", again=arguments.again), Graph(arguments)
    runs: dict[tuple[str, int], Callable[[], dict[str, Any]]] = {
        ("uniform (Numba)", threads): partial(graph.ours, threads) for threads in arguments.threads
    }
    runs["bare Numba loop", 1] = graph.bare
    runs["NumPy, with replacement", 1] = graph.with_numpy
    runs["torch, with replacement", 1] = graph.with_torch
    shared = {name: value for name, value in vars(arguments).items() if name not in ("threads", "again")}
    print(f"{'sampler':24} {'threads':>7} {'edges':>12} {'seconds':>8} {'processor':>10} {'M edges/s':>10}")
    for (name, threads), run in runs.items():
        row = results.row({**shared, "sampler": name, "threads": threads}, run)
        rate = row["edges"] / row["processor_seconds"] / 1e6
        seconds = f"{row['seconds']:8.2f} {row['processor_seconds']:10.2f}"
        print(f"{name:24} {threads:7} {row['edges']:12,} {seconds} {rate:10.2f}", flush=True)


if __name__ == "__main__":
    main()
