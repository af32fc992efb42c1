"""What is in a file: its dialect, and for each column the type, how often values repeat, how they are split."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from graph_store.errors import InputError
from graph_store.ingest.csv_reader import CsvReader, Dialect
from graph_store.ingest.files import file_format, inner_name, open_bytes
from graph_store.ingest.raw import RawFiles, identifier
from graph_store.progress import NoProgress
from graph_store.schema import PropertyType
from graph_store.sources import FileFormat, Source

SAMPLE_ROWS = 500_000
"""Rows looked at; guesses of larger files rest on their beginning."""
_HEAD = 1 << 18
_DELIMITERS = (",", "\t", ";", "|")
_SPLITS = ("|", ";")
_NULLS = ("NA", "N/A", "n/a", "null", "NULL", "None", "nan", "NaN", "\\N", "-")
_TIME_WORDS = re.compile(r"(time|date|^ts$|_ts$|_at$|^at$|when|created|updated|released)", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NAME = re.compile(r"[A-Za-z_À-ɏ][\w .:/()-]*")


@dataclass(kw_only=True)
class ColumnProfile:
    """One column of a file."""

    name: str
    text: str
    """SQL of its text over the file's table, null where there is none."""
    type: PropertyType
    rows: int
    filled: int
    distinct: int
    format: str | None = None
    """How times are written, where not ISO."""
    split: str | None = None
    """Character between several values."""
    parts: int = 0
    """Distinct values once split."""
    nulls: tuple[str, ...] = ()
    """Texts that seem to mean "no value"."""
    dimension: int = 0
    """Length of vectors."""
    length: float = 0.0
    """Mean length of the texts."""
    case_varies: bool = False
    """Values that differ in case alone."""
    lowest: float = 0.0
    highest: float = 0.0
    year_in_brackets: bool = False
    """Most texts end in a year: Toy Story (1995)."""

    @property
    def unique(self) -> bool:
        """True where every row has another value."""
        return self.rows > 0 and self.filled == self.rows == self.distinct


@dataclass(kw_only=True)
class FileProfile:
    """One file, its first rows in the DuckDB table ``table``."""

    file: Path
    format: FileFormat
    dialect: Dialect
    table: str
    rows: int
    columns: dict[str, ColumnProfile] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """The name without endings."""
        return inner_name(self.file).stem


def profile(connection: duckdb.DuckDBPyConnection, file: Path, number: int, folder: Path) -> FileProfile:
    """Look at one file; ``folder`` is for what must be unpacked. Raises InputError where it cannot be read."""
    kind = file_format(file, None)
    dialect = Dialect()
    if kind is FileFormat.CSV:
        dialect = guess_dialect(file)
        names, texts = _csv_rows(file, dialect)
    else:
        names, texts = _other_rows(connection, file, number, kind, folder)
    table = f"file{number}"
    connection.register("looked_at", texts)
    connection.execute(f"CREATE TABLE {table} AS SELECT * FROM looked_at")
    connection.unregister("looked_at")
    found = FileProfile(file=file, format=kind, dialect=dialect, table=table, rows=len(texts))
    for name in names:
        if name and names.count(name) == 1:
            found.columns[name] = _column(connection, table, name, identifier(_column_name(names, name)), len(texts))
    return found


def guess_dialect(file: Path) -> Dialect:
    """Delimiter, header and encoding of a CSV file, from its first lines."""
    with open_bytes(file) as stream:
        head = stream.read(_HEAD)
    if not head.strip():
        raise InputError("the file is empty", file=file, hint="Remove it, or export it again.")
    encoding = _encoding(head)
    text = head.decode(encoding, "ignore").removeprefix("\ufeff")
    # The last line may be cut.
    lines = text.splitlines(keepends=True)[:200]
    lines = lines if len(head) < _HEAD or len(lines) == 200 else lines[:-1]

    def rows(delimiter: str) -> list[list[str]]:
        try:
            return [row for row in csv.reader(io.StringIO("".join(lines), newline=""), delimiter=delimiter) if row]
        except csv.Error:
            return [[]]

    def fit(delimiter: str) -> tuple[float, int]:
        widths = Counter(len(row) for row in rows(delimiter))
        width, times = widths.most_common(1)[0]
        return (times / widths.total() if width > 1 else 0.0, width)

    delimiter = max(_DELIMITERS, key=fit)
    delimiter = delimiter if fit(delimiter)[0] > 0.5 else ","
    table = rows(delimiter)
    header = _has_header(table)
    columns = () if header else tuple(f"column{number}" for number in range(1, len(table[0]) + 1))
    return Dialect(delimiter=delimiter, header=header, columns=columns, encoding=encoding)


def _encoding(head: bytes) -> str:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    try:
        head[: len(head) - 4 if len(head) == _HEAD else len(head)].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return "cp1252" if not {0x81, 0x8D, 0x8F, 0x90, 0x9D} & set(head) else "latin-1"
    return "utf-8"


def _has_header(table: list[list[str]]) -> bool:
    """A first row of distinct names, none a number, none a value of its own column."""
    first = [cell.strip() for cell in table[0]]
    named = [cell for cell in first if cell]
    if not named or len(set(named)) < len(named) or not all(_NAME.fullmatch(cell) for cell in named):
        return False
    columns = list(zip(*(row for row in table[1:] if len(row) == len(first)), strict=True))
    return not any(cell and cell in column for cell, column in zip(first, columns, strict=False))


def _csv_rows(file: Path, dialect: Dialect) -> tuple[list[str], pa.Table]:
    with open_bytes(file) as stream:
        reader = CsvReader(stream, file, dialect)
        batches: list[pa.RecordBatch] = []
        rows = 0
        for batch in reader:
            batches.append(batch)
            rows += len(batch)
            if rows >= SAMPLE_ROWS:
                break
    names = list(reader.names)
    schema = pa.schema([("line", pa.int64()), *((f"c{i}", pa.string()) for i in range(len(names)))])
    table = pa.Table.from_batches(batches, schema=schema).slice(0, SAMPLE_ROWS).drop_columns(["line"])
    return names, _renamed(table, names)


def _other_rows(
    connection: duckdb.DuckDBPyConnection, file: Path, number: int, kind: FileFormat, folder: Path
) -> tuple[list[str], pa.Table]:
    """JSONL and Parquet as texts; a list as its JSON-like text ``[a, b]``."""
    place = folder / f"raw{number}"
    place.mkdir()
    with NoProgress().task("") as task:
        source = Source(file=file.name, node="-", id={"column": "-"}, format=kind)
        raw = RawFiles(connection, place).open(file, source, task)
    columns = {name: column for name, column in raw.columns.items() if not column.unreadable}
    if not columns:
        raise InputError("no column holds single values or lists of them", file=file)
    names = list(columns)
    picked = ", ".join(
        (f"coalesce(({column.items})::VARCHAR, {column.text})" if column.items else column.text)
        + f" AS {identifier(f'c{index}')}"
        for index, column in enumerate(columns.values())
    )
    target = place / "rows.parquet"
    connection.execute(f"COPY (SELECT {picked} FROM {raw.table} LIMIT {SAMPLE_ROWS}) TO '{target}' (FORMAT parquet)")
    return names, _renamed(pq.read_table(target), names)


def _renamed(table: pa.Table, names: list[str]) -> pa.Table:
    # DuckDB's names know no upper case: numbers keep "ID" and "id" apart.
    kept = [index for index, name in enumerate(names) if name and names.count(name) == 1]
    return table.select(kept).rename_columns([_column_name(names, names[index]) for index in kept])


def _column_name(names: list[str], name: str) -> str:
    """What the column is called in DuckDB."""
    return f"c{names.index(name)}_{name}"


def _column(connection: duckdb.DuckDBPyConnection, table: str, name: str, column: str, rows: int) -> ColumnProfile:
    text = f"nullif(trim({column}), '')"
    nulls = [
        value
        for (value,) in connection.execute(
            f"SELECT DISTINCT {text} AS v FROM {table} WHERE v IN (SELECT unnest(?)) "
            "OR regexp_full_match(v, '\\((no|none|unknown)\\b.*\\)') ORDER BY v",
            [list(_NULLS)],
        ).fetchall()
    ]
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE looked AS SELECT {text} AS v FROM {table} "
        f"WHERE {text} IS NOT NULL AND {text} NOT IN (SELECT unnest(?::VARCHAR[]))",
        [nulls],
    )
    number = f"regexp_full_match(v, '{_NUMBER.pattern}')"
    figures = connection.execute(
        "SELECT count(*), count(DISTINCT v), "
        "coalesce(bool_and(regexp_full_match(v, '[+-]?(0|[1-9]\\d{0,17})')), false), "
        f"coalesce(bool_and({number} AND NOT regexp_full_match(v, '0\\d+')), false), "
        "coalesce(bool_and(lower(v) IN ('true', 'false')), false), "
        "coalesce(bool_and(regexp_full_match(v, '\\d{4}-\\d{2}-\\d{2}') AND try_cast(v AS DATE) IS NOT NULL), false), "
        "coalesce(bool_and(regexp_full_match(v, '\\d{4}-\\d{2}-\\d{2}[T ].*') AND "
        "try_cast(v AS TIMESTAMPTZ) IS NOT NULL), false), "
        f"coalesce(min(CASE WHEN {number} THEN try_cast(v AS DOUBLE) END), 0), "
        f"coalesce(max(CASE WHEN {number} THEN try_cast(v AS DOUBLE) END), 0), "
        "coalesce(avg(len(v)), 0), count(DISTINCT lower(v)), "
        "coalesce(avg(regexp_matches(v, '\\((\\d{4})\\)$')::INT), 0), "
        "coalesce(bool_and(regexp_full_match(v, '\\[[-+0-9.eE, ]+\\]')), false), "
        "coalesce(min(len(string_split(v, ','))), 0), coalesce(max(len(string_split(v, ','))), 0), "
        "coalesce(bool_and(regexp_full_match(v, '\\[.*\\]')), false) FROM looked"
    ).fetchall()[0]
    filled, distinct, ints, floats, bools, dates, times, low, high, length, folded, years = figures[:12]
    vectors, shortest, longest, lists = figures[12:]
    found = ColumnProfile(
        name=name,
        text=text,
        type=PropertyType.STRING,
        rows=rows,
        filled=filled,
        distinct=distinct,
        nulls=tuple(nulls),
        length=length,
        case_varies=folded < distinct,
        lowest=low,
        highest=high,
        year_in_brackets=years > 0.8,
    )
    if vectors and shortest == longest > 1:
        found.type, found.dimension = PropertyType.VECTOR, longest
    elif lists:
        found.type = PropertyType.STRINGS
        found.parts = connection.execute(
            "SELECT count(DISTINCT p) FROM (SELECT unnest(string_split(trim(v, '[]'), ', ')) AS p FROM looked)"
        ).fetchall()[0][0]
    elif ints:
        found.type = PropertyType.INT
        if _TIME_WORDS.search(name) and 1e8 < low <= high < 4.2e9:
            found.type, found.format = PropertyType.TIMESTAMP, "unix"
        elif _TIME_WORDS.search(name) and 1e11 < low <= high < 4.2e12:
            found.type, found.format = PropertyType.TIMESTAMP, "unix_ms"
    elif floats:
        found.type = PropertyType.FLOAT
    elif bools:
        found.type = PropertyType.BOOL
    elif dates:
        found.type = PropertyType.DATE
    elif times:
        found.type = PropertyType.TIMESTAMP
    else:
        found.split, found.parts = _split(connection, filled)
    return found


def _split(connection: duckdb.DuckDBPyConnection, filled: int) -> tuple[str | None, int]:
    """A character that stands in several values between parts that come again elsewhere."""
    for sign in _SPLITS:
        holding, parts, distinct = connection.execute(
            "SELECT count(*) FILTER (len(p) > 1), coalesce(sum(len(p)), 0), "
            "(SELECT count(DISTINCT x) FROM (SELECT unnest(string_split(v, ?)) AS x FROM looked)) "
            "FROM (SELECT string_split(v, ?) AS p FROM looked)",
            [sign, sign],
        ).fetchall()[0]
        if holding >= max(1, 0.05 * filled) and distinct < 0.8 * parts:
            return sign, int(distinct)
    return None, 0
