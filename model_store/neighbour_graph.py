"""The similarity graph that a neural score is searched in, as it lies in files: layers of neighbour lists."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_store.durable import naming, save_array
from model_store.errors import BundleCorrupt

_PARTS = ("nodes", "indptr", "indices")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The nodes of one layer and their neighbours in it; a layer's nodes are among those of the layer below."""

    nodes: NDArray[np.int64]
    """``[n]`` entity rows, ascending."""
    indptr: NDArray[np.int64]
    """``[n + 1]``."""
    indices: NDArray[np.int32]
    """Entity rows; the neighbours of ``nodes[i]`` are ``indices[indptr[i]:indptr[i + 1]]``."""

    @cached_property
    def whole(self) -> bool:
        """Whether it holds every entity, so that a row is its own place."""
        return bool(len(self.nodes) == self.nodes[-1] + 1)

    @cached_property
    def degree(self) -> int:
        """Neighbours of a node, at most."""
        return int(np.diff(self.indptr).max(initial=0))

    def neighbours_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Neighbours of entity rows that are in the layer, one after the other, repeats and all."""
        places = rows if self.whole else np.searchsorted(self.nodes, rows)
        starts, counts = self.indptr[places], self.indptr[places + 1] - self.indptr[places]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        found: NDArray[np.int64] = self.indices[np.repeat(starts, counts) + within].astype(np.int64)
        return found


@dataclass(frozen=True, kw_only=True)
class NeighbourGraph:
    """Layers, the lowest first, which holds every entity; in each, every node is reached from the entry."""

    layers: tuple[Layer, ...]
    entry: int
    """Entity row, in every layer."""

    @property
    def num_entities(self) -> int:
        return len(self.layers[0].nodes)

    def save(self, folder: Path) -> None:
        """Write ``graph.json`` and per layer ``<number>.{nodes,indptr,indices}.npy``."""
        folder.mkdir(parents=True, exist_ok=True)
        for number, layer in enumerate(self.layers):
            for name in _PARTS:
                save_array(folder / f"{number}.{name}.npy", getattr(layer, name))
        with naming(folder / "graph.json"):
            (folder / "graph.json").write_text(json.dumps({"layers": len(self.layers), "entry": self.entry}))

    @classmethod
    def load(cls, folder: Path) -> NeighbourGraph:
        """Read what ``save`` wrote, memory-mapped. Raises BundleCorrupt where it cannot be read."""
        try:
            found = json.loads((folder / "graph.json").read_text())
            layers = [_layer(folder, number) for number in range(found["layers"])]
            return cls(layers=tuple(layers), entry=int(found["entry"]))
        except (OSError, ValueError, KeyError) as error:
            raise BundleCorrupt(f"holds no similarity graph that can be read: {error}", file=folder) from None


def _layer(folder: Path, number: int) -> Layer:
    parts = {}
    for name in _PARTS:
        path = folder / f"{number}.{name}.npy"
        try:
            parts[name] = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:
            # An array with no elements cannot be mapped.
            parts[name] = np.load(path, allow_pickle=False)
    return Layer(**parts)
