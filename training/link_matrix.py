"""A sparse matrix over an adjacency that is already there: factorised where it lies, without a copy of the edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from model_store.compiled import compiled
from model_store.csr import Csr
from model_store.features import link_weight
from training.edge_kernels import NO_WEIGHT, row_spans

Doubles = NDArray[np.float64]
_EDGES_AT_ONCE = 1 << 22
_ONES = np.empty(0, np.float64)
"""What stands for ones in the loops."""


@dataclass(frozen=True, kw_only=True)
class LinkMatrix:
    """``D_rows (A + I?) D_columns`` ``[rows, columns]``, A being weighted links; values are made when they are read.

    Each value is rounded to the precision of what it is multiplied with.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    """Ascending in each row, no column twice."""
    weight: NDArray[np.floating[Any]] | None
    """Above 0; None: ones."""
    columns: int
    row_scale: Doubles | None = None
    column_scale: Doubles | None = None
    diagonal: bool = False
    """Whether ones are added on the diagonal."""

    @classmethod
    def of(cls, links: Sequence[Csr], medians: Sequence[float], columns: int, *, weighted: bool = True) -> LinkMatrix:
        """The sum of adjacencies with the same rows, links weighted by ``link_weight``; those of no weight are out.

        One adjacency whose rows ascend is read where it is; else the edges are copied, 12 bytes each. Where it is not
        ``weighted``, all that are left are ones, and a copy has 4 bytes an edge.
        """
        if len(links) == 1:
            csr = links[0]
            weight = _weights(csr, medians[0])
            indptr, indices = np.asarray(csr.indptr, np.int64), np.asarray(csr.indices)
            if _ascends(indptr, indices, NO_WEIGHT if weight is None else weight):
                return cls(indptr=indptr, indices=indices, weight=weight if weighted else None, columns=columns)
            del weight
        rows = links[0].num_rows if links else 0
        most = sum(csr.num_edges for csr in links)
        # Of arrays that turn out too long the rest is never touched, and takes no memory.
        indices, values = np.empty(most, np.int32), np.empty(most if weighted else 0, np.float64)
        indptr = np.zeros(rows + 1, np.int64)
        for first, last in row_spans([np.asarray(csr.indptr) for csr in links], _EDGES_AT_ONCE) if links else ():
            total = sp.csr_matrix((last - first, columns), dtype=np.float64)
            for csr, median in zip(links, medians, strict=True):
                part = csr.part(first, last)
                data = link_weight(part, median).astype(np.float64)
                total = total + sp.csr_matrix((data, np.asarray(part.indices), part.indptr), shape=total.shape)
            total = total.tocsr()
            total.sum_duplicates()
            indptr[first + 1 : last + 1] = indptr[first] + total.indptr[1:]
            written = slice(int(indptr[first]), int(indptr[last]))
            indices[written] = total.indices
            if weighted:
                values[written] = total.data
        kept = int(indptr[-1])
        return cls(indptr=indptr, indices=indices[:kept], weight=values[:kept] if weighted else None, columns=columns)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.indptr) - 1, self.columns

    @property
    def nnz(self) -> int:
        return len(self.indices)

    def column_counts(self) -> NDArray[np.int64]:
        """Links of each column, without the diagonal."""
        total = np.zeros(self.columns, np.int64)
        for first in range(0, self.nnz, _EDGES_AT_ONCE):
            total += np.bincount(self.indices[first : first + _EDGES_AT_ONCE], minlength=self.columns)
        return total

    def chosen_columns(self, chosen: NDArray[np.int64]) -> Any:
        """The links of some columns as rows (ascending) of a sparse matrix ``[chosen, rows]`` of float64 ones."""
        place = np.full(self.columns, -1, np.int64)
        place[chosen] = np.arange(len(chosen))
        count = self.column_counts()[chosen]
        indptr = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        rows = np.empty(indptr[-1], np.int32)
        _columns_as_rows(self.indptr, self.indices, place, indptr[:-1].copy(), rows)
        return sp.csr_matrix((np.ones(len(rows)), rows, indptr), shape=(len(chosen), self.shape[0]))

    def of_unit_rows(self) -> LinkMatrix:
        """The same with every row divided by its length; rows of zeros stay."""
        length = np.empty(self.shape[0], np.float64)
        _lengths(*self._arrays(), length)
        scale = 1.0 / np.maximum(length, 1e-12)
        return replace(self, row_scale=scale if self.row_scale is None else self.row_scale * scale)

    def times(self, dense: NDArray[Any], first: int = 0, last: int | None = None) -> NDArray[Any]:
        """Rows from ``first`` up to ``last`` of the product with ``dense [columns, width]``, in its precision."""
        last = self.shape[0] if last is None else last
        out = np.zeros((last - first, dense.shape[1]), dense.dtype)
        _times(*self._arrays(), first, np.ascontiguousarray(dense), out)
        return out

    def transposed_times(self, dense: NDArray[Any]) -> NDArray[Any]:
        """Product ``[columns, width]`` of the transposed matrix with ``dense [rows, width]``, in its precision."""
        out = np.zeros((self.columns, dense.shape[1]), dense.dtype)
        _transposed_times(*self._arrays(), np.ascontiguousarray(dense), out)
        return out

    def toarray(self) -> Doubles:
        """All of it."""
        return cast("Doubles", self.times(np.eye(self.columns)))

    def _arrays(self) -> tuple[Any, Any, Any, Any, Any, bool]:
        return (
            self.indptr,
            self.indices,
            NO_WEIGHT if self.weight is None else self.weight,
            _ONES if self.row_scale is None else self.row_scale,
            _ONES if self.column_scale is None else self.column_scale,
            self.diagonal,
        )


def _weights(csr: Csr, median: float) -> NDArray[np.float32] | None:
    """``link_weight`` of every edge, some at a time; None where all are 1."""
    if csr.weight is None or median <= 0:
        return None
    out = np.empty(csr.num_edges, np.float32)
    for first in range(0, csr.num_edges, _EDGES_AT_ONCE):
        run = slice(first, min(first + _EDGES_AT_ONCE, csr.num_edges))
        edges = Csr(indptr=np.array([0, run.stop - first]), indices=csr.indices[run], weight=csr.weight[run])
        out[run] = link_weight(edges, median)
    return out


@compiled
def _ascends(indptr: NDArray[np.int64], indices: NDArray[np.int32], weight: NDArray[np.float32]) -> bool:
    """Whether every row's columns ascend and every weight is above 0."""
    for row in range(len(indptr) - 1):
        for edge in range(indptr[row] + 1, indptr[row + 1]):
            if indices[edge] <= indices[edge - 1]:
                return False
    # No generator: this is compiled.
    for edge in range(len(weight)):  # noqa: SIM110
        if not weight[edge] > 0:
            return False
    return True


@compiled
def _columns_as_rows(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    place: NDArray[np.int64],
    next_of: NDArray[np.int64],
    out: NDArray[np.int32],
) -> None:
    """Write the rows that have a column, ascending, where ``next_of`` says for its ``place``; -1: it is left out."""
    for row in range(len(indptr) - 1):
        for edge in range(indptr[row], indptr[row + 1]):
            at = place[indices[edge]]
            if at >= 0:
                out[next_of[at]] = row
                next_of[at] += 1


@compiled
def _row_values(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.floating[Any]],
    row_scale: Doubles,
    column_scale: Doubles,
    diagonal: bool,
    row: int,
    columns: NDArray[np.int64],
    values: Doubles,
) -> int:
    """Columns, ascending, and values of one row into the buffers; how many."""
    count = 0
    missing = diagonal
    for edge in range(indptr[row], indptr[row + 1]):
        column = indices[edge]
        value = np.float64(weight[edge]) if len(weight) else 1.0
        if missing and column >= row:
            missing = False
            if column == row:
                value += 1.0
            else:
                columns[count], values[count] = row, 1.0
                count += 1
        columns[count], values[count] = column, value
        count += 1
    if missing:
        columns[count], values[count] = row, 1.0
        count += 1
    for place in range(count):
        if len(column_scale):
            values[place] *= column_scale[columns[place]]
        if len(row_scale):
            values[place] *= row_scale[row]
    return count


@compiled
def _buffers(indptr: NDArray[np.int64]) -> int:
    widest = 0
    for row in range(len(indptr) - 1):
        widest = max(widest, indptr[row + 1] - indptr[row])
    return widest + 1


@compiled
def _lengths(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.floating[Any]],
    row_scale: Doubles,
    column_scale: Doubles,
    diagonal: bool,
    out: Doubles,
) -> None:
    room = _buffers(indptr)
    columns, values = np.empty(room, np.int64), np.empty(room, np.float64)
    for row in range(len(indptr) - 1):
        count = _row_values(indptr, indices, weight, row_scale, column_scale, diagonal, row, columns, values)
        total = 0.0
        for place in range(count):
            total += values[place] * values[place]
        out[row] = np.sqrt(total)


@compiled
def _times(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.floating[Any]],
    row_scale: Doubles,
    column_scale: Doubles,
    diagonal: bool,
    first: int,
    dense: NDArray[Any],
    out: NDArray[Any],
) -> None:
    room = _buffers(indptr)
    columns, values = np.empty(room, np.int64), np.empty(room, np.float64)
    rounded = np.empty(room, dense.dtype)
    for row in range(first, first + len(out)):
        count = _row_values(indptr, indices, weight, row_scale, column_scale, diagonal, row, columns, values)
        for place in range(count):
            rounded[place] = values[place]
        for place in range(count):
            value, column = rounded[place], columns[place]
            for each in range(dense.shape[1]):
                out[row - first, each] += value * dense[column, each]


@compiled
def _transposed_times(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    weight: NDArray[np.floating[Any]],
    row_scale: Doubles,
    column_scale: Doubles,
    diagonal: bool,
    dense: NDArray[Any],
    out: NDArray[Any],
) -> None:
    room = _buffers(indptr)
    columns, values = np.empty(room, np.int64), np.empty(room, np.float64)
    rounded = np.empty(room, dense.dtype)
    for row in range(len(indptr) - 1):
        count = _row_values(indptr, indices, weight, row_scale, column_scale, diagonal, row, columns, values)
        for place in range(count):
            rounded[place] = values[place]
        for place in range(count):
            value, column = rounded[place], columns[place]
            for each in range(dense.shape[1]):
                out[column, each] += value * dense[row, each]
