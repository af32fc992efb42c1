"""One node type of a snapshot: its rows in the order of their ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graph_store.progress import Progress
from graph_store.schema import NodeType
from graph_store.store import GraphStore
from training.errors import SnapshotError
from training.export.columns import ArrowFile, declared_columns, wide_schema
from training.export.sorting import IdKey, Sorter


def write_nodes(
    store: GraphStore,
    node_type: NodeType,
    path: Path,
    scratch: Path,
    total: int | None,
    *,
    limit: int,
    progress: Progress,
) -> dict[str, Any]:
    """Write the Arrow file of a type; returns its count and the hash of each column.

    ``limit`` is that of ``Sorter``, ``total`` the number of nodes where it is known. Raises SnapshotError for ids that
    are missing or there twice.
    """
    declared = node_type.arrow_schema
    key = IdKey()
    sorter = Sorter(scratch, key, wide_schema(declared), limit=limit)
    missing = 0
    with progress.task(f"read {node_type.name}", total, "nodes") as task:
        for batch in store.scan_nodes(node_type.name):
            rows = declared_columns(batch, declared, node_type.name)
            ids = rows.column("id")
            if ids.null_count:
                missing += ids.null_count
                rows = rows.filter(ids.is_valid())
            sorter.add(rows)
            task.advance(batch.num_rows)
    if missing:
        raise SnapshotError(f"{node_type.name}: {missing} nodes have no id", hint="Delete or repair these nodes.")
    with ArrowFile(path, declared) as file:
        for window in sorter.windows():
            window = window.combine_chunks()
            ids = key.of(window)
            order = key.order(ids)
            _check_unique(ids.take(pa.array(order)), node_type.name)
            file.add(window, order)
    return {"count": sorter.rows, "columns": file.hashes()}


def _check_unique(ids: pa.Array, name: str) -> None:
    same = pc.equal(ids.slice(1), ids.slice(0, max(len(ids) - 1, 0)))
    if np.asarray(same).any():
        twice = ids.slice(1).filter(same)[0].as_py()
        raise SnapshotError(
            f"{name}: the id {twice!r} is there more than once",
            hint="Create the constraints of the schema (kithkin ingest does) and merge the nodes.",
        )
