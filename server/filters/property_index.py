"""Which nodes have which value of a property: an inverted index of one column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyroaring import BitMap

from graph_store.schema import PropertyType
from model_store.node_ids import NodeIds
from server.index.selection import bitmap_of

_DAY_US = 86_400_000_000
TEXTS = frozenset({PropertyType.STRING, PropertyType.STRINGS})
ORDERED = frozenset({PropertyType.INT, PropertyType.FLOAT, PropertyType.DATE, PropertyType.TIMESTAMP})
"""Types whose values lie in an order that ranges are asked of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """One end of a range, of a value as the index holds it."""

    value: int | float
    excluded: bool


class PropertyIndex:
    """Rows by value; what is looked up is the values as stored: a date or a time is UTC microseconds, a bool 0 or 1.

    Held are the rows in the order of their values (4 bytes each), where each value's begin and the distinct values
    (8 bytes each, texts by themselves); bitmaps are made of what is asked for. A vector is there or not, no more.
    """

    def __init__(self, column: pa.ChunkedArray, kind: PropertyType) -> None:
        self.kind = kind
        self._total = len(column)
        values = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        there = np.flatnonzero(pc.is_valid(values).to_numpy(zero_copy_only=False))
        self.present: BitMap = bitmap_of(there)
        """Rows that have a value."""
        self._texts: NodeIds | None = None
        self._numbers: NDArray[Any] = np.empty(0, np.int64)
        if kind is PropertyType.VECTOR:
            rows, codes, count = np.empty(0, np.int64), np.empty(0, np.int64), 0
        elif kind in TEXTS:
            rows, codes, count = self._read_texts(values, there)
        else:
            rows, codes, count = self._read_numbers(values, there)
        order = np.argsort(codes, kind="stable")
        self._rows = rows[order].astype(np.uint32)
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=count))]).astype(np.int64)

    def equal(self, value: str | int | float) -> BitMap:
        """Rows that have this value (of a list: among its elements)."""
        if isinstance(value, str):
            code = None if self._texts is None else self._texts.row(value)
        else:
            place = int(np.searchsorted(self._numbers, value))
            code = place if place < len(self._numbers) and self._numbers[place] == value else None
        return BitMap() if code is None else self._of(code, code + 1)

    def between(self, low: Bound | None, high: Bound | None) -> BitMap:
        """Rows whose value lies between two ends; NaN lies nowhere."""
        first, last = 0, len(self._numbers)
        if low is not None:
            first = int(np.searchsorted(self._numbers, low.value, side="right" if low.excluded else "left"))
        if high is not None:
            last = int(np.searchsorted(self._numbers, high.value, side="left" if high.excluded else "right"))
        return self._of(first, last) if first < last else BitMap()

    def _of(self, first: int, last: int) -> BitMap:
        rows = self._rows[self._starts[first] : self._starts[last]]
        if last == first + 1:
            return bitmap_of(rows)
        if len(rows) < self._total // 16:
            return bitmap_of(np.unique(rows))
        # Many rows are brought into order faster by their places than by sorting.
        mask = np.zeros(self._total, np.bool_)
        mask[rows] = True
        return bitmap_of(np.flatnonzero(mask))

    def _read_texts(self, values: pa.Array, there: NDArray[np.int64]) -> tuple[Any, Any, int]:
        if self.kind is PropertyType.STRINGS:
            rows = pc.list_parent_indices(values).to_numpy()
            values = pc.list_flatten(values)
            told = pc.is_valid(values).to_numpy(zero_copy_only=False)
            rows, values = rows[told], values.drop_null()
        else:
            rows, values = there, values.drop_null()
        encoded = values.dictionary_encode()
        # Arrow sorts strings by their bytes, which is the order the search compares in.
        order = pc.array_sort_indices(encoded.dictionary)
        self._texts = NodeIds(pa.chunked_array([encoded.dictionary.take(order)], pa.string()))
        rank = np.empty(len(order), np.int64)
        rank[order.to_numpy()] = np.arange(len(order))
        return rows, rank[encoded.indices.to_numpy()], len(order)

    def _read_numbers(self, values: pa.Array, there: NDArray[np.int64]) -> tuple[Any, Any, int]:
        match self.kind:
            case PropertyType.DATE:
                numbers = values.drop_null().cast(pa.int32()).to_numpy().astype(np.int64) * _DAY_US
            case PropertyType.TIMESTAMP:
                numbers = values.drop_null().cast(pa.int64()).to_numpy()
            case PropertyType.BOOL:
                numbers = values.drop_null().to_numpy(zero_copy_only=False).astype(np.int64)
            case _:
                numbers = values.drop_null().to_numpy()
        some = numbers == numbers
        self._numbers, codes = np.unique(numbers[some], return_inverse=True)
        return there[some], codes, len(self._numbers)
