"""From a batch's nodes to what the encoder reads: sampled neighbours, features, edges of every layer."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from graph_store.settings import SpaceSettings
from model_store.csr import EdgeType
from model_store.features import FeatureTransforms
from training.encoders.semantic_gnn import Batch
from training.graph import Graph
from training.neighbours import top_neighbours
from training.sampling import Exclusion, UniformSampler
from training.space_model import SpaceModel

Nodes = NDArray[np.int64]


class Batcher:
    """Features of all nodes and a sampler over their neighbour lists."""

    def __init__(
        self,
        graph: Graph,
        transforms: FeatureTransforms,
        edge_types: tuple[EdgeType, ...],
        settings: SpaceSettings,
        *,
        max_neighbours: int,
        seed: int,
    ) -> None:
        self.graph, self.edge_types = graph, edge_types
        self.types = tuple(node_type.name for node_type in graph.schema.node_types)
        self.offsets = np.array([graph.offsets[name] for name in self.types])
        self.features = {
            name: torch.from_numpy(transforms.apply(name, graph.properties(name), graph.links(name)))
            for name in self.types
        }
        self._layers = settings.layers
        self._sampler = UniformSampler(
            {each: top_neighbours(graph.csr(each), max_neighbours) for each in edge_types},
            {name: graph.num_nodes(name) for name in self.types},
            fan_out=(settings.sampled_fan_out,) * settings.layers,
            seed=seed,
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

    def batch(self, seeds: dict[str, Nodes], model: SpaceModel, *, key: int, exclude: Exclusion | None = None) -> Batch:
        """What the vectors of the seeds depend on; the seeds come first within their types."""
        device = model.medians.device
        if not self._layers:
            chosen = {name: seeds.get(name, np.empty(0, np.int64)) for name in self.types}
            return Batch(features=self._take(chosen, device), edges=[])
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
            for number, each in enumerate(self.edge_types):
                count = sum(subgraph.edges_per_hop[each][:hops])
                if not count:
                    continue
                shift = np.array([[first[each.neighbour_type]], [first[each.node_type]]])
                weight = subgraph.edge_weight[each]
                index.append(subgraph.edge_index[each][:, :count] + shift)
                kinds.append(np.full(count, number))
                weights.append(np.ones(count, np.float32) if weight is None else weight[:count])
            kind = torch.from_numpy(np.concatenate(kinds)).to(device)
            weight_of = model.weight(kind, torch.from_numpy(np.concatenate(weights)).to(device))
            edges.append((torch.from_numpy(np.concatenate(index, axis=1)).to(device), kind, weight_of))
        return Batch(features=self._take(chosen, device), edges=edges)

    def _take(self, chosen: dict[str, Nodes], device: torch.device) -> dict[str, torch.Tensor]:
        return {name: self.features[name][torch.from_numpy(nodes)].to(device) for name, nodes in chosen.items()}
