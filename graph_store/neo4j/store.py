"""``Neo4jStore``: the graph in a Neo4j server (5 or newer), where its own tools see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import neo4j
import pyarrow as pa

from graph_store.errors import InputError
from graph_store.neighbours import Found, heaviest_first
from graph_store.neo4j import columns as columnar
from graph_store.neo4j.driver import Neo4jConnection, NothingToWrite, plain_value
from graph_store.neo4j.schema import (
    ROLE_LABELS,
    apply_schema,
    labels,
    lock_writers,
    note_written,
    writes,
    written_since,
)
from graph_store.neo4j.statements import ROWS_AT_ONCE, Run, Running, counted, matched_edge, run_in_parts, type_of
from graph_store.rows import difference, edge_rows, node_rows, not_in, present_in
from graph_store.schema import GraphSchema, NodeType, PropertyType, Relation, Triple
from graph_store.settings import StoreSettings
from graph_store.store import Counts, Neighbour, QueryResult, Written
from graph_store.written import WrittenSince, logged

_ROWS_PER_TRANSACTION = 100_000
"""More than these are written in several transactions: a commit of Neo4j takes 1.5 KB of memory a row (measured)."""


class Neo4jStore:
    """GraphStore on a Neo4j database.

    A call that writes up to 100,000 rows is one transaction. A larger one is checked as a whole first and then
    committed in parts; where the server fails in the middle, the same call again writes the rest.
    """

    def __init__(self, schema: GraphSchema, connection: Neo4jConnection) -> None:
        self._schema = schema
        self._connection = connection

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
        apply_schema(self._connection, self._schema)

    # ------------------------------------------------------------------ writing

    def upsert_nodes(self, node_type: str, nodes: pa.Table) -> Written:
        """Create or change nodes; see ``GraphStore``."""
        declared = self._schema.node_type(node_type)
        rows = node_rows(declared, nodes)
        properties = [name for name in rows.column_names if name != "id"]
        values = {name: columnar.value(index, type_of(declared, name)) for index, name in enumerate(rows.column_names)}
        assignments = ", ".join(f"n.`{name}` = {values[name]}" for name in properties)
        new = f"CREATE (n{labels(self._schema, node_type)} {{id: {values['id']}}})"
        changed = f"MATCH (n:`{node_type}` {{id: {values['id']}}})"
        if properties:
            new, changed = f"{new} SET {assignments}", f"{changed} SET {assignments}"

        def work(transaction: neo4j.ManagedTransaction) -> Written:
            lock_writers(transaction)
            diff = difference(rows, self._nodes_there(transaction, declared, rows, properties), ["id"])
            written = Written(created=diff.new.num_rows, changed=diff.changed.num_rows, unchanged=diff.unchanged)
            if not (written.created or written.changed):
                raise NothingToWrite(written)
            run = self._runner(transaction, written)
            run_in_parts(run, new, diff.new)
            run_in_parts(run, changed, diff.changed)
            note_written(transaction, logged(node_type, "upsert", diff.new, diff.changed))
            return written

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
        source, name, target = relation.triple
        values = {p: columnar.value(rows.column_names.index(p), relation.properties[p].type) for p in properties}
        number = {column: f"$c{index}[i]" for index, column in enumerate(rows.column_names)}
        new = (
            f"MATCH (a:`{source}` {{id: {number['source']}}}) MATCH (b:`{target}` {{id: {number['target']}}}) "
            f"CREATE (a)-[r:`{name}`]->(b)"
        )
        if properties:
            new += " SET " + ", ".join(f"r.`{p}` = {values[p]}" for p in properties)
        assignments = ", ".join(f"r.`{p}` = {values[p]}" for p in properties if p not in keys)

        def work(transaction: neo4j.ManagedTransaction) -> Written:
            lock_writers(transaction)
            self._check_ends(transaction, relation, rows)
            wanted = list(keys[2:]) + [p for p in properties if p not in keys]
            sources = None if replace else rows.column("source").unique().to_pylist()
            there = self._edges_there(transaction, relation, sources, wanted)
            diff = difference(rows, there, keys)
            gone = not_in(there.select(list(keys)), rows, keys) if replace else there.slice(0, 0)
            written = Written(
                created=diff.new.num_rows,
                changed=diff.changed.num_rows,
                unchanged=diff.unchanged,
                deleted=gone.num_rows,
            )
            if not (written.created or written.changed or written.deleted):
                raise NothingToWrite(written)
            run = self._runner(transaction, written)
            run_in_parts(run, f"{matched_edge(relation, gone.column_names)} DELETE r", gone)
            run_in_parts(run, f"{matched_edge(relation, rows.column_names)} SET {assignments}", diff.changed)
            run_in_parts(run, new, diff.new)
            what = relation.triple.key
            note_written(transaction, logged(what, "delete", gone) + logged(what, "upsert", diff.new, diff.changed))
            return written

        return self._connection.write(work)

    def delete_nodes(self, node_type: str, ids: Sequence[str]) -> Written:
        """Delete nodes with their edges; see ``GraphStore``."""
        declared = self._schema.node_type(node_type)
        rows = node_rows(declared, pa.table({"id": pa.array(list(ids), pa.string())}))

        def work(transaction: neo4j.ManagedTransaction) -> Written:
            lock_writers(transaction)
            there = present_in(self._nodes_there(transaction, declared, rows, []), rows, ["id"])
            if not there.num_rows:
                raise NothingToWrite(Written())
            written = Written(deleted=there.num_rows)
            delete = f"MATCH (n:`{node_type}` {{id: $c0[i]}}) DETACH DELETE n"
            run_in_parts(self._runner(transaction, written), delete, there)
            note_written(transaction, logged(node_type, "delete", there))
            return written

        return self._connection.write(work)

    def delete_edges(self, triple: Triple, edges: pa.Table) -> Written:
        """Delete edges by their key columns; see ``GraphStore``."""
        relation = self._schema.relation(triple)
        keys = relation.key_columns
        rows = edge_rows(relation, edges.select([name for name in edges.column_names if name in keys]))

        def work(transaction: neo4j.ManagedTransaction) -> Written:
            lock_writers(transaction)
            sources = rows.column("source").unique().to_pylist()
            there = present_in(self._edges_there(transaction, relation, sources, list(keys[2:])), rows, keys)
            if not there.num_rows:
                raise NothingToWrite(Written())
            written = Written(deleted=there.num_rows)
            delete = f"{matched_edge(relation, there.column_names)} DELETE r"
            run_in_parts(self._runner(transaction, written), delete, there)
            note_written(transaction, logged(triple.key, "delete", there))
            return written

        return self._connection.write(work)

    def _runner(self, transaction: neo4j.ManagedTransaction, written: Written) -> Run:
        """Runs within the transaction; of a large write each part in its own, while this one keeps writers out."""
        if written.created + written.changed + written.deleted > _ROWS_PER_TRANSACTION:
            return self._connection.run_apart
        return lambda statement, parameters: transaction.run(statement, parameters).consume()

    def _check_ends(self, transaction: Running, relation: Relation, rows: pa.Table) -> None:
        for column, node_type in (("source", relation.triple.source), ("target", relation.triple.target)):
            declared = self._schema.node_type(node_type)
            ids = pa.table({"id": rows.column(column).unique()})
            unknown = not_in(ids, self._nodes_there(transaction, declared, ids, []), ["id"])
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
        with self._connection.reading() as transaction:
            yield from self._nodes(transaction, declared, wanted)

    def _nodes(self, transaction: Running, declared: NodeType, properties: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Page by page in the order of the index on ``id``, so that neither side holds them all."""
        fields = ["id", *properties]
        schema = pa.schema([declared.arrow_schema.field(name) for name in fields])
        returned = columnar.collected([(f"n.`{name}`", type_of(declared, name)) for name in fields], ids=1)
        last: str | None = None
        while True:
            after = "n.id IS NOT NULL" if last is None else "n.id > $last"
            page = f"MATCH (n:`{declared.name}`) WHERE {after} WITH n ORDER BY n.id LIMIT {ROWS_AT_ONCE}"
            record = transaction.run(f"{page} {returned}", last=last).single(strict=True)
            batch = columnar.batch(record.data(), schema)
            if batch.num_rows:
                yield batch
            if batch.num_rows < ROWS_AT_ONCE:
                return
            last = batch.column(0)[-1].as_py()

    def scan_edges(self, triple: Triple, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All edges of a relation; see ``GraphStore``."""
        relation = self._schema.relation(triple)
        wanted = list(relation.properties) if columns is None else list(columns)
        wanted = [name for name in wanted if name not in ("source", "target")]
        with self._connection.reading() as transaction:
            yield from self._edges(transaction, relation, None, wanted)

    def _nodes_there(
        self, transaction: Running, declared: NodeType, rows: pa.Table, properties: Sequence[str]
    ) -> pa.Table:
        """The nodes of these ids as they are in the store."""
        fields = ["id", *properties]
        schema = pa.schema([declared.arrow_schema.field(name) for name in fields])
        count = counted(transaction, f"MATCH (n:`{declared.name}`)")
        if count == 0:
            return schema.empty_table()
        if rows.num_rows * 4 >= count:
            return pa.Table.from_batches(self._nodes(transaction, declared, properties), schema)
        returned = columnar.collected([(f"n.`{name}`", type_of(declared, name)) for name in fields], ids=1)
        statement = f"UNWIND $ids AS id MATCH (n:`{declared.name}` {{id: id}}) {returned}"
        ids = rows.column("id").to_pylist()
        batches = [
            columnar.batch(transaction.run(statement, ids=ids[i : i + ROWS_AT_ONCE]).single(strict=True).data(), schema)
            for i in range(0, len(ids), ROWS_AT_ONCE)
        ]
        return pa.Table.from_batches(batches, schema)

    def _edges_there(
        self, transaction: Running, relation: Relation, sources: Sequence[str] | None, properties: Sequence[str]
    ) -> pa.Table:
        schema = pa.schema([relation.arrow_schema.field(name) for name in ("source", "target", *properties)])
        return pa.Table.from_batches(self._edges(transaction, relation, sources, properties), schema)

    def _edges(
        self, transaction: Running, relation: Relation, sources: Sequence[str] | None, properties: Sequence[str]
    ) -> Iterator[pa.RecordBatch]:
        """The edges of these sources (None: of all), so many sources a page that a page has about the wanted rows."""
        source, name, target = relation.triple
        schema = pa.schema([relation.arrow_schema.field(field) for field in ("source", "target", *properties)])
        edges = counted(transaction, f"MATCH ()-[r:`{name}`]->()")
        if edges == 0:
            return
        nodes = counted(transaction, f"MATCH (n:`{source}`)")
        if sources is None:
            declared = self._schema.node_type(source)
            sources = [id_ for page in self._nodes(transaction, declared, []) for id_ in page.column(0).to_pylist()]
        expressions = [("id", PropertyType.STRING), ("b.id", PropertyType.STRING)]
        expressions += [(f"r.`{p}`", relation.properties[p].type) for p in properties]
        statement = (
            f"UNWIND $ids AS id MATCH (a:`{source}` {{id: id}})-[r:`{name}`]->(b:`{target}`) WHERE b.id IS NOT NULL "
            f"{columnar.collected(expressions, ids=2)}"
        )
        page = max(1, min(ROWS_AT_ONCE, ROWS_AT_ONCE * nodes // edges))
        for start in range(0, len(sources), page):
            record = transaction.run(statement, ids=sources[start : start + page]).single(strict=True)
            batch = columnar.batch(record.data(), schema)
            if batch.num_rows:
                yield batch

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

    def state_token(self) -> str:
        """Moves with every commit; see ``GraphStore``."""
        return self._connection.token()

    def log_position(self) -> str:
        """The number of writes; see ``GraphStore``."""
        return str(self._connection.read(writes))

    def written_since(self, position: str) -> WrittenSince | None:
        """What the log on the node of the schema tells; see ``GraphStore``."""
        return self._connection.read(lambda transaction: written_since(transaction, int(position)))

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
