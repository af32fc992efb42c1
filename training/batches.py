"""From a batch's nodes to what the encoder reads: sampled neighbours, features, edges of every layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from graph_store.settings import SpaceSettings
from model_store.features import FeatureTransforms
from training.edge_inputs import edge_inputs
from training.encoders import Batch, Edges
from training.graph import Graph
from training.neighbourhoods import neighbourhoods
from training.node_features import NodeFeatures
from training.sampling import Exclusion
from training.space_model import SpaceShape

Nodes = NDArray[np.int64]


class Batcher:
    """Features of the nodes and a sampler over their neighbourhoods. Threads may share it."""

    def __init__(
        self,
        graph: Graph,
        transforms: FeatureTransforms,
        shape: SpaceShape,
        settings: SpaceSettings,
        *,
        max_neighbours: int,
        seed: int,
        memory_mib: float = 4096,
        folder: Path | None = None,
        features: NodeFeatures | None = None,
    ) -> None:
        """``memory_mib``: up to so much, the features of all nodes are held; else they are in files in ``folder``, or
        without one made for each batch. ``features``: those to read, where they are there already.
        """
        self.graph, self.shape = graph, shape
        self.types = tuple(node_type.name for node_type in graph.schema.node_types)
        self.offsets = np.array([graph.offsets[name] for name in self.types])
        if features is None:
            features = NodeFeatures(graph, transforms, memory_mib=memory_mib, folder=folder)
        self.features = features
        self._layers = settings.layers
        self._medians = torch.tensor(shape.medians or (0.0,), dtype=torch.float32)
        self._sampler = (
            neighbourhoods(graph, settings).sampler(limit=max_neighbours, seed=seed) if self._layers else None
        )

    def type_of(self, nodes: Nodes) -> NDArray[np.int64]:
        """Number of the type of each node of the column of all nodes."""
        return np.searchsorted(self.offsets, nodes, side="right") - 1

    def by_type(self, nodes: Nodes) -> dict[str, Nodes]:
        """Nodes of the column of all nodes (ascending), per type, as rows of the type."""
        bounds = [*np.searchsorted(nodes, self.offsets).tolist(), len(nodes)]
        return {
            name: nodes[bounds[number] : bounds[number + 1]] - self.offsets[number]
            for number, name in enumerate(self.types)
            if bounds[number] < bounds[number + 1]
        }

    def batch(self, seeds: dict[str, Nodes], *, key: int, exclude: Exclusion | None = None) -> Batch:
        """What the vectors of the seeds depend on; the seeds come first within their types."""
        if self._sampler is None:
            nothing = torch.empty(0)
            none = edge_inputs(torch.empty((2, 0), dtype=torch.int64), nothing.long(), nothing, self._medians, nodes=0)
            chosen = {name: seeds.get(name, np.empty(0, np.int64)) for name in self.types}
            return self._batch(chosen, [none] * self._layers)
        subgraph = self._sampler.sample(seeds, key=key, exclude=exclude)
        chosen = {name: subgraph.node_ids.get(name, np.empty(0, np.int64)) for name in self.types}
        first, begin = {}, 0
        for name in self.types:
            first[name] = begin
            begin += len(chosen[name])
        edges = []
        for layer in range(self._layers):
            # The last layer needs the edges of the first hop only.
            hops = self._layers - layer
            index, kinds, weights = [np.empty((2, 0), np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
            for number, each in enumerate(self.shape.edge_types):
                count = sum(subgraph.edges_per_hop.get(each, (0,))[:hops])
                if not count:
                    continue
                shift = np.array([[first[each.neighbour_type]], [first[each.node_type]]])
                # An edge of a metapath has no weight of its own, only an importance.
                weight = subgraph.edge_weight[each] if each in subgraph.edge_position else subgraph.importance[each]
                index.append(subgraph.edge_index[each][:, :count] + shift)
                kinds.append(np.full(count, number))
                weights.append(np.ones(count, np.float32) if weight is None else weight[:count])
            edges.append(
                edge_inputs(
                    torch.from_numpy(np.concatenate(index, axis=1)),
                    torch.from_numpy(np.concatenate(kinds)),
                    torch.from_numpy(np.concatenate(weights)),
                    self._medians,
                    nodes=begin,
                )
            )
        return self._batch(chosen, edges)

    def _batch(self, chosen: dict[str, Nodes], edges: list[Edges]) -> Batch:
        rows = {name: torch.from_numpy(nodes) for name, nodes in chosen.items()}
        features = {name: torch.from_numpy(self.features.take(name, nodes)) for name, nodes in chosen.items()}
        return Batch(features=features, rows=rows, edges=edges)
