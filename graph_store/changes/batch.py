"""Many changes, one after the other, as few writes: what they come to in the end, by node and edge."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from graph_store.changes.checks import Typed
from graph_store.ingest.report import total
from graph_store.schema import GraphSchema, NodeType, Relation, Triple
from graph_store.store import GraphStore, Written

_FEW = 2_000
"""Changes that are written together where the store can."""


@runtime_checkable
class WritesTogether(Protocol):
    """A store that makes one transaction of several calls."""

    def together(self) -> AbstractContextManager[None]:
        """Calls within the block that write few rows are all or nothing."""
        ...


@dataclass(slots=True)
class _End:
    """What the changes of one node or edge come to."""

    delete: bool = False
    """It goes first, with everything that it has."""
    values: dict[str, Any] | None = None
    """What it is given then; None: it stays away."""


@dataclass(slots=True)
class Batch:
    """The outcome of a sequence of changes, written in an order in which no edge waits for a node.

    Each store call is all or nothing, and a small batch without deletes is in the embedded store. Another one is not:
    where it is cut short, the same changes again write the rest.
    """

    schema: GraphSchema
    nodes: dict[str, dict[str, _End]] = field(default_factory=dict)
    edges: dict[Triple, dict[tuple[Any, ...], _End]] = field(default_factory=dict)

    @classmethod
    def of(cls, schema: GraphSchema, changes: Sequence[Typed]) -> Batch:
        """What the changes come to, each made after the one before."""
        batch = cls(schema)
        # Edges of a node, to drop what was to be written of them when the node goes.
        at: dict[tuple[str, str], list[tuple[Triple, tuple[Any, ...]]]] = {}
        for each in changes:
            declared = each.change.declared
            if isinstance(declared, NodeType):
                end = batch.nodes.setdefault(declared.name, {}).setdefault(each.key[0], _End())
                if each.change.op == "delete":
                    for triple, key in at.pop((declared.name, each.key[0]), ()):
                        batch.edges[triple][key].values = None
            else:
                triple = declared.triple
                end = batch.edges.setdefault(triple, {}).setdefault(each.key, _End())
                for place in ((triple.source, each.key[0]), (triple.target, each.key[1])):
                    at.setdefault(place, []).append((triple, each.key))
            if each.change.op == "delete":
                end.delete, end.values = True, None
            else:
                end.values = {**(end.values or {}), **each.properties}
        return batch

    def write(self, store: GraphStore) -> dict[str, Written]:
        """Edges go, then nodes go, then nodes come, then edges; counts by type and relation."""
        ends = [end for nodes in self.nodes.values() for end in nodes.values()]
        ends += [end for edges in self.edges.values() for end in edges.values()]
        # What is deleted and comes again is left to transactions of their own.
        few = len(ends) <= _FEW and not any(end.delete for end in ends)
        with store.together() if few and isinstance(store, WritesTogether) else nullcontext():
            return self._write(store)

    def _write(self, store: GraphStore) -> dict[str, Written]:
        parts: dict[str, list[Written]] = {}
        for triple, edges in self.edges.items():
            gone = [key for key, end in edges.items() if end.delete]
            if gone:
                relation = self.schema.relation(triple)
                parts.setdefault(str(triple), []).append(store.delete_edges(triple, _keys(relation, gone)))
        for name, nodes in self.nodes.items():
            gone_ids = [node_id for node_id, end in nodes.items() if end.delete]
            if gone_ids:
                parts.setdefault(name, []).append(store.delete_nodes(name, gone_ids))
        for name, nodes in self.nodes.items():
            node_type = self.schema.node_type(name)
            rows = [{"id": node_id, **end.values} for node_id, end in nodes.items() if end.values is not None]
            for table in _tables(rows, node_type.arrow_schema):
                parts.setdefault(name, []).append(store.upsert_nodes(name, table))
        for triple, edges in self.edges.items():
            relation = self.schema.relation(triple)
            rows = [
                {**dict(zip(relation.key_columns, key, strict=True)), **end.values}
                for key, end in edges.items()
                if end.values is not None
            ]
            for table in _tables(rows, relation.arrow_schema):
                parts.setdefault(str(triple), []).append(store.upsert_edges(triple, table))
        return {name: total(each) for name, each in parts.items()}


def _keys(relation: Relation, keys: Sequence[tuple[Any, ...]]) -> pa.Table:
    schema = pa.schema([relation.arrow_schema.field(name) for name in relation.key_columns])
    return pa.Table.from_pylist([dict(zip(relation.key_columns, key, strict=True)) for key in keys], schema=schema)


def _tables(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> list[pa.Table]:
    """A table for each set of columns that rows give: a column that a row does not give is to stay as it is."""
    groups: dict[frozenset[str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(frozenset(row), []).append(row)
    return [
        pa.Table.from_pylist(list(members), schema=pa.schema([field for field in schema if field.name in given]))
        for given, members in groups.items()
    ]
