"""Checked rows, written to the store in large Arrow tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import duckdb
import pyarrow as pa

from graph_store.ingest.ends import Ends
from graph_store.ingest.raw import identifier
from graph_store.ingest.report import total
from graph_store.ingest.staging import Staged
from graph_store.progress import Progress
from graph_store.schema import GraphSchema, NodeType
from graph_store.store import GraphStore, Written

_TABLE_ROWS = 2_000_000
_TABLE_BYTES = 256 << 20
_BATCH_ROWS = 100_000


class Loader:
    """Writes what was staged; each call is all or nothing, and the whole is idempotent."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, store: GraphStore, schema: GraphSchema, progress: Progress
    ) -> None:
        self._connection, self._store, self._schema, self._progress = connection, store, schema, progress

    def write(self, staged: Staged) -> Written:
        """Upsert the rows of one source."""
        columns = staged.columns
        order = [field.name for field in staged.declared.arrow_schema if field.name in columns]
        picked = ", ".join(f"{columns[name]} AS {identifier(name)}" for name in order)
        schema = pa.schema([staged.declared.arrow_schema.field(name) for name in order])
        query = f"SELECT {picked} FROM {staged.table}"
        declared = staged.declared
        if isinstance(declared, NodeType):
            return self._upsert(
                query, schema, declared.name, lambda rows: self._store.upsert_nodes(declared.name, rows)
            )
        triple = declared.triple
        return self._upsert(query, schema, str(triple), lambda rows: self._store.upsert_edges(triple, rows))

    def create(self, ends: Ends) -> dict[str, Written]:
        """Upsert the nodes that exist because an edge names them; a new one's display property is its id."""
        written: dict[str, Written] = {}
        for node_type in self._schema.node_types:
            new, known = ends.created(node_type.name)
            name, display = node_type.name, node_type.display
            fields = [node_type.arrow_schema.field("id")]
            # A node that is there keeps its display text, whoever gave it one.
            parts = [self._created(known, pa.schema(fields), name)]
            if display is not None:
                fields.append(node_type.arrow_schema.field(display))
                new = f"SELECT id, id AS {identifier(display)} FROM ({new})"
            parts.append(self._created(new, pa.schema(fields), name))
            result = total(parts)
            if result != Written():
                written[name] = result
        return written

    def _created(self, query: str, schema: pa.Schema, name: str) -> Written:
        return self._upsert(query, schema, name, lambda rows: self._store.upsert_nodes(name, rows))

    def _upsert(self, query: str, schema: pa.Schema, name: str, upsert: Callable[[pa.Table], Written]) -> Written:
        # fetchall, not fetchone: a connection with an unfinished result takes no other query.
        count = self._connection.execute(f"SELECT count(*) FROM ({query})").fetchall()[0]
        if not count[0]:
            return Written()
        parts = []
        with self._progress.task(f"write {name}", total=int(count[0])) as task:
            for rows in self._tables(query, schema):
                parts.append(upsert(rows))
                task.advance(len(rows))
        return total(parts)

    def _tables(self, query: str, schema: pa.Schema) -> Iterator[pa.Table]:
        reader = self._connection.sql(query).to_arrow_reader(_BATCH_ROWS)
        pending: list[pa.RecordBatch] = []
        for batch in reader:
            pending.append(batch)
            if sum(map(len, pending)) >= _TABLE_ROWS or sum(part.nbytes for part in pending) >= _TABLE_BYTES:
                yield pa.Table.from_batches(pending).cast(schema)
                pending = []
        if pending:
            yield pa.Table.from_batches(pending).cast(schema)


def settle_overlaps(connection: duckdb.DuckDBPyConnection, sources: Sequence[Staged]) -> None:
    """Where two sources fill the same property of the same node or edge, let both carry the later one's value.

    Otherwise each ingest would write first the one and then the other, and never find the graph unchanged.
    """
    for later_number, later in enumerate(sources):
        for earlier in sources[:later_number]:
            if earlier.filled != later.filled:
                continue
            shared = [name for name in later.columns if name in earlier.columns]
            shared = [name for name in shared if later.columns[name] not in later.keys]
            joined = " AND ".join(
                f"{earlier.table}.{mine} = {later.table}.{theirs}"
                for mine, theirs in zip(earlier.keys, later.keys, strict=True)
            )
            for name in shared:
                mine, theirs = f"{earlier.table}.{earlier.columns[name]}", f"{later.table}.{later.columns[name]}"
                for into, source, target in (
                    (earlier.table, later.table, earlier.columns[name]),
                    (later.table, earlier.table, later.columns[name]),
                ):
                    connection.execute(
                        f"UPDATE {into} SET {target} = coalesce({theirs}, {mine}) FROM {source} WHERE {joined}"
                    )
