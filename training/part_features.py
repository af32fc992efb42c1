"""Features of a graph's nodes without one part of the engagements, for each part that takes its turn.

What engagements do not touch is the same in all parts and stands there once. Of the blocks of engagement links there is
one copy a part; all parts' are made in one pass over the edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model_store.csr import Csr, EdgeType
from model_store.features import FeatureTransforms, LinkBlock, link_weight
from training.edge_kernels import row_spans, sums_without
from training.graph import kept_edges
from training.node_features import NodeFeatures, empty_rows
from training.supervision import PartGraph, Turns

Floats = NDArray[np.float32]
_EDGES_AT_ONCE = 1 << 22
_BYTES_AT_ONCE = 1 << 26
_NOTHING = pa.table({})
"""Link blocks read no properties."""


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """Which columns of a node type's features are of engagement links, and the blocks they are."""

    blocks: tuple[LinkBlock, ...]
    own: NDArray[np.int64]
    common: NDArray[np.int64]


def part_features(
    transforms: FeatureTransforms, graphs: list[PartGraph], *, memory_mib: float, folder: Path | None = None
) -> list[NodeFeatures]:
    """The features of each of the graphs, which are all parts of one; see ``NodeFeatures`` for memory and folder."""
    turns = graphs[0].turns
    graph = turns.graph
    columns = {name: _columns(transforms, name, turns) for name in transforms.blocks}
    common = FeatureTransforms(
        {
            name: [each for each in blocks if not any(each is other for other in columns[name].blocks)]
            for name, blocks in transforms.blocks.items()
        }
    )
    needed = sum(
        4 * graph.num_nodes(name) * (len(each.common) + turns.parts * len(each.own)) for name, each in columns.items()
    )
    in_memory = needed <= memory_mib * 2**20
    shared = NodeFeatures(
        graph, common, memory_mib=float("inf") if in_memory else 0.0, folder=None if in_memory else folder
    )
    kept: list[dict[str, Floats]] = [{} for _ in graphs]
    if in_memory or folder is not None:
        for name, each in columns.items():
            shape = (graph.num_nodes(name), len(each.own))
            arrays = [empty_rows(None if in_memory else folder, shape) for _ in graphs]
            if each.blocks:
                _fill(arrays, each.blocks, turns)
            for of_part, array in zip(kept, arrays, strict=True):
                of_part[name] = array
    return [
        PartFeatures(own, transforms, columns=columns, shared=shared, kept=of_part)
        for own, of_part in zip(graphs, kept, strict=True)
    ]


class PartFeatures(NodeFeatures):
    """``NodeFeatures`` of a part's graph, put together from what all parts share and what is its own."""

    def __init__(
        self,
        graph: PartGraph,
        transforms: FeatureTransforms,
        *,
        columns: Mapping[str, _Columns],
        shared: NodeFeatures,
        kept: Mapping[str, Floats],
    ) -> None:
        """``kept``: the part's own columns of all nodes; empty: they are made when asked for."""
        self.graph, self.transforms, self.in_memory = graph, transforms, shared.in_memory
        self._part, self._turns = graph.part, graph.turns
        self._columns_of, self._shared, self._own = columns, shared, kept

    def part(self, node_type: str, first: int, last: int) -> Floats:
        """See ``NodeFeatures``."""
        return self.take(node_type, np.arange(first, last))

    def take(self, node_type: str, rows: NDArray[np.int64]) -> Floats:
        """See ``NodeFeatures``."""
        columns = self._columns_of[node_type]
        out = np.empty((len(rows), self.transforms.width(node_type)), np.float32)
        out[:, columns.common] = self._shared.take(node_type, rows)
        out[:, columns.own] = self._own[node_type][rows] if self._own else self._made_for(columns, rows)
        return out

    def _made_for(self, columns: _Columns, rows: NDArray[np.int64]) -> Floats:
        unique, place = np.unique(rows, return_inverse=True)
        links: dict[EdgeType, Csr] = {}
        for block in columns.blocks:
            for each in block.edge_types:
                if each not in links:
                    csr = self._turns.graph.csr(each).take(unique)
                    links[each] = kept_edges(csr, self._turns.of(each, csr, unique) != self._part)
        empty = np.empty((len(unique), 0), np.float32)
        parts = [block.apply(len(unique), _NOTHING, links) for block in columns.blocks]
        return np.concatenate([empty, *parts], axis=1)[place]


def _columns(transforms: FeatureTransforms, node_type: str, turns: Turns) -> _Columns:
    blocks, own, begin = [], [], 0
    for block in transforms.blocks[node_type]:
        if isinstance(block, LinkBlock) and turns.numbers.keys() & set(block.edge_types):
            blocks.append(block)
            own.append(np.arange(begin, begin + block.width))
        begin += block.width
    chosen = np.concatenate([np.empty(0, np.int64), *own])
    return _Columns(
        blocks=tuple(blocks), own=chosen, common=np.setdiff1d(np.arange(transforms.width(node_type)), chosen)
    )


def _fill(arrays: list[Floats], blocks: tuple[LinkBlock, ...], turns: Turns) -> None:
    """Write the blocks of all nodes for every part."""
    begin = 0
    for block in blocks:
        links = {each: turns.graph.csr(each) for each in block.edge_types if each in turns.graph.edge_types}
        at_once = max(_BYTES_AT_ONCE // (4 * block.direction * turns.parts), 1)
        for low, high in row_spans([csr.indptr for csr in links.values()], _EDGES_AT_ONCE):
            for first in range(low, high, at_once):
                last = min(first + at_once, high)
                total = np.zeros((turns.parts, last - first, block.direction), np.float32)
                count = np.zeros((turns.parts, last - first), np.int64)
                for each, median in zip(block.edge_types, block.medians, strict=True):
                    if each not in links:
                        continue
                    part = links[each].part(first, last)
                    sums = np.zeros(total.shape, np.float64)
                    sums_without(
                        part.indptr,
                        np.asarray(part.indices),
                        link_weight(part, median, block.bounds),
                        turns.numbers[each][int(links[each].indptr[first]) : int(links[each].indptr[last])],
                        np.asarray(block.factors),
                        sums,
                        count,
                    )
                    total += sums.astype(np.float32)
                for number, array in enumerate(arrays):
                    array[first:last, begin : begin + block.width] = block.of_sums(total[number], count[number])
        begin += block.width
