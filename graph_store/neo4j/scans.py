"""Nodes and edges read as Arrow columns: collected in pages on Neo4j's side, so that neither side holds them all.

An edge travels as the numbers of its ends; their ids are read once. See ``numbers``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from graph_store.neo4j import columns as columnar
from graph_store.neo4j import statements
from graph_store.neo4j.numbers import Int64s, Numbers
from graph_store.neo4j.statements import Running, counted, type_of
from graph_store.schema import NodeType, PropertyType, Relation

MOST_OF_ONE_SOURCE = 100_000
"""A node with more edges of a relation is read in several pages."""


def nodes(transaction: Running, declared: NodeType, properties: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """All nodes of a type, page by page in the order of the index on ``id``."""
    schema, returned = _node_columns(declared, properties)
    last: str | None = None
    while True:
        after = "n.id IS NOT NULL" if last is None else "n.id > $last"
        page = f"MATCH (n:`{declared.name}`) WHERE {after} WITH n ORDER BY n.id LIMIT {statements.ROWS_AT_ONCE}"
        batch = columnar.batch(transaction.run(f"{page} {returned}", last=last).single(strict=True), schema)
        if batch.num_rows:
            yield batch
        if batch.num_rows < statements.ROWS_AT_ONCE:
            return
        last = batch.column(0)[-1].as_py()


def nodes_there(transaction: Running, declared: NodeType, ids: pa.ChunkedArray, properties: Sequence[str]) -> pa.Table:
    """The nodes of these ids that are in the store, and perhaps others."""
    schema, returned = _node_columns(declared, properties)
    if len(ids) > statements.FEW and len(ids) * 4 >= counted(transaction, f"MATCH (n:`{declared.name}`)"):
        return pa.Table.from_batches(nodes(transaction, declared, properties), schema)
    statement = f"UNWIND $ids AS id MATCH (n:`{declared.name}` {{id: id}}) {returned}"
    batches = []
    for start in range(0, len(ids), statements.ROWS_AT_ONCE):
        part = ids.slice(start, statements.ROWS_AT_ONCE).to_pylist()
        batches.append(columnar.batch(transaction.run(statement, ids=part).single(strict=True), schema))
    return pa.Table.from_batches(batches, schema)


def _node_columns(declared: NodeType, properties: Sequence[str]) -> tuple[pa.Schema, str]:
    fields = ["id", *properties]
    schema = pa.schema([declared.arrow_schema.field(name) for name in fields])
    return schema, columnar.collected([(f"n.`{name}`", type_of(declared, name)) for name in fields], ids=1)


class Edges:
    """Reads the edges of a relation within a transaction."""

    def __init__(self, transaction: Running, relation: Relation, properties: Sequence[str]) -> None:
        source, name, target = relation.triple
        self._transaction = transaction
        self._pattern = f"-[r:`{name}`]->(b:`{target}`)"
        self._any = f"-[:`{name}`]->()"
        self._counted = f"MATCH ()-[r:`{name}`]->()"
        self.sources = Numbers(transaction, source)
        self.targets = self.sources if source == target else Numbers(transaction, target)
        self.schema = pa.schema([relation.arrow_schema.field(field) for field in ("source", "target", *properties)])
        expressions = [("number", PropertyType.INT), ("id(b)", PropertyType.INT)]
        expressions += [(f"r.`{p}`", relation.properties[p].type) for p in properties]
        self._returned = columnar.collected(expressions, ids=2)

    def ends(self, rows: pa.Table) -> tuple[Int64s, Int64s]:
        """The numbers of both ends of these edges, ``ABSENT`` for an id that the store lacks."""
        return self.sources.of(rows.column("source")), self.targets.of(rows.column("target"))

    def read(self, sources: Int64s | None = None) -> Iterator[pa.RecordBatch]:
        """The edges of these sources (None: of all), about as many a page as one statement is to read."""
        few = sources is not None and len(sources) <= statements.FEW
        if not few and counted(self._transaction, self._counted) == 0:
            return
        if sources is None:
            sources = self.sources.read_all()
            self.targets.read_all()
        matched = f"MATCH (a) WHERE id(a) = number MATCH (a){self._pattern}"
        for page, parts in self._pages(sources):
            # By number, and not by SKIP: what others write meanwhile then neither doubles an edge nor hides one.
            where = "" if parts == 1 else " WHERE id(r) % $parts = $part"
            statement = f"UNWIND $numbers AS number {matched}{where} {self._returned}"
            for part in range(parts):
                parameters = {"numbers": page.tolist(), "parts": parts, "part": part}
                batch = self._batch(statement, parameters)
                if batch.num_rows:
                    yield batch

    def _batch(self, statement: str, parameters: dict[str, object]) -> pa.RecordBatch:
        record = self._transaction.run(statement, parameters).single(strict=True)
        ends = [
            numbers.ids(np.array(record[column], np.int64))
            for numbers, column in ((self.sources, "c0"), (self.targets, "c1"))
        ]
        values = [
            columnar.array(record[f"c{index}"], field, present=record[f"c{index}v"])
            for index, field in enumerate(self.schema)
            if index > 1
        ]
        batch = pa.RecordBatch.from_arrays([*ends, *values], schema=self.schema)
        if ends[0].null_count or ends[1].null_count:  # a node without an id is none of ours
            batch = batch.filter(pa.array(np.asarray(ends[0].is_valid()) & np.asarray(ends[1].is_valid())))
        return batch

    def _pages(self, sources: Int64s) -> Iterator[tuple[Int64s, int]]:
        """Sources to read at once, and in how many parts."""
        statement = (
            f"UNWIND $numbers AS number MATCH (a) WHERE id(a) = number "
            f"RETURN collect(number) AS numbers, collect(COUNT {{ (a){self._any} }}) AS degrees"
        )
        for start in range(0, len(sources), statements.ROWS_AT_ONCE):
            part = sources[start : start + statements.ROWS_AT_ONCE].tolist()
            record = self._transaction.run(statement, numbers=part).single(strict=True)
            numbers, degrees = np.array(record["numbers"], np.int64), np.array(record["degrees"], np.int64)
            few = (degrees > 0) & (degrees <= MOST_OF_ONE_SOURCE)
            page_of = np.cumsum(degrees[few]) // statements.ROWS_AT_ONCE
            for page in np.split(numbers[few], np.flatnonzero(np.diff(page_of)) + 1):
                if len(page):
                    yield page, 1
            for hub in np.flatnonzero(degrees > MOST_OF_ONE_SOURCE):
                yield numbers[hub : hub + 1], -(-int(degrees[hub]) // MOST_OF_ONE_SOURCE)
