"""A bundle without some of its nodes: what a person who asks to be forgotten leaves behind is rewritten, not hidden."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kithkin.v1 import bundle_pb2
from model_store import layout
from model_store.bundle import Bundle
from model_store.csr import Csr, EdgeType
from model_store.durable import naming, save_array
from model_store.features import Block, FeatureTransforms, LinkBlock
from model_store.writer import BundleWriter


def write_without(writer: BundleWriter, bundle: Bundle, node_type: str, rows: Sequence[int]) -> None:
    """Fill a bundle in the making with another's content, without these rows of a node type.

    Their edges go with them, and their row of every array that has one per node (vectors, states, relevance, focal
    vectors, factors of link features); rows after them move up. Indexes are the server's to build
    (``server.index.publish.build_indexes``). What training learned from them stays in the vectors of others. The
    entities of a neural scorer cannot be removed: ``commit`` refuses such a bundle.
    """
    gone = np.unique(np.asarray(rows, np.int64))
    kept = bundle_pb2.BundleManifest()
    kept.CopyFrom(bundle.manifest)
    kept.version = writer.manifest.version
    kept.published_at.CopyFrom(writer.manifest.published_at)
    del kept.files[:]
    for described in kept.node_types:
        if described.name == node_type:
            described.count -= len(gone)
    writer.manifest.CopyFrom(kept)

    features = _features(bundle, node_type, gone)
    if features is not None:
        features.save(writer.features_folder)
    for entry in bundle.manifest.files:
        path = writer.folder / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.path.startswith(("index/", "neighbours/")) or (features and entry.path.startswith("features/")):
            continue
        if entry.path == layout.nodes_path(node_type):
            _write_table(path, _nodes(bundle.nodes(node_type), gone))
        elif entry.path.startswith("spaces/") and path.name == f"{node_type}.npy":
            save_array(path, np.delete(np.load(bundle.folder / entry.path, mmap_mode="r"), gone, axis=0))
        else:
            _link(bundle.folder / entry.path, path)
    for edge_type in bundle.edge_types:
        _neighbours(writer, bundle, edge_type, node_type, gone)


def _features(bundle: Bundle, node_type: str, gone: NDArray[np.int64]) -> FeatureTransforms | None:
    """The transforms without the removed nodes' factors; None where no link feature is of this type."""
    if not any(entry.path == "features/features.json" for entry in bundle.manifest.files):
        return None
    blocks = bundle.features().blocks
    kept: dict[str, NDArray[np.float32]] = {}
    changed = False

    def without(block: Block) -> Block:
        nonlocal changed
        if not isinstance(block, LinkBlock):
            return block
        # Blocks that share a file go on sharing one.
        file = f"{getattr(block.factors, 'filename', id(block.factors))}"
        if block.neighbour_type != node_type:
            return replace(block, factors=kept.setdefault(file, block.factors))
        changed = True
        if file not in kept:
            kept[file] = np.delete(block.factors, gone[gone < len(block.factors)], axis=0)
        return replace(block, factors=kept[file])

    cut = {name: tuple(without(each) for each in of_type) for name, of_type in blocks.items()}
    return FeatureTransforms(cut) if changed else None


def _nodes(table: pa.Table, gone: NDArray[np.int64]) -> pa.Table:
    keep = np.ones(table.num_rows, bool)
    keep[gone] = False
    return table.filter(pa.array(keep)).combine_chunks()


def _write_table(path: Path, table: pa.Table) -> None:
    # ``filter`` keeps nothing of what it leaves out: its buffers are new.
    with naming(path), pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        for batch in table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]:
            file.write_batch(batch)


def _neighbours(
    writer: BundleWriter, bundle: Bundle, edge_type: EdgeType, node_type: str, gone: NDArray[np.int64]
) -> None:
    lists = bundle.neighbours(edge_type)
    if edge_type.node_type == node_type:
        lists = _without_rows(lists, gone)
    if edge_type.neighbour_type == node_type:
        lists = _without_neighbours(lists, gone, bundle.node_types[node_type].count)
    writer.write_neighbours(edge_type, lists)
    if not edge_type.reversed:
        for relation in writer.manifest.relations:
            if (relation.source, relation.name, relation.target) == tuple(edge_type.triple):
                relation.edges -= bundle.neighbours(edge_type).num_edges - lists.num_edges


def _without_rows(lists: Csr, gone: NDArray[np.int64]) -> Csr:
    lengths = np.diff(lists.indptr)
    keep = np.ones(len(lengths), bool)
    keep[gone] = False
    edges = np.repeat(keep, lengths)
    return _csr(lengths[keep], lists, edges)


def _without_neighbours(lists: Csr, gone: NDArray[np.int64], count: int) -> Csr:
    keep = np.ones(count, bool)
    keep[gone] = False
    moved = np.cumsum(keep) - 1
    edges = keep[lists.indices]
    owners = np.repeat(np.arange(lists.num_rows), np.diff(lists.indptr))[edges]
    shorter = _csr(np.bincount(owners, minlength=lists.num_rows), lists, edges)
    return Csr(indptr=shorter.indptr, indices=moved[shorter.indices].astype(np.int32), weight=shorter.weight)


def _csr(lengths: NDArray[np.int64], lists: Csr, edges: NDArray[np.bool_]) -> Csr:
    return Csr(
        indptr=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        indices=np.asarray(lists.indices)[edges],
        weight=None if lists.weight is None else np.asarray(lists.weight)[edges],
    )


def _link(source: Path, target: Path) -> None:
    """The same file under another name where the disk can do that: bundles' files are never written again."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
