"""CSV read as Arrow batches of texts, each row with its true line number."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from graph_store.errors import InputError

BLOCK = 16 << 20
"""Bytes parsed at once; a row may not be longer."""
_HEADER_BYTES = 4 << 20
_SENTINEL = "\x1e\x1fend\x1f\x1e"
KEPT_BAD_ROWS = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """How a CSV file is written."""

    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    columns: tuple[str, ...] = ()
    encoding: str = "utf-8"


@dataclass(frozen=True, kw_only=True, slots=True)
class BadRow:
    """A row that has too few or too many fields."""

    line: int
    text: str
    reason: str


class CsvReader:
    """One CSV file as record batches with the columns ``line`` (int64), then ``c0``, ``c1``, ... (string).

    ``names`` are the columns' names in order, known once constructed. Blank lines are passed over. Rows with another
    number of fields than the header are in ``bad`` (the first 10,000) and ``bad_rows`` (their number), complete once
    iteration is done. Raises InputError for a file without its header, for bytes that the encoding does not allow and
    for a quote that is never closed.
    """

    def __init__(self, stream: IO[bytes], file: Path, dialect: Dialect, *, block: int = BLOCK) -> None:
        self._file, self._dialect, self._block = file, dialect, block
        self._text = _Utf8(stream, file, dialect.encoding)
        self._header_lines = 0
        self.names = self._read_names()
        self.bad: list[BadRow] = []
        self.bad_rows = 0
        self._ended = False
        self._position = _Position(self._header_lines)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        fields = [f"c{number}" for number in range(len(self.names))]
        position = self._position
        try:
            reader = pyarrow.csv.open_csv(
                self._text,
                pyarrow.csv.ReadOptions(use_threads=False, block_size=self._block, column_names=fields),
                pyarrow.csv.ParseOptions(
                    delimiter=self._dialect.delimiter,
                    quote_char=self._dialect.quote or False,
                    newlines_in_values=bool(self._dialect.quote),
                    invalid_row_handler=self._keep_invalid,
                    ignore_empty_lines=False,
                ),
                pyarrow.csv.ConvertOptions(
                    column_types={field: pa.string() for field in fields}, strings_can_be_null=False, check_utf8=False
                ),
            )
            for batch in reader:
                yield self._without_blanks(position.number(batch))
        except pa.ArrowInvalid as error:
            position.flush()
            if "straddling" in str(error) or "block size" in str(error):
                raise self._unclosed(position.line + 1) from None
            raise InputError(f"not readable as CSV: {error}", file=self._file, line=position.line + 1) from None
        position.flush()
        if not self._ended:
            raise self._unclosed(position.last_line)
        self.bad = [
            BadRow(line=line, text=row.text, reason=f"expected {len(fields)} fields, found {row.fields}")
            for line, row in position.bad
        ]

    def _read_names(self) -> tuple[str, ...]:
        head = self._text.peek(_HEADER_BYTES)
        if not self._dialect.header:
            return self._dialect.columns
        if not head.replace(_SENTINEL.encode(), b"").strip():
            raise InputError(
                "the file is empty", file=self._file, hint="A CSV file needs at least a header line; export it again."
            )
        lines = csv.reader(
            io.StringIO(head.decode("utf-8", "ignore"), newline=""),
            delimiter=self._dialect.delimiter,
            quotechar=self._dialect.quote or None,
            quoting=csv.QUOTE_MINIMAL if self._dialect.quote else csv.QUOTE_NONE,
        )
        names: list[str] = []
        try:
            names = next(filter(None, lines))
        except csv.Error as error:
            raise InputError(f"the header is not readable: {error}", file=self._file, line=1) from None
        if any(_SENTINEL in name for name in names):
            raise self._unclosed(1)
        self._header_lines = lines.line_num
        self._text.skip_lines(self._header_lines)
        return tuple(names)

    def _keep_invalid(self, row: Any) -> str:
        text = row.text
        if text == _SENTINEL:
            self._ended = True
            return "skip"
        kept = text if self.bad_rows < KEPT_BAD_ROWS else ""
        self._position.pending.append(_Invalid(row.number, row.actual_columns, text.count("\n"), kept))
        self.bad_rows += 1
        return "skip"

    def _without_blanks(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Leave out blank lines, and the mark that the last row was whole."""
        first = batch.column("c0")
        if len(self.names) == 1 and len(batch) and first[-1].as_py() == _SENTINEL:
            self._ended = True
            batch = batch.slice(0, len(batch) - 1)
            first = batch.column("c0")
        # Arrow gives a blank line as a row of empty fields; a row of delimiters alone looks the same and goes too.
        filled = pc.not_equal(first, "")
        if pc.all(filled).as_py() is not False:
            return batch
        for name in batch.schema.names[2:]:
            filled = pc.or_(filled, pc.not_equal(batch.column(name), ""))
        return batch.filter(filled)

    def _unclosed(self, line: int) -> InputError:
        return InputError(
            f"a quoted field in the row that starts here is never closed (or a row is longer than {BLOCK >> 20} MiB)",
            file=self._file,
            line=line,
            hint='Double a quote inside a quoted field, or set quote = "" where quotes mean nothing.',
        )


class _Invalid(NamedTuple):
    """A record with a wrong number of fields: its number, its fields, the line feeds in it, its text."""

    record: int
    fields: int
    feeds: int
    text: str


class _Position:
    """Where in the file the rows are: records counted, line feeds inside quoted fields added."""

    def __init__(self, header_lines: int) -> None:
        self.record = 0
        self.line = header_lines
        """The last line read."""
        self.last_line = header_lines + 1
        """The line where the last record starts."""
        self.pending: list[_Invalid] = []
        """Bad records that stand after the last numbered row."""
        self.bad: list[tuple[int, _Invalid]] = []

    def number(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The batch with the column ``line`` in front."""
        rows = len(batch)
        invalid = np.array([row.record for row in self.pending], dtype=np.int64)
        records = np.arange(self.record + 1, self.record + 1 + rows + len(invalid), dtype=np.int64)
        records = np.setdiff1d(records, invalid, assume_unique=True)[:rows]
        end = int(records[-1]) if rows else self.record
        before = [row for row in self.pending if row.record < end]
        self.pending = self.pending[len(before) :]
        # How many lines each record of this stretch takes, good or bad.
        lines = np.ones(end - self.record, dtype=np.int64)
        for column in batch.columns:
            lines[records - self.record - 1] += pc.count_substring(column, "\n").to_numpy(zero_copy_only=False)
        for row in before:
            lines[row.record - self.record - 1] += row.feeds
        starts = self.line + 1 + np.cumsum(lines) - lines
        self._keep((int(starts[row.record - self.record - 1]), row) for row in before)
        line = starts[records - self.record - 1]
        if len(lines):
            self.line += int(lines.sum())
            self.last_line = int(starts[-1])
        self.record = end
        return pa.RecordBatch.from_arrays(
            [pa.array(line, type=pa.int64()), *batch.columns], names=["line", *batch.schema.names]
        )

    def flush(self) -> None:
        """Number the bad rows after the last good one."""
        for row in self.pending:
            start = self.line + row.record - self.record
            self._keep([(start, row)])
            self.last_line, self.line, self.record = start, start + row.feeds, row.record
        self.pending = []

    def _keep(self, rows: Iterable[tuple[int, _Invalid]]) -> None:
        self.bad.extend(itertools.islice(rows, max(0, KEPT_BAD_ROWS - len(self.bad))))


class _Utf8(io.RawIOBase):
    """A file-like object of UTF-8 bytes: checked, byte-order mark gone, with a mark after the last row.

    The mark is a record of its own only where every quote before it is closed.
    """

    def __init__(self, stream: IO[bytes], file: Path, encoding: str) -> None:
        super().__init__()
        self._stream, self._file, self._encoding = stream, file, encoding
        try:
            self._decoder = codecs.getincrementaldecoder(encoding)()
        except LookupError:
            raise InputError(
                f"no encoding is called {encoding!r}", file=file, hint='Try "utf-8", "latin-1", "cp1252" or "utf-16".'
            ) from None
        self._head = b""
        self._bytes = self._lines = 0
        self._last = b"\n"
        self._started = self._done = False

    def readable(self) -> bool:
        return True

    def peek(self, size: int) -> bytes:
        """The first bytes, kept for reading."""
        while len(self._head) < size and not self._done:
            chunk = self._next(1 << 16)
            self._head += chunk
            if b"\n" in chunk or b"\r" in chunk:
                break
        # A quoted header may go on: an odd number of quotes asks for more.
        while not self._done and len(self._head) < size and self._head.count(b'"') % 2:
            self._head += self._next(1 << 16)
        return self._head

    def skip_lines(self, count: int) -> None:
        """Leave out the first lines of what was peeked."""
        kept = self._head.splitlines(keepends=True)  # bytes: splits at CR, LF and CRLF only
        self._head = b"".join(kept[count:])

    def read(self, size: int = -1) -> bytes:
        wanted = size if size > 0 else BLOCK
        while len(self._head) < wanted and not self._done:
            self._head += self._next(wanted - len(self._head))
        # Never more than was asked for (decoding may have made the bytes more), and no carriage return at the end:
        # Arrow takes a line feed at the start of a block for the end of a CRLF, inside quotes too, and drops it.
        data = self._head[:wanted]
        data = data.rstrip(b"\r") or data
        self._head = self._head[len(data) :]
        return data

    def _next(self, size: int) -> bytes:
        while True:
            raw = self._stream.read(size)
            try:
                text = self._decoder.decode(raw, final=not raw)
            except UnicodeDecodeError as error:
                before = error.object[: error.start]
                line = self._lines + bytes(before).count(b"\n") + 1
                offset = self._bytes + len(raw) - (len(error.object) - error.start)
                raise InputError(
                    f"not {self._encoding}: byte 0x{error.object[error.start]:02x} at offset {offset}",
                    file=self._file,
                    line=line,
                    hint='Set `encoding` of the source to what the file is written in ("latin-1", "cp1252", ...), '
                    "or convert the file to UTF-8.",
                ) from None
            self._lines += raw.count(b"\n")
            self._bytes += len(raw)
            data = text.encode("utf-8")
            if not self._started and data:
                self._started = True
                data = data.removeprefix(codecs.BOM_UTF8)
            if not raw:
                self._done = True
                data += b"" if (data or self._last)[-1:] in b"\r\n" else b"\n"
                return data + _SENTINEL.encode() + b"\n"
            if data:
                self._last = data[-1:]
                return data
