"""One table, written batch by batch as CSV or Parquet."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq


class TableFile:
    """A file that takes rows as they are made; the ending of its name says the format."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self._schema = schema
        self._writer: Any
        if path.suffix == ".csv":
            options = pa_csv.WriteOptions(quoting_style="needed", quoting_header="needed")
            self._writer = pa_csv.CSVWriter(str(path), schema, write_options=options)
        else:
            self._writer = pq.ParquetWriter(str(path), schema, compression="zstd")

    def __enter__(self) -> TableFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def write(self, *columns: Any) -> None:
        """Append rows, a column after the other (arrays or plain lists of one length)."""
        arrays = [
            column.cast(field.type) if isinstance(column, pa.Array) else pa.array(column, field.type)
            for column, field in zip(columns, self._schema, strict=True)
        ]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        self.rows += batch.num_rows
        if batch.num_rows:
            self._writer.write_batch(batch)
