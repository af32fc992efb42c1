"""One relation of a snapshot: its edges in the one order, seen from the source and from the target."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph_store.progress import Progress
from graph_store.schema import Relation
from graph_store.store import GraphStore
from training.errors import SnapshotError
from training.export.array_file import ArrayFile
from training.export.canonical import ColumnHash
from training.export.columns import ArrowFile, declared_columns, wide_schema
from training.export.node_rows import NodeRows, Scratch
from training.export.order import edge_order
from training.export.snapshot import NO_TIME
from training.export.sorting import PairKey, Sorter
from training.export.workspace import CHANGING

_LARGEST = float(np.finfo(np.float32).max)


def read_edges(
    store: GraphStore,
    relation: Relation,
    ends: tuple[NodeRows, NodeRows],
    sorter: Sorter,
    total: int | None,
    progress: Progress,
) -> None:
    """Put all edges of a relation into a sorter: rows of source and target, then the properties.

    Raises SnapshotError for an edge whose end is not in the store.
    """
    declared = relation.arrow_schema
    with progress.task(f"read {relation.triple}", total, "edges") as task:
        for batch in store.scan_edges(relation.triple):
            columns = declared_columns(batch, declared, str(relation.triple))
            rows = [
                pa.array(_rows(columns.column(end), known, relation, end))
                for end, known in zip(("source", "target"), ends, strict=True)
            ]
            sorter.add(pa.RecordBatch.from_arrays([*rows, *columns.columns[2:]], schema=sorted_schema(relation)))
            task.advance(batch.num_rows)


def sorted_schema(relation: Relation) -> pa.Schema:
    """What is sorted of a relation: int32 rows of source and target, then the properties."""
    properties = list(wide_schema(relation.arrow_schema))[2:]
    return pa.schema([pa.field("source", pa.int32()), pa.field("target", pa.int32()), *properties])


def edge_sorter(relation: Relation, scratch: Path, limit: int) -> Sorter:
    """An empty sorter of a relation's edges."""
    return Sorter(scratch, PairKey(), sorted_schema(relation), limit=limit)


def write_forward(
    relation: Relation, sorter: Sorter, sources: int, folder: Path, scratch: Scratch, progress: Progress
) -> dict[str, Any]:
    """Write the edges as seen from the source; returns their count and the hash of each column."""
    first = [name for name in (relation.time, relation.kind, relation.weight) if name]
    ties = [*first, *(name for name in relation.properties if name not in first)]
    key = relation.triple.key
    csr = folder / "csr"
    indptr = scratch.array("indptr", np.int64, sources + 1)
    hashed = {"source": ColumnHash(), "target": ColumnHash()}
    declared = pa.schema(list(relation.arrow_schema)[2:])
    start = 0
    with ExitStack() as files, progress.task(f"order {relation.triple}", sorter.rows, "edges") as task:
        indices = files.enter_context(ArrayFile.make(csr / f"{key}.indices.npy", np.int32, sorter.rows))
        weights, times = (
            files.enter_context(ArrayFile.make(csr / f"{key}.{name}.npy", dtype, sorter.rows)) if wanted else None
            for name, dtype, wanted in (("weight", np.float32, relation.weight), ("time", np.int64, relation.time))
        )
        edges = files.enter_context(ArrowFile(folder / "edges" / f"{key}.arrow", declared)) if len(declared) else None
        for window in sorter.windows():
            window = window.combine_chunks()
            source, target = (_numbers(window, name) for name in ("source", "target"))
            order = edge_order(source, target, [window.column(name) for name in ties])
            source, target = source[order], target[order]
            np.add.at(indptr, source + 1, 1)
            hashed["source"].update(source)
            hashed["target"].update(target)
            indices.write(start, target)
            if weights is not None:
                weights.write(start, _weights(window.column(relation.weight))[order])
            if times is not None:
                times.write(start, _times(window.column(relation.time))[order])
            if edges is not None:
                edges.add(window.select(declared.names), order)
            start += len(order)
            task.advance(len(order))
    np.cumsum(indptr, out=indptr)
    with ArrayFile.make(csr / f"{key}.indptr.npy", np.int64, len(indptr)) as file:
        file.write(0, indptr)
    hashes = {name: column.hexdigest() for name, column in hashed.items()}
    if edges is not None:
        hashes |= edges.hashes()
    return {"count": sorter.rows, "columns": hashes}


def _rows(ids: pa.Array, known: NodeRows, relation: Relation, end: str) -> NDArray[np.int32]:
    rows = known.of(ids)
    missing = rows < 0
    if missing.any():
        example = ids.filter(pa.array(missing))[0].as_py()
        node_type = relation.triple.source if end == "source" else relation.triple.target
        raise SnapshotError(
            f"{relation.triple}: {int(missing.sum())} edges have a {end} that is no {node_type} in the store, "
            f"such as {example!r}",
            hint=CHANGING,
        )
    return rows


def _numbers(window: pa.Table, name: str) -> NDArray[np.int32]:
    return np.asarray(window.column(name).combine_chunks())


def _weights(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Weights as float32, at most its largest number; a missing one is 1, as in a relation without weights."""
    weights = np.asarray(column.cast(pa.float64()).fill_null(1.0))
    narrow: NDArray[np.float32] = np.clip(weights, -_LARGEST, _LARGEST).astype(np.float32)
    return narrow


def _times(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """UTC microseconds; a day is its midnight, a missing time ``NO_TIME``."""
    stamps = column.cast(pa.timestamp("us")) if pa.types.is_date(column.type) else column
    return np.asarray(stamps.cast(pa.int64()).fill_null(NO_TIME))
