"""Export: from a store's unordered rows to a snapshot, the same from every store."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graph_store.progress import NoProgress, Progress
from graph_store.schema import GraphSchema, NodeType, Relation
from graph_store.store import GraphStore
from training.errors import SnapshotError
from training.export.canonical import ColumnHash, blocks, canonical_column, content_hash, wide
from training.export.manifest import FILE_NAME, FileEntry, Manifest
from training.export.order import counting_order, edge_order
from training.export.snapshot import NO_TIME, Snapshot, relation_files

_LOOKUP_EDGES = 1 << 20
"""Edges gathered before their ids are turned into rows: building the table of ids is paid once per so many."""

_LARGEST = float(np.finfo(np.float32).max)

_CHANGING = "Something else may be writing to the store: export again once it has finished."


def export_snapshot(
    store: GraphStore, schema: GraphSchema, root: Path, *, progress: Progress | None = None
) -> Snapshot:
    """Write the store's content to ``root/<content hash>`` and open it; the same content is not written twice.

    One node type or relation at a time is in memory (docs/snapshot.md says how much). Raises SnapshotError for edges
    whose end is not in the store, for ids that are missing or there twice, for columns that are not of the declared
    type, and where the graph changed meanwhile; errors of the store pass through. Nothing is left behind when it fails.
    """
    progress = progress or NoProgress()
    root.mkdir(parents=True, exist_ok=True)
    folder = root / f".writing-{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        # Scans are several reads: only an unmoved store makes them one state of the graph.
        state = store.state_token()
        manifest = _write(store, schema, folder, progress)
        if store.state_token() != state:
            raise SnapshotError("the graph changed while it was read", hint=_CHANGING)
        place = root / manifest.content_hash
        existing = _existing(place, manifest)
        if existing is not None:
            return existing
        _settle(folder, manifest)
        _move(folder, place)
        _sync(root)
        return Snapshot.open(place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(store: GraphStore, schema: GraphSchema, folder: Path, progress: Progress) -> Manifest:
    for name in ("nodes", "edges", "csr"):
        (folder / name).mkdir()
    counts = store.counts()
    nodes: dict[str, dict[str, Any]] = {}
    relations: dict[str, dict[str, Any]] = {}
    ids: dict[str, pa.Array] = {}
    names: list[str] = []
    for node_type in schema.node_types:
        name = f"nodes/{node_type.name}.arrow"
        total = counts.nodes.get(node_type.name)
        ids[node_type.name], nodes[node_type.name] = _write_nodes(store, node_type, folder / name, total, progress)
        names.append(name)
    for relation in schema.relations:
        ends = (ids[relation.triple.source], ids[relation.triple.target])
        total = counts.edges.get(relation.triple)
        relations[relation.triple.key] = _write_edges(store, relation, ends, folder, total, progress)
        names.extend(relation_files(relation))
    files = {}
    for name in names:
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[name] = FileEntry(size=(folder / name).stat().st_size, sha256=digest)
    return Manifest(
        content_hash=content_hash(schema, nodes, relations),
        schema=schema,
        nodes=nodes,
        relations=relations,
        files=files,
    )


def _write_nodes(
    store: GraphStore, node_type: NodeType, path: Path, total: int | None, progress: Progress
) -> tuple[pa.Array, dict[str, Any]]:
    declared = node_type.arrow_schema
    batches = []
    with progress.task(f"read {node_type.name}", total, "nodes") as task:
        for batch in store.scan_nodes(node_type.name):
            batches.append(_declared_columns(batch, declared, node_type.name))
            task.advance(batch.num_rows)
    table = pa.Table.from_batches(batches, schema=_wide_schema(declared)).combine_chunks()
    ids = table.column("id")
    if ids.null_count:
        raise SnapshotError(
            f"{node_type.name}: {ids.null_count} nodes have no id", hint="Delete or repair these nodes."
        )
    # Arrow orders text by its bytes.
    order = pc.sort_indices(ids)
    ids = ids.take(order)
    if len(ids) > 1:
        same = pc.equal(ids.slice(1), ids.slice(0, len(ids) - 1))
        if pc.any(same).as_py():
            twice = ids.slice(1).filter(same)[0].as_py()
            raise SnapshotError(
                f"{node_type.name}: the id {twice!r} is there more than once",
                hint="Create the constraints of the schema (kithkin ingest does) and merge the nodes.",
            )
    hashes = _write_arrow(table, order, declared, path)
    flat = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    return flat, {"count": table.num_rows, "columns": hashes}


def _write_edges(
    store: GraphStore,
    relation: Relation,
    ends: tuple[pa.Array, pa.Array],
    folder: Path,
    total: int | None,
    progress: Progress,
) -> dict[str, Any]:
    source, target, table = _read_edges(store, relation, ends, total, progress)
    first = [name for name in (relation.time, relation.kind, relation.weight) if name]
    names = [*first, *(name for name in relation.properties if name not in first)]
    sizes = (len(ends[0]), len(ends[1]))
    order, indptr = edge_order(source, target, sizes, [table.column(name) for name in names])
    source, target = source[order], target[order]
    backward, indptr_rev = counting_order(target, sizes[1])
    key = relation.triple.key
    csr = folder / "csr"

    hashes = {"source": _hash_numbers(source), "target": _hash_numbers(target)}
    if relation.properties:
        declared = pa.schema(list(relation.arrow_schema)[2:])
        hashes |= _write_arrow(table, pa.array(order), declared, folder / "edges" / f"{key}.arrow")
    np.save(csr / f"{key}.indptr.npy", indptr)
    np.save(csr / f"{key}.indices.npy", target)
    np.save(csr / f"{key}__rev.indptr.npy", indptr_rev)
    np.save(csr / f"{key}__rev.indices.npy", source[backward])
    np.save(csr / f"{key}__rev.position.npy", backward)
    if relation.weight:
        weight = _weights(table.column(relation.weight))[order]
        np.save(csr / f"{key}.weight.npy", weight)
        np.save(csr / f"{key}__rev.weight.npy", weight[backward])
    if relation.time:
        time = _times(table.column(relation.time))[order]
        np.save(csr / f"{key}.time.npy", time)
        np.save(csr / f"{key}__rev.time.npy", time[backward])
    return {"count": len(order), "columns": hashes}


def _read_edges(
    store: GraphStore, relation: Relation, ends: tuple[pa.Array, pa.Array], total: int | None, progress: Progress
) -> tuple[NDArray[np.int32], NDArray[np.int32], pa.Table]:
    """Rows of both ends and a table of the properties, in the store's order."""
    declared = relation.arrow_schema
    gather = max(_LOOKUP_EDGES, len(ends[0]), len(ends[1]))
    sources: list[NDArray[np.int32]] = []
    targets: list[NDArray[np.int32]] = []
    kept: list[pa.RecordBatch] = []
    with progress.task(f"read {relation.triple}", total, "edges") as task:
        for table in _gathered(store.scan_edges(relation.triple), declared, str(relation.triple), gather):
            sources.append(_rows(table.column("source"), ends[0], relation, "source"))
            targets.append(_rows(table.column("target"), ends[1], relation, "target"))
            kept.extend(table.drop_columns(["source", "target"]).to_batches())
            task.advance(table.num_rows)
    empty = np.empty(0, dtype=np.int32)
    properties = pa.Table.from_batches(kept, schema=pa.schema(list(_wide_schema(declared))[2:]))
    return np.concatenate([empty, *sources]), np.concatenate([empty, *targets]), properties.combine_chunks()


def _gathered(batches: Iterator[pa.RecordBatch], declared: pa.Schema, what: str, rows: int) -> Iterator[pa.Table]:
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(_declared_columns(batch, declared, what))
        if sum(len(part) for part in waiting) >= rows:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


def _declared_columns(batch: pa.RecordBatch, declared: pa.Schema, what: str) -> pa.RecordBatch:
    """The declared columns in declared order and type, canonical, with 64-bit offsets."""
    columns = []
    for field in declared:
        if field.name not in batch.schema.names:
            raise SnapshotError(f"{what}: the store sends no column {field.name!r}", hint="Apply the schema first.")
        column = batch.column(field.name)
        try:
            columns.append(canonical_column(column.cast(field.type).cast(wide(field.type))))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SnapshotError(
                f"{what}: column {field.name!r} is declared as {field.type}, the store sends {column.type}: {error}",
                hint="Correct the property's type in kithkin.toml, or the values in the store.",
            ) from None
    return pa.RecordBatch.from_arrays(columns, schema=_wide_schema(declared))


def _wide_schema(declared: pa.Schema) -> pa.Schema:
    return pa.schema([pa.field(field.name, wide(field.type)) for field in declared])


def _rows(values: pa.ChunkedArray, ids: pa.Array, relation: Relation, end: str) -> NDArray[np.int32]:
    rows = pc.index_in(values, value_set=ids)
    if rows.null_count:
        example = values.filter(rows.is_null())[0].as_py()
        node_type = relation.triple.source if end == "source" else relation.triple.target
        raise SnapshotError(
            f"{relation.triple}: {rows.null_count} edges have a {end} that is no {node_type} in the store, "
            f"such as {example!r}",
            hint=_CHANGING,
        )
    return np.asarray(rows.combine_chunks() if isinstance(rows, pa.ChunkedArray) else rows)


def _write_arrow(table: pa.Table, order: pa.Array, declared: pa.Schema, path: Path) -> dict[str, str]:
    """Write the rows in this order, block by block, and hash every column on the way."""
    hashes = {name: ColumnHash() for name in declared.names}
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, declared) as writer:
        for start, length in blocks(table.num_rows):
            part = table.take(order.slice(start, length)).combine_chunks()
            arrays = []
            for field in declared:
                column = part.column(field.name).combine_chunks().cast(field.type)
                hashes[field.name].update(column)
                arrays.append(column)
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=declared))
    return {name: column.hexdigest() for name, column in hashes.items()}


def _hash_numbers(values: NDArray[np.int32]) -> str:
    digest = ColumnHash()
    for start, length in blocks(len(values)):
        digest.update(values[start : start + length])
    return digest.hexdigest()


def _weights(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Weights as float32, at most its largest number; a missing one is 1, as in a relation without weights."""
    weights = np.asarray(column.cast(pa.float64()).fill_null(1.0))
    narrow: NDArray[np.float32] = np.clip(weights, -_LARGEST, _LARGEST).astype(np.float32)
    return narrow


def _times(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """UTC microseconds; a day is its midnight, a missing time ``NO_TIME``."""
    stamps = column.cast(pa.timestamp("us")) if pa.types.is_date(column.type) else column
    return np.asarray(stamps.cast(pa.int64()).fill_null(NO_TIME))


def _existing(place: Path, manifest: Manifest) -> Snapshot | None:
    """The snapshot that is already there, if it is whole; a damaged one or one of another format makes room."""
    if not place.exists():
        return None
    try:
        snapshot = Snapshot.open(place)
        if snapshot.content_hash == manifest.content_hash:
            return snapshot
    except SnapshotError:
        pass
    old = place.with_name(f".replaced-{secrets.token_hex(4)}")
    place.rename(old)
    shutil.rmtree(old, ignore_errors=True)
    return None


def _settle(folder: Path, manifest: Manifest) -> None:
    """Write the manifest last, and bring everything to disk."""
    manifest.write(folder)
    for name in (*manifest.files, FILE_NAME):
        _sync(folder / name)
    for inner in (folder / "nodes", folder / "edges", folder / "csr", folder):
        _sync(inner)


def _move(folder: Path, place: Path) -> None:
    try:
        folder.rename(place)
    except OSError:
        # Another export of the same content was quicker: theirs is as good.
        if not place.exists():
            raise


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
