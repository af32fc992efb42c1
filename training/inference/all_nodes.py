"""Inference on one machine, as map and join: each layer's work for a node is done once, for all that read it.

The passes of PinSage's MapReduce (arXiv 1806.01973, section 3.4): a map makes what each node sends, a join gathers it
at the receivers, chunk by chunk. What does not fit in memory stands in files; a pass that was cut short goes on.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from graph_store.progress import NoProgress, Progress
from graph_store.schema import NodeRole
from model_store.csr import Csr, EdgeType
from model_store.features import FeatureTransforms
from training.graph import Graph
from training.inference import chunks
from training.inference.arrays import Arrays
from training.inference.fingerprint import fingerprint
from training.neighbourhoods import neighbourhoods
from training.node_features import NodeFeatures
from training.signals import mean_of_entities
from training.space_model import SpaceModel
from training.transductive.factor_model import FactorModel

Floats = NDArray[np.float32]
Told = Callable[[int], None]

_NODES_AT_ONCE = 8192
_LEAST_NODES_AT_ONCE = 64
_COPIES = 8
"""About so many arrays of a layer's width are alive for each edge while a chunk is computed."""


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Vectors of one space, and the states that online encoders read of neighbours; large ones are memory-mapped."""

    vectors: dict[str, Floats]
    """Per node type ``[nodes, dimension]``."""
    states: tuple[dict[str, Floats], ...] = field(default=())
    """Per layer below the last, per node type ``[nodes, width]``."""


@torch.no_grad()
def embed(
    model: SpaceModel,
    transforms: FeatureTransforms,
    graph: Graph,
    *,
    node_types: tuple[str, ...],
    progress: Progress | None = None,
    folder: Path | None = None,
    memory_mib: float = 4096,
) -> Embedding:
    """Vectors of all nodes of ``node_types``; neighbours are the first ``fan_out`` of each list.

    A node of which nothing is known (no link, no property) gets a row of zeros. Where features and states take more
    than ``memory_mib`` mebibytes they are kept in files in ``folder``: a call with the same model and graph goes on
    where one that was cut short stopped. The caller removes the folder when it has read the result. Without a folder
    the files are temporary.
    """
    if isinstance(model, FactorModel):
        vectors = model.vectors(graph)
        return Embedding(vectors={name: vectors[name] for name in node_types}, states=(model.messages(),))
    every = _Pass(model, transforms, graph, node_types, folder, memory_mib)
    return every.run(progress or NoProgress(), joined=False)


@torch.no_grad()
def embed_parts(
    model: SpaceModel,
    transforms: FeatureTransforms,
    graph: Graph,
    *,
    node_types: tuple[str, ...],
    folder: Path | None = None,
    memory_mib: float = 4096,
) -> dict[str, Floats]:
    """The encoder's vectors beside the signals, ``[nodes, dimension + signal width]``, before they are reduced."""
    return _Pass(model, transforms, graph, node_types, folder, memory_mib).run(NoProgress(), joined=True).vectors


def known_nodes(graph: Graph, transforms: FeatureTransforms, node_type: str, features: Floats) -> NDArray[np.bool_]:
    """Which nodes have a link or a property that says something ``[nodes]``."""
    return chunks.known(transforms.blocks[node_type], features, graph.links(node_type))


class _Pass:
    """One pass over all nodes: layer 0, the layers, the vectors."""

    def __init__(
        self,
        model: SpaceModel,
        transforms: FeatureTransforms,
        graph: Graph,
        node_types: tuple[str, ...],
        folder: Path | None,
        memory_mib: float,
    ) -> None:
        self.model, self.transforms, self.graph, self.node_types = model.eval(), transforms, graph, node_types
        self.settings, self.signal_width = model.settings, model.shape.signal_width
        self.every = [node_type.name for node_type in graph.schema.node_types]
        self.entities = {each.name for each in graph.schema.of_role(NodeRole.ENTITY)}
        self.sent_widths: list[int] = [
            chunks.sent(model, layer, np.empty((0, self.settings.hidden), np.float32)).shape[1]
            for layer in range(self.settings.layers)
        ]
        self.in_files = self._bytes() > memory_mib * 2**20
        self.folder = folder
        self.nodes_at_once = self._nodes_at_once(memory_mib) if self.in_files else _NODES_AT_ONCE
        self.features = NodeFeatures(graph, transforms, memory_mib=0)
        self.lists: dict[EdgeType, Csr] = {}

    def run(self, progress: Progress, *, joined: bool) -> Embedding:
        if not self.in_files:
            return self._run(Arrays(None, fingerprint="", nodes_at_once=self.nodes_at_once), progress, joined)
        temporary = Path(tempfile.mkdtemp(prefix="kithkin-inference-")) if self.folder is None else None
        folder = temporary or self.folder
        try:
            start = fingerprint(self.model, self.transforms, self.graph, [*self.node_types, joined])
            return self._run(Arrays(folder, fingerprint=start, nodes_at_once=self.nodes_at_once), progress, joined)
        finally:
            # What is mapped stays readable.
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)

    def _run(self, arrays: Arrays, progress: Progress, joined: bool) -> Embedding:
        layers, every = self.settings.layers, self.every
        lists = neighbourhoods(self.graph, self.settings).lists(self.settings.fan_out) if layers else {}
        # The times said who comes first; they are not read again.
        self.lists = {
            each: Csr(indptr=csr.indptr, indices=csr.indices, weight=csr.weight) for each, csr in lists.items()
        }
        total = sum(self.graph.num_nodes(each) for each in every) * (1 + layers)
        total += sum(self.graph.num_nodes(each) for each in self.node_types)
        with progress.task(f"embed {self.model.shape.name}", total, "nodes") as task:
            features, state, signals = self._layer_zero(arrays, task.advance)
            first, states = state, [state]
            for layer in range(layers):
                sent = self._sent(arrays, layer, state)
                state = {each: self._layer(arrays, layer, each, state, first, sent, task.advance) for each in every}
                states.append(state)
            vectors = {
                each: self._vectors(arrays, each, features[each], state[each], signals[each], joined, task.advance)
                for each in self.node_types
            }
        return Embedding(vectors=vectors, states=() if joined else tuple(states[:-1]))

    def _layer_zero(self, arrays: Arrays, told: Told) -> tuple[dict[str, Floats], dict[str, Floats], dict[str, Floats]]:
        """Features of the types that get vectors, states of all, signals of all; features are made once."""
        features, state, signals = {}, {}, {}
        for each in self.every:
            widths = {"state": self.settings.hidden}
            if each in self.node_types:
                widths["features"] = self.transforms.width(each)
            if self.signal_width and each in self.entities:
                widths["signals"] = self.signal_width

            def make(first: int, last: int, each: str = each, widths: Mapping[str, int] = widths) -> list[Floats]:
                own = self.features.part(each, first, last)
                made = [chunks.first_state(self.model, each, own, np.arange(first, last))]
                made += [own] if "features" in widths else []
                made += [chunks.own_signals(self.model, each, own)] if "signals" in widths else []
                return made

            found = arrays.fill(f"layer-0.{each}", self.graph.num_nodes(each), widths, make, told)
            state[each] = found["state"]
            features[each] = found.get("features", np.empty((0, 0), np.float32))
            if "signals" in found:
                signals[each] = found["signals"]
        of_entities = dict(signals)
        for each in self.every:
            if each not in signals:
                signals[each] = self._signals_of_others(arrays, each, of_entities)
        return features, state, signals

    def _signals_of_others(self, arrays: Arrays, node_type: str, of_entities: dict[str, Floats]) -> Floats:
        count = self.graph.num_nodes(node_type)
        if not self.signal_width:
            return np.empty((count, 0), np.float32)

        def make(first: int, last: int) -> list[Floats]:
            links = {each: csr.part(first, last) for each, csr in self.graph.links(node_type).items()}
            return [mean_of_entities(links, of_entities, last - first, self.signal_width)]

        return arrays.fill(f"signals.{node_type}", count, {"signals": self.signal_width}, make, _nobody)["signals"]

    def _sent(self, arrays: Arrays, layer: int, state: dict[str, Floats]) -> dict[str, Floats]:
        """The map: what every node sends in a layer."""
        if chunks.sends_states(self.model, layer):
            return state
        found = {}
        for each, own in state.items():

            def make(first: int, last: int, own: Floats = own) -> list[Floats]:
                return [chunks.sent(self.model, layer, own[first:last])]

            widths = {"sent": self.sent_widths[layer]}
            found[each] = arrays.fill(f"sent-{layer}.{each}", len(own), widths, make, _nobody)["sent"]
        return found

    def _layer(
        self,
        arrays: Arrays,
        layer: int,
        node_type: str,
        state: dict[str, Floats],
        focal: dict[str, Floats],
        sent: dict[str, Floats],
        told: Told,
    ) -> Floats:
        """The join, and what each node makes of it: the states of the next layer."""

        def make(first: int, last: int) -> list[Floats]:
            received = self._gathered(node_type, first, last, sent, self.sent_widths[layer])
            own, point = state[node_type][first:last], focal[node_type][first:last]
            return [chunks.next_state(self.model, layer, own, point, received)]

        widths = {"state": self.settings.hidden}
        stage = f"layer-{layer + 1}.{node_type}"
        return arrays.fill(stage, self.graph.num_nodes(node_type), widths, make, told)["state"]

    def _gathered(self, node_type: str, first: int, last: int, sent: dict[str, Floats], width: int) -> chunks.Received:
        senders = [np.empty((0, width), np.float32)]
        sender, receiver, kind = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        weight, count = [np.empty(0, np.float32)], 0
        for number, each in enumerate(self.model.shape.edge_types):
            if each.node_type != node_type:
                continue
            csr = self.lists[each].part(first, last)
            unique, place = np.unique(csr.indices, return_inverse=True)
            senders.append(sent[each.neighbour_type][unique])
            sender.append(place + count)
            receiver.append(np.repeat(np.arange(last - first), np.diff(csr.indptr)))
            kind.append(np.full(csr.num_edges, number))
            weight.append(np.ones(csr.num_edges, np.float32) if csr.weight is None else csr.weight)
            count += len(unique)
        return chunks.Received(
            sent=np.concatenate(senders),
            sender=np.concatenate(sender),
            receiver=np.concatenate(receiver),
            kind=np.concatenate(kind),
            weight=np.concatenate(weight),
        )

    def _vectors(
        self,
        arrays: Arrays,
        node_type: str,
        features: Floats,
        state: Floats,
        signals: Floats,
        joined: bool,
        told: Told,
    ) -> Floats:
        def make(first: int, last: int) -> list[Floats]:
            own = features[first:last]
            made = chunks.vectors(self.model, node_type, own, state[first:last], signals[first:last], joined=joined)
            links = {each: csr.part(first, last) for each, csr in self.graph.links(node_type).items()}
            made[~chunks.known(self.transforms.blocks[node_type], own, links)] = 0.0
            return [made]

        width = self.settings.dimension + joined * self.signal_width
        return arrays.fill(f"vectors.{node_type}", len(state), {"vectors": width}, make, told)["vectors"]

    def _bytes(self) -> int:
        """What features, states and vectors take, float32."""
        own = self.settings
        width = own.hidden * (2 + own.layers) + self.signal_width + sum(self.sent_widths)
        found = 4 * width * sum(self.graph.num_nodes(each) for each in self.every)
        for each in self.node_types:
            found += 4 * self.graph.num_nodes(each) * (self.transforms.width(each) + own.dimension)
        return found

    def _nodes_at_once(self, memory_mib: float) -> int:
        """Nodes in a chunk, so that a chunk's work takes about a quarter of the memory."""
        kinds = [sum(each.node_type == name for each in self.model.shape.edge_types) for name in self.every]
        edges = self.settings.fan_out * max(kinds, default=0)
        width = max([self.settings.hidden, self.signal_width, *self.sent_widths])
        needed = 4 * (2 * max(self.transforms.width(each) for each in self.every) + _COPIES * width * (1 + edges))
        return min(max(int(memory_mib * 2**18 / needed), _LEAST_NODES_AT_ONCE), _NODES_AT_ONCE)


def _nobody(nodes: int) -> None:
    """Progress of what is quick beside the rest."""
