"""Approximate search by ScaNN (Guo et al. 2020, arXiv 1908.10396): partition, quantised scores, exact rescoring.

The only import of ``scann``. What ScaNN finds is rescored here from the bundle's own float vectors, so its files hold
the quantised codes only (half a byte a dimension), and an answer's scores and order are those of the exact twin.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from server.exact_index import ExactIndex
from server.vector_index import Found, Rows, Vectors, best_first, known_rows, scores_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_SAMPLE = 100_000
"""Vectors that the partition is trained on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScannParameters:
    """How a ScaNN index is built and searched."""

    leaves: int
    """Partitions."""
    leaves_to_search: int
    """Partitions looked into per query."""
    reorder: int
    """Candidates rescored exactly per query."""


def scann_version() -> str | None:
    """Version of the ScaNN that is installed; None where there is none (no wheel for this machine)."""
    try:
        return metadata.version("scann")
    except metadata.PackageNotFoundError:
        return None


class ScannIndex:
    """ScaNN over the vectors that are not all zeros, with the exact twin for searches that would scan most of them.

    ScaNN has no filter and answers with fewer than asked where it looked into too few partitions: excluded rows are
    made up for by asking for more, and a search that comes back short is widened, in the end to all.
    """

    kind = "scann"

    def __init__(self, searcher: Any, vectors: Vectors, parameters: ScannParameters) -> None:
        self.parameters = parameters
        self._searcher = searcher
        self._vectors = vectors
        self._known = known_rows(vectors)
        self._count = len(vectors) if self._known is None else len(self._known)
        self._exact = ExactIndex(vectors)

    @classmethod
    def build(cls, vectors: Vectors, parameters: ScannParameters, *, spherical: bool) -> ScannIndex:
        """Build over ``vectors [nodes, dimension]``; ``spherical``: the vectors have length 1."""
        known = known_rows(vectors)
        # ScaNN copies what it is given; rows of zeros would only crowd a partition.
        data = np.ascontiguousarray(vectors if known is None else vectors[known], dtype=np.float32)
        with _quiet():
            from scann.scann_ops.py import scann_ops_pybind

            searcher = (
                scann_ops_pybind.builder(data, 10, "dot_product")
                .tree(
                    num_leaves=parameters.leaves,
                    num_leaves_to_search=parameters.leaves_to_search,
                    training_sample_size=min(len(data), _SAMPLE),
                    spherical=spherical,
                )
                .score_ah(2, anisotropic_quantization_threshold=0.2)
                .build()
            )
        return cls(searcher, vectors, parameters)

    @classmethod
    def load(cls, folder: Path, vectors: Vectors, parameters: ScannParameters) -> ScannIndex:
        """Load what ``save`` wrote, over the same vectors."""
        from scann.scann_ops.py import scann_ops_pybind

        return cls(scann_ops_pybind.load_searcher(str(folder)), vectors, parameters)

    def save(self, folder: Path) -> None:
        """Write ScaNN's files; paths in them are relative, and no ids are (those would be a pickle)."""
        folder.mkdir(parents=True, exist_ok=True)
        self._searcher.serialize(str(folder), relative_path=True)

    def with_parameters(self, parameters: ScannParameters) -> ScannIndex:
        """The same index searched another way (``leaves`` stay as built)."""
        return ScannIndex(self._searcher, self._vectors, parameters)

    def __len__(self) -> int:
        return self._count

    def search(self, queries: Vectors, k: int, exclude: Sequence[Rows] | None = None) -> list[Found]:
        if len(queries) > 1 and exclude is None and self._wanted(k, 0) < self._count // 2:
            return self._batch(queries, k)
        return [
            self._one(query, k, None if exclude is None else exclude[number]) for number, query in enumerate(queries)
        ]

    def _wanted(self, k: int, excluded: int) -> int:
        # The reorder that was tuned is for 10 results; deeper ones, also those behind what is left out, need more.
        depth = k + excluded
        return max(self.parameters.reorder, self.parameters.reorder * depth // 20, 2 * depth)

    def _batch(self, queries: Vectors, k: int) -> list[Found]:
        candidates, _ = self._searcher.search_batched(
            queries, final_num_neighbors=self._wanted(k, 0), leaves_to_search=self.parameters.leaves_to_search
        )
        # A batch marks the places that a short search left empty with the largest number.
        found = [
            self._rescored(query, row[row < self._count], k, None)
            for query, row in zip(queries, candidates, strict=True)
        ]
        return [
            one if len(one.rows) >= k else self._one(query, k, None) for query, one in zip(queries, found, strict=True)
        ]

    def _one(self, query: Vectors, k: int, exclude: Rows | None) -> Found:
        wanted = self._wanted(k, 0 if exclude is None else len(exclude))
        # A wide question deserves a proportionally wide look: the tuned partitions were enough for 10 results.
        leaves = min(
            self.parameters.leaves, max(1, self.parameters.leaves_to_search * max(wanted // self.parameters.reorder, 1))
        )
        while wanted < self._count // 2:
            candidates, _ = self._searcher.search(query, final_num_neighbors=wanted, leaves_to_search=leaves)
            found = self._rescored(query, candidates, k, exclude)
            if len(found.rows) >= k:
                return found
            if leaves >= self.parameters.leaves:
                break
            leaves, wanted = min(leaves * 4, self.parameters.leaves), wanted * 2
        return self._exact.search(query[None], k, None if exclude is None else [exclude])[0]

    def _rescored(self, query: Vectors, candidates: Any, k: int, exclude: Rows | None) -> Found:
        rows: Rows = np.asarray(candidates, dtype=np.int64)
        if self._known is not None:
            rows = self._known[rows]
        if exclude is not None and len(exclude) == 1:
            # Most searches leave out the query itself: a third of the time of the general way.
            rows = rows[rows != exclude[0]]
        elif exclude is not None and len(exclude):
            rows = rows[np.isin(rows, exclude, invert=True)]
        rows, scores = best_first(rows, scores_of(self._vectors[rows], query), k)
        return Found(rows=rows, scores=scores, exact=False, scored=len(candidates))


@contextmanager
def _quiet() -> Iterator[None]:
    """ScaNN writes progress to the error stream of the process, past Python; it is not for our readers."""
    saved, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nothing)
