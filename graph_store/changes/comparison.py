"""What anybody changed in a store between two looks, by comparing a hash of every row.

A delete in Cypher leaves no trace, and neither store tells who wrote what; but both tell whether anything was
committed (``GraphStore.state_token``). Where it was, ids, declared properties and ends of edges are read as columns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import duckdb
import pyarrow as pa

from graph_store.schema import GraphSchema, Triple
from graph_store.store import GraphStore

_NODES, _EDGES = ("id",), ("source", "target")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """What was seen of one node type or relation; about 40 bytes a row."""

    hashes: pa.Table
    """Key columns, then ``hash``; one row a node, one a pair of ends however many edges join it."""
    checksum: tuple[int, ...]
    """The same for the same rows in any order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Watermark:
    """One state of the graph as it was seen."""

    token: str
    nodes: dict[str, _Rows]
    edges: dict[Triple, _Rows]


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What differs between two states; edges as pairs of ends, whatever their times and kinds."""

    upserted_nodes: dict[str, list[str]] = field(default_factory=dict)
    """Ids by type, of nodes that are new or have another value of a declared property."""
    deleted_nodes: dict[str, list[str]] = field(default_factory=dict)
    upserted_edges: dict[Triple, list[tuple[str, str]]] = field(default_factory=dict)
    """Source and target of edges that are new or differ (also: one of several events between them is gone)."""
    deleted_edges: dict[Triple, list[tuple[str, str]]] = field(default_factory=dict)
    """Source and target that no edge joins any more, also because one of them went."""
    watermark: Watermark
    """The newer state."""
    seconds: float = 0.0
    """What reading and comparing took."""

    @property
    def empty(self) -> bool:
        return not (self.upserted_nodes or self.deleted_nodes or self.upserted_edges or self.deleted_edges)


class Comparison:
    """Finds the changes of one store; its reads are of one state each, not of one all together.

    Where something is committed while it reads, the next look finds that again or the rest of it: never is a change
    left out, because the token is asked for before the reading begins.
    """

    def __init__(self, store: GraphStore, schema: GraphSchema) -> None:
        self._store = store
        self._schema = schema

    def watermark(self) -> Watermark:
        """The present state. Raises StoreError as every scan does."""
        return self._look(None)[0]

    def changes_since(self, watermark: Watermark) -> Changes:
        """What changed since that state; at once where nothing was committed. Raises StoreError as every scan does."""
        started = time.perf_counter()
        if self._store.state_token() == watermark.token:
            return Changes(watermark=watermark)
        now, found = self._look(watermark)
        return Changes(
            upserted_nodes=_ids(found, "upsert"),
            deleted_nodes=_ids(found, "delete"),
            upserted_edges=_pairs(found, "upsert"),
            deleted_edges=_pairs(found, "delete"),
            watermark=now,
            seconds=time.perf_counter() - started,
        )

    def _look(self, before: Watermark | None) -> tuple[Watermark, _Found]:
        token = self._store.state_token()
        nodes: dict[str, _Rows] = {}
        edges: dict[Triple, _Rows] = {}
        found: _Found = {}
        with duckdb.connect() as connection:
            for node_type in self._schema.node_types:
                name = node_type.name
                known = None if before is None else before.nodes.get(name)
                batches = self._store.scan_nodes(name)
                nodes[name] = _seen(connection, batches, node_type.arrow_schema, _NODES, known)
                found[name] = _differing(connection, known, nodes[name], _NODES)
            for relation in self._schema.relations:
                triple = relation.triple
                known = None if before is None else before.edges.get(triple)
                batches = self._store.scan_edges(triple)
                edges[triple] = _seen(connection, batches, relation.arrow_schema, _EDGES, known)
                found[triple] = _differing(connection, known, edges[triple], _EDGES)
        return Watermark(token=token, nodes=nodes, edges=edges), found


_Kind = Literal["upsert", "delete"]
_Found = dict[str | Triple, dict[_Kind, pa.Table]]


def _seen(
    connection: duckdb.DuckDBPyConnection,
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    keys: Sequence[str],
    known: _Rows | None,
) -> _Rows:
    """Hash the rows; where they are those that are known, the known ones (and no second copy of them)."""
    rows = pa.Table.from_batches(list(batches), schema)
    connection.register("scanned", rows)
    columns = ", ".join(_quoted(name) for name in schema.names)
    checksum = connection.sql(
        f"SELECT count(*), coalesce(bit_xor(h), 0), coalesce(sum(h), 0)::VARCHAR FROM "
        f"(SELECT hash({columns}) AS h FROM scanned)"
    ).fetchall()[0]
    checksum = tuple(map(int, checksum))
    if known is not None and known.checksum == checksum:
        return known
    keyed = ", ".join(_quoted(name) for name in keys)
    # One row a pair: exclusive or alone would not see an edge that is there twice.
    hashes = connection.sql(
        f"SELECT {keyed}, CASE WHEN count(*) = 1 THEN any_value(h) ELSE hash(bit_xor(h), count(*)) END AS hash "
        f"FROM (SELECT {keyed}, hash({columns}) AS h FROM scanned) GROUP BY {keyed}"
    ).to_arrow_table()
    connection.unregister("scanned")
    return _Rows(hashes=hashes, checksum=checksum)


def _differing(
    connection: duckdb.DuckDBPyConnection, before: _Rows | None, after: _Rows, keys: Sequence[str]
) -> dict[_Kind, pa.Table]:
    if before is None or before is after:
        return {}
    connection.register("older", before.hashes)
    connection.register("newer", after.hashes)
    using = ", ".join(_quoted(name) for name in keys)
    upserted = connection.sql(
        f"SELECT {using} FROM (FROM newer ANTI JOIN older USING ({using}, hash)) ORDER BY ALL"
    ).to_arrow_table()
    deleted = connection.sql(
        f"SELECT {using} FROM (FROM older ANTI JOIN newer USING ({using})) ORDER BY ALL"
    ).to_arrow_table()
    connection.unregister("older")
    connection.unregister("newer")
    return {"upsert": upserted, "delete": deleted}


def _ids(found: _Found, kind: _Kind) -> dict[str, list[str]]:
    return {
        what: tables[kind].column("id").to_pylist()
        for what, tables in found.items()
        if isinstance(what, str) and tables and tables[kind].num_rows
    }


def _pairs(found: _Found, kind: _Kind) -> dict[Triple, list[tuple[str, str]]]:
    return {
        what: list(zip(*(tables[kind].column(name).to_pylist() for name in _EDGES), strict=True))
        for what, tables in found.items()
        if isinstance(what, Triple) and tables and tables[kind].num_rows
    }


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
