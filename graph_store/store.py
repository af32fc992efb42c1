"""The seam to whatever holds the graph: one contract, two implementations.

``graph_store.stores.open_store`` chooses by ``store.uri``; the contract is tested on both in ``tests/contract``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pyarrow as pa

from graph_store.published import Published, PublishedRows, Publishing, WrittenBack
from graph_store.schema import Triple
from graph_store.written import WrittenSince


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """What an upsert or a delete did, in rows."""

    created: int = 0
    changed: int = 0
    unchanged: int = 0
    deleted: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How much the graph holds."""

    nodes: dict[str, int] = field(default_factory=dict)
    """Nodes by type."""
    edges: dict[Triple, int] = field(default_factory=dict)
    """Edges by relation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QueryResult:
    """Rows of a Cypher query, as plain Python values (nodes and relationships as dicts)."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool = False
    """True where the row limit cut the result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbour:
    """One edge of a node's neighbourhood, seen from that node."""

    triple: Triple
    direction: Literal["out", "in"]
    node_type: str
    node_id: str
    properties: dict[str, Any]
    """The edge's declared properties."""


class GraphStore(Protocol, AbstractContextManager["GraphStore"]):
    """A graph of the declared schema.

    Node tables have the columns of ``NodeType.arrow_schema``, edge tables those of ``Relation.arrow_schema``. A missing
    value is null. All methods raise ``StoreUnavailable`` when the store is away; a write raises ``StoreLocked`` when
    another process writes.
    """

    @property
    def label_prefix(self) -> str:
        """Stands before every type's and relation's name in the store's own Cypher (``store.label_prefix``)."""
        ...

    def apply_schema(self) -> None:
        """Create what the declared schema needs (tables, constraints, indexes); twice changes nothing.

        A declared property that the store lacks is added. Raises StoreConflict where what is there does not fit (a
        property of another type).
        """
        ...

    def upsert_nodes(self, node_type: str, nodes: pa.Table) -> Written:
        """Create the nodes that are not there, change those that differ in a declared property.

        The last of several rows with one id wins. Columns that the table does not have are left as they are. All or
        nothing per call; Neo4j commits very large calls in parts (docs/graph_store.md), and the same call again
        writes the rest.
        """
        ...

    def upsert_edges(self, triple: Triple, edges: pa.Table) -> Written:
        """Create or change edges, identified by ``Relation.key_columns``; all or nothing as for nodes.

        Raises InputError where an end is not in the store.
        """
        ...

    def replace_edges(self, triple: Triple, edges: pa.Table) -> Written:
        """Make the relation hold exactly these edges: upsert them, delete the others (derived relations)."""
        ...

    def delete_nodes(self, node_type: str, ids: Sequence[str]) -> Written:
        """Delete nodes with their edges; ids that are not there are passed over."""
        ...

    def delete_edges(self, triple: Triple, edges: pa.Table) -> Written:
        """Delete the edges with these key columns; those that are not there are passed over."""
        ...

    def scan_nodes(self, node_type: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All nodes of a type as record batches, in no promised order; ``columns`` beside ``id``, default all."""
        ...

    def scan_edges(self, triple: Triple, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """All edges of a relation as record batches, in no promised order; ``columns`` beside source and target."""
        ...

    def neighbourhood(self, node_type: str, node_id: str, limit: int = 100) -> list[Neighbour]:
        """Edges of one node in both directions, at most ``limit`` per relation, the heaviest first, ties by id."""
        ...

    def find_nodes(self, node_type: str, display: str, limit: int = 10) -> list[str]:
        """Ids of the nodes whose display property equals the text; else, without regard to case, contains it."""
        ...

    def query(
        self, cypher: str, parameters: Mapping[str, Any] | None = None, *, limit: int = 1000, write: bool = False
    ) -> QueryResult:
        """Run one Cypher statement. Raises QueryError, also for a statement that writes when ``write`` is false."""
        ...

    def counts(self) -> Counts:
        """Nodes by type and edges by relation."""
        ...

    def state_token(self) -> str:
        """A word that changes when something was committed to the store, by anyone, and only then."""
        ...

    def log_position(self) -> str:
        """Where the store's own log of writes stands, for ``written_since``."""
        ...

    def written_since(self, position: str) -> WrittenSince | None:
        """What was written through this program since then; None where the log does not tell (any more).

        Statements of ``query`` are not in the log, nor what other programs write.
        """
        ...

    def write_back(self, publishing: Publishing, rows: PublishedRows) -> WrittenBack:
        """Replace all that was written back by this publishing; none of it is part of the declared graph.

        A reader of the embedded store sees the old one or the new one; in Neo4j, which one is whole
        (docs/write_back.md). Ended in the middle, the same call again completes it. Raises ConfigError where a name is
        declared for something else, StoreConflict where edges of that name are there that were not written back.
        """
        ...

    def written_back(self) -> tuple[Published, ...]:
        """What was written back, the whole one first; others were being written or removed when a process ended."""
        ...

    def remove_written_back(self, keep: str | None = None) -> None:
        """Remove what was written back but for the whole publishing of the bundle ``keep``; twice does no harm."""
        ...

    def close(self) -> None:
        """Release the connection or the lock; twice does no harm."""
        ...
