"""Bad rows: counted against the limit, written where a person can see them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import duckdb

from graph_store.errors import TooManyRejects
from graph_store.ingest.files import inner_name
from graph_store.ingest.staging import Staged
from graph_store.schema import NodeType
from graph_store.settings import IngestSettings

Row = tuple[int, int, str, str | None, str]
"""File (its place among the source's), line, column, value, reason."""
_SHOWN = 3


class Rejects:
    """The bad rows of one ingest, in the DuckDB table ``rejects``."""

    KEPT = 100_000
    """Bad rows written per source; beyond this many more of the same help nobody."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
        self._connection, self._folder = connection, folder
        self.files: dict[int, Path] = {}
        self.counts: dict[int, int] = {}

    def write(self, sources: Sequence[Staged]) -> None:
        """One CSV per source with bad rows: file, line, column, value, reason, row; older ones are removed."""
        if self._folder.is_dir():
            for old in self._folder.glob("*.csv"):
                old.unlink()
        for staged in sources:
            rows = self._connection.execute(
                f"SELECT file, line, col, value, reason FROM rejects WHERE source = {staged.number} "
                f"ORDER BY file, line, col LIMIT {self.KEPT}"
            ).fetchall()
            distinct = self._connection.execute(
                f"SELECT count(*) FROM (SELECT DISTINCT file, line FROM rejects WHERE source = {staged.number})"
            ).fetchall()[0]
            malformed = sum(raw.bad_rows - len(raw.bad) for raw in staged.files)
            self.counts[staged.number] = int(distinct[0]) + malformed
            if rows:
                self.files[staged.number] = self.write_rows(staged, rows)

    def check(self, sources: Sequence[Staged], settings: IngestSettings) -> None:
        """TooManyRejects for the first source past its limit, with its first bad rows and where all of them are."""
        over = []
        for staged in sources:
            allowed = max(settings.reject_floor, int(settings.reject_share * staged.rows))
            rejected = self.counts.get(staged.number, 0)
            if rejected > allowed:
                over.append((staged, allowed))
            elif 2 * rejected > staged.rows:
                # The floor is for single slips in small files, and lets a wrong declaration through.
                staged.warnings.append(f"{rejected} of {staged.rows} rows are bad ({self.files[staged.number]})")
        if not over:
            return
        staged, allowed = over[0]
        first = self._connection.execute(
            f"SELECT file, line, col, value, reason FROM rejects WHERE source = {staged.number} "
            f"ORDER BY file, line, col LIMIT {_SHOWN}"
        ).fetchall()
        shown = "; ".join(
            f"line {line}: "
            + (f"column {col!r}: " if col else "")
            + reason
            + ("" if value is None else f" (got {value!r})")
            for _, line, col, value, reason in first
        )
        others = f" {len(over) - 1} more sources are past their limits too." if len(over) > 1 else ""
        raise TooManyRejects(
            f"{self.counts[staged.number]} of {staged.rows} rows for {staged.filled} are bad, {allowed} are allowed; "
            f"nothing was written. First: {shown}",
            file=staged.files[first[0][0]].file,
            line=first[0][1],
            column=first[0][2],
            value=first[0][3],
            hint=f"All of them are in {self.files[staged.number]}.{others} Correct the rows or the source's "
            "declaration, or raise ingest.reject_share or ingest.reject_floor.",
        )

    def write_rows(self, staged: Staged, rows: Sequence[Row], *, ending: str = "csv") -> Path:
        """One CSV of these rows of a source: file, line, column, value, reason, row."""
        texts = self._texts(staged, rows)
        self._folder.mkdir(parents=True, exist_ok=True)
        stem = inner_name(staged.files[0].file).stem
        filled = staged.declared.name if isinstance(staged.declared, NodeType) else staged.declared.triple.key
        path = self._folder / f"{stem}.{filled}.{ending}"
        if path.exists():
            path = self._folder / f"{stem}.{filled}.{staged.number}.{ending}"
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["file", "line", "column", "value", "reason", "row"])
            for file, line, column, value, reason in rows:
                text = texts.get((file, line), "")
                writer.writerow([staged.files[file].file, line, column, value, reason, text])
        return path

    def _texts(self, staged: Staged, rows: Sequence[Row]) -> dict[tuple[int, int], str]:
        """The rows as they stand in the files."""
        texts: dict[tuple[int, int], str] = {}
        for index, raw in enumerate(staged.files):
            lines = sorted({row[1] for row in rows if row[0] == index})
            found = self._connection.execute(
                f"SELECT line, {raw.text} FROM {raw.table} WHERE line IN (SELECT unnest(?::BIGINT[]))", [lines]
            ).fetchall()
            texts |= {(index, line): text for line, text in found}
            texts |= {(index, bad.line): bad.text for bad in raw.bad}
        return texts
