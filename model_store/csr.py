"""Adjacency as compressed sparse rows, and the name of a relation seen from one end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graph_store.schema import Triple


class EdgeType(NamedTuple):
    """A relation seen from one of its ends.

    Not reversed: seen from the source type, the neighbours are targets. Reversed: seen from the target type, the
    neighbours are sources.
    """

    triple: Triple
    reversed: bool = False

    @property
    def node_type(self) -> str:
        """Type of the nodes it is seen from (the rows)."""
        return self.triple.target if self.reversed else self.triple.source

    @property
    def neighbour_type(self) -> str:
        """Type of the neighbours (the columns)."""
        return self.triple.source if self.reversed else self.triple.target

    @property
    def flipped(self) -> EdgeType:
        """The same relation seen from its other end."""
        return EdgeType(self.triple, not self.reversed)

    @property
    def key(self) -> str:
        """One file-system-safe word: the triple's, with ``__rev`` where reversed."""
        return self.triple.key + ("__rev" if self.reversed else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Csr:
    """Neighbours of the nodes of one edge type.

    ``indptr`` int64 ``[rows + 1]``; ``indices`` int32 ``[edges]``, rows of the neighbour type; ``weight`` float32
    ``[edges]`` or None (every edge weighs 1); ``time`` int64 ``[edges]``, UTC microseconds, or None.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    weight: NDArray[np.float32] | None = None
    time: NDArray[np.int64] | None = None

    @property
    def num_rows(self) -> int:
        return len(self.indptr) - 1

    @property
    def num_edges(self) -> int:
        return len(self.indices)

    def row(self, node: int) -> slice:
        """Slice of ``indices``, ``weight`` and ``time`` that belongs to one node."""
        return slice(int(self.indptr[node]), int(self.indptr[node + 1]))

    def part(self, first: int, last: int) -> Csr:
        """The rows from ``first`` up to ``last``; nothing but ``indptr`` is copied."""
        low, high = int(self.indptr[first]), int(self.indptr[last])
        return Csr(
            indptr=np.asarray(self.indptr[first : last + 1]) - low,
            indices=self.indices[low:high],
            weight=None if self.weight is None else self.weight[low:high],
            time=None if self.time is None else self.time[low:high],
        )

    def take(self, rows: NDArray[np.int64]) -> Csr:
        """The given rows, in their order."""
        start = np.asarray(self.indptr[rows])
        indptr = np.concatenate([[0], np.cumsum(np.asarray(self.indptr[rows + 1]) - start)]).astype(np.int64)
        position = np.repeat(start - indptr[:-1], np.diff(indptr)) + np.arange(indptr[-1])
        return Csr(
            indptr=indptr,
            indices=np.asarray(self.indices[position]),
            weight=None if self.weight is None else np.asarray(self.weight[position]),
            time=None if self.time is None else np.asarray(self.time[position]),
        )
