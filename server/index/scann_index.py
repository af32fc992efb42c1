"""Approximate search by ScaNN (Guo et al. 2020, arXiv 1908.10396): partition, quantised scores, exact rescoring.

The only import of ``scann``. What ScaNN finds is rescored here from the bundle's own float vectors, so its files hold
the quantised codes only (half a byte a dimension), and an answer's scores and order are those of the exact twin.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from server.index.exact_index import ExactIndex
from server.index.planner import Approximate, Partitions, SearchPath, approximate, approximate_cost, exact_path
from server.index.rescoring import best_candidates, best_of_each
from server.index.selection import Selection
from server.index.vector_index import Found, FoundEach, Rows, Vectors, known_rows, lists_of

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
        self._partitions = Partitions(
            leaves=parameters.leaves, leaves_to_search=parameters.leaves_to_search, reorder=parameters.reorder
        )

    @classmethod
    def build(cls, vectors: Vectors, parameters: ScannParameters, *, spherical: bool, threads: int = 0) -> ScannIndex:
        """Build over ``vectors [nodes, dimension]``; ``spherical``: the vectors have length 1.

        ``threads``: to build with, 0 for one a processor.
        """
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
                .set_n_training_threads(threads)
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
        try:
            self._searcher.serialize(str(folder), relative_path=True)
        except RuntimeError as error:
            # Of a full disk ScaNN 1.4 says no more than that.
            if "I/O error" not in str(error):
                raise
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(folder)) from error

    def with_parameters(self, parameters: ScannParameters) -> ScannIndex:
        """The same index searched another way (``leaves`` stay as built)."""
        return ScannIndex(self._searcher, self._vectors, parameters)

    def __len__(self) -> int:
        return self._count

    def search(
        self,
        queries: Vectors,
        k: int,
        exclude: Sequence[Rows] | None = None,
        allowed: Sequence[Selection | None] | None = None,
    ) -> list[Found]:
        found: list[Found] = []
        for number, query in enumerate(queries):
            left_out = None if exclude is None else exclude[number]
            selection = None if allowed is None else allowed[number]
            if selection is None:
                found.append(self._one(query, k, left_out))
            else:
                found.append(self._filtered(query, k, left_out, selection))
        return found

    def search_one(self, query: Vectors, k: int, exclude: Rows) -> Found:
        return self._one(query, k, exclude)

    def _filtered(self, query: Vectors, k: int, exclude: Rows | None, allowed: Selection) -> Found:
        """Ask ScaNN as long as that is the cheapest way, wider each time; what passes must be as many as without."""
        passing, dimension = len(allowed), self._vectors.shape[1]
        needed = min(self._wanted(k, 0), passing)
        aimed_at = needed if exclude is None else self._wanted(k, int(np.count_nonzero(allowed.mask[exclude])))
        _, exact_cost = exact_path(self._count, passing, dimension)
        question = approximate(self._count, passing, aimed_at, self._partitions)
        while approximate_cost(question, self._count, aimed_at, dimension, self.parameters.leaves) < exact_cost:
            candidates, _ = self._searcher.search(
                query, final_num_neighbors=question.wanted, leaves_to_search=question.leaves
            )
            rows: Rows = np.asarray(candidates if self._known is None else self._known[candidates], np.int64)
            rows = rows[allowed.mask[rows]]
            left = len(rows) if exclude is None else int(np.count_nonzero(np.isin(rows, exclude, invert=True)))
            if left >= needed:
                return replace(self._rescored_rows(query, rows, k, exclude), scored=left)
            if len(candidates) < question.wanted and question.leaves >= self.parameters.leaves:
                break
            question = Approximate(wanted=question.wanted * 2, leaves=min(question.leaves * 4, self.parameters.leaves))
        return self._exact.search(query[None], k, None if exclude is None else [exclude], [allowed])[0]

    def _wanted(self, k: int, excluded: int) -> int:
        # The reorder that was tuned is for 10 results; deeper ones, also those behind what is left out, need more.
        depth = k + excluded
        return max(self.parameters.reorder, self.parameters.reorder * depth // 20, 2 * depth)

    def search_each(self, queries: Vectors, k: int, exclude: Rows) -> FoundEach:
        """By ScaNN's own batches, rescored together.

        Where quantised scores tie at the margin of the candidates, its batches may choose others than its single
        searches (of 20,000 searches among 100,000 vectors none did).
        """
        wanted, leaves = self._wide(k, 1)
        if wanted >= self._count // 2:
            left_out = lists_of(exclude)
            return FoundEach.of([self._one(query, k, rows) for query, rows in zip(queries, left_out, strict=True)], k)
        found, distances = self._searcher.search_batched(
            np.ascontiguousarray(queries), final_num_neighbors=wanted, leaves_to_search=leaves
        )
        filled = ~np.isnan(distances)
        candidates: Rows = np.where(filled, found if self._known is None else self._known[found], np.int64(-1))
        rows, scores, counts = best_of_each(self._vectors, queries, candidates, exclude, k)
        each = FoundEach(
            rows=rows,
            scores=scores,
            counts=counts,
            exact=np.zeros(len(rows), np.bool_),
            scored=filled.sum(axis=1),
            paths=(SearchPath.APPROXIMATE,) * len(rows),
        )
        short = np.flatnonzero(counts < k).tolist()
        return each.replaced({number: self._one(queries[number], k, lists_of(exclude)[number]) for number in short})

    def _wide(self, k: int, excluded: int) -> tuple[int, int]:
        """Candidates to ask for, and partitions to look into."""
        wanted = self._wanted(k, excluded)
        # A wide question deserves a proportionally wide look: the tuned partitions were enough for 10 results.
        leaves = self.parameters.leaves_to_search * max(wanted // self.parameters.reorder, 1)
        return wanted, min(self.parameters.leaves, max(1, leaves))

    def _one(self, query: Vectors, k: int, exclude: Rows | None) -> Found:
        # One more at least: ``search_each``, which leaves out one row or none, must find the same.
        wanted, leaves = self._wide(k, 1 if exclude is None else max(len(exclude), 1))
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
        rows = candidates if self._known is None else self._known[candidates]
        return self._rescored_rows(query, rows, k, exclude)

    def _rescored_rows(self, query: Vectors, rows: Any, k: int, exclude: Rows | None) -> Found:
        best, scores = best_candidates(self._vectors, query, rows, exclude, k)
        return Found(rows=best, scores=scores, exact=False, scored=len(rows), path=SearchPath.APPROXIMATE)


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
