"""What of a staged source a store lacks or has otherwise, found in DuckDB, out of core."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import duckdb
import pyarrow as pa

from graph_store.ingest.raw import identifier
from graph_store.schema import Triple
from graph_store.store import GraphStore

_AT_ONCE = 1_000_000


@runtime_checkable
class WritesDifferences(GraphStore, Protocol):
    """A store that writes what somebody else compared, while nobody else can write to it."""

    def holds(self, what: str | Triple) -> bool:
        """Whether there is a node of this type or an edge of this relation."""
        ...

    def write_nodes(self, node_type: str, new: pa.Table, changed: pa.Table) -> None:
        """Write nodes that are not there, and values of nodes that are."""
        ...

    def write_edges(self, triple: Triple, new: pa.Table, changed: pa.Table) -> None:
        """Write edges that are not there, and values of edges that are; their ends are."""
        ...


class Differences:
    """The rows of one query that a store lacks (``new``) and those that it has with another value (``changed``)."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, query: str, keys: Sequence[str], values: Sequence[str]
    ) -> None:
        """``query`` has the columns ``keys`` (never null, each combination once) and ``values``."""
        self._connection, self._query, self._keys, self._values = connection, query, keys, values
        self._names: list[str] = []

    def compare(self, there: Iterable[pa.RecordBatch]) -> None:
        """Compare with what the store has, given with the same columns in the same order."""
        kinds = self._connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {self._query})").fetchall()
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE there AS SELECT * FROM ({self._query}) LIMIT 0")
        self._names = [name for name, _ in kinds]
        typed = ", ".join(f"{identifier(name)}::{kind}" for name, kind in kinds)
        for rows in tables(there):
            self._connection.register("scanned", rows)
            self._connection.execute(f"INSERT INTO there SELECT {typed} FROM scanned")
            self._connection.unregister("scanned")
        on = " AND ".join(f"i.{identifier(key)} = t.{identifier(key)}" for key in self._keys)
        differs = [f"i.{identifier(name)} IS DISTINCT FROM t.{identifier(name)}" for name in self._values]
        first = f"t.{identifier(self._keys[0])}"
        condition = " OR ".join([f"{first} IS NULL", *differs])
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE differing AS SELECT i.*, {first} IS NULL AS lacking "
            f"FROM ({self._query}) i LEFT JOIN there t ON {on} WHERE {condition}"
        )
        self._connection.execute("DROP TABLE there")

    def rows(self, *, lacking: bool) -> str:
        """SQL of the rows that the store lacks, or of those that it has with another value; after ``compare``."""
        names = ", ".join(map(identifier, self._names))
        if lacking:
            return f"SELECT {names} FROM differing WHERE lacking"
        # Somebody's own Cypher may have made an edge twice: it is changed if any of them differs, and once.
        return f"SELECT DISTINCT {names} FROM differing WHERE NOT lacking"


def tables(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """What a scan yields, in tables of a million rows and more: DuckDB takes long for each that it is given."""
    pending: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        pending.append(batch)
        rows += len(batch)
        if rows >= _AT_ONCE:
            yield pa.Table.from_batches(pending)
            pending, rows = [], 0
    if pending:
        yield pa.Table.from_batches(pending)
