"""What was written back, in the embedded store: tables of their own, written beside the old and then renamed.

Ladybug keeps what a transaction copies in its buffer pool, which a large graph's edges do not fit: they are committed
in parts, into tables that nobody reads. The old tables are dropped and the new ones renamed in one transaction.

``(:KithkinPublished)`` tells what there is; ``SIMILAR_TO`` (or another name) joins entities; an entity's vector is
``(entity)-[:KITHKIN_VECTOR]->(:KithkinVector {vector})``. Not a column of the entity's table, for Ladybug 0.22 fills a
column of 20,000 rows in minutes, nor a property of an edge, which commits ten times slower (both measured).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from graph_store.embedded.database import EmbeddedDatabase, quoted
from graph_store.embedded.scan import edge_batches, node_parts
from graph_store.embedded.tables import Table
from graph_store.published import (
    EDGES,
    HAS_VECTOR,
    MARKER,
    NEXT,
    VECTOR,
    VECTORS,
    Published,
    PublishedRows,
    Publishing,
    WrittenBack,
    foreign_relation,
)
from graph_store.schema import Relation

_EDGES_A_MIB = 1_000
"""Edges of one transaction for each mebibyte of the buffer pool, which they take about half of (measured)."""
_VECTORS_A_MIB = 100
_PROPERTIES = {"score": {"type": "float"}, "reason": {"type": "string"}, "rank": {"type": "int"}}
_COLUMNS = {
    "space": "STRING PRIMARY KEY",
    "bundle": "STRING",
    "complete": "BOOL",
    "vectors": "BOOL",
    "relation": "STRING",
    "property": "STRING",
    "dimension": "INT64",
    "neighbours": "INT64",
    "node_types": "STRING[]",
}


def published(database: EmbeddedDatabase, tables: dict[str, Table]) -> tuple[Published, ...]:
    """What was written back; see ``GraphStore.written_back``."""
    if MARKER not in tables:
        return ()
    names = ("complete", "node_types", "bundle", "space", "relation", "property", "dimension", "neighbours")
    found = database.rows(f"MATCH (p:{MARKER}) RETURN {', '.join(f'p.{name}' for name in names)}")
    return tuple(
        Published(
            publishing=Publishing(node_types=tuple(node_types), **dict(zip(names[2:], rest, strict=True))),
            complete=complete,
        )
        for complete, node_types, *rest in found
    )


def write(
    database: EmbeddedDatabase,
    tables: dict[str, Table],
    publishing: Publishing,
    rows: PublishedRows,
    transaction: Callable[[], AbstractContextManager[None]],
) -> WrittenBack:
    """Replace what was written back, in transactions of ``transaction``.

    Raises StoreConflict where edges of that name are there that were not written back.
    """
    relation = publishing.relation
    ours = {each.publishing.relation for each in published(database, tables)}
    if any(name.lower() == relation.lower() for name in tables if name not in ours):
        raise foreign_relation(relation)
    with transaction():
        _drop(database, tables, NEXT)
        _create(database, publishing)
    there = {name: _ids(database, name) for name in publishing.node_types}
    written = WrittenBack()
    _write_edges(database, rows, there, publishing.bundle, written, transaction)
    _write_vectors(database, rows, there, written, transaction)
    with transaction():
        _drop(database, tables, _present(database, tables))
        for next_name, name in zip(NEXT, (relation, HAS_VECTOR, VECTOR), strict=True):
            database.rows(f"ALTER TABLE {next_name} RENAME TO {quoted(name)}")
        _mark(database, publishing)
    return written


def remove(database: EmbeddedDatabase, tables: dict[str, Table]) -> None:
    """Remove all that was written back, and the rests of a killed write-back, inside the caller's transaction."""
    _drop(database, tables, (*_present(database, tables), *NEXT))


def is_anything(tables: dict[str, Table]) -> bool:
    """Whether something was written back, or begun."""
    return MARKER in tables or any(name in tables for name in NEXT)


def _present(database: EmbeddedDatabase, tables: dict[str, Table]) -> tuple[str, ...]:
    """The tables of what was written back, those that lean on others first."""
    relations = {each.publishing.relation for each in published(database, tables)}
    return (*sorted(relations), HAS_VECTOR, VECTOR, MARKER)


def _drop(database: EmbeddedDatabase, tables: dict[str, Table], names: Iterable[str]) -> None:
    for name in names:
        if name in tables:
            database.rows(f"DROP TABLE {quoted(name)}")


def _create(database: EmbeddedDatabase, publishing: Publishing) -> None:
    edges, has_vector, vector = NEXT
    types = [quoted(each) for each in publishing.node_types]
    ends = ", ".join(f"FROM {each} TO {each}" for each in types)
    database.rows(f"CREATE REL TABLE {edges}({ends}, score DOUBLE, reason STRING, bundle STRING, rank INT64)")
    database.rows(f"CREATE NODE TABLE {vector}(key STRING PRIMARY KEY, vector FLOAT[{publishing.dimension}])")
    database.rows(f"CREATE REL TABLE {has_vector}({', '.join(f'FROM {each} TO {vector}' for each in types)})")


def _mark(database: EmbeddedDatabase, publishing: Publishing) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
    database.rows(f"CREATE NODE TABLE {MARKER}({columns})")
    values: dict[str, Any] = {
        "space": publishing.space,
        "bundle": publishing.bundle,
        "complete": True,  # what a reader sees at all is whole
        "vectors": True,
        "relation": publishing.relation,
        "property": publishing.property,
        "dimension": publishing.dimension,
        "neighbours": publishing.neighbours,
        "node_types": list(publishing.node_types),
    }
    database.rows(f"CREATE (:{MARKER} {{{', '.join(f'{name}: ${name}' for name in values)}}})", values)


def delete_vectors(database: EmbeddedDatabase, tables: dict[str, Table], node_type: str, ids: pa.ChunkedArray) -> None:
    """Delete the vectors of nodes that are about to be deleted, inside the same transaction."""
    if VECTOR in tables:
        keys = pa.table({"c0": _keys(node_type, ids)})
        database.with_rows(f"LOAD FROM arrow_rows MATCH (v:{VECTOR} {{key: c0}}) DETACH DELETE v", keys)


class StoredRows:
    """The rows of a publishing as a store holds them, to write them into another; read in parts, as they are written.

    Vectors that no entity leads to any more come too: who writes them leaves them out.
    """

    def __init__(self, database: EmbeddedDatabase, publishing: Publishing) -> None:
        self._database = database
        self._publishing = publishing

    def edges(self) -> Iterator[tuple[str, pa.Table]]:
        """See ``PublishedRows``."""
        at_once = _most(self._database, _EDGES_A_MIB)
        for name in self._publishing.node_types:
            relation = Relation.model_validate(
                {"triple": (name, self._publishing.relation, name), "role": "semantic", "properties": _PROPERTIES}
            )
            for batch in edge_batches(self._database, relation, list(_PROPERTIES), at_once=at_once):
                yield name, _named(pa.Table.from_batches([batch]), EDGES)

    def vectors(self) -> Iterator[tuple[str, pa.Table]]:
        """See ``PublishedRows``."""
        at_once = _most(self._database, _VECTORS_A_MIB)
        for name in self._publishing.node_types:
            # Ids are joined to their type by the first slash, which no type's name has.
            returned = f"substring(n.key, {len(name) + 2}, size(n.key)), n.vector"
            where = f"starts_with(n.key, '{name}/')"
            for found in node_parts(self._database, VECTOR, returned, where=where, at_once=at_once):
                yield name, _named(found, VECTORS)


def _write_edges(
    database: EmbeddedDatabase,
    rows: PublishedRows,
    there: dict[str, pa.Array],
    bundle: str,
    written: WrittenBack,
    transaction: Callable[[], AbstractContextManager[None]],
) -> None:
    for node_type, edges in _parts(rows.edges(), _most(database, _EDGES_A_MIB)):
        known = pc.and_(*(pc.is_in(edges.column(end), there[node_type]) for end in ("source", "target")))
        kept = edges.filter(known)
        if kept.num_rows:
            columns = {end: kept.column(end) for end in ("source", "target", "score", "reason")}
            columns |= {"bundle": pa.repeat(pa.scalar(bundle), kept.num_rows), "rank": kept.column("rank")}
            with transaction():
                ends = f"(from='{node_type}', to='{node_type}')"
                database.with_rows(f"COPY {NEXT[0]} FROM arrow_rows {ends}", pa.table(columns))
        written.edges[node_type] = written.edges.get(node_type, 0) + kept.num_rows


def _write_vectors(
    database: EmbeddedDatabase,
    rows: PublishedRows,
    there: dict[str, pa.Array],
    written: WrittenBack,
    transaction: Callable[[], AbstractContextManager[None]],
) -> None:
    for node_type, vectors in _parts(rows.vectors(), _most(database, _VECTORS_A_MIB)):
        kept = vectors.filter(pc.is_in(vectors.column("id"), there[node_type]))
        written.unknown += vectors.num_rows - kept.num_rows
        if kept.num_rows:
            keys = _keys(node_type, kept.column("id"))
            joined = pa.table({"source": kept.column("id"), "target": keys})
            with transaction():
                database.with_rows(f"COPY {NEXT[2]} FROM arrow_rows", pa.table({"key": keys, "vector": kept["vector"]}))
                database.with_rows(f"COPY {NEXT[1]} FROM arrow_rows (from='{node_type}', to='{NEXT[2]}')", joined)
        written.vectors[node_type] = written.vectors.get(node_type, 0) + kept.num_rows


def _most(database: EmbeddedDatabase, a_mib: int) -> int:
    """Rows that a transaction or a statement may have."""
    return max(1, database.memory_mib * a_mib)


def _parts(rows: Iterator[tuple[str, pa.Table]], most: int) -> Iterator[tuple[str, pa.Table]]:
    """Tables of one type put together and cut: a transaction costs the more, the more is there already."""
    waiting: list[pa.Table] = []
    of_type, count = "", 0
    for node_type, table in rows:
        if waiting and node_type != of_type:
            yield of_type, pa.concat_tables(waiting)
            waiting, count = [], 0
        of_type = node_type
        while count + table.num_rows > most:
            yield of_type, pa.concat_tables([*waiting, table.slice(0, most - count)])
            waiting, table, count = [], table.slice(most - count), 0
        if table.num_rows:
            waiting.append(table)
            count += table.num_rows
    if waiting:
        yield of_type, pa.concat_tables(waiting)


def _ids(database: EmbeddedDatabase, node_type: str) -> pa.Array:
    column = database.table(f"MATCH (n:{quoted(node_type)}) RETURN n.id").column(0)
    return column.cast(pa.string()).combine_chunks()


def _keys(node_type: str, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids are unique in their type alone."""
    return pc.binary_join_element_wise(pa.scalar(node_type), ids, "/")


def _named(found: pa.Table, schema: pa.Schema) -> pa.Table:
    columns: Sequence[pa.ChunkedArray] = found.columns
    return pa.table([column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema)
