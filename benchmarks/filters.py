"""Filtered search: how many of the right answers, how many at all, how long, and by which way the planner went.

    python -m benchmarks.filters --entities 100000 1000000 --dimension 64

Generated unit vectors in clusters, queries near them, one thread, one query at a time. The index is ScaNN, tuned as at
publishing to recall@10 of 0.95. A filter keeps 50 %, 10 %, 1 % or 0.01 %: drawn without regard to the vectors
(independent), those of largest inner product with one direction (one side: queries of the other side have none of their
neighbours pass), or those nearest to a few centres (groups). Each filter is compared with exact search over the rows
that pass. A query's time is the processor time of its thread (what else the machine does is left out), the median of
seven runs; given are the median and the 99th percentile of the queries.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from functools import lru_cache
from typing import Any

import numpy as np

from benchmarks._catalogue import clustered_vectors
from benchmarks._results import Results
from server.index.exact_index import ExactIndex
from server.index.scann_index import ScannIndex, ScannParameters
from server.index.selection import Selection
from server.index.tuning import sample_queries, truth, tune
from server.index.vector_index import Rows, Vectors, best_of_rows, unit_rows

K = 10
TARGET = 0.95
QUERIES = 300
SHARES = (0.5, 0.1, 0.01, 0.0001)


@lru_cache(maxsize=1)
def index_of(entities: int, dimension: int) -> tuple[Vectors, ScannIndex]:
    """The vectors and their index, tuned as at publishing."""
    vectors = clustered_vectors(entities, dimension)
    leaves = round(entities**0.5)
    parameters = ScannParameters(leaves=leaves, leaves_to_search=leaves, reorder=100)
    index = ScannIndex.build(vectors, parameters, spherical=True)
    asked = sample_queries(vectors, 1000, in_index=True)
    tuned = tune(index, asked, truth(ExactIndex(vectors), asked), TARGET).parameters
    assert tuned is not None
    return vectors, index.with_parameters(tuned)


def queries(vectors: Vectors) -> Vectors:
    """Vectors near those of the index."""
    random = np.random.default_rng(8)
    rows = random.choice(len(vectors), QUERIES, replace=False)
    noise = random.normal(size=(QUERIES, vectors.shape[1])) / vectors.shape[1] ** 0.5
    return unit_rows((vectors[rows] + 0.3 * noise).astype(np.float32))


def passing(vectors: Vectors, kind: str, share: float) -> Rows:
    """Rows that a filter keeps."""
    random = np.random.default_rng(9)
    count = round(share * len(vectors))
    match kind:
        case "independent":
            return np.sort(random.choice(len(vectors), count, replace=False))
        case "one side":
            direction = random.normal(size=vectors.shape[1]).astype(np.float32)
            return np.sort(np.argsort(-(vectors @ direction), kind="stable")[:count])
        case _:
            centres = vectors[random.choice(len(vectors), 5, replace=False)]
            nearest = (vectors @ centres.T).max(axis=1)
            return np.sort(np.argsort(-nearest, kind="stable")[:count])


def measure(entities: int, dimension: int, kind: str, share: float) -> dict[str, Any]:
    """Figures of one filter."""
    vectors, index = index_of(entities, dimension)
    rows = passing(vectors, kind, share)
    allowed = Selection.of(rows, entities)
    hits = right = fewest = 0
    fewest = K
    paths: Counter[str] = Counter()
    scored, taken = [], []
    for query in queries(vectors):
        best = set(best_of_rows(vectors, query, K, rows, None).rows.tolist())
        found = index.search(query[None], K, [np.empty(0, np.int64)], [allowed])[0]
        hits, right = hits + len(best & set(found.rows.tolist())), right + len(best)
        fewest = min(fewest, len(found.rows))
        paths[found.path] += 1
        scored.append(found.scored)
        repeated = []
        for _ in range(7):
            begun = time.thread_time()
            index.search(query[None], K, [np.empty(0, np.int64)], [allowed])
            repeated.append((time.thread_time() - begun) * 1e6)
        taken.append(float(np.median(repeated)))
    return {
        "passing": len(rows),
        "recall_at_10": round(hits / right, 4),
        "fewest_results": fewest,
        "most_possible": min(K, len(rows)),
        "median_us": round(float(np.percentile(taken, 50)), 1),
        "p99_us": round(float(np.percentile(taken, 99)), 1),
        "mean_scored": round(float(np.mean(scored)), 1),
        "paths": {path: round(count / QUERIES, 3) for path, count in sorted(paths.items())},
        "leaves": f"{index.parameters.leaves_to_search} of {index.parameters.leaves}",
        "reorder": index.parameters.reorder,
    }


def main() -> None:
    """Measure what is asked and print it; ends with 1 where a filter misses what it must reach."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, nargs="+", default=[100_000])
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--again", action="store_true", help="measure rows that are there already, too")
    chosen = parser.parse_args()
    results = Results("filters", again=chosen.again)
    missed = False
    for entities in chosen.entities:
        for kind in ("independent", "groups", "one side"):
            for share in SHARES:
                settings = {"entities": entities, "dimension": chosen.dimension, "filter": kind, "share": share, "k": K}
                found = results.row(
                    settings,
                    lambda size=entities, kind=kind, share=share: measure(size, chosen.dimension, kind, share),
                )
                print(
                    f"{entities:>9} {kind:11} {share:>7.2%} recall {found['recall_at_10']:.4f}, "
                    f"{found['fewest_results']} results at least, {found['median_us']:.0f} us, "
                    f"p99 {found['p99_us']:.0f} us, {found['paths']}",
                    flush=True,
                )
                missed |= found["recall_at_10"] < TARGET or found["fewest_results"] < found["most_possible"]
    if missed:
        raise SystemExit("a filter misses recall or results")


if __name__ == "__main__":
    main()
