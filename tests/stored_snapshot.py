"""A snapshot on disk from one in memory, for tests of what reads files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from graph_store.schema import Triple
from graph_store.store import Counts, GraphStore
from model_store.csr import EdgeType
from tests.memory_snapshot import MemorySnapshot
from training.export import Snapshot, export_snapshot


def stored(snapshot: MemorySnapshot, folder: Path) -> Snapshot:
    """Write a snapshot into a folder, as an export would."""
    return export_snapshot(cast(GraphStore, _Store(snapshot)), snapshot.schema, folder)


class _Store:
    def __init__(self, snapshot: MemorySnapshot) -> None:
        self.snapshot = snapshot

    def state_token(self) -> str:
        return ""

    def counts(self) -> Counts:
        return Counts()

    def scan_nodes(self, node_type: str) -> Iterator[pa.RecordBatch]:
        yield from self.snapshot.nodes(node_type).to_batches()

    def scan_edges(self, triple: Triple) -> Iterator[pa.RecordBatch]:
        relation = self.snapshot.schema.relation(triple)
        csr = self.snapshot.csr(EdgeType(triple))
        rows = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
        columns: dict[str, Any] = {
            "source": self.snapshot.ids(triple.source).take(pa.array(rows)),
            "target": self.snapshot.ids(triple.target).take(pa.array(csr.indices)),
        }
        if relation.weight:
            declared = relation.arrow_schema.field(relation.weight).type
            columns[relation.weight] = pa.array(csr.weight).cast(declared)
        if relation.time:
            declared = relation.arrow_schema.field(relation.time).type
            columns[relation.time] = pa.array(csr.time).cast(pa.timestamp("us", "UTC")).cast(declared)
        for field in relation.arrow_schema:  # what a snapshot in memory does not have
            columns.setdefault(field.name, pa.nulls(csr.num_edges, field.type))
        yield pa.RecordBatch.from_arrays(
            [columns[name] for name in relation.arrow_schema.names], schema=relation.arrow_schema
        )
