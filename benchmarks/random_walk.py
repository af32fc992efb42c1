"""How many steps a second does the random-walk sampler take, beside a bare loop, NumPy and torch?

    python -m benchmarks.random_walk --nodes 1000000 --edges 10000000 --seeds 1024 --walks 100 --rounds 2

The graph has users and films in equal parts, edges of skewed degree, weights (fixed seed); the walk is film, user,
film. Ours is the whole sampler: draws, restarts, visits counted and ranked, the subgraph built. The peers only walk,
and never restart; one row of NumPy also counts and ranks its visits. The bare loop follows one walk after the other,
compiled by Numba, and draws by one multiplication and one shift. Steps with weights: ours and the bare loop by alias
table; NumPy and torch by binary search in prefix sums over all edges. Rates are by the processor's seconds of
all threads, which do not depend on what else the machine does, in the quickest repeat. Prints a table; rows that
``results/random_walk.json`` has are not measured again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._results import Results
from graph_store.schema import Triple
from model_store.csr import Csr, EdgeType
from training.export.order import counting_order
from training.sampling import Metapath, RandomWalkSampler, prefetch
from training.sampling.walk import alias_table

WATCHED = Triple("User", "WATCHED", "Film")
PATH = Metapath((EdgeType(WATCHED, True), EdgeType(WATCHED)))


def skewed_graph(nodes: int, edges: int) -> dict[EdgeType, Csr]:
    """Edges between random users and films, some far more often than others; no user or film is without one."""
    rng = np.random.default_rng(1)
    half = nodes // 2
    user = np.concatenate([np.arange(half), half * rng.random(edges - half) ** 2]).astype(np.int32)
    film = np.concatenate([rng.permutation(half), half * rng.random(edges - half) ** 2]).astype(np.int32)
    weight = rng.random(edges, dtype=np.float32) + 0.1
    result = {}
    for edge_type, near, far in ((PATH.steps[0], film, user), (PATH.steps[1], user, film)):
        order, indptr = counting_order(near, half)
        result[edge_type] = Csr(indptr=indptr, indices=far[order], weight=weight[order])
    return result


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def bare_walk(
    out: tuple[NDArray[Any], ...], back: tuple[NDArray[Any], ...], nodes: NDArray[np.int64], walks: int, rounds: int
) -> int:
    """A walk after the other, nothing kept; returns a sum so that nothing is optimised away."""
    total = 0
    state = np.uint64(88172645463325252)
    for node in nodes:
        for _ in range(walks):
            at = node
            for number in range(2 * rounds):
                indptr, indices, table = out if number % 2 == 0 else back
                state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
                drawn = state ^ (state >> np.uint64(29))
                degree = np.uint64(indptr[at + 1] - indptr[at])
                slot = indptr[at] + np.int64(((drawn >> np.uint64(32)) * degree) >> np.uint64(32))
                if len(table) and (drawn & np.uint64(0xFFFFFFFF)) >= np.uint64(table[slot, 0]):
                    at = np.int64(table[slot, 1])
                else:
                    at = np.int64(indices[slot])
            total += at
    return total


def numpy_walk(
    parts: list[tuple[Csr, NDArray[np.float64] | None]], nodes: NDArray[np.int64], walks: int, rounds: int
) -> NDArray[np.int64]:
    """All walkers together, vectorised; returns where each was at the end of each round."""
    rng = np.random.default_rng(3)
    at = np.repeat(nodes, walks)
    visits = []
    for csr, prefix in parts * rounds:
        start, stop = csr.indptr[at], csr.indptr[at + 1]
        if prefix is None:
            slot = start + (rng.random(len(at)) * (stop - start)).astype(np.int64)
        else:
            low, high = prefix[start], prefix[stop]
            slot = np.searchsorted(prefix, low + rng.random(len(at)) * (high - low), side="right") - 1
            slot = np.minimum(slot, stop - 1)
        at = csr.indices[slot].astype(np.int64)
        visits.append(at)
    return np.stack(visits[len(parts) - 1 :: len(parts)])


def numpy_rank(visits: NDArray[np.int64], nodes: NDArray[np.int64], top: int) -> NDArray[np.int64]:
    """The most visited of each node, as numbers (place in ``nodes``, visited node), by sorting."""
    place = np.repeat(np.arange(len(nodes)), visits.shape[1] // len(nodes))
    found, counts = np.unique((place << 32) + visits, return_counts=True)
    other = (found & 0xFFFFFFFF) != nodes[found >> 32]
    found, counts = found[other], counts[other]
    order = np.lexsort((found, -counts, found >> 32))
    start = np.searchsorted(found >> 32, np.arange(len(nodes)))
    return found[order][np.arange(len(found)) - start[found >> 32] < top]


def torch_walk(parts: list[tuple[torch.Tensor | None, ...]], nodes: torch.Tensor, walks: int, rounds: int) -> None:
    """The same in torch."""
    at = nodes.repeat_interleave(walks)
    for indptr, indices, prefix in parts * rounds:
        assert indptr is not None
        assert indices is not None
        start, stop = indptr[at], indptr[at + 1]
        share = torch.rand(len(at), dtype=torch.float64)
        if prefix is None:
            slot = start + (share * (stop - start)).long()
        else:
            low, high = prefix[start], prefix[stop]
            slot = torch.minimum(torch.searchsorted(prefix, low + share * (high - low), right=True) - 1, stop - 1)
        at = indices[slot].long()


def quickest(run: Callable[[], object], repeats: int) -> dict[str, float]:
    """Seconds of the run that took the processor least, over all threads, and on the wall's clock."""
    found = []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        run()
        found.append((time.process_time() - processor, time.perf_counter() - wall))
    return dict(zip(("processor_seconds", "seconds"), min(found), strict=True))


def ours(sampler: RandomWalkSampler, batches: list[NDArray[np.int64]], threads: int) -> int:
    jobs = [lambda batch=batch: sampler.sample({"Film": batch}) for batch in batches]
    return sum(subgraph.num_nodes("Film") for subgraph in prefetch(jobs, threads=threads))


def ways(
    adjacency: dict[EdgeType, Csr], batches: list[NDArray[np.int64]], arguments: argparse.Namespace
) -> dict[tuple[str, int], Callable[[], object]]:
    """By name and threads, each way to walk, ready to run."""
    walks, rounds = arguments.walks, arguments.rounds
    sampler = RandomWalkSampler(
        adjacency,
        {edge_type.node_type: csr.num_rows for edge_type, csr in adjacency.items()},
        metapaths=[PATH],
        neighbours=[arguments.neighbours],
        walks=walks,
        rounds=rounds,
    )
    bare, arrays, tensors = [], [], []
    for csr in (adjacency[each] for each in PATH.steps):
        table, prefix = np.empty((0, 2), dtype=np.uint32), None
        if csr.weight is not None:
            table = alias_table(csr.indptr, csr.indices, csr.weight)
            prefix = np.concatenate([[0.0], np.cumsum(csr.weight, dtype=np.float64)])
        bare.append((csr.indptr, csr.indices, table))
        arrays.append((csr, prefix))
        tensors.append(tuple(None if part is None else torch.from_numpy(part) for part in (*bare[-1][:2], prefix)))
    seeds = [torch.from_numpy(batch) for batch in batches]
    sampler.sample({"Film": batches[0]})  # compiles
    bare_walk(*bare, batches[0][:1], 1, 1)
    runs: dict[tuple[str, int], Callable[[], object]] = {
        ("sampler", threads): partial(ours, sampler, batches, threads) for threads in arguments.threads
    }
    runs["bare Numba loop", 1] = lambda: [bare_walk(*bare, batch, walks, rounds) for batch in batches]
    runs["NumPy, walk only", 1] = lambda: [numpy_walk(arrays, batch, walks, rounds) for batch in batches]
    runs["NumPy, ranked", 1] = lambda: [
        numpy_rank(numpy_walk(arrays, batch, walks, rounds), batch, arguments.neighbours) for batch in batches
    ]
    runs["torch, walk only", 1] = lambda: [torch_walk(tensors, batch, walks, rounds) for batch in seeds]
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--seeds", type=int, default=1024)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--walks", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--neighbours", type=int, default=50)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    results = Results("random_walk", again=arguments.again)

    @cache
    def made(weighted: bool) -> dict[tuple[str, int], Callable[[], object]]:
        graph = skewed_graph(arguments.nodes, arguments.edges)
        if not weighted:
            graph = {each: Csr(indptr=csr.indptr, indices=csr.indices) for each, csr in graph.items()}
        rng = np.random.default_rng(2)
        batches = [rng.integers(0, arguments.nodes // 2, arguments.seeds) for _ in range(arguments.batches)]
        return ways(graph, batches, arguments)

    steps = arguments.batches * arguments.seeds * arguments.walks * arguments.rounds * len(PATH.steps)
    names = [("sampler", threads) for threads in arguments.threads]
    names += [(name, 1) for name in ("bare Numba loop", "NumPy, walk only", "NumPy, ranked", "torch, walk only")]
    shared = {name: value for name, value in vars(arguments).items() if name not in ("threads", "again")}
    columns = f"{'seconds':>8} {'processor':>10} {'M steps/s':>10} {'of the bare loop':>17}"
    print(f"{'walk':18} {'weighted':>8} {'threads':>7} {columns}")
    for weighted in (False, True):
        rows = {}
        for name, threads in names:

            def measure(name: str = name, threads: int = threads, weighted: bool = weighted) -> dict[str, Any]:
                found = quickest(made(weighted)[name, threads], arguments.repeats)
                return {**found, "steps": steps}

            settings = {**shared, "walk": name, "threads": threads, "weighted": weighted}
            rows[name, threads] = results.row(settings, measure)
        loop = rows["bare Numba loop", 1]["processor_seconds"]
        for (name, threads), row in rows.items():
            print(
                f"{name:18} {weighted!s:>8} {threads:7} {row['seconds']:8.2f} {row['processor_seconds']:10.2f} "
                f"{row['steps'] / row['processor_seconds'] / 1e6:10.1f} {loop / row['processor_seconds']:17.2f}"
            )


if __name__ == "__main__":
    main()
