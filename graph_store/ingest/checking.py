"""The declared checks, run in DuckDB on the rows of a load before any of them is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path

import duckdb

from graph_store.checks import Check, CheckLevel, utc
from graph_store.errors import ChecksFailed
from graph_store.ingest.columns import Field
from graph_store.ingest.raw import quoted
from graph_store.ingest.rejects import Rejects
from graph_store.ingest.report import CheckReport, Offender
from graph_store.ingest.staging import Staged
from graph_store.schema import NodeType, PropertyType, Relation

SHOWN = 5
"""Offenders that a report names."""


class Checker:
    """Runs checks on what is staged; the rows that fail stand in the DuckDB table ``offenders``.

    It must run after the ends of edges are checked and before edges are merged: a merged edge has no line.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, sources: Sequence[Staged], now: datetime) -> None:
        self._connection, self._sources, self._now = connection, sources, utc(now)
        self._found: list[tuple[Check, int, int]] = []
        connection.execute(
            "CREATE TABLE offenders (number INTEGER, source INTEGER, file INTEGER, line BIGINT, col VARCHAR, "
            "value VARCHAR, reason VARCHAR)"
        )

    def run(self, checks: Sequence[Check]) -> None:
        """Count the rows and keep those that fail, check by check."""
        queries: dict[str, Callable[[Check], tuple[str, str]]] = {
            "required": self._required,
            "unique": self._unique,
            "has": self._has,
        }
        for number, check in enumerate(checks):
            checked, failing = queries.get(check.kind, self._values)(check)
            self._connection.execute(f"INSERT INTO offenders SELECT {number}, * FROM ({failing})")
            failed = self._count(f"SELECT 1 FROM offenders WHERE number = {number}")
            self._found.append((check, self._count(checked), failed))

    def report(self, rejects: Rejects) -> tuple[CheckReport, ...]:
        """What was found, the rows that fail written beside the rejects."""
        paths = {}
        for staged in self._sources:
            # Another check may have found the same row: each has a line of its own.
            rows = self._rows(f"source = {staged.number}", rejects.KEPT)
            if rows:
                paths[staged.number] = rejects.write_rows(staged, [row[1:] for row in rows], ending="checks.csv")
        reports = []
        for number, (check, checked, failed) in enumerate(self._found):
            sources = self._connection.execute(
                f"SELECT DISTINCT source FROM offenders WHERE number = {number} ORDER BY source"
            ).fetchall()
            first = [
                Offender(file=self._file(source, file), line=line, column=column, value=value, reason=reason)
                for source, file, line, column, value, reason in self._rows(f"number = {number}", SHOWN)
            ]
            reports.append(
                CheckReport(
                    name=str(check),
                    level=check.level.value,
                    checked=checked,
                    failed=failed,
                    allowed=int(check.tolerance * checked),
                    first=tuple(first),
                    rejects=tuple(paths[source] for (source,) in sources),
                )
            )
        return tuple(reports)

    # ------------------------------------------------------------------ what is asked

    def _values(self, check: Check) -> tuple[str, str]:
        """Row by row: range, allowed, no_future; a value that a later source replaces is checked all the same."""
        filled = [(staged, field) for staged in self._of(check) if (field := _field(staged, check)) is not None]
        kind = filled[0][1].declared.type
        wrong, reason = _wrong(check, kind, self._now)
        failing = [
            f"SELECT {staged.number}, file, line, {quoted(field.label)}, v::VARCHAR, {reason} "
            f"FROM ({_rows(staged, field)}) WHERE {wrong}"
            for staged, field in filled
        ]
        return _union([_rows(staged, field) for staged, field in filled]), _union(failing)

    def _required(self, check: Check) -> tuple[str, str]:
        """Node by node and edge by edge: a value from any source will do, and of repeated edges the last one counts."""
        parts, name = [], check.property_name or ""
        for staged in self._of(check):
            field = _field(staged, check)
            label = field.label if field is not None else name
            place = f"{{'source': {staged.number}, 'file': file, 'line': line, 'col': {quoted(label)}}}"
            last = f"SELECT k, max_by({{'v': v IS NOT NULL, 'place': {place}}}, (file, line)) AS row"
            parts.append(f"{last} FROM ({_rows(staged, field)}) GROUP BY k")
        rows = _union(parts)
        failing = (
            "SELECT p.source, p.file, p.line, p.col, NULL, 'missing value' FROM (SELECT min(row.place) AS p "
            f"FROM ({rows}) GROUP BY k HAVING NOT bool_or(row.v))"
        )
        return f"SELECT DISTINCT k FROM ({rows})", failing

    def _unique(self, check: Check) -> tuple[str, str]:
        """All but the first of the nodes or edges that share a value."""
        parts, names = [], []
        for staged in self._of(check):
            names.append(f"{staged.number}: [{', '.join(quoted(raw.file.name) for raw in staged.files)}]")
            if (field := _field(staged, check)) is not None:
                place = f"{{'source': {staged.number}, 'file': file, 'line': line, 'col': {quoted(field.label)}}}"
                parts.append(f"SELECT k, v, min({place}) AS place FROM ({_rows(staged, field)}) GROUP BY k, v")
        rows = f"SELECT k, v, min(place) AS place FROM ({_union(parts)}) WHERE v IS NOT NULL GROUP BY k, v"
        reason = (
            f"'the same value as line ' || one.line || ' of ' || (MAP {{{', '.join(names)}}})[one.source][one.file + 1]"
        )
        failing = (
            f"SELECT place.source, place.file, place.line, place.col, v::VARCHAR, {reason} FROM (SELECT *, "
            f"min(place) OVER (PARTITION BY v) AS one FROM ({rows})) WHERE place <> one"
        )
        return rows, failing

    def _has(self, check: Check) -> tuple[str, str]:
        """Node by node, in the edges of this load, at either end."""
        ends = []
        for staged in self._sources:
            if isinstance(staged.declared, Relation) and staged.declared.triple.name == check.has:
                source, _, target = staged.declared.triple
                pairs = zip((source, target), ("source", "target"), strict=True)
                ends += [f"SELECT {end} FROM edges{staged.number}" for kind, end in pairs if kind == check.node]
        parts = []
        for staged in self._of(check):
            label = (staged.source.id.column if staged.source.id else None) or "id"
            place = f"{{'source': {staged.number}, 'file': file, 'line': line, 'col': {quoted(label)}}}"
            parts.append(f"SELECT id, {place} AS place FROM {staged.table}")
        rows = f"SELECT id, min(place) AS p FROM ({_union(parts)}) GROUP BY id"
        failing = (
            f"SELECT p.source, p.file, p.line, p.col, id, {quoted(f'no {check.has}')} FROM ({rows}) "
            f"WHERE id NOT IN ({_union(ends)})"
        )
        return rows, failing

    # ------------------------------------------------------------------ reading

    def _of(self, check: Check) -> list[Staged]:
        return [
            staged
            for staged in self._sources
            if (staged.source.node, staged.source.relation) == (check.node, check.relation)
        ]

    def _file(self, source: int, file: int) -> Path:
        return next(staged for staged in self._sources if staged.number == source).files[file].file

    def _rows(self, where: str, limit: int) -> list[tuple[int, int, int, str, str | None, str]]:
        return self._connection.execute(
            f"SELECT source, file, line, col, value, reason FROM offenders WHERE {where} "
            f"ORDER BY source, file, line, number LIMIT {limit}"
        ).fetchall()

    def _count(self, query: str) -> int:
        ((count,),) = self._connection.execute(f"SELECT count(*) FROM ({query})").fetchall()
        return int(count)


def failure(reports: Sequence[CheckReport]) -> ChecksFailed | None:
    """The error of the checks of level error that fail, with the first row of the first one; None where all hold."""
    failed = [report for report in reports if report.level == CheckLevel.ERROR and not report.passed]
    if not failed:
        return None
    first, *others = failed
    offender = first.first[0]
    more = f"; {len(others)} more checks fail" if others else ""
    paths = ", ".join(dict.fromkeys(str(path) for report in failed for path in report.rejects))
    error = ChecksFailed(
        f"{offender.reason}. {first.name}: {first.failed:,} of {first.checked:,} rows fail, {first.allowed:,} are "
        f"allowed{more}; nothing was written",
        file=offender.file,
        line=offender.line,
        column=offender.column,
        value=offender.value,
        hint=f"All rows that fail are in {paths}. Correct them in their files and ingest again, or change the check: "
        'tolerance, or level = "warn".',
    )
    error.reports = tuple(reports)
    return error


def _rows(staged: Staged, field: Field | None) -> str:
    """``file, line, k, v`` of a source's rows; k says which node or edge it is. Without a field v is null."""
    if isinstance(staged.declared, NodeType):
        value = "NULL" if field is None else field.value
        return f"SELECT file, line, id AS k, {value} AS v FROM {staged.table}"
    edges, key = f"edges{staged.number}", f"row({', '.join(staged.keys)})"
    if field is None:
        return f"SELECT file, line, {key} AS k, NULL AS v FROM {edges}"
    if field.name == staged.source.count_as:
        first = "min({'file': file, 'line': line})"
        return (
            f"SELECT one.file AS file, one.line AS line, k, v FROM (SELECT {first} AS one, {key} AS k, count(*) AS v "
            f"FROM {edges} GROUP BY {', '.join(staged.keys)})"
        )
    return f"SELECT file, line, {key} AS k, {field.value} AS v FROM {edges}"


def _field(staged: Staged, check: Check) -> Field | None:
    """How a source fills the property of a check; None where it does not."""
    return next((field for field in (*staged.fields, *staged.counted) if field.name == check.property_name), None)


def _wrong(check: Check, kind: PropertyType, now: datetime) -> tuple[str, str]:
    """The condition over ``v`` that a row fails by (null: it passes), and what a report says of it, both as SQL."""
    if check.no_future is not None:
        return f"v > {_literal(now)}", "'later than now'"
    if check.range is not None:
        low, high = check.range.min, check.range.max
        sides = [(f"v < {_literal(low)}", f"below {low}")] if low is not None else []
        sides += [(f"v > {_literal(high)}", f"above {high}")] if high is not None else []
        says = " ".join(f"WHEN {condition} THEN {quoted(text)}" for condition, text in sides)
        return " OR ".join(condition for condition, _ in sides), f"CASE {says} END"
    assert check.allowed is not None
    values = ", ".join(_literal(value) for value in check.allowed.values)
    if kind is PropertyType.STRINGS:
        condition = f"len(list_filter(v, lambda each: each NOT IN ({values}))) > 0"
        return condition, "'holds a value that is not allowed'"
    return f"v NOT IN ({values})", "'not an allowed value'"


def _literal(value: object) -> str:
    if isinstance(value, date):
        return f"TIMESTAMP {quoted(utc(value).isoformat(sep=' '))}"
    return quoted(value) if isinstance(value, str) else str(value).lower()


def _union(parts: Sequence[str]) -> str:
    return " UNION ALL ".join(parts)
