"""How much quicker are the vectors of all nodes made layer by layer than node by node?

    python -m benchmarks.inference --nodes 1000000 --edges 10000000 --layers 2 3 --batch-sizes 1 64

A generated snapshot (``_generated``). Layer by layer is ``embed`` of all items, tags and users, neighbour lists and
features included. Node by node expands the neighbourhood of each batch of nodes through the same lists, with the same
fan-out, and computes of it no more than each layer needs; a node that several nodes of a batch reach is computed once
for the batch. It is measured on a sample of evenly drawn nodes and extrapolated to all; its features are at hand and
its lists made, so only encoding counts. Both run on one thread, and their vectors are compared. Seconds are those of
the processor, so that other work on the machine does not count. Rows in ``results/inference.json`` are not measured
again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks._generated import generated_snapshot, thinned
from benchmarks._results import Results
from graph_store.settings import SpaceSettings
from model_store.features import FeatureTransforms
from training.edge_inputs import edge_inputs
from training.fit_features import fit_features
from training.graph import Graph
from training.inference import embed
from training.neighbourhoods import neighbourhoods, sizes
from training.node_features import NodeFeatures
from training.sampling import UniformSampler
from training.sampling.subgraph import Subgraph
from training.space_model import SpaceModel, SpaceShape

INPUT_DIMENSION = 16
TYPES = ("Item", "Tag", "User")
Nodes = NDArray[np.int64]


class NodeByNode:
    """The encoder over the whole neighbourhood of a few nodes."""

    def __init__(self, model: SpaceModel, graph: Graph, features: NodeFeatures) -> None:
        self.model, self.graph, self.features = model, graph, features
        settings = model.settings
        self.sampler = UniformSampler(
            neighbourhoods(graph, settings).lists(settings.fan_out), sizes(graph), fan_out=(-1,) * settings.layers
        )

    @torch.no_grad()
    def vectors(self, seeds: dict[str, Nodes]) -> dict[str, NDArray[np.float32]]:
        """Vectors of the seeds, by type; the space is of inner products."""
        model, found = self.model, self.sampler.sample(seeds)
        layers = model.settings.layers
        features = {name: torch.from_numpy(self.features.take(name, ids)) for name, ids in found.node_ids.items()}
        first = {name: model.encoder.project(name, each) for name, each in features.items()}
        state = first
        for layer in range(layers):
            state = self._layer(found, layer, state, first)
        out = {}
        for name, ids in seeds.items():
            own = state[name][: len(ids)]
            vector = model.encoder.head(name, features[name][: len(ids)], own)
            bias = model.encoder.bias[name](own)[:, 0]
            out[name] = model.finish(name, vector, bias, own[:, :0]).numpy()
        return out

    def _layer(
        self, found: Subgraph, layer: int, state: dict[str, torch.Tensor], first: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Nodes stand by hop, so what a later layer reads are the first of each type."""
        hops = self.model.settings.layers - layer
        count = {name: sum(found.nodes_per_hop[name][:hops]) for name in state}
        names = list(state)
        sender = dict(zip(names, np.cumsum([0, *(len(state[name]) for name in names)]).tolist(), strict=False))
        receiver = dict(zip(names, np.cumsum([0, *(count[name] for name in names)]).tolist(), strict=False))
        index, kinds, weights = [], [], []
        for number, each in enumerate(self.model.shape.edge_types):
            edges = sum(found.edges_per_hop.get(each, (0,))[:hops])
            if edges:
                shift = np.array([[sender[each.neighbour_type]], [receiver[each.node_type]]])
                weight = found.edge_weight[each]
                index.append(found.edge_index[each][:, :edges] + shift)
                kinds.append(np.full(edges, number))
                weights.append(np.ones(edges, np.float32) if weight is None else weight[:edges])
        edges_of_layer = edge_inputs(
            torch.from_numpy(np.concatenate(index, axis=1)),
            torch.from_numpy(np.concatenate(kinds)),
            torch.from_numpy(np.concatenate(weights)),
            self.model.medians,
            nodes=sum(count.values()),
        )
        made = self.model.encoder.convs[layer](
            torch.cat([state[name][: count[name]] for name in names]),
            torch.cat([state[name] for name in names]),
            edges_of_layer,
            torch.cat([first[name][: count[name]] for name in names]),
        )
        return dict(zip(names, made.split([count[name] for name in names]), strict=True))


@cache
def fitted(folder: Path, nodes: int, edges: int) -> tuple[Graph, FeatureTransforms]:
    """The graph, and transforms fitted on a tenth of its edges: what they say does not matter here."""
    graph = Graph(generated_snapshot(folder, nodes=nodes, edges=edges))
    return graph, fit_features(thinned(graph, 10), dimension=INPUT_DIMENSION, seed=1)


class Setting:
    """One graph and one untrained model; what is large is made when it is first needed."""

    def __init__(self, arguments: argparse.Namespace, folder: Path, layers: int) -> None:
        self.arguments, self.folder, self.layers = arguments, folder, layers

    @cached_property
    def graph(self) -> Graph:
        return fitted(self.folder, self.arguments.nodes, self.arguments.edges)[0]

    @cached_property
    def model(self) -> SpaceModel:
        own = SpaceSettings(
            hidden=self.arguments.hidden, dimension=64, fan_out=self.arguments.fan_out, layers=self.layers
        )
        shape = SpaceShape.of("user", self.graph, self.transforms, own, inner_product=True)
        torch.manual_seed(1)
        return SpaceModel(shape, own).eval()

    @cached_property
    def transforms(self) -> FeatureTransforms:
        return fitted(self.folder, self.arguments.nodes, self.arguments.edges)[1]

    @cached_property
    def features(self) -> NodeFeatures:
        return NodeFeatures(self.graph, self.transforms, memory_mib=float("inf"))

    @cached_property
    def node_by_node(self) -> NodeByNode:
        return NodeByNode(self.model, self.graph, self.features)

    @cached_property
    def layer_by_layer(self) -> tuple[dict[str, NDArray[np.float32]], float]:
        """Vectors of all, and seconds."""
        model, transforms = self.model, self.transforms
        start = time.process_time()
        vectors = embed(model, transforms, self.graph, node_types=TYPES, memory_mib=float("inf")).vectors
        return vectors, time.process_time() - start

    def all_at_once(self) -> dict[str, float]:
        seconds = self.layer_by_layer[1]
        return {"seconds": seconds, "nodes_per_second": self.graph.total_nodes / seconds}

    def sampled(self, batch_size: int, batches: int) -> dict[str, float]:
        """Node by node, and how it differs from layer by layer."""
        vectors, whole = self.layer_by_layer
        rng = np.random.default_rng(3)
        asked = [rng.integers(0, self.graph.total_nodes, batch_size) for _ in range(batches)]
        worker, difference, seconds = self.node_by_node, 0.0, []
        worker.vectors(self._by_type(np.arange(2)))  # compiles
        for nodes in asked:
            seeds = self._by_type(nodes)
            start = time.process_time()
            found = worker.vectors(seeds)
            seconds.append(time.process_time() - start)
            for name, rows in seeds.items():
                difference = max(difference, float(np.abs(found[name] - vectors[name][rows]).max(initial=0.0)))
        if difference > 1e-5:
            raise RuntimeError(f"node by node differs from layer by layer by {difference}")
        extrapolated = float(np.mean(seconds)) / batch_size * self.graph.total_nodes
        return {
            "seconds_a_batch": float(np.mean(seconds)),
            "extrapolated_seconds": extrapolated,
            "ratio": extrapolated / whole,
            "largest_difference": difference,
        }

    def _by_type(self, nodes: Nodes) -> dict[str, Nodes]:
        nodes = np.unique(nodes)
        return {
            name: nodes[(nodes >= first) & (nodes < first + self.graph.num_nodes(name))] - first
            for name, first in self.graph.offsets.items()
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--fan-out", type=int, default=10)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--sample", type=int, default=2048, help="nodes sampled at most; at least two batches")
    parser.add_argument("--folder", type=Path, help="where to keep the generated graph; nothing: a temporary folder")
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    results = Results("inference", again=arguments.again)
    graph = {name: getattr(arguments, name) for name in ("nodes", "edges", "fan_out", "hidden")}
    print(f"{'way':28} {'layers':>6} {'seconds, all nodes':>19} {'of layer by layer':>18}")
    with tempfile.TemporaryDirectory() as temporary:
        for layers in arguments.layers:
            setting = Setting(arguments, arguments.folder or Path(temporary) / "graph", layers)
            settings = {**graph, "layers": layers, "way": "layer by layer"}
            row = results.row(settings, setting.all_at_once)
            print(f"{'layer by layer':28} {layers:6} {row['seconds']:19,.1f} {1:18,.1f}", flush=True)
            for batch_size in arguments.batch_sizes:
                batches = max(2, min(64, arguments.sample // batch_size))
                settings = {**graph, "layers": layers, "way": "node by node", "batch_size": batch_size}
                row = results.row({**settings, "batches": batches}, partial(setting.sampled, batch_size, batches))
                name = f"node by node, {batch_size} at once"
                print(f"{name:28} {layers:6} {row['extrapolated_seconds']:19,.1f} {row['ratio']:18,.1f}", flush=True)


if __name__ == "__main__":
    main()
