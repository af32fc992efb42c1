"""Features of a graph's nodes: all of them in memory where they fit, else in a file, else made when asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_store.csr import Csr, EdgeType
from model_store.durable import naming, reserve
from model_store.features import FeatureTransforms, LinkBlock
from training.graph import Graph

Floats = NDArray[np.float32]
_NODES_AT_ONCE = 65_536


class NodeFeatures:
    """What ``FeatureTransforms.apply`` makes of a graph, for any nodes. Threads may share it."""

    def __init__(
        self, graph: Graph, transforms: FeatureTransforms, *, memory_mib: float, folder: Path | None = None
    ) -> None:
        """Kept in memory where all features of all types take at most ``memory_mib`` mebibytes.

        Else they are made once, into memory-mapped files in ``folder``; without a folder whenever they are asked for.
        """
        self.graph, self.transforms = graph, transforms
        # The column of ids stands in where no property is read: it says how many nodes there are.
        self._columns = {
            name: [block.name for block in blocks if not isinstance(block, LinkBlock)] or ["id"]
            for name, blocks in transforms.blocks.items()
        }
        self._edge_types = {
            name: {each for block in blocks if isinstance(block, LinkBlock) for each in block.edge_types}
            for name, blocks in transforms.blocks.items()
        }
        names = [node_type.name for node_type in graph.schema.node_types]
        needed = sum(4 * transforms.width(name) * graph.num_nodes(name) for name in names)
        self.in_memory = needed <= memory_mib * 2**20
        self._kept: dict[str, Floats] = {}
        if self.in_memory or folder is not None:
            self._kept = {name: self._whole(name, None if self.in_memory else folder) for name in names}

    def part(self, node_type: str, first: int, last: int) -> Floats:
        """Features ``[last - first, width]`` of the nodes from ``first`` up to ``last``."""
        if self._kept:
            return self._kept[node_type][first:last]
        return self._made(node_type, first, last)

    def take(self, node_type: str, rows: NDArray[np.int64]) -> Floats:
        """Features ``[rows, width]`` of the given nodes."""
        if self._kept:
            return np.asarray(self._kept[node_type][rows])
        # A node is made once, however often it is asked for.
        unique, place = np.unique(rows, return_inverse=True)
        properties = self.graph.properties(node_type).select(self._columns[node_type]).take(unique)
        links = {each: csr.take(unique) for each, csr in self._links(node_type).items()}
        return self.transforms.apply(node_type, properties, links)[place]

    def _whole(self, node_type: str, folder: Path | None) -> Floats:
        count = self.graph.num_nodes(node_type)
        shape = (count, self.transforms.width(node_type))
        out = empty_rows(folder, shape)
        for first in range(0, count, _NODES_AT_ONCE):
            last = min(first + _NODES_AT_ONCE, count)
            out[first:last] = self._made(node_type, first, last)
        return out

    def _made(self, node_type: str, first: int, last: int) -> Floats:
        properties = self.graph.properties(node_type).select(self._columns[node_type]).slice(first, last - first)
        links = {each: csr.part(first, last) for each, csr in self._links(node_type).items()}
        return self.transforms.apply(node_type, properties, links)

    def _links(self, node_type: str) -> dict[EdgeType, Csr]:
        return {each: csr for each, csr in self.graph.links(node_type).items() if each in self._edge_types[node_type]}


def empty_rows(folder: Path | None, shape: tuple[int, int]) -> Floats:
    """An array to write into: with a folder a memory-mapped file without a name, which is gone when the process ends,
    however it ends.
    """
    if folder is None or not shape[0]:
        return np.empty(shape, np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    with naming(folder), tempfile.TemporaryFile(dir=folder) as file:
        reserve(file.fileno(), 4 * shape[0] * shape[1])
        return np.memmap(file, dtype=np.float32, mode="w+", shape=shape)
