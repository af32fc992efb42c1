"""How a ScaNN index is searched: the cheapest parameters that reach the recall target, checked on other queries."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from server.index.scann_index import ScannIndex, ScannParameters
from server.index.vector_index import Rows, VectorIndex, Vectors

DEPTH = 10
"""Recall is measured at this many results."""
_REORDER = (50, 100, 200, 400, 800)
_SHARES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 1.0)
"""Shares of the leaves to search."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Queries:
    """Query vectors ``[B, dimension]`` and, where they are themselves in the index, their rows in it."""

    vectors: Vectors
    own_rows: Rows | None

    def part(self, start: int, stop: int) -> Queries:
        own = None if self.own_rows is None else self.own_rows[start:stop]
        return Queries(vectors=self.vectors[start:stop], own_rows=own)

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tuned:
    """What tuning found; ``recall`` is from the queries that had no part in choosing."""

    parameters: ScannParameters | None
    """None: no parameters reach the target."""
    recall: float


def sample_queries(vectors: Vectors, count: int, *, in_index: bool, seed: int = 1) -> Queries:
    """At most ``count`` known vectors as queries, drawn without replacement."""
    known = np.flatnonzero(vectors.any(axis=1))
    rows = np.sort(np.random.default_rng(seed).choice(known, min(count, len(known)), replace=False))
    rows = np.random.default_rng(seed).permutation(rows)
    return Queries(vectors=np.ascontiguousarray(vectors[rows]), own_rows=rows if in_index else None)


def truth(exact: VectorIndex, queries: Queries, depth: int = DEPTH) -> list[Rows]:
    """The right answers, a query's own row left out."""
    return _answers(exact, queries, depth)


def recall(index: VectorIndex, queries: Queries, right: list[Rows]) -> float:
    """Mean share of the right answers that the index finds."""
    found = _answers(index, queries, DEPTH)
    shares = [len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, right, strict=True) if len(b)]
    return float(np.mean(shares)) if shares else 1.0


def tune(index: ScannIndex, queries: Queries, right: list[Rows], target: float) -> Tuned:
    """Choose on the first half of the queries, audit on the second.

    The choice aims above the target by one standard error, so that the audit usually agrees; where it does not, the
    next dearer parameters are tried.
    """
    half = len(queries) // 2
    choose, audit = queries.part(0, half), queries.part(half, len(queries))
    slack = (target * (1 - target) / max(half, 1)) ** 0.5
    leaves = index.parameters.leaves
    reached: list[tuple[float, ScannParameters]] = []
    best = 0.0
    for reorder in _REORDER:
        for searched in sorted({max(1, round(share * leaves)) for share in _SHARES}):
            parameters = ScannParameters(leaves=leaves, leaves_to_search=searched, reorder=reorder)
            candidate = index.with_parameters(parameters)
            start = time.perf_counter()
            measured = recall(candidate, choose, right[:half])
            cost = time.perf_counter() - start
            best = max(best, measured)
            if measured >= min(target + slack, 1.0):
                # More leaves at the same reorder cost more and find no less.
                reached.append((cost, parameters))
                break
    for _, parameters in sorted(reached, key=lambda each: each[0]):
        audited = recall(index.with_parameters(parameters), audit, right[half:])
        if audited >= target:
            return Tuned(parameters=parameters, recall=audited)
        best = min(best, audited)
    return Tuned(parameters=None, recall=best)


def _answers(index: VectorIndex, queries: Queries, depth: int) -> list[Rows]:
    if queries.own_rows is None:
        return [found.rows for found in index.search(queries.vectors, depth)]
    # One more than asked, less the query itself: the same as excluding it, in one batch.
    found = index.search(queries.vectors, depth + 1)
    return [one.rows[one.rows != own][:depth] for one, own in zip(found, queries.own_rows, strict=True)]
