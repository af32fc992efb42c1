"""A store whose every label and relationship type has a prefix, so that others' data is beside it and never met.

The store beneath is opened with a schema whose names have the prefix, and so knows no others; here names go in with it
and come out without.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import pyarrow as pa

from graph_store.errors import InputError
from graph_store.neo4j.driver import Neo4jConnection
from graph_store.neo4j.store import Neo4jStore
from graph_store.published import Published, PublishedRows, Publishing, WrittenBack
from graph_store.schema import GraphSchema, NodeType, Relation, Triple
from graph_store.settings import StoreSettings
from graph_store.store import Counts, GraphStore, Neighbour, QueryResult, Written
from graph_store.written import Logged, WrittenSince


def open_neo4j(schema: GraphSchema, settings: StoreSettings, *, read_only: bool) -> GraphStore:
    """Connect to ``settings.uri``, with ``settings.label_prefix`` where there is one.

    Raises StoreUnavailable, StoreAuthError or ConfigError.
    """
    if not settings.label_prefix:
        return Neo4jStore.open(schema, settings, read_only=read_only)
    connection = Neo4jConnection(settings, read_only=read_only)
    return PrefixedStore(schema, Neo4jStore(with_prefix(schema, settings.label_prefix), connection), connection)


def with_prefix(schema: GraphSchema, prefix: str) -> GraphSchema:
    """The schema as it stands in the database: the prefix before every node type's and relation's name."""

    def node_type(declared: NodeType) -> NodeType:
        return declared.model_copy(update={"name": prefix + declared.name})

    def relation(declared: Relation) -> Relation:
        derive = declared.derive and declared.derive.model_copy(update={"via": prefix + declared.derive.via})
        return declared.model_copy(update={"triple": _prefixed(declared.triple, prefix), "derive": derive})

    return GraphSchema(
        node_types=tuple(map(node_type, schema.node_types)), relations=tuple(map(relation, schema.relations))
    )


def _prefixed(triple: Triple, prefix: str) -> Triple:
    return Triple(*(prefix + part for part in triple))


class PrefixedStore:
    """``GraphStore`` over a ``Neo4jStore`` of the schema with a prefix; queries are left as people write them."""

    def __init__(self, schema: GraphSchema, store: Neo4jStore, connection: Neo4jConnection) -> None:
        self.label_prefix = connection.label_prefix
        self._store = store
        # What stands in the database, to what kithkin.toml says.
        self._names = {self.label_prefix + declared.name: declared.name for declared in schema.node_types}
        self._names |= {self.label_prefix + relation.triple.name: relation.triple.name for relation in schema.relations}
        triples = [relation.triple for relation in schema.relations]
        self._triples = {self._stored(triple): triple for triple in triples}
        self._logged = self._names | {stored.key: triple.key for stored, triple in self._triples.items()}

        self._in_messages = re.compile(rf"\b({'|'.join(self._names)})\b")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors about rows name types as the files' owner does; those about the database name what stands there."""
        try:
            yield
        except InputError as error:
            error.message = self._in_messages.sub(lambda found: self._names[found[0]], error.message)
            raise

    def _stored(self, triple: tuple[str, str, str]) -> Triple:
        return _prefixed(Triple(*triple), self.label_prefix)

    def __enter__(self) -> PrefixedStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._store.close()

    def apply_schema(self) -> None:
        """Create the constraints that are not there and note the declared types; see ``GraphStore``."""
        self._store.apply_schema()

    def upsert_nodes(self, node_type: str, nodes: pa.Table) -> Written:
        """Create or change nodes; see ``GraphStore``."""
        with self._told():
            return self._store.upsert_nodes(self.label_prefix + node_type, nodes)

    def upsert_edges(self, triple: Triple, edges: pa.Table) -> Written:
        """Create or change edges; see ``GraphStore``."""
        with self._told():
            return self._store.upsert_edges(self._stored(triple), edges)

    def replace_edges(self, triple: Triple, edges: pa.Table) -> Written:
        """Make the relation hold exactly these edges; see ``GraphStore``."""
        with self._told():
            return self._store.replace_edges(self._stored(triple), edges)

    def delete_nodes(self, node_type: str, ids: Sequence[str]) -> Written:
        """Delete nodes with their edges; see ``GraphStore``."""
        return self._store.delete_nodes(self.label_prefix + node_type, ids)

    def delete_edges(self, triple: Triple, edges: pa.Table) -> Written:
        """Delete edges by their key columns; see ``GraphStore``."""
        return self._store.delete_edges(self._stored(triple), edges)

    def scan_nodes(self, node_type: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All nodes of a type; see ``GraphStore``."""
        return self._store.scan_nodes(self.label_prefix + node_type, columns)

    def scan_edges(self, triple: Triple, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All edges of a relation; see ``GraphStore``."""
        return self._store.scan_edges(self._stored(triple), columns)

    def neighbourhood(self, node_type: str, node_id: str, limit: int = 100) -> list[Neighbour]:
        """Edges of one node; see ``GraphStore``."""
        return [
            Neighbour(
                triple=self._triples[each.triple],
                direction=each.direction,
                node_type=self._names[each.node_type],
                node_id=each.node_id,
                properties=each.properties,
            )
            for each in self._store.neighbourhood(self.label_prefix + node_type, node_id, limit)
        ]

    def find_nodes(self, node_type: str, display: str, limit: int = 10) -> list[str]:
        """Ids of the nodes called so; see ``GraphStore``."""
        return self._store.find_nodes(self.label_prefix + node_type, display, limit)

    def query(
        self, cypher: str, parameters: Mapping[str, Any] | None = None, *, limit: int = 1000, write: bool = False
    ) -> QueryResult:
        """Run one Cypher statement, in which names stand with the prefix; ``_type`` in its answer is without."""
        result = self._store.query(cypher, parameters, limit=limit, write=write)
        rows = tuple(tuple(self._without_prefix(value) for value in row) for row in result.rows)
        return QueryResult(columns=result.columns, rows=rows, truncated=result.truncated)

    def _without_prefix(self, value: Any) -> Any:
        if isinstance(value, dict):
            # Others' nodes keep their label, also where a type of ours is called so: a colon tells them apart.
            type_ = value.get("_type")
            named = {key: self._without_prefix(item) for key, item in value.items()}
            if isinstance(type_, str):
                named["_type"] = self._names.get(type_, f":{type_}" if type_ in self._names.values() else type_)
            return named
        return [self._without_prefix(item) for item in value] if isinstance(value, list) else value

    def counts(self) -> Counts:
        """Nodes by type and edges by relation; see ``GraphStore``."""
        counts = self._store.counts()
        return Counts(
            nodes={self._names[name]: count for name, count in counts.nodes.items()},
            edges={self._triples[triple]: count for triple, count in counts.edges.items()},
        )

    def write_back(self, publishing: Publishing, rows: PublishedRows) -> WrittenBack:
        """Replace what was written back, in parts; see ``GraphStore``."""
        return self._store.write_back(publishing, rows)

    def written_back(self) -> tuple[Published, ...]:
        """What was written back; see ``GraphStore``."""
        return self._store.written_back()

    def remove_written_back(self, keep: str | None = None) -> None:
        """Remove what was written back; see ``GraphStore``."""
        self._store.remove_written_back(keep)

    def state_token(self) -> str:
        """Moves with every commit, of others too; see ``GraphStore``."""
        return self._store.state_token()

    def log_position(self) -> str:
        """The number of writes; see ``GraphStore``."""
        return self._store.log_position()

    def written_since(self, position: str) -> WrittenSince | None:
        """What the log on the node of the schema tells; see ``GraphStore``."""
        told = self._store.written_since(position)
        if told is None:
            return None
        changes = tuple(
            Logged(what=self._logged.get(each.what, each.what), op=each.op, keys=each.keys) for each in told.changes
        )
        return WrittenSince(changes=changes, watermark=told.watermark, complete=told.complete, others=told.others)
