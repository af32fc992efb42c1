"""Checked rows, written to the store in large Arrow tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import duckdb
import pyarrow as pa

from graph_store.ingest.differences import Differences, WritesDifferences
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
_COPIED_ROWS = 16_000_000
"""A store that writes differences folds each table into what it has: fewer are faster."""
_COPIED_BYTES = 512 << 20


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
            return self._write_nodes(query, schema, declared)
        store, triple = self._store, declared.triple
        if not isinstance(store, WritesDifferences):
            return self._upsert(query, schema, str(triple), lambda rows: store.upsert_edges(triple, rows))
        keys = [name for name in order if name in declared.key_columns]
        if len(keys) < len(declared.key_columns):
            # A time or a kind that no column fills is null, which DuckDB's plain joins do not find.
            return self._upsert(query, schema, str(triple), lambda rows: store.upsert_edges(triple, rows))
        return self._write(
            query,
            schema,
            keys,
            str(triple),
            lambda: store.scan_edges(triple, schema.names) if store.holds(triple) else None,
            lambda new, changed: store.write_edges(triple, new, changed),
        )

    def _write_nodes(self, query: str, schema: pa.Schema, declared: NodeType) -> Written:
        store, name = self._store, declared.name
        if not isinstance(store, WritesDifferences):
            return self._upsert(query, schema, name, lambda rows: store.upsert_nodes(name, rows))
        return self._write(
            query,
            schema,
            ["id"],
            name,
            lambda: store.scan_nodes(name, schema.names) if store.holds(name) else None,
            lambda new, changed: store.write_nodes(name, new, changed),
        )

    def _write(
        self,
        query: str,
        schema: pa.Schema,
        keys: Sequence[str],
        name: str,
        there: Callable[[], Iterator[pa.RecordBatch] | None],
        write: Callable[[pa.Table, pa.Table], None],
    ) -> Written:
        """Compare with what is there, where anything is, and write the difference in tables of bounded size."""
        count = self._count(query)
        if not count:
            return Written()
        none = schema.empty_table()
        with self._progress.task(f"write {name}", total=count) as task:
            held = there()
            if held is None:
                new, created = query, count
                changed = ""
            else:
                values = [column for column in schema.names if column not in keys]
                differences = Differences(self._connection, query, keys, values)
                differences.compare(held)
                new, changed = differences.rows(lacking=True), differences.rows(lacking=False)
                created = self._count(new)
                task.advance(count - created)
            # First what changed: what is new may be much, and is met again by what comes after.
            altered = 0
            if changed:
                for rows in self._tables(changed, schema, _TABLE_ROWS, _TABLE_BYTES):
                    write(none, rows)
                    altered += len(rows)
            if created:
                for rows in self._tables(new, schema, _COPIED_ROWS, _COPIED_BYTES):
                    write(rows, none)
                    task.advance(len(rows))
        return Written(created=created, changed=altered, unchanged=count - created - altered)

    def create(self, ends: Ends) -> dict[str, Written]:
        """Upsert the nodes that exist because an edge names them; a new one's display property is its id."""
        written: dict[str, Written] = {}
        for node_type in self._schema.node_types:
            new, known = ends.created(node_type.name)
            name, display = node_type.name, node_type.display
            fields = [node_type.arrow_schema.field("id")]
            # A node that is there keeps its display text, whoever gave it one.
            parts = [self._write_nodes(known, pa.schema(fields), node_type)]
            if display is not None:
                fields.append(node_type.arrow_schema.field(display))
                new = f"SELECT id, id AS {identifier(display)} FROM ({new})"
            parts.append(self._write_nodes(new, pa.schema(fields), node_type))
            result = total(parts)
            if result != Written():
                written[name] = result
        return written

    def _upsert(self, query: str, schema: pa.Schema, name: str, upsert: Callable[[pa.Table], Written]) -> Written:
        count = self._count(query)
        if not count:
            return Written()
        parts = []
        with self._progress.task(f"write {name}", total=count) as task:
            for rows in self._tables(query, schema, _TABLE_ROWS, _TABLE_BYTES):
                parts.append(upsert(rows))
                task.advance(len(rows))
        return total(parts)

    def _count(self, query: str) -> int:
        # fetchall, not fetchone: a connection with an unfinished result takes no other query.
        ((count,),) = self._connection.execute(f"SELECT count(*) FROM ({query})").fetchall()
        return int(count)

    def _tables(self, query: str, schema: pa.Schema, most_rows: int, most_bytes: int) -> Iterator[pa.Table]:
        reader = self._connection.sql(query).to_arrow_reader(_BATCH_ROWS)
        pending: list[pa.RecordBatch] = []
        rows = size = 0
        for batch in reader:
            pending.append(batch)
            rows, size = rows + len(batch), size + batch.nbytes
            if rows >= most_rows or size >= most_bytes:
                yield pa.Table.from_batches(pending).cast(schema)
                pending = []
                rows = size = 0
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
