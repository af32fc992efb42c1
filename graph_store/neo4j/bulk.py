"""Rows written in parts, each part one statement over columns.

A small write is one transaction. Of a large one each part is a transaction of its own, several at a time, while the
transaction that began the write keeps other writers out: where that one breaks the whole write begins anew, compares
again and writes what is lacking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Literal

import neo4j
import numpy as np
import pyarrow as pa

from graph_store.errors import StoreConflict
from graph_store.neo4j import columns as columnar
from graph_store.neo4j.driver import Neo4jConnection
from graph_store.neo4j.numbers import Int64s
from graph_store.neo4j.scans import Edges
from graph_store.rows import Difference
from graph_store.schema import Relation
from graph_store.store import Written
from graph_store.written import Logged

ROWS_PER_TRANSACTION = 100_000
"""More than these are written in several transactions: a commit of Neo4j takes 1.5 KB of memory a row (measured)."""
ROWS_AT_ONCE = 5_000
"""Rows a part; in parts of 20,000 an edge costs Neo4j two fifths more (``benchmarks/neo4j_load.py``)."""
SESSIONS = 2
"""Parts of a large write that are written at once; no quicker than one where others keep both cores busy (measured)."""


class Begun:
    """What a write did as a whole, however often it began anew: a later beginning finds the parts of an earlier one.

    Make one for each call, outside of what is begun anew.
    """

    def __init__(self) -> None:
        self.first: Written | None = None
        """What the first beginning that wrote in parts had before it; what it did not write, a later one did."""

    def whole(self, written: Written) -> Written:
        """What the call did, of what its last beginning does."""
        return self.first or written

    def entries(self, what: str, entries: list[Logged]) -> list[Logged]:
        """The log's entries of the call: of an earlier beginning's rows nobody knows the keys any more."""
        if self.first is None:
            return entries
        deleted, upserted = self.first.deleted, self.first.created + self.first.changed
        done: list[tuple[Literal["delete", "upsert"], int]] = [("delete", deleted), ("upsert", upserted)]
        return [Logged(what=what, op=op, keys=None) for op, rows in done if rows]


class Writer:
    """Runs statements for all rows of a write, within its transaction or, where it is large, beside it."""

    def __init__(
        self, connection: Neo4jConnection, transaction: neo4j.ManagedTransaction, written: Written, begun: Begun
    ) -> None:
        self._connection, self._transaction = connection, transaction
        self._apart = written.created + written.changed + written.deleted > ROWS_PER_TRANSACTION
        if self._apart and begun.first is None:
            begun.first = written

    def run(self, statement: str, rows: pa.Table) -> int:
        """Run a statement for every row (``i``), column k of which is ``$ck[i]``; returns how many edges it made."""
        statement = f"UNWIND range(0, $rows - 1) AS i {statement}"
        if self._apart:
            return self._run_apart(statement, rows)
        made = 0
        for parameters in _parts(rows):
            made += self._transaction.run(statement, parameters).consume().counters.relationships_created
        return made

    def _run_apart(self, statement: str, rows: pa.Table) -> int:
        made = 0
        running: set[Future[neo4j.SummaryCounters]] = set()

        def collect(done: set[Future[neo4j.SummaryCounters]]) -> int:
            counters = [future.result() for future in done]
            # Nobody else has written as long as this one is open; it also holds the nodes' numbers in place.
            self._transaction.run("RETURN 1").consume()
            return sum(each.relationships_created for each in counters)

        with ThreadPoolExecutor(SESSIONS, "neo4j-write") as pool:
            for parameters in _parts(rows):
                if len(running) == SESSIONS:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    made += collect(done)
                running.add(pool.submit(self._connection.run_apart, statement, parameters))
            return made + collect(running)


def _parts(rows: pa.Table) -> Iterator[dict[str, Any]]:
    for start in range(0, rows.num_rows, ROWS_AT_ONCE):
        part = rows.slice(start, ROWS_AT_ONCE)
        yield {"rows": part.num_rows, **columnar.parameters(part)}


def write_edges(writer: Writer, stored: Edges, relation: Relation, diff: Difference, gone: pa.Table) -> None:
    """Delete the edges that are gone, change those that differ and make the new ones.

    Raises StoreConflict where an end of a new one was deleted by somebody else meanwhile.
    """
    gone, changed, new = (_numbered(rows, *stored.ends(rows)) for rows in (gone, diff.changed, diff.new))
    writer.run(f"{_matched(relation, gone)} DELETE r", gone)
    assignments = ", ".join(f"r.{each}" for each in _values(relation, changed, " = ", without=relation.key_columns))
    writer.run(f"{_matched(relation, changed)} SET {assignments}", changed)
    properties = ", ".join(_values(relation, new, ": ", without=("source", "target")))
    made = writer.run(f"{_ENDS} CREATE (a)-[:`{relation.triple.name}` {{{properties}}}]->(b)", new)
    if made < new.num_rows:
        raise StoreConflict(
            f"{relation.triple}: somebody deleted nodes while {new.num_rows - made} edges were written to them",
            hint="Do it again: what was written is found as it is, and ids that are gone are named.",
        )


_ENDS = "MATCH (a) WHERE id(a) = $c0[i] MATCH (b) WHERE id(b) = $c1[i]"


def _numbered(rows: pa.Table, sources: Int64s, targets: Int64s) -> pa.Table:
    """Edges with the numbers of their ends in place of the ids, first source, then target, and in that order.

    So sorted, neighbouring rows touch the same pages of Neo4j's files: three quarters of the work (measured).
    """
    order = np.lexsort((targets, sources))
    columns = {"source": pa.array(sources[order]), "target": pa.array(targets[order])}
    others = [name for name in rows.column_names if name not in columns]
    return pa.table(columns | {name: rows.column(name).take(pa.array(order)) for name in others})


def _matched(relation: Relation, rows: pa.Table) -> str:
    """Cypher that finds the edge ``r`` of a row."""
    conditions = [
        columnar.equals(f"r.`{key}`", rows.column_names.index(key), relation.properties[key].type)
        for key in relation.key_columns[2:]
    ]
    found = f"{_ENDS} MATCH (a)-[r:`{relation.triple.name}`]->(b)"
    return f"{found} WHERE {' AND '.join(conditions)}" if conditions else found


def _values(relation: Relation, rows: pa.Table, sign: str, *, without: Sequence[str]) -> list[str]:
    return [
        f"`{name}`{sign}{columnar.value(index, relation.properties[name].type)}"
        for index, name in enumerate(rows.column_names)
        if name not in without
    ]
