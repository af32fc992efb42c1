"""``EmbeddedStore``: the graph in one file, with nothing to set up (Ladybug)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from graph_store.embedded.change_log import ChangeLog
from graph_store.embedded.database import EmbeddedDatabase, quoted
from graph_store.embedded.tables import Table, column_type, is_complete, missing, read_tables, relation_properties
from graph_store.embedded.values import plain_values
from graph_store.errors import InputError, StoreConflict
from graph_store.neighbours import Found, heaviest_first
from graph_store.rows import difference, edge_rows, node_rows, not_in, present_in
from graph_store.schema import GraphSchema, Property, PropertyType, Relation, Triple
from graph_store.settings import StoreSettings
from graph_store.store import Counts, Neighbour, QueryResult, Written
from graph_store.written import Logged, WrittenSince, logged

_CHANGED_AT_ONCE = 50_000
"""Rows changed or deleted by one statement: bounds the memory that its join takes."""
_SEEK_BELOW = 256
"""Edges of so many nodes are looked up one node at a time; of more, the whole relation is read."""


class EmbeddedStore:
    """GraphStore on a Ladybug file; one thread at a time, one writing process at a time."""

    def __init__(self, schema: GraphSchema, database: EmbeddedDatabase) -> None:
        self._schema = schema
        self._database = database
        self._log = ChangeLog(database.path)
        self._known: tuple[int, dict[str, Table]] | None = None

    @classmethod
    def open(cls, schema: GraphSchema, settings: StoreSettings, folder: Path, *, read_only: bool) -> EmbeddedStore:
        """Open the file ``settings.uri``, relative to ``folder``.

        Raises StoreUnavailable where it is not there to be read, StoreLocked when another process writes.
        """
        database = EmbeddedDatabase(
            folder / settings.uri, read_only=read_only, memory_mib=settings.memory_mib, timeout_s=settings.timeout_s
        )
        return cls(schema, database)

    def __enter__(self) -> EmbeddedStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._database.close()

    def apply_schema(self) -> None:
        """Create the tables and columns that are not there; see ``GraphStore``."""
        statements = list(missing(self._schema, read_tables(self._database)))
        if statements:
            with self._database.transaction():
                for statement in statements:
                    self._database.rows(statement)
        self._known = None

    # ------------------------------------------------------------------ writing

    def upsert_nodes(self, node_type: str, nodes: pa.Table) -> Written:
        """Create or change nodes; see ``GraphStore``."""
        declared = self._schema.node_type(node_type)
        rows = node_rows(declared, nodes)
        self._need(node_type)
        properties = [name for name in rows.column_names if name != "id"]
        diff = difference(rows, self._nodes_there(node_type, rows, properties), ["id"])
        if diff.new.num_rows or diff.changed.num_rows:
            with self._noted(logged(node_type, "upsert", diff.new, diff.changed)):
                if diff.new.num_rows:
                    columns = ", ".join(quoted(name) for name in diff.new.column_names)
                    self._database.with_rows(f"COPY {quoted(node_type)}({columns}) FROM arrow_rows", diff.new)
                assignments = _assignments("n", rows.column_names, properties, declared.properties)
                for part in _parts(diff.changed):
                    self._database.with_rows(
                        f"LOAD FROM arrow_rows MATCH (n:{quoted(node_type)} {{id: c0}}) SET {assignments}", part
                    )
        return Written(created=diff.new.num_rows, changed=diff.changed.num_rows, unchanged=diff.unchanged)

    def upsert_edges(self, triple: Triple, edges: pa.Table) -> Written:
        """Create or change edges; see ``GraphStore``."""
        return self._write_edges(self._schema.relation(triple), edges, replace=False)

    def replace_edges(self, triple: Triple, edges: pa.Table) -> Written:
        """Make the relation hold exactly these edges; see ``GraphStore``."""
        return self._write_edges(self._schema.relation(triple), edges, replace=True)

    def _write_edges(self, relation: Relation, edges: pa.Table, *, replace: bool) -> Written:
        rows = edge_rows(relation, edges)
        self._need(relation.triple.name)
        self._check_ends(relation, rows)
        keys = relation.key_columns
        properties = [name for name in rows.column_names if name not in keys]
        there = self._edges_there(relation, None if replace else rows, [*keys[2:], *properties])
        diff = difference(rows, there, keys)
        gone = not_in(there.select(list(keys)), rows, keys) if replace else there.slice(0, 0)
        if diff.new.num_rows or diff.changed.num_rows or gone.num_rows:
            what = relation.triple.key
            noted = logged(what, "delete", gone) + logged(what, "upsert", diff.new, diff.changed)
            with self._noted(noted):
                self._delete(relation, gone)
                self._change(relation, diff.changed, properties)
                self._copy_edges(relation, diff.new)
        return Written(
            created=diff.new.num_rows,
            changed=diff.changed.num_rows,
            unchanged=diff.unchanged,
            deleted=gone.num_rows,
        )

    def delete_nodes(self, node_type: str, ids: Sequence[str]) -> Written:
        """Delete nodes with their edges; see ``GraphStore``."""
        declared = self._schema.node_type(node_type)
        rows = node_rows(declared, pa.table({"id": pa.array(list(ids), pa.string())}))
        self._need(node_type)
        there = present_in(self._nodes_there(node_type, rows, []), rows, ["id"])
        if there.num_rows:
            with self._noted(logged(node_type, "delete", there)):
                for part in _parts(there):
                    self._database.with_rows(
                        f"LOAD FROM arrow_rows MATCH (n:{quoted(node_type)} {{id: c0}}) DETACH DELETE n", part
                    )
        return Written(deleted=there.num_rows)

    def delete_edges(self, triple: Triple, edges: pa.Table) -> Written:
        """Delete edges by their key columns; see ``GraphStore``."""
        relation = self._schema.relation(triple)
        keys = relation.key_columns
        rows = edge_rows(relation, edges.select([name for name in edges.column_names if name in keys]))
        self._need(triple.name)
        there = present_in(self._edges_there(relation, rows, list(keys[2:])), rows, keys)
        if there.num_rows:
            with self._noted(logged(triple.key, "delete", there)):
                self._delete(relation, there)
        return Written(deleted=there.num_rows)

    @contextmanager
    def _noted(self, changes: Sequence[Logged]) -> Iterator[None]:
        """A transaction, and then a line of it in the log."""
        before = self._database.token()
        with self._database.transaction():
            yield
        self._log.append(before, self._database.token(), changes)

    def _copy_edges(self, relation: Relation, rows: pa.Table) -> None:
        if not rows.num_rows:
            return
        source, name, target = relation.triple
        # COPY takes source and target first, and wants the table's other columns, also those of other triples.
        columns = {"source": rows.column("source"), "target": rows.column("target")}
        for column, declared in relation_properties(self._schema, name).items():
            given = column in rows.column_names
            columns[column] = rows.column(column) if given else pa.nulls(rows.num_rows, declared.type.arrow)
        properties = ", ".join(quoted(column) for column in columns if column not in ("source", "target"))
        listed = f"({properties})" if properties else ""
        ends = f"(from='{source}', to='{target}')"
        self._database.with_rows(f"COPY {quoted(name)}{listed} FROM arrow_rows {ends}", pa.table(columns))

    def _change(self, relation: Relation, rows: pa.Table, properties: Sequence[str]) -> None:
        assignments = _assignments("r", rows.column_names, properties, relation.properties)
        for part in _parts(rows):
            self._database.with_rows(f"{self._matched(relation, rows.column_names)} SET {assignments}", part)

    def _delete(self, relation: Relation, rows: pa.Table) -> None:
        for part in _parts(rows):
            self._database.with_rows(f"{self._matched(relation, rows.column_names)} DELETE r", part)

    def _matched(self, relation: Relation, columns: Sequence[str]) -> str:
        """Ends by primary key first, then the edge: another order makes Ladybug join all with all."""
        source, name, target = relation.triple
        number = {column: f"c{index}" for index, column in enumerate(columns)}
        conditions = []
        for key in relation.key_columns[2:]:
            value = _value(number[key], relation.properties[key])
            conditions.append(f"(r.{quoted(key)} = {value} OR (r.{quoted(key)} IS NULL AND {number[key]} IS NULL))")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return (
            f"LOAD FROM arrow_rows MATCH (a:{quoted(source)} {{id: {number['source']}}}) "
            f"MATCH (b:{quoted(target)} {{id: {number['target']}}}) MATCH (a)-[r:{quoted(name)}]->(b){where}"
        )

    def _check_ends(self, relation: Relation, rows: pa.Table) -> None:
        for column, node_type in (("source", relation.triple.source), ("target", relation.triple.target)):
            ids = pa.table({"id": rows.column(column).unique()})
            unknown = not_in(ids, self._nodes_there(node_type, ids, []), ["id"])
            if unknown.num_rows:
                more = f" (and {unknown.num_rows - 1} more)" if unknown.num_rows > 1 else ""
                raise InputError(
                    f"{relation.triple}: there is no {node_type} with this id{more}",
                    column=column,
                    value=unknown.column("id")[0].as_py(),
                    hint="Load the nodes first; a source can also create them (create_source, create_target).",
                )

    # ------------------------------------------------------------------ reading

    def scan_nodes(self, node_type: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All nodes of a type; see ``GraphStore``."""
        declared = self._schema.node_type(node_type)
        wanted = list(declared.properties) if columns is None else [name for name in columns if name != "id"]
        fields = ["id", *wanted]
        schema = pa.schema([declared.arrow_schema.field(name) for name in fields])
        returned = ", ".join(f"n.{quoted(name)}" for name in fields)
        tables = self._tables()
        if node_type in tables:
            # Only what is asked for: an ingest that adds a property reads the ids before it applies the schema.
            if not set(wanted) <= set(tables[node_type].columns):
                self._need(node_type)
            yield from _batches(self._database.table(f"MATCH (n:{quoted(node_type)}) RETURN {returned}"), schema)

    def scan_edges(self, triple: Triple, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All edges of a relation; see ``GraphStore``."""
        relation = self._schema.relation(triple)
        wanted = list(relation.properties) if columns is None else list(columns)
        wanted = [name for name in wanted if name not in ("source", "target")]
        if triple.name in self._tables():
            self._need(triple.name)
            yield from self._edges_there(relation, None, wanted).to_batches()

    def _nodes_there(self, node_type: str, rows: pa.Table, properties: Sequence[str]) -> pa.Table:
        """The nodes of these ids as they are in the store."""
        declared = self._schema.node_type(node_type)
        fields = ["id", *properties]
        schema = pa.schema([declared.arrow_schema.field(name) for name in fields])
        returned = ", ".join(f"n.{quoted(name)}" for name in fields)
        node = f"(n:{quoted(node_type)}"
        count = self._database.rows(f"MATCH {node}) RETURN count(*)")[0][0]
        if rows.num_rows * 4 < count:
            ids = pa.table({"c0": rows.column("id")})
            found = self._database.with_rows(f"LOAD FROM arrow_rows MATCH {node} {{id: c0}}) RETURN {returned}", ids)
        else:
            found = self._database.table(f"MATCH {node}) RETURN {returned}")
        return pa.Table.from_batches(_batches(found, schema), schema)

    def _edges_there(self, relation: Relation, rows: pa.Table | None, properties: Sequence[str]) -> pa.Table:
        """The edges as they are in the store: all, or at least those between the ends that ``rows`` has."""
        source, name, target = relation.triple
        fields = ["source", "target", *properties]
        schema = pa.schema([relation.arrow_schema.field(field) for field in fields])
        returned = ", ".join(["a.id", "b.id", *(f"r.{quoted(field)}" for field in properties)])
        a, b = f"a:{quoted(source)}", f"b:{quoted(target)}"
        edge = f"-[r:{quoted(name)}]->"
        if rows is not None:
            for pattern, column in (
                (f"({a} {{id: $id}}){edge}({b})", "source"),
                (f"({a}){edge}({b} {{id: $id}})", "target"),
            ):
                ids = rows.column(column).unique().to_pylist()
                if len(ids) < _SEEK_BELOW:
                    parts = [self._database.table(f"MATCH {pattern} RETURN {returned}", {"id": id_}) for id_ in ids]
                    batches = [batch for part in parts for batch in _batches(part, schema)]
                    return pa.Table.from_batches(batches, schema)
        found = self._database.table(f"MATCH ({a}){edge}({b}) RETURN {returned}")
        return pa.Table.from_batches(_batches(found, schema), schema)

    def neighbourhood(self, node_type: str, node_id: str, limit: int = 100) -> list[Neighbour]:
        """Edges of one node; see ``GraphStore``."""
        self._schema.node_type(node_type)
        neighbours: list[Neighbour] = []
        for relation in self._schema.relations:
            source, name, target = relation.triple
            if name not in self._tables():
                continue
            self._need(name)
            found: list[Found] = []
            loops = " WHERE n.id <> m.id" if source == target else ""
            for direction, end, other, pattern in (
                ("out", source, target, f"(n:{quoted(source)} {{id: $id}})-[r:{quoted(name)}]->(m:{quoted(target)})"),
                (
                    "in",
                    target,
                    source,
                    f"(n:{quoted(target)} {{id: $id}})<-[r:{quoted(name)}]-(m:{quoted(source)}){loops}",
                ),
            ):
                if end != node_type:
                    continue
                names = list(relation.properties)
                returned = ", ".join(["m.id AS id", *(f"r.{quoted(p)} AS p{i}" for i, p in enumerate(names))])
                order = ["id"]
                if relation.weight:
                    weight = f"p{names.index(relation.weight)}"
                    order = [f"{weight} IS NULL", f"{weight} DESC", "id"]
                order += [f"p{names.index(key)}" for key in relation.key_columns[2:]]
                statement = f"MATCH {pattern} RETURN {returned} ORDER BY {', '.join(order)} LIMIT {int(limit)}"
                for row in self._database.rows(statement, {"id": node_id}):
                    found.append(Found(direction, other, row[0], dict(zip(names, row[1:], strict=True))))
            neighbours += heaviest_first(relation, found)[:limit]
        return neighbours

    def find_nodes(self, node_type: str, display: str, limit: int = 10) -> list[str]:
        """Ids of the nodes called so; see ``GraphStore``."""
        declared = self._schema.node_type(node_type)
        if not display or node_type not in self._tables():
            return []
        self._need(node_type)
        shown = f"n.{quoted(declared.display or 'id')}"
        node = f"MATCH (n:{quoted(node_type)})"
        exact = f"{node} WHERE {shown} = $text RETURN n.id AS id ORDER BY id LIMIT {int(limit)}"
        contains = (
            f"{node} WHERE lower({shown}) CONTAINS lower($text) "
            f"RETURN n.id AS id ORDER BY size({shown}), id LIMIT {int(limit)}"
        )
        rows = self._database.rows(exact, {"text": display}) or self._database.rows(contains, {"text": display})
        return [row[0] for row in rows]

    def query(
        self, cypher: str, parameters: Mapping[str, Any] | None = None, *, limit: int = 1000, write: bool = False
    ) -> QueryResult:
        """Run one Cypher statement; see ``GraphStore``."""
        columns, rows, truncated = self._database.query(cypher, parameters or {}, limit=limit, write=write)
        if write:
            self._known = None
        plain = tuple(tuple(plain_values(self._schema, value) for value in row) for row in rows)
        return QueryResult(columns=tuple(columns), rows=plain, truncated=truncated)

    def counts(self) -> Counts:
        """Nodes by type and edges by relation; see ``GraphStore``."""
        tables = self._tables()
        nodes = {
            name: self._database.rows(f"MATCH (n:{quoted(name)}) RETURN count(*)")[0][0] if name in tables else 0
            for name in (node_type.name for node_type in self._schema.node_types)
        }
        edges = {}
        for triple in (relation.triple for relation in self._schema.relations):
            edges[triple] = 0
            if triple.name in tables and (triple.source, triple.target) in tables[triple.name].pairs:
                pattern = f"(:{quoted(triple.source)})-[:{quoted(triple.name)}]->(:{quoted(triple.target)})"
                edges[triple] = self._database.rows(f"MATCH {pattern} RETURN count(*)")[0][0]
        return Counts(nodes=nodes, edges=edges)

    def state_token(self) -> str:
        """Moves with every commit; see ``GraphStore``."""
        return self._database.token()

    def log_position(self) -> str:
        """The state; see ``GraphStore``."""
        return self._database.token()

    def written_since(self, position: str) -> WrittenSince | None:
        """What the log beside the file tells; see ``GraphStore``."""
        return self._log.since(position, self._database.token())

    def _tables(self) -> dict[str, Table]:
        generation = self._database.settle()
        if self._known is None or self._known[0] != generation:
            self._known = generation, read_tables(self._database)
        return self._known[1]

    def _need(self, name: str) -> None:
        """Raises StoreConflict where the table, or something declared of it, is not there."""
        if not is_complete(self._schema, self._tables(), name):
            raise StoreConflict(
                f"the store does not have all that kithkin.toml declares of {name}",
                hint="Run `kithkin ingest`, which applies the schema.",
            )


def _batches(found: pa.Table, schema: pa.Schema) -> list[pa.RecordBatch]:
    """Ladybug's columns under our names and types."""
    columns = [column.cast(field.type) for column, field in zip(found.columns, schema, strict=True)]
    return list(pa.table(columns, schema=schema).to_batches())


def _parts(rows: pa.Table) -> Iterator[pa.Table]:
    """Slices under the names c0, c1, ... that no variable of a statement has."""
    renamed = rows.rename_columns([f"c{index}" for index in range(rows.num_columns)])
    for start in range(0, rows.num_rows, _CHANGED_AT_ONCE):
        yield renamed.slice(start, _CHANGED_AT_ONCE)


def _assignments(
    variable: str, columns: Sequence[str], changed: Sequence[str], properties: Mapping[str, Property]
) -> str:
    number = {column: f"c{index}" for index, column in enumerate(columns)}
    return ", ".join(f"{variable}.{quoted(name)} = {_value(number[name], properties[name])}" for name in changed)


def _value(column: str, declared: Property) -> str:
    """Ladybug reads Arrow's zoned times as plain ones and lists as variable ones, and does not cast by itself."""
    if declared.type in (PropertyType.TIMESTAMP, PropertyType.VECTOR):
        return f"CAST({column} AS {column_type(declared)})"
    return column
