"""Source files made readable for DuckDB: each parsed once, rows numbered by line."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from graph_store.errors import ConfigError, InputError
from graph_store.ingest.csv_reader import KEPT_BAD_ROWS, BadRow, CsvReader, Dialect
from graph_store.ingest.files import COMPRESSIONS, file_format, open_bytes
from graph_store.progress import Task
from graph_store.schema import PropertyType
from graph_store.sources import FileFormat, Source

_DELIMITERS = (";", "\t", "|", ",")
_JSON_LINES = Dialect(delimiter="\x1f", quote="", header=False, columns=("text",))


def quoted(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, kw_only=True, slots=True)
class RawColumn:
    """One column of a raw file as SQL over its table."""

    text: str
    """The value as VARCHAR (for a list: null)."""
    items: str | None = None
    """The value as a list, null where it is none; None where the column never holds lists."""
    numbers: bool = False
    """True where ``items`` are numbers already."""
    native: str = ""
    """The value as it stands in the file, where that needs no reading as text for a property of ``types``."""
    types: frozenset[PropertyType] = frozenset()
    unreadable: str = ""
    """The column's type, where it holds neither single values nor lists of them."""


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """One parsed file: ``table`` is SQL with the column ``line`` (1-based) and what ``columns`` refer to."""

    file: Path
    table: str
    columns: dict[str, RawColumn]
    twice: frozenset[str]
    """Names that several columns have."""
    text: str
    """SQL for the whole row as text, for rejects."""
    rows: int
    bad: tuple[BadRow, ...] = ()
    bad_rows: int = 0
    kind: str = "column"
    elsewhere: frozenset[str] = frozenset()
    """JSON lines: keys that other files of the same source have; here they have no value."""

    def column(self, name: str) -> RawColumn:
        """The column called ``name``; InputError that names the columns there are, and the closest one."""
        if name in self.twice:
            raise InputError(
                "several columns have this name", file=self.file, column=name, hint="Rename one of them in the file."
            )
        if name not in self.columns:
            if self.kind == "key" and (not self.rows or name in self.elsewhere):
                return RawColumn(text="NULL::VARCHAR")
            there = [column for column in self.columns if column]
            close = difflib.get_close_matches(name, there, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            if len(there) == 1 and (other := [sign for sign in _DELIMITERS if sign in there[0]]):
                hint = f"Is the delimiter {other[0]!r}? Set `delimiter` of the source. "
            listed = ", ".join(there[:30]) + (", ..." if len(there) > 30 else "")
            raise InputError(
                f"no such {self.kind}", file=self.file, column=name, hint=f"{hint}The file has: {listed or 'none'}."
            )
        column = self.columns[name]
        if column.unreadable:
            raise InputError(
                f"holds {column.unreadable}, not texts, numbers, times or lists of them",
                file=self.file,
                column=name,
                hint="Write its parts into columns of their own (and bytes as text).",
            )
        return column


class RawFiles:
    """The files of an ingest, each parsed once however many sources read it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
        self._connection, self._folder = connection, folder
        self._parsed: dict[Any, RawFile] = {}

    def open(self, file: Path, source: Source, task: Task) -> RawFile:
        """The parsed file, from memory where another source read it in the same way. Raises InputError."""
        kind = file_format(file, source.format)
        dialect = _dialect(source) if kind is FileFormat.CSV else None
        key = (file, kind, dialect or (source.encoding if kind is FileFormat.JSONL else None))
        if key not in self._parsed:
            target = self._folder / f"raw{len(self._parsed)}.parquet"
            if kind is FileFormat.PARQUET:
                self._parsed[key] = self._parquet(file, target)
            elif kind is FileFormat.JSONL:
                self._parsed[key] = self._jsonl(file, target, source.encoding, task)
            else:
                self._parsed[key] = _csv(file, target, _dialect(source), task)
        return self._parsed[key]

    def _parquet(self, file: Path, target: Path) -> RawFile:
        path = file
        if file.suffix.lower() in COMPRESSIONS:
            with open_bytes(file) as stream, target.open("wb") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)
            path = target
        try:
            metadata = pq.ParquetFile(path)
            schema, rows = metadata.schema_arrow, metadata.metadata.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"not readable as Parquet: {error}", file=file, hint="Copy or export it again.") from None
        # By place, not by name: DuckDB's names are blind to upper and lower case, and one may be called like ours.
        fields = [f"c{index}" for index in range(len(schema.names))]
        columns = {
            name: _parquet_column(field, schema.field(index).type)
            for index, (name, field) in enumerate(zip(schema.names, fields, strict=True))
        }
        table = (
            f"(SELECT place + 1 AS line, {', '.join(fields)} "
            f"FROM read_parquet({quoted(str(path))}, file_row_number = true) AS raw({', '.join([*fields, 'place'])}))"
        )
        named = zip(schema.names, fields, strict=True)
        text = f"json_object({', '.join(f'{quoted(name)}, {field}' for name, field in named)})::VARCHAR"
        twice = frozenset(name for name in schema.names if schema.names.count(name) > 1)
        return RawFile(file=file, table=table, columns=columns, twice=twice, text=text, rows=rows)

    def _jsonl(self, file: Path, target: Path, encoding: str, task: Task) -> RawFile:
        dialect = Dialect(**{**_fields(_JSON_LINES), "encoding": encoding})
        lines = _csv(file, target, dialect, task)
        table = f"read_parquet({quoted(str(target))})"
        checked = target.with_suffix(".json.parquet")
        # CASE, not AND: json_type raises for what is no JSON.
        is_object = "CASE WHEN json_valid(c0) THEN json_type(c0) = 'OBJECT' ELSE false END"
        self._connection.execute(
            f"COPY (SELECT line, c0 FROM {table} WHERE {is_object}) TO {quoted(str(checked))} (FORMAT parquet)"
        )
        others = self._connection.execute(
            f"SELECT line, c0 FROM {table} WHERE NOT {is_object} ORDER BY line LIMIT {KEPT_BAD_ROWS}"
        ).fetchall()
        ((rows,),) = self._connection.execute(f"SELECT count(*) FROM {quoted(str(checked))}").fetchall()
        bad = [BadRow(line=line, text=text, reason="not a JSON object") for line, text in others]
        table = f"read_parquet({quoted(str(checked))})"
        names = self._connection.execute(
            f"SELECT DISTINCT unnest(json_keys(c0)) AS name FROM {table} ORDER BY name"
        ).fetchall()
        columns = {name: _json_column(name) for (name,) in names}
        bad = sorted([*bad, *lines.bad], key=lambda row: row.line)
        return RawFile(
            file=file,
            table=table,
            columns=columns,
            twice=frozenset(),
            text="c0",
            rows=rows,
            bad=tuple(bad),
            bad_rows=lines.rows - rows + lines.bad_rows,
            kind="key",
        )


def _fields(dialect: Dialect) -> dict[str, Any]:
    return {name: getattr(dialect, name) for name in ("delimiter", "quote", "header", "columns")}


def _dialect(source: Source) -> Dialect:
    return Dialect(
        delimiter=source.delimiter,
        quote=source.quote,
        header=source.header,
        columns=source.columns,
        encoding=source.encoding,
    )


def _csv(file: Path, target: Path, dialect: Dialect, task: Task) -> RawFile:
    rows = 0
    with open_bytes(file) as stream:
        reader = CsvReader(stream, file, dialect)
        schema = pa.schema([("line", pa.int64()), *((f"c{i}", pa.string()) for i in range(len(reader.names)))])
        with pq.ParquetWriter(target, schema, compression="lz4") as writer:
            for batch in reader:
                writer.write_batch(batch)
                rows += len(batch)
                task.advance(len(batch))
    names: Sequence[str] = reader.names
    columns = {name: RawColumn(text=f"c{index}") for index, name in enumerate(names)}
    twice = frozenset(name for name in names if names.count(name) > 1)
    text = f"concat_ws({quoted(dialect.delimiter)}, {', '.join(f'c{i}' for i in range(len(names)))})"
    return RawFile(
        file=file,
        table=f"read_parquet({quoted(str(target))})",
        columns=columns,
        twice=twice,
        text=text,
        rows=rows,
        bad=tuple(reader.bad),
        bad_rows=reader.bad_rows,
    )


def _json_column(name: str) -> RawColumn:
    path = '$."' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    is_array = f"json_type(c0, {quoted(path)}) = 'ARRAY'"
    return RawColumn(
        text=f"CASE WHEN {is_array} THEN NULL ELSE json_extract_string(c0, {quoted(path)}) END",
        items=f"CASE WHEN {is_array} THEN json_extract_string(c0, {quoted(path + '[*]')}) END",
    )


def _parquet_column(name: str, kind: pa.DataType) -> RawColumn:
    inner = kind.value_type if _is_list(kind) else kind
    if pa.types.is_nested(inner) or pa.types.is_binary(inner) or pa.types.is_large_binary(inner):
        return RawColumn(text="NULL::VARCHAR", unreadable=str(kind))
    if _is_list(kind):
        if pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type):
            return RawColumn(text="NULL::VARCHAR", items=f"{name}::DOUBLE[]", numbers=True)
        return RawColumn(text="NULL::VARCHAR", items=f"{name}::VARCHAR[]")
    return RawColumn(text=f"{name}::VARCHAR", native=name, types=_native(kind))


def _native(kind: pa.DataType) -> frozenset[PropertyType]:
    """The types of properties whose values these are already, to the bit what reading their text would give."""
    if pa.types.is_integer(kind) and not pa.types.is_uint64(kind):
        return frozenset((PropertyType.INT, PropertyType.FLOAT))
    if pa.types.is_float64(kind):
        return frozenset((PropertyType.FLOAT,))
    if pa.types.is_boolean(kind):
        return frozenset((PropertyType.BOOL,))
    if pa.types.is_date32(kind):
        return frozenset((PropertyType.DATE,))
    if pa.types.is_timestamp(kind) and kind.unit != "ns":
        return frozenset((PropertyType.TIMESTAMP,))
    return frozenset()


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def check_pattern(connection: duckdb.DuckDBPyConnection, pattern: str, file: Path, key: str) -> None:
    """ConfigError where DuckDB's RE2 does not know the expression (look-around, back-references)."""
    try:
        connection.execute("SELECT regexp_extract('', ?, 1)", [pattern])
    except duckdb.Error as error:
        raise ConfigError(
            f"expression not supported: {error}",
            file=file,
            key=key,
            value=pattern,
            hint="Expressions are RE2: no look-around, no back-references.",
        ) from None
