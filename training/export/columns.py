"""The declared columns of what a store sends, and Arrow files of them, each column hashed on the way."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.errors import SnapshotError
from training.export.canonical import BLOCK_ROWS, ColumnHash, canonical_column, wide


def wide_schema(declared: pa.Schema) -> pa.Schema:
    """The same columns with 64-bit offsets."""
    return pa.schema([pa.field(field.name, wide(field.type)) for field in declared])


def declared_columns(batch: pa.RecordBatch, declared: pa.Schema, what: str) -> pa.RecordBatch:
    """The declared columns in declared order and type, canonical, with 64-bit offsets.

    Raises SnapshotError where a column is missing or of another type; ``what`` names the rows.
    """
    columns = []
    for field in declared:
        if field.name not in batch.schema.names:
            raise SnapshotError(f"{what}: the store sends no column {field.name!r}", hint="Apply the schema first.")
        column = batch.column(field.name)
        try:
            columns.append(canonical_column(column.cast(field.type).cast(wide(field.type))))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SnapshotError(
                f"{what}: column {field.name!r} is declared as {field.type}, the store sends {column.type}: {error}",
                hint="Correct the property's type in kithkin.toml, or the values in the store.",
            ) from None
    return pa.RecordBatch.from_arrays(columns, schema=wide_schema(declared))


class ArrowFile:
    """An Arrow file of the declared columns, in batches of ``BLOCK_ROWS`` rows however the rows arrive."""

    def __init__(self, path: Path, declared: pa.Schema) -> None:
        self._declared = declared
        self._hashes = {name: ColumnHash() for name in declared.names}
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_file(self._sink, declared)
        self._left = wide_schema(declared).empty_table()

    def __enter__(self) -> ArrowFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                if self._left.num_rows:
                    self._write(self._left)
                self._writer.close()
        finally:
            self._sink.close()

    def add(self, table: pa.Table, order: NDArray[np.int64]) -> None:
        """Append the rows of a table of ``wide_schema``, in this order."""
        held = self._left.num_rows
        if held:
            order = np.concatenate([np.arange(held), order + held])
            table = pa.concat_tables([self._left, table])
        # Arrow takes rows of one chunk quickly; of many it would join them anew each time.
        table = table.combine_chunks()
        start = 0
        while len(order) - start >= BLOCK_ROWS:
            self._write(table.take(pa.array(order[start : start + BLOCK_ROWS])))
            start += BLOCK_ROWS
        self._left = table.take(pa.array(order[start:]))

    def hashes(self) -> dict[str, str]:
        """Hash of each column, once the file is closed."""
        return {name: column.hexdigest() for name, column in self._hashes.items()}

    def _write(self, table: pa.Table) -> None:
        arrays = []
        part = table.combine_chunks()
        for field in self._declared:
            column = part.column(field.name).combine_chunks().cast(field.type)
            self._hashes[field.name].update(column)
            arrays.append(column)
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._declared))
