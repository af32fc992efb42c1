"""A graph store in memory: the part of the contract that ingest and co-engagement use, as plain dictionaries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from graph_store.schema import GraphSchema, Triple
from graph_store.store import Counts, Written

Rows = dict[tuple[Any, ...], dict[str, Any]]


class MemoryStore:
    """Nodes and edges as dictionaries by key; ``writes`` counts every call that changes or could change something."""

    def __init__(self, schema: GraphSchema) -> None:
        self.schema = schema
        self.applied = False
        self.writes = 0
        self.nodes: dict[str, Rows] = {node_type.name: {} for node_type in schema.node_types}
        self.edges: dict[Triple, Rows] = {relation.triple: {} for relation in schema.relations}

    def apply_schema(self) -> None:
        self.applied = True

    def upsert_nodes(self, node_type: str, nodes: pa.Table) -> Written:
        declared = self.schema.node_type(node_type).arrow_schema
        assert nodes.schema == pa.schema([declared.field(name) for name in nodes.column_names])
        return self._upsert(self.nodes[node_type], nodes, ("id",))

    def upsert_edges(self, triple: Triple, edges: pa.Table) -> Written:
        relation = self.schema.relation(triple)
        assert edges.schema == pa.schema([relation.arrow_schema.field(name) for name in edges.column_names])
        for row in edges.select(["source", "target"]).to_pylist():
            assert (row["source"],) in self.nodes[triple.source], row
            assert (row["target"],) in self.nodes[triple.target], row
        return self._upsert(self.edges[triple], edges, relation.key_columns)

    def replace_edges(self, triple: Triple, edges: pa.Table) -> Written:
        before = self.edges[triple]
        self.edges[triple] = {}
        self._upsert(self.edges[triple], edges, self.schema.relation(triple).key_columns)
        after = self.edges[triple]
        same = sum(before.get(key) == row for key, row in after.items())
        created = sum(key not in before for key in after)
        return Written(
            created=created,
            changed=len(after) - created - same,
            unchanged=same,
            deleted=sum(key not in after for key in before),
        )

    def scan_nodes(self, node_type: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        yield from _batches(self.nodes[node_type], self.schema.node_type(node_type).arrow_schema, ("id",), columns)

    def scan_edges(self, triple: Triple, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        schema = self.schema.relation(triple).arrow_schema
        yield from _batches(self.edges[triple], schema, ("source", "target"), columns)

    def counts(self) -> Counts:
        return Counts(
            nodes={name: len(rows) for name, rows in self.nodes.items()},
            edges={triple: len(rows) for triple, rows in self.edges.items()},
        )

    def _upsert(self, held: Rows, table: pa.Table, keys: Sequence[str]) -> Written:
        self.writes += 1
        created = changed = unchanged = 0
        for row in table.to_pylist():
            key = tuple(row[name] for name in keys)
            if key not in held:
                created += 1
                held[key] = row
            elif all(held[key].get(name) == value for name, value in row.items()):
                unchanged += 1
            else:
                changed += 1
                held[key] = held[key] | row
        return Written(created=created, changed=changed, unchanged=unchanged)


def _batches(
    rows: Rows, schema: pa.Schema, keys: tuple[str, ...], columns: Sequence[str] | None
) -> Iterator[pa.RecordBatch]:
    names = schema.names if columns is None else [*keys, *columns]
    picked = pa.schema([schema.field(name) for name in names])
    table = pa.Table.from_pylist([{name: row.get(name) for name in names} for row in rows.values()], schema=picked)
    yield from table.to_batches(max_chunksize=1000)
