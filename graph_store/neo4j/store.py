"""``Neo4jStore``: the graph in a Neo4j server (5 or newer), where its own tools see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import neo4j
import numpy as np
import pyarrow as pa

from graph_store.errors import InputError
from graph_store.neighbours import Found, heaviest_first
from graph_store.neo4j import columns as columnar
from graph_store.neo4j import published
from graph_store.neo4j.bulk import Begun, Writer, write_edges
from graph_store.neo4j.driver import Neo4jConnection, NothingToWrite, plain_value
from graph_store.neo4j.numbers import ABSENT, Int64s
from graph_store.neo4j.others import Others
from graph_store.neo4j.scans import Edges, nodes, nodes_there
from graph_store.neo4j.schema import (
    ROLE_LABELS,
    apply_schema,
    labels,
    lock_writers,
    note_written,
)
from graph_store.neo4j.statements import counted, type_of
from graph_store.published import Published, PublishedRows, Publishing, WrittenBack
from graph_store.rows import Difference, difference, edge_rows, node_rows, not_in, present_in
from graph_store.schema import GraphSchema, Relation, Triple
from graph_store.settings import StoreSettings
from graph_store.store import Counts, Neighbour, QueryResult, Written
from graph_store.written import WrittenSince, logged


class Neo4jStore:
    """GraphStore on a Neo4j database.

    A call that writes up to 100,000 rows is one transaction. A larger one is checked as a whole first and then
    committed in parts; where the server fails in the middle, it begins anew and writes the rest, and so does the same
    call again.
    """

    label_prefix = ""

    def __init__(self, schema: GraphSchema, connection: Neo4jConnection) -> None:
        self._schema = schema
        self._connection = connection
        self._prefix = connection.label_prefix
        self._others = Others(connection, self._prefix)

    @classmethod
    def open(cls, schema: GraphSchema, settings: StoreSettings, *, read_only: bool) -> Neo4jStore:
        """Connect to ``settings.uri``; the password comes from KITHKIN_STORE_PASSWORD.

        Raises StoreUnavailable or StoreAuthError.
        """
        return cls(schema, Neo4jConnection(settings, read_only=read_only))

    def __enter__(self) -> Neo4jStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def apply_schema(self) -> None:
        """Create the constraints that are not there and note the declared types; see ``GraphStore``."""
        published.check_declared(self._connection, self._schema)
        apply_schema(self._connection, self._schema)

    # ------------------------------------------------------------------ writing

    def upsert_nodes(self, node_type: str, nodes: pa.Table) -> Written:
        """Create or change nodes; see ``GraphStore``."""
        declared = self._schema.node_type(node_type)
        rows = node_rows(declared, nodes)
        properties = [name for name in rows.column_names if name != "id"]
        values = {name: columnar.value(index, type_of(declared, name)) for index, name in enumerate(rows.column_names)}
        whole = ", ".join(f"`{name}`: {value}" for name, value in values.items())
        new = f"CREATE (n{labels(self._schema, node_type, self._prefix)} {{{whole}}})"
        assignments = ", ".join(f"n.`{name}` = {values[name]}" for name in properties)
        changed = f"MATCH (n:`{node_type}` {{id: {values['id']}}}) SET {assignments}"
        begun = Begun()

        def work(transaction: neo4j.ManagedTransaction) -> Written:
            lock_writers(transaction, self._prefix)
            diff = difference(rows, nodes_there(transaction, declared, rows.column("id"), properties), ["id"])
            written = Written(created=diff.new.num_rows, changed=diff.changed.num_rows, unchanged=diff.unchanged)
            if not (written.created or written.changed or begun.first):
                raise NothingToWrite(written)
            writer = Writer(self._connection, transaction, written, begun)
            writer.run(new, diff.new)
            writer.run(changed, diff.changed)
            entries = begun.entries(node_type, logged(node_type, "upsert", diff.new, diff.changed))
            note_written(transaction, self._prefix, entries)
            return begun.whole(written)

        return self._connection.write(work)

    def upsert_edges(self, triple: Triple, edges: pa.Table) -> Written:
        """Create or change edges; see ``GraphStore``."""
        return self._write_edges(self._schema.relation(triple), edges, replace=False)

    def replace_edges(self, triple: Triple, edges: pa.Table) -> Written:
        """Make the relation hold exactly these edges; see ``GraphStore``."""
        return self._write_edges(self._schema.relation(triple), edges, replace=True)

    def _write_edges(self, relation: Relation, edges: pa.Table, *, replace: bool) -> Written:
        rows = edge_rows(relation, edges)
        keys = relation.key_columns
        properties = [name for name in rows.column_names if name not in ("source", "target")]
        begun = Begun()

        def work(transaction: neo4j.ManagedTransaction) -> Written:
            lock_writers(transaction, self._prefix)
            stored = Edges(transaction, relation, [*keys[2:], *(p for p in properties if p not in keys)])
            sources, _ = self._ends(stored, relation, rows)
            there = pa.Table.from_batches(stored.read(None if replace else np.unique(sources)), stored.schema)
            diff = difference(rows, there, keys)
            gone = not_in(there.select(list(keys)), rows, keys) if replace else there.slice(0, 0)
            written = Written(
                created=diff.new.num_rows,
                changed=diff.changed.num_rows,
                unchanged=diff.unchanged,
                deleted=gone.num_rows,
            )
            if not (written.created or written.changed or written.deleted or begun.first):
                raise NothingToWrite(written)
            write_edges(Writer(self._connection, transaction, written, begun), stored, relation, diff, gone)
            what = relation.triple.key
            entries = logged(what, "delete", gone) + logged(what, "upsert", diff.new, diff.changed)
            note_written(transaction, self._prefix, begun.entries(what, entries))
            return begun.whole(written)

        return self._connection.write(work)

    def delete_nodes(self, node_type: str, ids: Sequence[str]) -> Written:
        """Delete nodes with their edges; see ``GraphStore``."""
        declared = self._schema.node_type(node_type)
        rows = node_rows(declared, pa.table({"id": pa.array(list(ids), pa.string())}))
        begun = Begun()

        def work(transaction: neo4j.ManagedTransaction) -> Written:
            lock_writers(transaction, self._prefix)
            there = present_in(nodes_there(transaction, declared, rows.column("id"), []), rows, ["id"])
            if not (there.num_rows or begun.first):
                raise NothingToWrite(Written())
            written = Written(deleted=there.num_rows)
            delete = f"MATCH (n:`{node_type}` {{id: $c0[i]}}) DETACH DELETE n"
            Writer(self._connection, transaction, written, begun).run(delete, there)
            note_written(transaction, self._prefix, begun.entries(node_type, logged(node_type, "delete", there)))
            return begun.whole(written)

        return self._connection.write(work)

    def delete_edges(self, triple: Triple, edges: pa.Table) -> Written:
        """Delete edges by their key columns; see ``GraphStore``."""
        relation = self._schema.relation(triple)
        keys = relation.key_columns
        rows = edge_rows(relation, edges.select([name for name in edges.column_names if name in keys]))
        begun = Begun()

        def work(transaction: neo4j.ManagedTransaction) -> Written:
            lock_writers(transaction, self._prefix)
            stored = Edges(transaction, relation, keys[2:])
            sources = np.unique(stored.sources.of(rows.column("source")))
            read = pa.Table.from_batches(stored.read(sources[sources != ABSENT]), stored.schema)
            there = present_in(read, rows, keys)
            if not (there.num_rows or begun.first):
                raise NothingToWrite(Written())
            written = Written(deleted=there.num_rows)
            nothing = Difference(new=rows.slice(0, 0), changed=rows.slice(0, 0), unchanged=0)
            write_edges(Writer(self._connection, transaction, written, begun), stored, relation, nothing, there)
            note_written(transaction, self._prefix, begun.entries(triple.key, logged(triple.key, "delete", there)))
            return begun.whole(written)

        return self._connection.write(work)

    def _ends(self, stored: Edges, relation: Relation, rows: pa.Table) -> tuple[Int64s, Int64s]:
        """The numbers of both ends of each row; raises InputError where one is not in the store."""
        ends = stored.ends(rows)
        for column, node_type, numbers in zip(("source", "target"), relation.triple[::2], ends, strict=True):
            unknown = rows.column(column).filter(pa.array(numbers == ABSENT)).unique()
            if len(unknown):
                more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
                raise InputError(
                    f"{relation.triple}: there is no {node_type} with this id{more}",
                    column=column,
                    value=unknown[0].as_py(),
                    hint="Load the nodes first; a source can also create them (create_source, create_target).",
                )
        return ends

    # ------------------------------------------------------------------ reading

    def scan_nodes(self, node_type: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All nodes of a type; see ``GraphStore``."""
        declared = self._schema.node_type(node_type)
        wanted = list(declared.properties) if columns is None else [name for name in columns if name != "id"]
        with self._connection.reading() as transaction:
            yield from nodes(transaction, declared, wanted)

    def scan_edges(self, triple: Triple, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All edges of a relation; see ``GraphStore``."""
        relation = self._schema.relation(triple)
        wanted = list(relation.properties) if columns is None else list(columns)
        wanted = [name for name in wanted if name not in ("source", "target")]
        with self._connection.reading() as transaction:
            yield from Edges(transaction, relation, wanted).read()

    def neighbourhood(self, node_type: str, node_id: str, limit: int = 100) -> list[Neighbour]:
        """Edges of one node; see ``GraphStore``."""
        self._schema.node_type(node_type)

        def work(transaction: neo4j.ManagedTransaction) -> list[Neighbour]:
            neighbours: list[Neighbour] = []
            for relation in self._schema.relations:
                source, name, target = relation.triple
                found: list[Found] = []
                loops = " AND n <> m" if source == target else ""
                for direction, end, other, edge in (
                    ("out", source, target, f"-[r:`{name}`]->"),
                    ("in", target, source, f"<-[r:`{name}`]-"),
                ):
                    if end != node_type:
                        continue
                    where = "m.id IS NOT NULL" + (loops if direction == "in" else "")
                    order = [f"r.`{relation.weight}` IS NULL", f"r.`{relation.weight}` DESC"] if relation.weight else []
                    order += [
                        "m.id",
                        *(f"coalesce(r.`{key}` IS NOT NULL, false), r.`{key}`" for key in relation.key_columns[2:]),
                    ]
                    statement = (
                        f"MATCH (n:`{node_type}` {{id: $id}}){edge}(m:`{other}`) WHERE {where} "
                        f"RETURN m.id AS id, r AS edge ORDER BY {', '.join(order)} LIMIT $limit"
                    )
                    for record in transaction.run(statement, id=node_id, limit=limit):
                        properties = {p: self._plain(record["edge"].get(p)) for p in relation.properties}
                        found.append(Found(direction, other, record["id"], properties))
                neighbours += heaviest_first(relation, found)[:limit]
            return neighbours

        return self._connection.read(work)

    def find_nodes(self, node_type: str, display: str, limit: int = 10) -> list[str]:
        """Ids of the nodes called so; see ``GraphStore``."""
        declared = self._schema.node_type(node_type)
        if not display:
            return []
        shown = f"n.`{declared.display or 'id'}`"
        found = f"MATCH (n:`{node_type}`) WHERE n.id IS NOT NULL AND"

        def work(transaction: neo4j.ManagedTransaction) -> list[str]:
            for statement in (
                f"{found} {shown} = $text RETURN n.id AS id ORDER BY id LIMIT $limit",
                f"{found} toLower({shown}) CONTAINS toLower($text) "
                f"RETURN n.id AS id ORDER BY size({shown}), id LIMIT $limit",
            ):
                ids = [record["id"] for record in transaction.run(statement, text=display, limit=limit)]
                if ids:
                    break
            return ids

        return self._connection.read(work)

    def query(
        self, cypher: str, parameters: Mapping[str, Any] | None = None, *, limit: int = 1000, write: bool = False
    ) -> QueryResult:
        """Run one Cypher statement; see ``GraphStore``."""
        columns, rows, truncated = self._connection.query(cypher, parameters or {}, limit=limit, write=write)
        plain = tuple(tuple(self._plain(value) for value in row) for row in rows)
        return QueryResult(columns=tuple(columns), rows=plain, truncated=truncated)

    def counts(self) -> Counts:
        """Nodes by type and edges by relation; see ``GraphStore``."""

        def work(transaction: neo4j.ManagedTransaction) -> Counts:
            nodes = {n.name: counted(transaction, f"MATCH (n:`{n.name}`)") for n in self._schema.node_types}
            edges = {
                triple: counted(transaction, f"MATCH (:`{triple.source}`)-[r:`{triple.name}`]->(:`{triple.target}`)")
                for triple in (relation.triple for relation in self._schema.relations)
            }
            return Counts(nodes=nodes, edges=edges)

        return self._connection.read(work)

    def write_back(self, publishing: Publishing, rows: PublishedRows) -> WrittenBack:
        """Replace what was written back, in parts; see ``GraphStore``."""
        return published.write(self._connection, self._schema, publishing, rows)

    def written_back(self) -> tuple[Published, ...]:
        """What was written back; see ``GraphStore``."""
        return published.published(self._connection)

    def remove_written_back(self, keep: str | None = None) -> None:
        """Remove what was written back; see ``GraphStore``."""
        published.remove(self._connection, keep)

    def state_token(self) -> str:
        """Moves with every commit; see ``GraphStore``."""
        return self._connection.token()

    def log_position(self) -> str:
        """The number of writes; see ``GraphStore``."""
        return self._others.position()

    def written_since(self, position: str) -> WrittenSince | None:
        """What the log on the node of the schema tells; see ``GraphStore``."""
        return self._others.written_since(position)

    # ------------------------------------------------------------------- values

    def _plain(self, value: Any) -> Any:
        return plain_value(value, self._plain_node, self._plain_relationship)

    def _plain_node(self, node: Any) -> dict[str, Any]:
        types = {node_type.name: node_type for node_type in self._schema.node_types}
        # The type's own label; a role's label may also be the name of a type.
        ranked = sorted(node.labels, key=lambda label: (label not in types, label in ROLE_LABELS, label))
        name = ranked[0] if ranked else ""
        declared = ["id", *types[name].properties] if name in types else []
        return self._shaped(name, dict(node), declared)

    def _plain_relationship(self, edge: Any) -> dict[str, Any]:
        declared = [p for r in self._schema.relations if r.triple.name == edge.type for p in r.properties]
        return self._shaped(edge.type, dict(edge), list(dict.fromkeys(declared)))

    def _shaped(self, name: str, own: dict[str, Any], declared: list[str]) -> dict[str, Any]:
        """The declared properties in order, then what else is there; a missing declared one is None."""
        rest = {key: self._plain(own[key]) for key in sorted(own) if key not in declared}
        return {"_type": name, **{key: self._plain(own.get(key)) for key in declared}, **rest}
