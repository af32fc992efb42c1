"""What anybody changed in a store between two looks, by comparing a hash of every row.

A delete in Cypher leaves no trace, and neither store tells who wrote what; but both tell whether anything was
committed (``GraphStore.state_token``). Where it was, ids, declared properties and ends of edges are read as columns.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from graph_store.changes.row_hashes import Kind, RowHashes, by_key, corrected, differing, quoted
from graph_store.schema import GraphSchema, Triple
from graph_store.scratch_sql import scratch_sql
from graph_store.store import GraphStore

_NODES, _EDGES = ("id",), ("source", "target")


@dataclass(frozen=True, kw_only=True, slots=True)
class Watermark:
    """One state of the graph as it was seen."""

    token: str
    nodes: dict[str, RowHashes]
    edges: dict[Triple, RowHashes]


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


class Noted:
    """What is known of single rows since a watermark: whoever reads them by what the log told need not find them again.

    Kept are hashes, so that another change of the same row is found all the same.
    """

    def __init__(self) -> None:
        self.rows: dict[str | Triple, list[pa.Table]] = {}
        """Key columns and ``hash`` (null: gone), the newest last."""
        self.count = 0

    def note(self, schema: pa.Schema, what: str | Triple, keys: pa.Table, rows: pa.Table) -> None:
        """Of these keys (``id``, or ``source`` and ``target``) the store has these rows, whole, and no others."""
        names = keys.column_names
        with scratch_sql() as connection:
            hashes = by_key(connection, rows.select(schema.names), names)
            connection.register("wanted", keys)
            connection.register("hashes", hashes)
            using = ", ".join(quoted(name) for name in names)
            told = connection.sql(f"SELECT DISTINCT {using}, hash FROM wanted LEFT JOIN hashes USING ({using})")
            self.rows.setdefault(what, []).append(told.to_arrow_table())
        self.count += keys.num_rows


class Comparison:
    """Finds the changes of one store; its reads are of one state each, not of one all together.

    Where something is committed while it reads, the next look finds that again or the rest of it: never is a change
    left out, because the token is asked for before the reading begins.
    """

    def __init__(self, store: GraphStore, schema: GraphSchema) -> None:
        self._store = store
        self._schema = schema
        self.scan_s: dict[str | Triple, float] = {}
        """Seconds that reading took last, by type and relation."""

    def watermark(self) -> Watermark:
        """The present state. Raises StoreError as every scan does."""
        return self._look(None)[0]

    def changes_since(self, watermark: Watermark, noted: Noted | None = None) -> Changes:
        """What changed since that state, or since a row was ``noted``; at once where nothing was committed.

        Raises StoreError as every scan does.
        """
        started = time.perf_counter()
        if self._store.state_token() == watermark.token:
            return Changes(watermark=watermark)
        now, found = self._look(watermark, noted)
        return Changes(
            upserted_nodes=_ids(found, "upsert"),
            deleted_nodes=_ids(found, "delete"),
            upserted_edges=_pairs(found, "upsert"),
            deleted_edges=_pairs(found, "delete"),
            watermark=now,
            seconds=time.perf_counter() - started,
        )

    def _look(self, before: Watermark | None, noted: Noted | None = None) -> tuple[Watermark, _Found]:
        token = self._store.state_token()
        nodes: dict[str, RowHashes] = {}
        edges: dict[Triple, RowHashes] = {}
        found: _Found = {}
        with scratch_sql() as connection:
            for node_type in self._schema.node_types:
                name = node_type.name
                known = None if before is None else before.nodes.get(name)
                batches = self._timed(name, self._store.scan_nodes(name))
                rows = pa.Table.from_batches(list(batches), node_type.arrow_schema)
                nodes[name] = RowHashes.of(connection, rows, _NODES, known)
                found[name] = _found(connection, known, nodes[name], rows, _noted_of(noted, name))
            for relation in self._schema.relations:
                triple = relation.triple
                known = None if before is None else before.edges.get(triple)
                batches = self._timed(triple, self._store.scan_edges(triple))
                rows = pa.Table.from_batches(list(batches), relation.arrow_schema)
                edges[triple] = RowHashes.of(connection, rows, _EDGES, known)
                found[triple] = _found(connection, known, edges[triple], rows, _noted_of(noted, triple))
        return Watermark(token=token, nodes=nodes, edges=edges), found

    def _timed(self, what: str | Triple, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        started = time.perf_counter()
        yield from batches
        self.scan_s[what] = time.perf_counter() - started


_Found = dict[str | Triple, dict[Kind, pa.Table]]


def _found(
    connection: duckdb.DuckDBPyConnection,
    before: RowHashes | None,
    after: RowHashes,
    rows: pa.Table,
    noted: Sequence[pa.Table] | None,
) -> dict[Kind, pa.Table]:
    if before is None:
        return {}
    found = differing(connection, before, after)
    return corrected(connection, found, rows, after.keys.column_names, noted) if noted else found


def _noted_of(noted: Noted | None, what: str | Triple) -> Sequence[pa.Table] | None:
    return None if noted is None else noted.rows.get(what)


def _ids(found: _Found, kind: Kind) -> dict[str, list[str]]:
    return {
        what: tables[kind].column("id").to_pylist()
        for what, tables in found.items()
        if isinstance(what, str) and tables and tables[kind].num_rows
    }


def _pairs(found: _Found, kind: Kind) -> dict[Triple, list[tuple[str, str]]]:
    return {
        what: list(zip(*(tables[kind].column(name).to_pylist() for name in _EDGES), strict=True))
        for what, tables in found.items()
        if isinstance(what, Triple) and tables and tables[kind].num_rows
    }
