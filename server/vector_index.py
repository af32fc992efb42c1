"""The seam to nearest-neighbour search over the vectors of one node type in one space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What one query found: best first, ties by row (which is by id)."""

    rows: Rows
    """int64 ``[found]``, rows of the node type."""
    scores: Vectors
    """float32 ``[found]``, inner products computed from the float vectors."""
    exact: bool
    """True where every candidate was scored."""
    scored: int
    """Candidates scored exactly."""


class VectorIndex(Protocol):
    """The k vectors of largest inner product with a query (cosine, where both have length 1).

    Nodes whose vector is all zeros (nothing is known of them) are never returned.
    """

    kind: str
    """``exact`` or ``scann``."""

    def __len__(self) -> int:
        """Vectors that can be found."""
        ...

    def search(self, queries: Vectors, k: int, exclude: Sequence[Rows] | None = None) -> list[Found]:
        """Search for each of ``queries`` float32 ``[B, dimension]``; ``exclude``: rows to leave out, one array a query.

        Fewer than k come back only where fewer than k are there.
        """
        ...


def known_rows(vectors: Vectors) -> Rows | None:
    """Rows with a vector that is not all zeros; None where that is every row."""
    known = np.asarray(vectors.any(axis=1))
    return None if known.all() else np.flatnonzero(known)


def unit_rows(vectors: Vectors) -> Vectors:
    """The vectors scaled to length 1 (zeros stay); the same array where they have it already."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    if np.all((np.abs(lengths - 1) < 1e-5) | (lengths == 0)):
        return vectors
    return np.asarray(vectors / np.where(lengths == 0, 1, lengths)[:, None], dtype=np.float32)


def scores_of(vectors: Vectors, query: Vectors) -> Vectors:
    """Inner products ``[N]`` of ``vectors [N, dimension]`` with one query, each row summed in the same order.

    A matrix product sums a row differently by its place in the matrix, so equal vectors would not tie; this does not.
    """
    return np.asarray(np.einsum("ij,j->i", vectors, query), dtype=np.float32)


def best_first(rows: Rows, scores: Vectors, k: int) -> tuple[Rows, Vectors]:
    """The k best by score, ties by row."""
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]
