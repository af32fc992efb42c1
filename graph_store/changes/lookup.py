"""Some nodes and edges of a store, found by id: asked for by Cypher, or filtered out of a scan, whichever is quicker.

The embedded store scans a million edges in the time that it takes to look ten thousand up; Neo4j takes longer to scan
them than to look up any part. So both are timed, and a look-up goes the way that took less before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc

from graph_store.errors import StoreUnavailable
from graph_store.schema import GraphSchema, NodeType, Relation, Triple
from graph_store.store import GraphStore

_EVERY = 1_000_000_000
_FIRST_ASKED_S, _FIRST_FOUND_S = 0.000_3, 0.000_1
"""What looking one node up takes, by Cypher or by ``FindsEdges``, before it was timed."""
_IN_VAIN_S = 60.0
"""What a scan counts as that ended because somebody wrote meanwhile."""
_TELLING = 100
"""Nodes from which on a look-up is timed."""
_FEW = 500
"""Nodes that are asked for where no scan was timed yet."""


@runtime_checkable
class FindsEdges(Protocol):
    """A store that finds the edges of some nodes more quickly than by Cypher that both stores understand."""

    def edges_of(self, triple: Triple, columns: Sequence[str], end: str, ids: pa.Array) -> pa.Table:
        """The edges whose ``end`` (source or target) has one of these ids; ``columns`` beside the ends."""
        ...


class Lookup:
    """Finds nodes and edges by id. Where no store fits (a type that it does not hold yet), nothing is found."""

    def __init__(self, schema: GraphSchema) -> None:
        self._schema = schema
        self.scan_s: dict[str | Triple, float] = {}
        """Seconds of the last whole scan, by type and relation."""
        self._asked_s: dict[tuple[str | Triple, str], float] = {}
        """Seconds of looking up one id, by type and relation, and end."""

    def nodes(self, store: GraphStore, node_type: str, ids: pa.Array) -> pa.Table:
        """Those nodes of a type that the store has, with all declared properties. Raises StoreError as every scan."""
        declared = self._schema.node_type(node_type)
        if self._asks(node_type, "id", len(ids)):
            started = time.perf_counter()
            found = _asked_nodes(store, declared, ids)
            self._time(node_type, "id", len(ids), started)
            return found
        try:
            table = self._scanned(node_type, store.scan_nodes(node_type), declared.arrow_schema)
        except StoreUnavailable:
            # Written to while it was read in parts, or away: then this fails as well.
            return _asked_nodes(store, declared, ids)
        return table.filter(pc.is_in(table.column("id"), value_set=ids))

    def edges(
        self, store: GraphStore, triple: Triple, columns: Sequence[str], *, sources: pa.Array, targets: pa.Array
    ) -> tuple[pa.Table, pa.Table]:
        """The edges that leave ``sources`` and those that reach ``targets``; ``columns`` beside their ends.

        Raises StoreError as every scan does.
        """
        relation = self._schema.relation(triple)
        first_s = _FIRST_FOUND_S if isinstance(store, FindsEdges) else _FIRST_ASKED_S
        asked_s = self._asked_for(triple, "source", len(sources), first_s)
        asked_s += self._asked_for(triple, "target", len(targets), first_s)
        if asked_s > self.scan_s.get(triple, _FEW * _FIRST_ASKED_S):
            schema = pa.schema([relation.arrow_schema.field(name) for name in ("source", "target", *columns)])
            # What is written to while it is read in parts cannot be scanned.
            with suppress(StoreUnavailable):
                table = self._scanned(triple, store.scan_edges(triple, list(columns)), schema)
                return (
                    table.filter(pc.is_in(table.column("source"), value_set=sources)),
                    table.filter(pc.is_in(table.column("target"), value_set=targets)),
                )
        return (
            self._asked_edges(store, relation, columns, "source", sources),
            self._asked_edges(store, relation, columns, "target", targets),
        )

    def _scanned(self, what: str | Triple, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
        started = time.perf_counter()
        try:
            table = pa.Table.from_batches([batch.select(schema.names) for batch in batches], schema)
        except StoreUnavailable:
            self.scan_s[what] = _IN_VAIN_S
            raise
        self.scan_s[what] = time.perf_counter() - started
        for key in self._asked_s:
            # Asked again after some scans: what took long may have been the moment.
            self._asked_s[key] *= 0.9
        return table

    def _asks(self, what: str | Triple, end: str, count: int) -> bool:
        return self._asked_for(what, end, count) <= self.scan_s.get(what, _FEW * _FIRST_ASKED_S)

    def _asked_for(self, what: str | Triple, end: str, count: int, first_s: float = _FIRST_ASKED_S) -> float:
        return count * self._asked_s.get((what, end), first_s)

    def _time(self, what: str | Triple, end: str, count: int, started: float) -> None:
        # Of a few, the statement's own time would be counted as theirs.
        if count >= _TELLING:
            took = (time.perf_counter() - started) / count
            self._asked_s[what, end] = (self._asked_s.get((what, end), took) + took) / 2

    def _asked_edges(
        self, store: GraphStore, relation: Relation, columns: Sequence[str], end: str, ids: pa.Array
    ) -> pa.Table:
        names = ["source", "target", *columns]
        schema = pa.schema([relation.arrow_schema.field(name) for name in names])
        if not len(ids):
            return schema.empty_table()
        started = time.perf_counter()
        triple = relation.triple
        if isinstance(store, FindsEdges):
            table = store.edges_of(triple, columns, end, ids).select(names)
            self._time(triple, end, len(ids), started)
            return table
        seek, other = ("a", "b") if end == "source" else ("b", "a")
        types = {"a": store.label_prefix + triple.source, "b": store.label_prefix + triple.target}
        name = _quoted(store.label_prefix + triple.name)
        # The end that is known comes first, so that it is looked up and the edges followed from there.
        arrow = f"-[r:{name}]->" if seek == "a" else f"<-[r:{name}]-"
        pattern = f"({seek}:{_quoted(types[seek])} {{id: id}}){arrow}({other}:{_quoted(types[other])})"
        start = f"UNWIND $ids AS id MATCH {pattern} WHERE {other}.id IS NOT NULL RETURN id"
        if columns:
            found = _columns(store, f"{start}, {other}.id{_listed('r', columns)}", ids.to_pylist(), 2 + len(columns))
            own, others, *rest = found
        else:
            # One row a node and not one an edge: four times as quick.
            ends, lists = _columns(store, f"{start}, collect({other}.id)", ids.to_pylist(), 2)
            own = [node_id for node_id, each in zip(ends, lists, strict=True) for _ in each]
            others, rest = [node_id for each in lists for node_id in each], []
        both = [own, others] if end == "source" else [others, own]
        self._time(triple, end, len(ids), started)
        return pa.table(
            [pa.array(each, field.type) for each, field in zip([*both, *rest], schema, strict=True)], schema=schema
        )


def _asked_nodes(store: GraphStore, declared: NodeType, ids: pa.Array) -> pa.Table:
    schema = declared.arrow_schema
    names = [name for name in schema.names if name != "id"]
    label = _quoted(store.label_prefix + declared.name)
    statement = f"UNWIND $ids AS id MATCH (n:{label} {{id: id}}) RETURN n.id{_listed('n', names)}"
    found = dict(zip(["id", *names], _columns(store, statement, ids.to_pylist(), 1 + len(names)), strict=True))
    return pa.table([pa.array(found[field.name], field.type) for field in schema], schema=schema)


def _columns(store: GraphStore, statement: str, ids: list[str], width: int) -> list[list[Any]]:
    rows = store.query(statement, {"ids": ids}, limit=_EVERY).rows if ids else ()
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _listed(variable: str, names: Sequence[str]) -> str:
    return "".join(f", {variable}.{_quoted(name)}" for name in names)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
