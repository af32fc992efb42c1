"""All nodes of a type and all edges of a relation, read in parts: Ladybug holds the whole answer of a statement in its
buffer pool, and joins an edge's far end to all edges there.

Parts are ranges of Ladybug's own numbers of nodes (``offset(id(n))``), which a filter compares before it reads columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph_store.embedded.database import EmbeddedDatabase, quoted
from graph_store.errors import StoreUnavailable
from graph_store.schema import NodeType, Relation

_NODES_AT_ONCE = 1 << 17
_EDGES_AT_ONCE = 1 << 20
_NODES_COUNTED_AS_ONE = 64
"""The edges of so many sources next to each other are never parted."""


def node_batches(database: EmbeddedDatabase, declared: NodeType, fields: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """All nodes with these columns.

    Raises StoreUnavailable where somebody committed between two parts.
    """
    returned = ", ".join(f"n.{quoted(name)}" for name in fields)
    schema = pa.schema([declared.arrow_schema.field(name) for name in fields])
    for found in node_parts(database, declared.name, returned):
        yield from named(found, schema)


def edge_batches(
    database: EmbeddedDatabase, relation: Relation, properties: Sequence[str], *, at_once: int | None = None
) -> Iterator[pa.RecordBatch]:
    """All edges with source, target and these properties, ``at_once`` together; StoreUnavailable as for nodes."""
    at_once = at_once or _EDGES_AT_ONCE
    source, name, target = relation.triple
    schema = pa.schema([relation.arrow_schema.field(field) for field in ("source", "target", *properties)])
    pattern = f"MATCH (a:{quoted(source)})-[r:{quoted(name)}]->(b:{quoted(target)})"
    values = [f"r.{quoted(field)}" for field in properties]
    generation = database.settle()
    part = f"offset(id(a)) / {_NODES_COUNTED_AS_ONE}"
    counted = sorted((int(low), int(edges)) for low, edges in database.rows(f"{pattern} RETURN {part}, count(*)"))
    if sum(edges for _, edges in counted) <= at_once:
        found = database.table(f"{pattern} RETURN {', '.join(['a.id', 'b.id', *values])}")
        yield from named(found, schema)
        return
    ids = _Ids(database, target)
    returned = ", ".join(["a.id", "offset(id(b))", *values])
    for low, high in _ranges(counted, at_once):
        found = database.table(f"{pattern} WHERE {_between('a', low, high)} RETURN {returned}", generation=generation)
        _check(database, generation)
        for batch in found.to_batches():
            columns = [batch.column(0), ids.of(np.asarray(batch.column(1))), *batch.columns[2:]]
            yield from named(pa.Table.from_arrays(columns, names=schema.names), schema)


def named(found: pa.Table, schema: pa.Schema) -> list[pa.RecordBatch]:
    """Ladybug's columns under our names and types."""
    columns = [column.cast(field.type) for column, field in zip(found.columns, schema, strict=True)]
    return list(pa.table(columns, schema=schema).to_batches())


class _Ids:
    """The ids of a type by Ladybug's numbers, in memory: about as many bytes as their text, and 12 a node."""

    def __init__(self, database: EmbeddedDatabase, node_type: str) -> None:
        parts = list(node_parts(database, node_type, "offset(id(n)), n.id"))
        numbers = np.concatenate([np.asarray(part.column(0)) for part in parts]) if parts else np.empty(0, np.int64)
        chunks = [chunk.cast(pa.large_string()) for part in parts for chunk in part.column(1).chunks]
        self._ids = pa.chunked_array(chunks, pa.large_string()).combine_chunks()
        # Numbers of deleted nodes are left out.
        self._places = np.full(int(numbers.max(initial=-1)) + 1, -1, dtype=np.int32)
        self._places[numbers] = np.arange(len(numbers), dtype=np.int32)

    def of(self, numbers: NDArray[np.int64]) -> pa.Array:
        return self._ids.take(pa.array(self._places[numbers])).cast(pa.string())


def node_parts(
    database: EmbeddedDatabase, node_type: str, returned: str, *, where: str = "true", at_once: int | None = None
) -> Iterator[pa.Table]:
    """What a statement returns of all nodes ``n`` of a type for which ``where`` holds, in parts."""
    at_once = at_once or _NODES_AT_ONCE
    pattern = f"MATCH (n:{quoted(node_type)})"
    generation = database.settle()
    [[count, last]] = database.rows(f"{pattern} RETURN count(*), max(offset(id(n)))")
    if count <= at_once:
        yield database.table(f"{pattern} WHERE {where} RETURN {returned}")
        return
    for low in range(0, int(last) + 1, at_once):
        part = f"{_between('n', low, low + at_once)} AND {where}"
        found = database.table(f"{pattern} WHERE {part} RETURN {returned}", generation=generation)
        _check(database, generation)
        yield found


def _ranges(counted: Sequence[tuple[int, int]], at_once: int) -> Iterator[tuple[int, int]]:
    """From and to of sources' numbers, with about so many edges each."""
    low, held = 0, 0
    for part, edges in counted:
        if held and held + edges > at_once:
            yield low, part * _NODES_COUNTED_AS_ONE
            low, held = part * _NODES_COUNTED_AS_ONE, 0
        held += edges
    if counted:
        yield low, (counted[-1][0] + 1) * _NODES_COUNTED_AS_ONE


def _between(variable: str, low: int, high: int) -> str:
    number = f"offset(id({variable}))"
    return f"{number} >= {low} AND {number} < {high}"


def _check(database: EmbeddedDatabase, generation: int) -> None:
    if database.generation != generation:
        raise StoreUnavailable(
            f"{database.path} was written to while it was read", hint="Try again once the writer has finished."
        )
