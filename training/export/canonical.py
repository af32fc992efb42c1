"""The canonical form of columns: what a snapshot stores and hashes, whichever store the rows came from.

A column is hashed in blocks of ``BLOCK_ROWS`` rows, so neither the chunks that a store sends nor its types show.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graph_store.schema import GraphSchema

BLOCK_ROWS = 1 << 18
"""Rows a block: strings of a block stay below Arrow's 2 GiB up to 8 KiB a value."""


def wide(kind: pa.DataType) -> pa.DataType:
    """The type with 64-bit offsets, for columns of more than 2 GiB."""
    if pa.types.is_string(kind):
        return pa.large_string()
    if pa.types.is_list(kind):
        return pa.large_list(wide(kind.value_type))
    return kind


def canonical_column(values: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """The column with NaN as missing and -0.0 as 0.0 (floats only; other columns come back as they are)."""
    if not pa.types.is_floating(values.type):
        return values
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
    return pc.add(values, pa.scalar(0.0, values.type))


def schema_document(schema: GraphSchema) -> dict[str, Any]:
    """The schema as plain JSON values, in declared order."""
    return schema.model_dump(mode="json")


def blocks(rows: int) -> Iterator[tuple[int, int]]:
    """Start and length of every block."""
    for start in range(0, rows, BLOCK_ROWS):
        yield start, min(BLOCK_ROWS, rows - start)


class ColumnHash:
    """SHA-256 of one column, fed block by block."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def update(self, block: pa.Array | NDArray[Any]) -> None:
        """Add the next block: numbers as 64 bits, text as UTF-8 with lengths, missing as one pattern."""
        if isinstance(block, np.ndarray):
            self._hash.update(np.ascontiguousarray(block, dtype="<i8").data)
            return
        for part in _parts(block):
            self._hash.update(part)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def _parts(block: pa.Array) -> Iterable[memoryview | bytes]:
    valid = np.asarray(block.is_valid())
    yield np.packbits(valid).data
    kind = block.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield _lengths(pc.list_value_length(block))
        # A flattened list leaves out what lies under missing lists.
        yield from _parts(block.flatten())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield _lengths(pc.binary_length(block))
        text = pc.drop_null(block).cast(pa.large_string())
        data = text.buffers()[2]
        offsets = np.frombuffer(text.buffers()[1], dtype=np.int64, count=text.offset + len(text) + 1)[text.offset :]
        if data is not None and len(text):
            yield memoryview(data)[offsets[0] : offsets[-1]]
    elif pa.types.is_floating(kind):
        numbers = np.asarray(block.cast(pa.float64()).fill_null(0.0)).astype("<f8", copy=True)
        numbers += 0.0  # -0.0 becomes 0.0
        numbers[np.isnan(numbers)] = np.nan  # one bit pattern
        yield numbers.data
    else:
        if pa.types.is_date(kind):
            block = block.cast(pa.int32())
        yield np.ascontiguousarray(np.asarray(block.cast(pa.int64()).fill_null(0)), dtype="<i8").data


def _lengths(lengths: pa.Array) -> memoryview:
    return np.ascontiguousarray(np.asarray(lengths.cast(pa.int64()).fill_null(0)), dtype="<i8").data


def content_hash(
    schema: GraphSchema, nodes: Mapping[str, Mapping[str, Any]], relations: Mapping[str, Mapping[str, Any]]
) -> str:
    """Hash of schema, counts and column hashes: 64 hexadecimal digits."""
    document = {"schema": schema_document(schema), "nodes": nodes, "relations": relations}
    return hashlib.sha256(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()
