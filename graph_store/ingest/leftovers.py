"""What a store has of the sources' types and relations, and no file brings any more: found in DuckDB, then deleted.

Found is the whole before the first is deleted, and each delete is a transaction: ended anywhere, the same ingest again
finds the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import duckdb
import pyarrow as pa

from graph_store.ingest.differences import tables
from graph_store.ingest.ends import Ends
from graph_store.ingest.raw import identifier
from graph_store.ingest.staging import Staged
from graph_store.progress import Progress
from graph_store.schema import GraphSchema, NodeType, Relation
from graph_store.store import GraphStore

_DELETED_AT_ONCE = 200_000


class Leftovers:
    """The nodes and edges to delete, in DuckDB tables, after ``find``."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, schema: GraphSchema, sources: Sequence[Staged], ends: Ends
    ) -> None:
        self._connection, self._sources, self._ends = connection, sources, ends
        names = made_types(sources)
        self._types = [each for each in schema.node_types if each.name in names]
        filled = {staged.declared.triple for staged in sources if isinstance(staged.declared, Relation)}
        self._relations = [each for each in schema.relations if each.triple in filled]
        self.counts: dict[str, int] = {}
        """Nodes by type and edges by relation; the edges that nodes take along from other relations are not in it."""

    def find(self, store: GraphStore, progress: Progress) -> None:
        """Compare the keys of all that the store has with those of the files."""
        with progress.task("find what left the files", len(self._relations) + len(self._types), "tables") as task:
            for relation in self._relations:
                keys = list(relation.key_columns)
                kept = " UNION ALL ".join(self._keys(staged, keys) for staged in self._of(relation))
                self._compare(str(relation.triple), kept, keys, store.scan_edges(relation.triple, keys))
                task.advance()
            for declared in self._types:
                kept = " UNION ALL ".join(
                    [*(self._keys(staged, ["id"]) for staged in self._of(declared)), self._ends.made(declared.name)]
                )
                self._compare(declared.name, kept, ["id"], store.scan_nodes(declared.name, ()))
                task.advance()

    def delete(self, store: GraphStore, progress: Progress) -> None:
        """Delete what was found: edges first, then nodes with whatever still leads to them."""
        with progress.task("delete what left the files", sum(self.counts.values())) as task:
            for relation in self._relations:
                for rows in self._gone(str(relation.triple), relation.arrow_schema):
                    store.delete_edges(relation.triple, rows)
                    task.advance(len(rows))
            for declared in self._types:
                for rows in self._gone(declared.name, declared.arrow_schema):
                    store.delete_nodes(declared.name, rows.column("id").to_pylist())
                    task.advance(len(rows))

    def _of(self, declared: NodeType | Relation) -> list[Staged]:
        return [staged for staged in self._sources if staged.declared == declared]

    def _keys(self, staged: Staged, keys: Sequence[str]) -> str:
        """SQL of the keys that a source brings."""
        picked = ", ".join(f"{staged.columns[key]} AS {identifier(key)}" for key in keys)
        return f"SELECT {picked} FROM {staged.table}"

    def _compare(self, name: str, kept: str, keys: Sequence[str], there: Iterable[pa.RecordBatch]) -> None:
        kinds = self._connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE {kept})").fetchall()
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE held AS SELECT * FROM ({kept}) LIMIT 0")
        typed = ", ".join(f"{identifier(key)}::{kind}" for key, kind in kinds)
        for rows in tables(there):
            self._connection.register("scanned", rows.select(list(keys)))
            self._connection.execute(f"INSERT INTO held SELECT {typed} FROM scanned")
            self._connection.unregister("scanned")
        same = " AND ".join(f"k.{identifier(key)} IS NOT DISTINCT FROM h.{identifier(key)}" for key in keys)
        # Somebody's own Cypher may have made an edge twice: both go with one key.
        self._connection.execute(
            f"CREATE OR REPLACE TABLE {identifier('gone ' + name)} AS SELECT DISTINCT * FROM held h "
            f"WHERE NOT EXISTS (SELECT 1 FROM ({kept}) k WHERE {same})"
        )
        self._connection.execute("DROP TABLE held")
        ((count,),) = self._connection.execute(f"SELECT count(*) FROM {identifier('gone ' + name)}").fetchall()
        if count:
            self.counts[name] = int(count)

    def _gone(self, name: str, declared: pa.Schema) -> Iterator[pa.Table]:
        reader = self._connection.sql(f"SELECT * FROM {identifier('gone ' + name)}").to_arrow_reader(_DELETED_AT_ONCE)
        # Read whole: while one result is open the connection takes no other query.
        found = reader.read_all()
        wanted = pa.schema([declared.field(key) for key in found.column_names])
        for start in range(0, found.num_rows, _DELETED_AT_ONCE):
            yield found.slice(start, _DELETED_AT_ONCE).cast(wanted)


def made_types(sources: Sequence[Staged]) -> set[str]:
    """Node types that the sources make nodes of: rows of their own, or the ends of edges."""
    made = set()
    for staged in sources:
        if isinstance(staged.declared, NodeType):
            made.add(staged.declared.name)
            continue
        source, _, target = staged.declared.triple
        made |= {source} if staged.source.create_source else set()
        made |= {target} if staged.source.create_target else set()
    return made
