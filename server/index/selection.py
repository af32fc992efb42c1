"""Some of the rows of a node type, as whichever form a search reads."""

from __future__ import annotations

from array import array
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

Rows = NDArray[np.int64]


class Selection:
    """A set of rows that does not change (Roaring bitmap, Chambi et al. 2016, arXiv 1402.6407); forms are made once."""

    def __init__(self, bitmap: BitMap, total: int) -> None:
        """``total``: rows of the node type."""
        self.bitmap = bitmap
        self.total = total
        self._count = len(bitmap)

    @classmethod
    def of(cls, rows: NDArray[np.integer], total: int) -> Selection:
        """The given rows, in any order."""
        return cls(bitmap_of(np.sort(rows)), total)

    def __len__(self) -> int:
        return self._count

    @cached_property
    def rows(self) -> Rows:
        """int64, ascending."""
        return rows_of(self.bitmap)

    @cached_property
    def mask(self) -> NDArray[np.bool_]:
        """Booleans ``[total]``: true where a row is among them."""
        mask = np.zeros(self.total, np.bool_)
        mask[rows_of(self.bitmap)] = True
        return mask

    def without(self, rows: Rows | None) -> Rows:
        """Its rows less the given ones, ascending."""
        if rows is None or not len(rows):
            return self.rows
        return rows_of(self.bitmap - bitmap_of(np.sort(rows)))


def bitmap_of(rows: NDArray[np.integer]) -> BitMap:
    """The bitmap of ascending rows."""
    # An array of C integers is copied ten times as fast as anything that is iterated.
    numbers = array("I")
    numbers.frombytes(np.ascontiguousarray(rows, dtype=np.uint32).tobytes())
    return BitMap(numbers)


def rows_of(bitmap: BitMap) -> Rows:
    """The rows of a bitmap, int64, ascending."""
    return np.frombuffer(bitmap.to_array(), np.uint32).astype(np.int64)
