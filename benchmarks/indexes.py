"""The index alone: Kithkin's ScaNN, tuned as at publishing, beside hnswlib and FAISS at equal recall.

    python -m benchmarks.indexes --entities 100000 1000000 --dimension 64

Generated unit vectors in clusters; queries are near them and not among them. Every index is searched by one thread, one
query at a time, with the least effort whose recall@10 against exact search is at least 0.95. Memory is what the process
holds after building, less what it held before (the vectors themselves included once for each).
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._catalogue import clustered_vectors
from benchmarks._results import Results
from benchmarks.servers import queries
from server.index.vector_index import Vectors

K = 10
TARGET = 0.95
Search = Callable[[Vectors], Any]
"""Rows of the ten nearest to one query."""


def kithkin(vectors: Vectors) -> Iterator[tuple[str, Search]]:
    """ScaNN with exact rescoring; one effort, tuned against the exact twin for nodes of the catalogue."""
    from server.index.exact_index import ExactIndex
    from server.index.scann_index import ScannIndex, ScannParameters
    from server.index.tuning import sample_queries, truth, tune

    leaves = round(len(vectors) ** 0.5)
    parameters = ScannParameters(leaves=leaves, leaves_to_search=leaves, reorder=100)
    index = ScannIndex.build(vectors, parameters, spherical=True)
    asked = sample_queries(vectors, 1000, in_index=True)
    tuned = tune(index, asked, truth(ExactIndex(vectors), asked), TARGET).parameters
    assert tuned is not None
    for leaves_to_search in (tuned.leaves_to_search, *(2 ** np.arange(1, 8) * tuned.leaves_to_search).tolist()):
        chosen = ScannParameters(leaves=leaves, leaves_to_search=min(leaves_to_search, leaves), reorder=tuned.reorder)
        found = index.with_parameters(chosen)
        yield (
            f"{chosen.leaves_to_search} of {leaves} leaves, {chosen.reorder} rescored",
            lambda query, index=found: index.search(query[None], K)[0].rows,
        )


def hnswlib(vectors: Vectors) -> Iterator[tuple[str, Search]]:
    """HNSW with 16 links, built with 200 candidates."""
    import hnswlib as library

    index = library.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors), M=16, ef_construction=200)
    index.add_items(vectors, num_threads=1)
    index.set_num_threads(1)
    for effort in (10, 20, 40, 80, 160, 320):
        index.set_ef(effort)
        yield f"ef {effort}", lambda query: index.knn_query(query, k=K)[0][0]


def faiss_hnsw(vectors: Vectors) -> Iterator[tuple[str, Search]]:
    """FAISS's HNSW, with the same links."""
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 200
    index.add(vectors)
    faiss.omp_set_num_threads(1)
    for effort in (10, 20, 40, 80, 160, 320):
        index.hnsw.efSearch = effort
        yield f"ef {effort}", lambda query: index.search(query[None], K)[1][0]


def faiss_ivf(vectors: Vectors) -> Iterator[tuple[str, Search]]:
    """FAISS's partitions with 4-bit product quantisation by vector instructions, and exact rescoring: ScaNN's like."""
    import faiss

    width, leaves = vectors.shape[1], round(len(vectors) ** 0.5)
    text = f"IVF{leaves},PQ{width // 2}x4fs,RFlat"
    index = faiss.index_factory(width, text, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[:100_000])
    index.add(vectors)
    faiss.omp_set_num_threads(1)
    parameters = faiss.ParameterSpace()
    for effort in (1, 2, 4, 8, 16, 32, 64):
        parameters.set_index_parameter(index, "nprobe", effort)
        parameters.set_index_parameter(index, "k_factor_rf", 5)
        yield f"{effort} of {leaves} leaves, 50 rescored", lambda query: index.search(query[None], K)[1][0]


INDEXES = {"kithkin": kithkin, "hnswlib": hnswlib, "faiss HNSW": faiss_hnsw, "faiss IVF-PQ": faiss_ivf}


def measure(name: str, entities: int, dimension: int) -> dict[str, Any]:
    """Figures of one index, in a process of its own."""
    # Unlike a multiprocessing.Pool it tells where the process was killed, as for want of memory.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, name, entities, dimension).result()


def _measure(name: str, entities: int, dimension: int) -> dict[str, Any]:
    vectors, asked = clustered_vectors(entities, dimension), queries(entities, dimension, 1000)
    right = [
        set(rows)
        for start in range(0, len(asked), 100)
        for rows in np.argpartition(asked[start : start + 100] @ vectors.T, -K, axis=1)[:, -K:].tolist()
    ]
    before, begun = _resident_mib(), time.perf_counter()
    built, effort, recall = 0.0, "", 0.0
    search: Search
    for effort, search in INDEXES[name](vectors):  # noqa: B007
        built = built or time.perf_counter() - begun
        found = [search(query) for query in asked]
        recall = float(np.mean([len(set(rows.tolist()) & best) / K for rows, best in zip(found, right, strict=True)]))
        if recall >= TARGET:
            break
    taken = []
    for _ in range(3):
        for query in asked:
            one = time.perf_counter()
            search(query)
            taken.append((time.perf_counter() - one) * 1e6)
    return {
        "effort": effort,
        "recall_at_10": round(recall, 4),
        "p50_us": round(float(np.percentile(taken, 50)), 1),
        "p99_us": round(float(np.percentile(taken, 99)), 1),
        "build_s": round(built, 1),
        "memory_mib": round(_resident_mib() - before),
    }


def _resident_mib() -> float:
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure what is asked and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--again", action="store_true", help="measure rows that are there already, too")
    chosen = parser.parse_args()
    results = Results("indexes", again=chosen.again)
    for entities in chosen.entities:
        for name in INDEXES:
            settings = {"index": name, "entities": entities, "dimension": chosen.dimension, "k": K}
            found = results.row(settings, lambda name=name, size=entities: measure(name, size, chosen.dimension))
            print(f"{entities:>9} {name:13}" + ", ".join(f"{key} {value}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
