"""Rows of one source, read, typed and checked in DuckDB, before anything is written to the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb

from graph_store.errors import ConfigError
from graph_store.ingest.columns import Field, field_sql
from graph_store.ingest.files import source_files
from graph_store.ingest.raw import RawFile, RawFiles, check_pattern, quoted
from graph_store.progress import Progress
from graph_store.project import Project
from graph_store.schema import NodeType, Property, PropertyType, Relation, Triple
from graph_store.sources import ColumnSpec, Source

_TEXT = Property(type=PropertyType.STRING)


@dataclass(kw_only=True)
class Staged:
    """One source on its way through the checks; its rows are in the DuckDB table ``table``."""

    number: int
    source: Source
    declared: NodeType | Relation
    files: tuple[RawFile, ...]
    fields: tuple[Field, ...]
    """The properties it fills."""
    rows: int = 0
    merged: int = 0
    without_edge: int = 0
    warnings: list[str] = field(default_factory=list)

    @property
    def table(self) -> str:
        """DuckDB table: file, line, then id or source and target, then the columns of ``values``."""
        return f"staged{self.number}"

    @property
    def filled(self) -> str:
        """The node type or the triple, as people read it."""
        return self.declared.name if isinstance(self.declared, NodeType) else str(self.declared.triple)

    @property
    def name(self) -> str:
        """How reports call the source."""
        return f"{self.source.file} -> {self.filled}"

    @property
    def keys(self) -> tuple[str, ...]:
        """Columns of the table that identify a node or an edge."""
        if isinstance(self.declared, NodeType):
            return ("id",)
        columns = {field.name: field.value for field in self.fields}
        return ("source", "target", *(columns[name] for name in self.declared.key_columns[2:]))

    @property
    def values(self) -> tuple[str, ...]:
        """Columns of the table beside the keys, without the counted one."""
        return tuple(
            field.value for field in self.fields if field.value not in self.keys and field.name != self.source.count_as
        )

    @property
    def counted(self) -> tuple[Field, ...]:
        """The property that says how many rows gave an edge, where there is one."""
        name = self.source.count_as
        if name is None:
            return ()
        spec = ColumnSpec(value=name)
        return (Field(key="counted", name=name, spec=spec, declared=self.declared.properties[name]),)

    @property
    def columns(self) -> dict[str, str]:
        """Columns of the table by the names that the store knows."""
        ends = {name: name for name in self.keys if name in ("id", "source", "target")}
        counted = {self.source.count_as: "counted"} if self.source.count_as else {}
        return ends | {field.name: field.value for field in self.fields} | counted


class Stager:
    """Reads and checks sources one by one; what is wrong goes to the DuckDB table ``rejects``."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, folder: Path, project: Project) -> None:
        self._connection, self._project = connection, project
        self._raw = RawFiles(connection, folder)
        connection.execute(
            "CREATE TABLE rejects (source INTEGER, file INTEGER, line BIGINT, col VARCHAR, value VARCHAR, "
            "reason VARCHAR)"
        )

    def stage(self, number: int, source: Source, progress: Progress) -> Staged:
        """Read all files of one source into its table: typed, checked row by row, one row per node or edge.

        Raises InputError for what concerns a whole file, ConfigError for a declaration that cannot be read this way.
        """
        schema = self._project.schema
        declared = schema.node_type(source.node) if source.node is not None else schema.relation(_triple(source))
        files = []
        with progress.task(f"read {source.file}") as task:
            files = [self._raw.open(file, source, task) for file in source_files(self._project, source)]
        keys = frozenset(name for raw in files for name in raw.columns)
        files = [replace(raw, elsewhere=keys) for raw in files]
        fields = tuple(
            Field(key=f"p{index}", name=name, spec=spec, declared=declared.properties[name])
            for index, (name, spec) in enumerate(source.properties.items())
        )
        staged = Staged(number=number, source=source, declared=declared, files=tuple(files), fields=fields)
        self._check_declaration(staged)
        self._read(staged)
        for index, raw in enumerate(files):
            if not raw.rows and not raw.bad_rows:
                staged.warnings.append(f"{raw.file.name} has no rows")
            if raw.bad:
                self._connection.executemany(
                    "INSERT INTO rejects VALUES (?, ?, ?, '', NULL, ?)",
                    [[number, index, bad.line, bad.reason] for bad in raw.bad],
                )
            staged.rows += raw.bad_rows
        if isinstance(declared, NodeType):
            self._one_row_per_node(staged)
        else:
            self._one_row_per_edge(staged)
        return staged

    def _check_declaration(self, staged: Staged) -> None:
        source, place = staged.source, f"sources[{staged.number}]"
        specs = {"id": source.id, "source": source.source, "target": source.target}
        specs |= {f"properties.{name}": spec for name, spec in source.properties.items()}
        for key, spec in specs.items():
            if spec is not None and spec.extract is not None:
                check_pattern(self._connection, spec.extract, self._project.file, f"{place}.{key}.extract")
        for one in staged.fields:
            if one.declared.type in (PropertyType.DATE, PropertyType.TIMESTAMP) and one.spec.format:
                try:
                    self._connection.execute("SELECT try_strptime('', ?)", [one.spec.format])
                except duckdb.Error as error:
                    key = f"{place}.properties.{one.name}.format"
                    raise ConfigError(
                        f"no time format: {error}",
                        file=self._project.file,
                        key=key,
                        value=one.spec.format,
                        hint='Known are "iso", "unix", "unix_ms" and patterns such as "%d.%m.%Y %H:%M".',
                    ) from None

    def _read(self, staged: Staged) -> None:
        """Fill ``read<n>`` (good rows, lists of ends still lists) and note what is wrong with the others."""
        source = staged.source
        if isinstance(staged.declared, NodeType):
            assert source.id is not None
            keys = [Field(key="id", name="id", spec=source.id, declared=_TEXT)]
        else:
            assert source.source is not None
            assert source.target is not None
            keys = [
                Field(key="source", name="source", spec=source.source, declared=_TEXT, end=True),
                Field(key="target", name="target", spec=source.target, declared=_TEXT, end=True),
            ]
        fields = [*keys, *staged.fields]
        table = f"read{staged.number}"
        selects = [self._select(staged, index, raw, fields) for index, raw in enumerate(staged.files)]
        self._connection.execute(f"CREATE TABLE {table} AS " + " UNION ALL ".join(selects))
        staged.rows = self._count(table)
        # Most sources have no bad rows: only where some are is the source read again, for what is wrong with them.
        if self._connection.execute(f"SELECT 1 FROM {table} WHERE bad LIMIT 1").fetchall():
            selects = [self._select(staged, index, raw, fields, bad=True) for index, raw in enumerate(staged.files)]
            self._connection.execute(f"INSERT INTO rejects {' UNION ALL '.join(selects)}")
            self._connection.execute(f"DELETE FROM {table} WHERE bad")

    def _select(self, staged: Staged, index: int, raw: RawFile, fields: list[Field], *, bad: bool = False) -> str:
        """SQL of a file's rows, ``bad`` where something is wrong with them; or of its rejects."""
        sql = {one.key: field_sql(one, raw) for one in fields}
        natives = {sql[one.key].native: None for one in fields if sql[one.key].native}
        cleaned = ", ".join(["line", *natives, *(f"{sql[one.key].cleaned} AS {one.cleaned}" for one in fields)])
        values = ", ".join(f"{sql[one.key].value} AS {one.value}" for one in fields)
        problems = []
        keys = {"id", *(staged.declared.key_columns if isinstance(staged.declared, Relation) else ())}
        weight = staged.declared.weight if isinstance(staged.declared, Relation) else None
        for one in fields:
            part = sql[one.key]
            if part.wrong != "false":
                problems.append((part.wrong, _problem(one, part.reason)))
            if one.end and (one.optional or part.many):
                continue
            is_id = one.end or one.key == "id"
            if is_id or one.name in keys or one.name == weight or one.declared.required:
                reason = quoted("empty id" if is_id else "missing value")
                problems.append((f"{one.value} IS NULL", _problem(one, reason)))
        read = f"(SELECT *, {values} FROM (SELECT {cleaned} FROM {raw.table}{_where(staged.source, raw)}))"
        wrong = " OR ".join(f"({condition})" for condition, _ in problems) or "false"
        if bad:
            first = " ".join(f"WHEN {condition} THEN {problem}" for condition, problem in problems)
            rows = f"(SELECT line, CASE {first} END AS problem FROM {read} WHERE {wrong})"
            return f"SELECT {staged.number}, {index}, line, problem.col, problem.value, problem.reason FROM {rows}"
        ends = [f"{one.value} AS {one.key}" for one in fields if one.end or one.key == "id"]
        kept = ", ".join([*ends, *(one.value for one in staged.fields)])
        # Not as a filter: DuckDB would push it down and compute every value twice.
        return f"SELECT {index} AS file, line, {kept}, ({wrong}) IS TRUE AS bad FROM {read}"

    def _one_row_per_node(self, staged: Staged) -> None:
        """Identical rows of one id become one; rows that differ from the first are bad."""
        table, values = staged.table, staged.values
        self._connection.execute(f"ALTER TABLE read{staged.number} RENAME TO {table}")
        if self._each_once(table, ["id"]):
            return
        row = f"row({', '.join(['1', *values])})"
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE repeated AS "
            f"SELECT file, line, id, {row} IS DISTINCT FROM first_row AS differs, first_file, first_line "
            f"FROM (SELECT *, row_number() OVER w AS place, first_value({row}) OVER w AS first_row, "
            f"first_value(file) OVER w AS first_file, first_value(line) OVER w AS first_line FROM {table} "
            f"WHERE id IN (SELECT id FROM {table} GROUP BY id HAVING count(*) > 1) "
            "WINDOW w AS (PARTITION BY id ORDER BY file, line)) WHERE place > 1"
        )
        names = "[" + ", ".join(quoted(raw.file.name) for raw in staged.files) + "]"
        label = staged.source.id.column if staged.source.id else "id"
        where = f"CASE WHEN first_file = file THEN '' ELSE ' of ' || {names}[first_file + 1] END"
        self._connection.execute(
            f"INSERT INTO rejects SELECT {staged.number}, file, line, {quoted(label or 'id')}, id, "
            f"'duplicate id, differs from line ' || first_line || {where} FROM repeated WHERE differs"
        )
        (staged.merged,) = self._one("SELECT count(*) FROM repeated WHERE NOT differs")
        self._connection.execute(
            f"DELETE FROM {table} USING repeated AS r WHERE {table}.file = r.file AND {table}.line = r.line"
        )

    def _one_row_per_edge(self, staged: Staged) -> None:
        """Lists of ends become one row an edge."""
        read, edges = f"read{staged.number}", f"edges{staged.number}"
        kinds = dict(self._connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {read})").fetchall())
        lists = [end for end in ("source", "target") if kinds[end].endswith("[]")]
        other = ", ".join(["file", "line", *(one.value for one in staged.fields)])
        if any(spec.null or spec.split or spec.extract for spec in _ends(staged.source)) or lists:
            none = "source IS NULL OR target IS NULL"
            staged.without_edge = self._count(f"{read} WHERE {none}")
            if staged.without_edge:
                self._connection.execute(f"DELETE FROM {read} WHERE {none}")
        for end in lists:
            kept = "target" if end == "source" else "source"
            self._connection.execute(
                f"CREATE OR REPLACE TABLE {read} AS SELECT unnest({end}) AS {end}, {kept}, {other} FROM {read}"
            )
        self._connection.execute(f"ALTER TABLE {read} RENAME TO {edges}")

    def merge_edges(self, staged: Staged) -> None:
        """One row an edge, once the ends are checked: counted where ``count_as`` says so, else the last row."""
        edges, keys = f"edges{staged.number}", ", ".join(staged.keys)
        counted = staged.source.count_as
        if not counted and self._each_once(edges, staged.keys):
            self._connection.execute(f"ALTER TABLE {edges} RENAME TO {staged.table}")
            return
        # arg_max passes over rows whose value is null; a struct around it is never null.
        last = [f"arg_max({{'v': {name}}}, (file, line)).v AS {name}" for name in staged.values]
        picked = ", ".join([keys, *last, *(["count(*) AS counted"] if counted else [])])
        if counted:
            self._connection.execute(f"CREATE TABLE {staged.table} AS SELECT {picked} FROM {edges} GROUP BY {keys}")
        else:
            listed = ", ".join([keys, *staged.values])
            self._connection.execute(
                f"CREATE OR REPLACE TEMP TABLE repeated AS "
                f"SELECT {keys} FROM {edges} GROUP BY {keys} HAVING count(*) > 1"
            )
            self._connection.execute(
                f"CREATE TABLE {staged.table} AS SELECT {listed} FROM {edges} ANTI JOIN repeated USING ({keys}) "
                f"UNION ALL SELECT {picked} FROM {edges} SEMI JOIN repeated USING ({keys}) GROUP BY {keys}"
            )
        staged.merged = self._count(edges) - self._count(staged.table)
        self._connection.execute(f"DROP TABLE {edges}")

    def _each_once(self, table: str, keys: Sequence[str]) -> bool:
        """False where two rows may have the same key: their hashes are the same, which rarely happens otherwise."""
        hashes = f"(SELECT hash({', '.join(keys)}) AS key FROM {table} GROUP BY key)"
        return self._count(hashes) == self._count(table)

    def _count(self, table: str) -> int:
        return self._one(f"SELECT count(*) FROM {table}")[0]

    def _one(self, query: str) -> tuple[int, ...]:
        return tuple(self._connection.execute(query).fetchall()[0])


def _where(source: Source, raw: RawFile) -> str:
    conditions = []
    for column, wanted in source.where.items():
        texts = (wanted,) if isinstance(wanted, str) else wanted
        conditions.append(f"{raw.column(column).text} IN ({', '.join(map(quoted, texts))})")
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _ends(source: Source) -> list[ColumnSpec]:
    return [spec for spec in (source.source, source.target) if spec is not None]


def _triple(source: Source) -> Triple:
    assert source.relation is not None
    return source.relation


def _problem(field: Field, reason: str) -> str:
    value = f"{field.cleaned}::VARCHAR"
    return f"{{'col': {quoted(field.label)}, 'value': {value}, 'reason': {reason}}}"
