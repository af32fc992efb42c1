"""``EmbeddedStore``: the graph in one file, with nothing to set up (Ladybug)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from graph_store.embedded import published, seek, writing
from graph_store.embedded.database import EmbeddedDatabase, quoted
from graph_store.embedded.scan import edge_batches, named, node_batches
from graph_store.embedded.tables import Table, is_complete, missing, read_tables
from graph_store.embedded.values import plain_values
from graph_store.errors import InputError, StoreConflict
from graph_store.neighbours import Found, heaviest_first
from graph_store.published import Published, PublishedRows, Publishing, WrittenBack, check_names, refuse_declared
from graph_store.rows import difference, edge_rows, node_rows, not_in, present_in
from graph_store.schema import GraphSchema, Relation, Triple
from graph_store.settings import StoreSettings
from graph_store.store import Counts, Neighbour, QueryResult, Written
from graph_store.written import Logged, WrittenSince, logged

_SEEK_BELOW = 256
"""Edges of so many nodes are looked up; of more, the whole relation is read."""


class EmbeddedStore:
    """GraphStore on a Ladybug file; one thread at a time, one writing process at a time."""

    label_prefix = ""

    def __init__(self, schema: GraphSchema, database: EmbeddedDatabase) -> None:
        self._schema = schema
        self._database = database
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
        refuse_declared(self._schema, self.written_back())
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
        self.write_nodes(node_type, diff.new, diff.changed)
        return Written(created=diff.new.num_rows, changed=diff.changed.num_rows, unchanged=diff.unchanged)

    def holds(self, what: str | Triple) -> bool:
        """Whether there is a node of this type or an edge of this relation."""
        if isinstance(what, str):
            pattern, name = f"(n:{quoted(what)})", what
        else:
            name = what.name
            pattern = f"(:{quoted(what.source)})-[:{quoted(name)}]->(:{quoted(what.target)})"
        self._need(name)
        return bool(self._database.rows(f"MATCH {pattern} RETURN 1 LIMIT 1"))

    def write_nodes(self, node_type: str, new: pa.Table, changed: pa.Table) -> None:
        """Write what a comparison found, in one transaction; nothing is checked here.

        Both have columns of ``NodeType.arrow_schema`` and each id once. None of ``new`` may be in the store: Ladybug
        would end the process.
        """
        if not new.num_rows and not changed.num_rows:
            return
        declared = self._schema.node_type(node_type)
        self._need(node_type)
        with self._noted(logged(node_type, "upsert", new, changed), new, changed):
            if new.num_rows:
                writing.create_nodes(self._database, declared, new)
            if changed.num_rows:
                writing.change_nodes(self._database, declared, changed)

    def write_edges(self, triple: Triple, new: pa.Table, changed: pa.Table) -> None:
        """The same for edges, each once by ``Relation.key_columns``, whose ends are in the store."""
        if not new.num_rows and not changed.num_rows:
            return
        relation = self._schema.relation(triple)
        self._need(triple.name)
        with self._noted(logged(triple.key, "upsert", new, changed), new, changed):
            writing.change_edges(
                self._database,
                relation,
                changed,
                [name for name in changed.column_names if name not in relation.key_columns],
            )
            writing.create_edges(self._database, self._schema, relation, new)

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
            with self._noted(noted, diff.new, diff.changed, gone):
                writing.delete_edges(self._database, relation, gone)
                writing.change_edges(self._database, relation, diff.changed, properties)
                writing.create_edges(self._database, self._schema, relation, diff.new)
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
            with self._noted(logged(node_type, "delete", there), there):
                published.delete_vectors(self._database, self._tables(), node_type, there.column("id"))
                writing.delete_nodes(self._database, node_type, there)
        return Written(deleted=there.num_rows)

    def delete_edges(self, triple: Triple, edges: pa.Table) -> Written:
        """Delete edges by their key columns; see ``GraphStore``."""
        relation = self._schema.relation(triple)
        keys = relation.key_columns
        rows = edge_rows(relation, edges.select([name for name in edges.column_names if name in keys]))
        self._need(triple.name)
        there = present_in(self._edges_there(relation, rows, list(keys[2:])), rows, keys)
        if there.num_rows:
            with self._noted(logged(triple.key, "delete", there), there):
                writing.delete_edges(self._database, relation, there)
        return Written(deleted=there.num_rows)

    def together(self) -> AbstractContextManager[None]:
        """Calls within the block that write few rows are one transaction; see ``graph_store.changes.batch``."""
        return self._database.together()

    def _noted(self, changes: Sequence[Logged], *rows: pa.Table) -> AbstractContextManager[None]:
        """A transaction of so many rows, with a line of it in the log of writes."""
        return self._database.transaction(changes, folded=sum(each.num_rows for each in rows) > writing.FEW)

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
        tables = self._tables()
        if node_type in tables:
            # Only what is asked for: an ingest that adds a property reads the ids before it applies the schema.
            if not set(wanted) <= set(tables[node_type].columns):
                self._need(node_type)
            yield from node_batches(self._database, declared, ["id", *wanted])

    def scan_edges(self, triple: Triple, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All edges of a relation; see ``GraphStore``."""
        relation = self._schema.relation(triple)
        wanted = list(relation.properties) if columns is None else list(columns)
        wanted = [name for name in wanted if name not in ("source", "target")]
        if triple.name in self._tables():
            self._need(triple.name)
            yield from edge_batches(self._database, relation, wanted)

    def _nodes_there(self, node_type: str, rows: pa.Table, properties: Sequence[str]) -> pa.Table:
        """The nodes of these ids as they are in the store."""
        declared = self._schema.node_type(node_type)
        fields = ["id", *properties]
        schema = pa.schema([declared.arrow_schema.field(name) for name in fields])
        returned = ", ".join(f"n.{quoted(name)}" for name in fields)
        node = f"(n:{quoted(node_type)}"
        few = rows.num_rows <= _SEEK_BELOW
        if few or rows.num_rows * 4 < self._database.rows(f"MATCH {node}) RETURN count(*)")[0][0]:
            ids = pa.table({"c0": rows.column("id")})
            found = self._database.with_rows(f"LOAD FROM arrow_rows MATCH {node} {{id: c0}}) RETURN {returned}", ids)
        else:
            found = self._database.table(f"MATCH {node}) RETURN {returned}")
        return pa.Table.from_batches(named(found, schema), schema)

    def _edges_there(self, relation: Relation, rows: pa.Table | None, properties: Sequence[str]) -> pa.Table:
        """The edges as they are in the store: all, or at least those between the ends that ``rows`` has."""
        if rows is not None:
            for end in ("source", "target"):
                ids = rows.column(end).unique()
                if len(ids) < _SEEK_BELOW:
                    return seek.edges_of(self._database, relation, properties, end, ids)
        return seek.all_edges(self._database, relation, properties)

    def edges_of(self, triple: Triple, columns: Sequence[str], end: str, ids: pa.Array) -> pa.Table:
        """The edges whose source or target (``end``) has one of these ids; see ``graph_store.changes.lookup``."""
        self._need(triple.name)
        return seek.edges_of(self._database, self._schema.relation(triple), columns, end, ids)

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
        return self._database.state()

    def log_position(self) -> str:
        """The state; see ``GraphStore``."""
        return self._database.state()

    def written_since(self, position: str) -> WrittenSince | None:
        """What the log beside the file tells; see ``GraphStore``."""
        return self._database.written_since(position)

    # ------------------------------------------------------------- what is written back

    def write_back(self, publishing: Publishing, rows: PublishedRows) -> WrittenBack:
        """Replace what was written back, written beside it before; see ``GraphStore``."""
        check_names(self._schema, publishing)
        for name in publishing.node_types:
            self._need(name)
        try:
            # Commits that change nothing of the graph.
            written = published.write(
                self._database, self._tables(), publishing, rows, partial(self._database.transaction, ())
            )
        except BaseException:
            self._database.forget_plans()
            raise
        finally:
            self._known = None
        return written

    def written_back(self) -> tuple[Published, ...]:
        """What was written back; see ``GraphStore``."""
        return published.published(self._database, self._tables())

    def remove_written_back(self, keep: str | None = None) -> None:
        """Remove what was written back; see ``GraphStore``."""
        kept = any(each.publishing.bundle == keep for each in self.written_back())
        if published.is_anything(self._tables()) and not kept:
            with self._database.transaction(()):
                published.remove(self._database, self._tables())
            self._known = None

    def stored_rows(self, publishing: Publishing) -> PublishedRows:
        """What was written back as rows, for a store that is written anew."""
        return published.StoredRows(self._database, publishing)

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
