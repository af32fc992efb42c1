"""The ends of edges, checked against every node that this load or the store has."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import duckdb
import pyarrow as pa

from graph_store.ingest.raw import quoted
from graph_store.ingest.staging import Staged
from graph_store.schema import GraphSchema, NodeType, Relation
from graph_store.store import GraphStore

_BATCH_ROWS = 1_000_000


class Ends:
    """Known ids by node type, in DuckDB tables: ``stored<n>``, ``loaded<n>`` (node sources) and ``created<n>``."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, schema: GraphSchema) -> None:
        self._connection, self._schema = connection, schema
        self._loaded: set[tuple[int, str]] = set()
        """Sources and ends that are all among the loaded ids."""
        self._index = {node_type.name: index for index, node_type in enumerate(schema.node_types)}

    def gather(
        self, store: GraphStore | None, sources: Sequence[Staged], *, replaced: Collection[str] = frozenset()
    ) -> None:
        """Collect the ids of the node sources, and of the store where these do not have every end of this load.

        Of the types ``replaced`` the store's ids do not count: those that no file brings are about to go.
        """
        relations = [staged for staged in sources if isinstance(staged.declared, Relation)]
        reached = {end for staged in relations for end in _types(staged)}
        for name, index in self._index.items():
            for table in ("stored", "loaded", "created"):
                self._connection.execute(f"CREATE TABLE {table}{index} (id VARCHAR)")
            if name not in reached:
                continue
            for staged in sources:
                if isinstance(staged.declared, NodeType) and staged.declared.name == name:
                    self._connection.execute(f"INSERT INTO loaded{index} SELECT id FROM {staged.table}")
        for staged in relations:
            for end, name, _ in _ends(staged):
                unknown = (
                    f"SELECT 1 FROM edges{staged.number} WHERE {end} NOT IN (SELECT id FROM loaded{self._index[name]})"
                )
                if not self._connection.execute(f"{unknown} LIMIT 1").fetchall():
                    self._loaded.add((staged.number, end))
        if store is None:
            return
        wanted = {
            name for staged in relations for end, name, _ in _ends(staged) if (staged.number, end) not in self._loaded
        } - set(replaced)
        # Counts know which types the store has tables for: before the first ingest there are none to scan.
        held = store.counts().nodes if wanted else {}
        for name in sorted(wanted):
            if held.get(name):
                self._store(name, store)

    def _store(self, name: str, store: GraphStore) -> None:
        pending: list[pa.RecordBatch] = []
        for batch in store.scan_nodes(name, columns=()):
            pending.append(batch.select(["id"]))
            if sum(map(len, pending)) >= _BATCH_ROWS:
                self._insert(self._index[name], pending)
                pending = []
        if pending:
            self._insert(self._index[name], pending)

    def check(self, sources: Sequence[Staged]) -> None:
        """Turn edges with an unknown end into rejects, and note the nodes that the others create."""
        relations = [staged for staged in sources if isinstance(staged.declared, Relation)]
        # An end may be known because an edge of any other source creates it, in whatever order the sources stand: until
        # no source creates one more.
        while sum([self._create(staged) for staged in relations]):
            pass
        for staged in relations:
            edges = f"edges{staged.number}"
            for end, name, create in _ends(staged):
                if create or (staged.number, end) in self._loaded:
                    continue
                spec = staged.source.source if end == "source" else staged.source.target
                label = (spec.column if spec else None) or end
                unknown = f"{edges}.{end} NOT IN ({self._known(name)})"
                ((bad,),) = self._connection.execute(
                    f"INSERT INTO rejects SELECT DISTINCT {staged.number}, file, line, {quoted(label)}, {end}, "
                    f"{quoted(f'no {name} has this id')} FROM {edges} WHERE {unknown}"
                ).fetchall()
                if bad:
                    self._connection.execute(f"DELETE FROM {edges} WHERE {unknown}")

    def made(self, node_type: str) -> str:
        """SQL of all ids that edges created."""
        return f"SELECT id FROM created{self._index[node_type]}"

    def created(self, node_type: str) -> tuple[str, str]:
        """SQL of the ids that edges created: those new to the store, and those it already has."""
        index = self._index[node_type]
        ids = f"SELECT id FROM created{index} WHERE id NOT IN (SELECT id FROM loaded{index})"
        return f"{ids} AND id NOT IN (SELECT id FROM stored{index})", f"{ids} AND id IN (SELECT id FROM stored{index})"

    def _create(self, staged: Staged) -> int:
        """Add the ids that edges with a known (or also created) other end create; how many were not there yet."""
        ends = [each for each in _ends(staged) if (staged.number, each[0]) not in self._loaded]
        conditions = [f"{end} IN ({self._known(name)})" for end, name, create in ends if not create]
        added = 0
        for end, name, create in ends:
            if create:
                created = f"created{self._index[name]}"
                where = " AND ".join([*conditions, f"{end} NOT IN (SELECT id FROM {created})"])
                ((rows,),) = self._connection.execute(
                    f"INSERT INTO {created} SELECT DISTINCT {end} FROM edges{staged.number} WHERE {where}"
                ).fetchall()
                added += int(rows)
        return added

    def _known(self, name: str) -> str:
        index = self._index[name]
        return " UNION ALL ".join(f"SELECT id FROM {table}{index}" for table in ("stored", "loaded", "created"))

    def _insert(self, index: int, batches: list[pa.RecordBatch]) -> None:
        ids = pa.Table.from_batches(batches)
        self._connection.register("scanned_ids", ids)
        self._connection.execute(f"INSERT INTO stored{index} SELECT id FROM scanned_ids")
        self._connection.unregister("scanned_ids")


def _types(staged: Staged) -> tuple[str, str]:
    assert isinstance(staged.declared, Relation)
    return staged.declared.triple.source, staged.declared.triple.target


def _ends(staged: Staged) -> list[tuple[str, str, bool]]:
    source, target = _types(staged)
    return [("source", source, staged.source.create_source), ("target", target, staged.source.create_target)]
