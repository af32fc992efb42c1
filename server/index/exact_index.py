"""Brute-force search: the twin that every other index is measured against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from server.index.planner import SearchPath, exact_path
from server.index.rescoring import scores_of
from server.index.selection import Selection
from server.index.vector_index import Found, FoundEach, Rows, Vectors, best_first, best_of_rows, known_rows, lists_of

# Float32 sums differ by this much, relative to the largest product, by the order of summation.
_ROUNDING = 1e-5
_PRODUCTS = 1 << 24
"""Products held at once, for a batch over many vectors: 64 MiB."""


class ExactIndex:
    """Scores every vector. Right by construction; 100,000 x 64 take about 2 ms a query."""

    kind = "exact"

    def __init__(self, vectors: Vectors) -> None:
        known = known_rows(vectors)
        self._vectors = vectors
        self._unknown = None if known is None else np.setdiff1d(np.arange(len(vectors)), known, assume_unique=True)
        self._is_known = None
        if known is not None:
            self._is_known = np.zeros(len(vectors), np.bool_)
            self._is_known[known] = True
        self._count = len(vectors) if known is None else len(known)

    def __len__(self) -> int:
        return self._count

    def search(
        self,
        queries: Vectors,
        k: int,
        exclude: Sequence[Rows] | None = None,
        allowed: Sequence[Selection | None] | None = None,
    ) -> list[Found]:
        if allowed is None or all(each is None for each in allowed):
            return self._scan(queries, k, exclude, None)
        found: dict[int, Found] = {}
        scanned: list[int] = []
        for number, selection in enumerate(allowed):
            if selection is None or exact_path(*self._sizes(selection))[0] is SearchPath.ALL:
                scanned.append(number)
            else:
                left_out = None if exclude is None else exclude[number]
                found[number] = self.search_rows(queries[number], k, left_out, selection)
        if scanned:
            left_outs = None if exclude is None else [exclude[number] for number in scanned]
            some = self._scan(queries[scanned], k, left_outs, [allowed[number] for number in scanned])
            found |= dict(zip(scanned, some, strict=True))
        return [found[number] for number in range(len(queries))]

    def search_one(self, query: Vectors, k: int, exclude: Rows) -> Found:
        return self._scan(query[None], k, [exclude], None)[0]

    def search_each(self, queries: Vectors, k: int, exclude: Rows) -> FoundEach:
        return FoundEach.of(self._scan(queries, k, lists_of(exclude), None), k)

    def search_rows(self, query: Vectors, k: int, exclude: Rows | None, allowed: Selection) -> Found:
        """Search over the allowed rows alone."""
        return best_of_rows(self._vectors, query, k, allowed.without(exclude), self._is_known)

    def _sizes(self, selection: Selection) -> tuple[int, int, int]:
        return len(self._vectors), len(selection), self._vectors.shape[1]

    def _scan(
        self,
        queries: Vectors,
        k: int,
        exclude: Sequence[Rows] | None,
        allowed: Sequence[Selection | None] | None,
    ) -> list[Found]:
        found: list[Found] = []
        together = max(1, _PRODUCTS // max(len(self._vectors), 1))
        for start in range(0, len(queries), together):
            part = queries[start : start + together]
            products = part @ self._vectors.T if len(part) > 1 else (self._vectors @ part[0])[None]
            for number, query in enumerate(part):
                left_out = None if exclude is None else exclude[start + number]
                selection = None if allowed is None else allowed[start + number]
                found.append(self._best(query, products[number], k, left_out, selection))
        return found

    def _best(
        self, query: Vectors, products: Vectors, k: int, exclude: Rows | None, allowed: Selection | None = None
    ) -> Found:
        total = len(products)
        largest = max(float(products.max(initial=0)), -float(products.min(initial=0)))
        if allowed is not None:
            products[~allowed.mask] = -np.inf
        for left_out in (self._unknown, exclude):
            if left_out is not None and len(left_out):
                products[left_out] = -np.inf
        if k < total:
            threshold = np.partition(products, total - k)[total - k]
            slack = _ROUNDING * largest if np.isfinite(threshold) else 0.0
            rows = np.flatnonzero((products >= threshold - slack) & (products > -np.inf))
        else:
            rows = np.flatnonzero(products > -np.inf)
        # The product chose them; one fixed order of summation ranks them, so that equal vectors tie.
        rows, scores = best_first(rows, scores_of(self._vectors[rows], query), k)
        return Found(rows=rows, scores=scores, exact=True, scored=self._count)
