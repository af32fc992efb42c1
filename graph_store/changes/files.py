"""Change files: JSON lines, CSV and Parquet, each plain, ``.gz`` or ``.zst``, as rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from graph_store.changes.rows import Given, Reject
from graph_store.errors import InputError
from graph_store.ingest.csv_reader import CsvReader, Dialect
from graph_store.ingest.files import file_format, open_bytes
from graph_store.sources import FileFormat

_OWN = ("op", "type", "relation", "id", "source", "target")
_PREFIX = "properties."


def given_rows(file: Path, rejects: list[Reject]) -> Iterator[Given]:
    """The rows of one file in their order; what is no row goes to ``rejects``.

    Raises InputError where the file cannot be read as a whole, or lacks the column ``op``.
    """
    if not file.is_file():
        raise InputError("is a folder, not a file" if file.is_dir() else "no such file", file=file)
    match file_format(file, None):
        case FileFormat.JSONL:
            yield from _json_lines(file, rejects)
        case FileFormat.CSV:
            yield from _csv(file, rejects)
        case FileFormat.PARQUET:
            yield from _parquet(file)


def _json_lines(file: Path, rejects: list[Reject]) -> Iterator[Given]:
    with open_bytes(file) as stream:
        for number, line in enumerate(_lines(stream), start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                reason = f"not UTF-8: {error.reason} at byte {error.start} of line {number}"
                raise InputError(reason, file=file, line=number, hint="Save it as UTF-8.") from None
            if not text:
                continue
            try:
                values = json.loads(text)
            except ValueError:
                values = None
            if isinstance(values, dict):
                yield Given(number=number, values=values, text=text)
            else:
                rejects.append(Reject(number=number, column="", value=text[:200], reason="not a JSON object"))


def _lines(stream: Any) -> Iterator[bytes]:
    """Arrow's streams have no lines."""
    rest = b""
    while part := stream.read(1 << 20):
        *whole, rest = (rest + bytes(part)).split(b"\n")
        yield from whole
    if rest:
        yield rest


def _csv(file: Path, rejects: list[Reject]) -> Iterator[Given]:
    with open_bytes(file) as stream:
        reader = CsvReader(stream, file, Dialect())
        names = list(reader.names)
        _check(file, names)
        for batch in reader:
            numbers = batch.column("line").to_pylist()
            columns = [batch.column(f"c{index}").to_pylist() for index in range(len(names))]
            for place, number in enumerate(numbers):
                fields = [column[place] for column in columns]
                text = ",".join(field or "" for field in fields)
                yield Given(number=number, values=_nested(names, fields), text=text, flat=True)
        rejects += [Reject(number=bad.line, column="", value=None, reason=bad.reason) for bad in reader.bad]


def _parquet(file: Path) -> Iterator[Given]:
    with open_bytes(file) as stream:
        data = stream.read()
    try:
        parquet = pq.ParquetFile(pa.BufferReader(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"not readable as Parquet: {error}", file=file, hint="Export it again.") from None
    names = parquet.schema_arrow.names
    _check(file, names)
    number = 0
    for batch in parquet.iter_batches():
        for fields in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            number += 1
            values = _nested(names, list(fields))
            yield Given(number=number, values=values, text=json.dumps(values, default=str), flat=True)


def _check(file: Path, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError("several columns have this name", file=file, column=name, hint="Rename one of them.")
    if "op" not in names:
        hint = f"Columns of a change file: {', '.join(_OWN)}, and the properties."
        raise InputError("no such column", file=file, column="op", hint=hint)


def _nested(names: list[str], fields: list[Any]) -> dict[str, Any]:
    """Columns beside our own are properties; ``properties.type`` is a property that is called like one of ours."""
    values: dict[str, Any] = {}
    properties: dict[str, Any] = {}
    for name, field in zip(names, fields, strict=True):
        if name in _OWN:
            values[name] = field
        elif name == "properties" and isinstance(field, dict):
            properties |= field
        else:
            properties[name.removeprefix(_PREFIX)] = field
    return {**values, "properties": properties}
