"""Parts on disk: each is a snapshot of its own, beside what ties it to the whole.

Layout of the folder::

    partition.json                parent, method, cut edges; written last
    <part>/part.json              parent, part of how many, content hash, counts and shares
    <part>/snapshot/<hash>/       the part as a snapshot (docs/snapshot.md)
    <part>/rows/<Type>.npy        int64, row in the whole graph of every node
    <part>/held_out/<key>.npy     bool, which edges of an engagement relation are kept for evaluation
    <part>/features/              the feature transforms, their factors cut to the part's nodes
    <part>/node_features/         float32 per type, what the whole graph says of every node (space ``similar``)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph_store.progress import NoProgress, Progress
from graph_store.schema import Triple
from graph_store.store import Counts, GraphStore
from model_store.csr import EdgeType
from model_store.features import Block, FeatureTransforms, LinkBlock
from training.distributed.partition import PartContent, Partition, part_content, shares
from training.errors import DistributedError
from training.export import Snapshot, export_snapshot
from training.graph import Graph, engagements, kept_edges, transposed
from training.holdout import Split
from training.node_features import NodeFeatures

_PARTITION = "partition.json"
_PART = "part.json"
_NODE_FEATURES = "node_features"
_EDGES_AT_ONCE = 1 << 20
_NODES_AT_ONCE = 1 << 14
_AGAIN = "Train with --force, which makes the parts anew."


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part, opened; a worker reads nothing else of the graph."""

    snapshot: Snapshot
    rows: dict[str, NDArray[np.int64]]
    """Row in the whole graph of every node, by type."""
    held_out: dict[EdgeType, NDArray[np.bool_]]
    """Which edges are kept for evaluation, by engagement relation."""
    transforms: FeatureTransforms
    document: dict[str, Any]
    """What ``part.json`` says: counts and shares."""
    folder: Path

    @classmethod
    def open(cls, folder: Path, *, parent: str, part: int, parts: int) -> Part:
        """Open one part. Raises DistributedError where it is not this part of this snapshot."""
        try:
            document = json.loads((folder / _PART).read_text(encoding="utf-8"))
            found = document["parent"], document["part"], document["parts"]
        except (OSError, ValueError, KeyError) as error:
            raise DistributedError(f"{folder} is not a part of a graph: {error}", hint=_AGAIN) from None
        if found != (parent, part, parts):
            raise DistributedError(
                f"{folder} is part {found[1]} of {found[2]} of snapshot {found[0][:12]}, "
                f"wanted is part {part} of {parts} of snapshot {parent[:12]}",
                hint=_AGAIN,
            )
        snapshot = Snapshot.open(folder / "snapshot" / document["content_hash"])
        schema = snapshot.schema
        return cls(
            snapshot=snapshot,
            rows={each.name: np.load(folder / "rows" / f"{each.name}.npy") for each in schema.node_types},
            held_out={
                (edge_type := EdgeType(each.triple)): np.load(folder / "held_out" / f"{edge_type.key}.npy")
                for each in engagements(schema)
            },
            transforms=FeatureTransforms.load(folder / "features"),
            document=document,
            folder=folder,
        )

    def node_features(self) -> StoredFeatures:
        """The features of every node as ``write_features`` wrote them."""
        graph = Graph(self.snapshot)
        return StoredFeatures(graph, self.transforms, self.folder / _NODE_FEATURES)

    def training_graph(self) -> Graph:
        """The part without the engagements kept for evaluation, as ``split_newest`` took them from the whole graph."""
        replaced = {}
        for edge_type, held_out in self.held_out.items():
            kept = kept_edges(self.snapshot.csr(edge_type), ~held_out)
            columns = self.snapshot.num_nodes(edge_type.neighbour_type)
            replaced[edge_type] = kept
            replaced[EdgeType(edge_type.triple, True)] = transposed(kept, columns)
        return Graph(self.snapshot, replaced=replaced, derived=False)


class StoredFeatures(NodeFeatures):
    """Features that lie in files: those a node has in the whole graph, where all of its links are."""

    def __init__(self, graph: Graph, transforms: FeatureTransforms, folder: Path) -> None:
        super().__init__(graph, transforms, memory_mib=0)
        self._kept = {
            each.name: np.load(folder / f"{each.name}.npy", mmap_mode="r") for each in graph.schema.node_types
        }


def write_features(folder: Path, parts: int, features: NodeFeatures) -> None:
    """Write the features of every part's nodes, taken from the whole graph, beside parts that are there already."""
    for part in range(parts):
        place = folder / str(part) / _NODE_FEATURES
        place.mkdir(exist_ok=True)
        for rows_file in sorted((folder / str(part) / "rows").iterdir()):
            name, rows = rows_file.stem, np.load(rows_file)
            if (place / rows_file.name).exists():
                continue
            unfinished = place / f"{name}.unfinished"
            shape = len(rows), features.transforms.width(name)
            out = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.float32, shape=shape)
            for first in range(0, len(rows), _NODES_AT_ONCE):
                out[first : first + _NODES_AT_ONCE] = features.take(name, rows[first : first + _NODES_AT_ONCE])
            out.flush()
            unfinished.replace(place / rows_file.name)


def write_parts(
    folder: Path,
    snapshot: Snapshot,
    split: Split,
    transforms: FeatureTransforms,
    chosen: Partition,
    *,
    method: str,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write every part into a folder, one after the other; returns what stands in ``partition.json``."""
    progress = progress or NoProgress()
    shutil.rmtree(folder, ignore_errors=True)
    counts = {each.triple: snapshot.num_edges(each.triple) for each in snapshot.schema.relations}
    described = []
    with progress.task("write parts", chosen.parts, "parts") as task:
        for part in range(chosen.parts):
            content = part_content(snapshot, chosen, part)
            described.append(
                _write_part(folder / str(part), snapshot, split, transforms, content, counts, part, chosen)
            )
            task.advance()
    document = {
        "parent": snapshot.content_hash,
        "method": method,
        "halo": chosen.halo,
        "whole": sorted(str(triple) for triple in chosen.whole),
        "edges": {str(triple): count for triple, count in counts.items()},
        "cut": {str(triple): count for triple, count in chosen.cut.items()},
        "parts": described,
    }
    # Last: a folder with this file is whole.
    _write_json(folder / _PARTITION, document)
    return document


def written_parts(folder: Path, parent: str) -> dict[str, Any] | None:
    """What ``partition.json`` says, where the parts of this snapshot are there; else None."""
    try:
        document: dict[str, Any] = json.loads((folder / _PARTITION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if document.get("parent") == parent else None


def _write_part(
    folder: Path,
    snapshot: Snapshot,
    split: Split,
    transforms: FeatureTransforms,
    content: PartContent,
    counts: dict[Triple, int],
    part: int,
    chosen: Partition,
) -> dict[str, Any]:
    store = _PartStore(snapshot, content)
    # The exporter scans, counts and asks for a state; nothing else of a store's contract is needed.
    written = export_snapshot(cast(GraphStore, store), snapshot.schema, folder / "snapshot")
    for name in ("rows", "held_out"):
        (folder / name).mkdir()
    for name, rows in content.rows.items():
        np.save(folder / "rows" / f"{name}.npy", rows)
    for edge_type, newest in split.newest.items():
        # The edges of a part stand in the order of the whole.
        np.save(folder / "held_out" / f"{edge_type.key}.npy", newest[content.edges[edge_type.triple]])
    _of_rows(transforms, content.rows).save(folder / "features")
    document = {
        "parent": snapshot.content_hash,
        "part": part,
        "parts": chosen.parts,
        "content_hash": written.content_hash,
        "nodes": {name: len(rows) for name, rows in content.rows.items()},
        "owned": content.owned,
        "edges": {str(triple): int(mask.sum()) for triple, mask in content.edges.items()},
        "shares": shares(snapshot.schema, counts, content),
    }
    _write_json(folder / _PART, document)
    return document


def _of_rows(transforms: FeatureTransforms, rows: dict[str, NDArray[np.int64]]) -> FeatureTransforms:
    """The same transforms for a part's nodes: neighbours are looked up by their rows there."""
    cut: dict[int, NDArray[np.float32]] = {}
    blocks: dict[str, list[Block]] = {}
    for name, whole in transforms.blocks.items():
        blocks[name] = []
        for block in whole:
            if isinstance(block, LinkBlock):
                # Blocks that share their factors go on sharing them, on disk too.
                if id(block.factors) not in cut:
                    cut[id(block.factors)] = np.asarray(block.factors)[rows[block.neighbour_type]]
                block = replace(block, factors=cut[id(block.factors)])
            blocks[name].append(block)
    return FeatureTransforms(blocks)


def _write_json(path: Path, document: dict[str, Any]) -> None:
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(document, indent=1), encoding="utf-8")
    unfinished.replace(path)


@dataclass(frozen=True)
class _PartStore:
    """A part of a snapshot as the exporter reads a store."""

    snapshot: Snapshot
    content: PartContent

    def state_token(self) -> str:
        return self.snapshot.content_hash

    def counts(self) -> Counts:
        return Counts(
            nodes={name: len(rows) for name, rows in self.content.rows.items()},
            edges={triple: int(mask.sum()) for triple, mask in self.content.edges.items()},
        )

    def scan_nodes(self, node_type: str) -> Iterator[pa.RecordBatch]:
        yield from self.snapshot.nodes(node_type).take(pa.array(self.content.rows[node_type])).to_batches()

    def scan_edges(self, triple: Triple) -> Iterator[pa.RecordBatch]:
        declared = self.snapshot.schema.relation(triple).arrow_schema
        csr = self.snapshot.csr(EdgeType(triple))
        properties = self.snapshot.edges(triple)
        kept = np.flatnonzero(self.content.edges[triple])
        source, target = self.snapshot.ids(triple.source), self.snapshot.ids(triple.target)
        for first in range(0, len(kept), _EDGES_AT_ONCE):
            chosen = kept[first : first + _EDGES_AT_ONCE]
            rows = np.searchsorted(np.asarray(csr.indptr), chosen, side="right") - 1
            columns = [source.take(pa.array(rows)), target.take(pa.array(np.asarray(csr.indices)[chosen]))]
            if properties.num_columns:
                table = properties.take(pa.array(chosen)).combine_chunks()
                columns += [table.column(name).combine_chunks() for name in declared.names[2:]]
            yield pa.RecordBatch.from_arrays(columns, schema=declared)


def describe(document: dict[str, Any]) -> dict[str, Any]:
    """The figures of a partition in few numbers: cut share, and the largest share that a part holds."""
    total = sum(document["edges"][each] for each in document["cut"])
    return {
        "cut": sum(document["cut"].values()) / max(total, 1),
        "edges": max(each["shares"]["edges"] for each in document["parts"]),
        "engagement_and_co_engagement": max(
            each["shares"]["engagement_and_co_engagement"] for each in document["parts"]
        ),
    }
