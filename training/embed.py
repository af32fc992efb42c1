"""Inference layer by layer: every node's state of a layer is computed once, from the layer below."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from graph_store.progress import NoProgress, Progress
from graph_store.schema import NodeRole
from model_store.csr import Csr, EdgeType
from model_store.features import FeatureTransforms
from training.edge_inputs import edge_inputs
from training.graph import Graph
from training.neighbourhoods import neighbourhoods
from training.signals import mean_of_entities
from training.space_model import SpaceModel

Floats = NDArray[np.float32]
_NODES_AT_ONCE = 8192


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Vectors of one space, and the states that online encoders read of neighbours."""

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
) -> Embedding:
    """Vectors of all nodes of ``node_types``; neighbours are the first ``fan_out`` of each list.

    A node of which nothing is known (no link, no property) gets a row of zeros.
    """
    return _embed(model, transforms, graph, node_types, progress or NoProgress(), joined=False)


@torch.no_grad()
def embed_parts(
    model: SpaceModel, transforms: FeatureTransforms, graph: Graph, *, node_types: tuple[str, ...]
) -> dict[str, Floats]:
    """The encoder's vectors beside the signals, ``[nodes, dimension + signal width]``, before they are reduced."""
    return _embed(model, transforms, graph, node_types, NoProgress(), joined=True).vectors


def _embed(
    model: SpaceModel,
    transforms: FeatureTransforms,
    graph: Graph,
    node_types: tuple[str, ...],
    progress: Progress,
    *,
    joined: bool,
) -> Embedding:
    model = model.eval()
    device = model.medians.device
    settings, every = model.settings, [node_type.name for node_type in graph.schema.node_types]
    signal_width = model.shape.signal_width
    features = {each: transforms.apply(each, graph.properties(each), graph.links(each)) for each in every}
    lists = neighbourhoods(graph, settings).lists(settings.fan_out)

    with progress.task(f"embed {model.shape.name}", settings.layers + 1, "layers") as task:
        state: dict[str, Floats] = {}
        signals: dict[str, Floats] = {}
        for each in every:
            state[each], signals[each] = _layer_zero(model, each, features[each], device)
        for each in every:
            if signal_width and graph.schema.node_type(each).role is not NodeRole.ENTITY:
                signals[each] = mean_of_entities(graph, each, signals, signal_width)
        smoothed = dict(signals)
        focal = state
        states: list[dict[str, Floats]] = []
        for layer in range(settings.layers):
            states.append(
                {each: np.hstack([state[each], signals[each]]) if layer == 0 else state[each] for each in every}
            )
            if layer == 0 and signal_width:
                smoothed = _smoothed(model, graph, lists, signals)
            state = {each: _layer(model, layer, each, state, focal[each], lists, device) for each in every}
            task.advance()
        vectors = {
            each: _vectors(model, each, features[each], state[each], smoothed[each], device, joined)
            for each in node_types
        }
        for each in node_types:
            vectors[each][~known_nodes(graph, transforms, each, features[each])] = 0.0
        task.advance()
    return Embedding(vectors=vectors, states=tuple(states))


def known_nodes(graph: Graph, transforms: FeatureTransforms, node_type: str, features: Floats) -> NDArray[np.bool_]:
    """Which nodes have a link or a property that says something ``[nodes]``."""
    known = np.zeros(len(features), bool)
    for csr in graph.links(node_type).values():
        known |= np.diff(csr.indptr) > 0
    begin = 0
    for block in transforms.blocks[node_type]:
        known |= np.any(features[:, begin : begin + block.direction] != 0, axis=1)
        begin += block.width
    return known


def _layer_zero(model: SpaceModel, node_type: str, features: Floats, device: torch.device) -> tuple[Floats, Floats]:
    states, signals = [], []
    for first in range(0, len(features), _NODES_AT_ONCE):
        part = torch.from_numpy(features[first : first + _NODES_AT_ONCE]).to(device)
        rows = torch.arange(first, first + len(part), device=device) if node_type in model.encoder.learned else None
        states.append(model.encoder.project(node_type, part, rows).cpu().numpy())
        signals.append(model.signals(node_type, part).cpu().numpy())
    empty = np.zeros((0, model.settings.hidden), np.float32), np.zeros((0, model.shape.signal_width), np.float32)
    return np.concatenate([empty[0], *states]), np.concatenate([empty[1], *signals])


def _layer(
    model: SpaceModel,
    layer: int,
    node_type: str,
    state: dict[str, Floats],
    focal: Floats,
    lists: dict[EdgeType, Csr],
    device: torch.device,
) -> Floats:
    """The next state of every node of a type, a chunk of nodes at a time."""
    conv = model.encoder.convs[layer]
    own, out = state[node_type], np.empty_like(state[node_type])
    seen = [(number, each) for number, each in enumerate(model.shape.edge_types) if each.node_type == node_type]
    for first in range(0, len(own), _NODES_AT_ONCE):
        last = min(first + _NODES_AT_ONCE, len(own))
        neighbours, index, kinds, weights = [], [], [], []
        count = 0
        for number, each in seen:
            csr = lists[each]
            low, high = int(csr.indptr[first]), int(csr.indptr[last])
            unique, place = np.unique(csr.indices[low:high], return_inverse=True)
            receiver = np.repeat(np.arange(last - first), np.diff(csr.indptr[first : last + 1]))
            neighbours.append(state[each.neighbour_type][unique])
            index.append(np.stack([place + count, receiver]))
            kinds.append(np.full(high - low, number))
            weights.append(np.ones(high - low, np.float32) if csr.weight is None else csr.weight[low:high])
            count += len(unique)
        edges = edge_inputs(
            torch.from_numpy(np.concatenate([np.zeros((2, 0), np.int64), *index], axis=1)).to(device),
            torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *kinds])).to(device),
            torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *weights])).to(device),
            model.medians,
            nodes=last - first,
        )
        out[first:last] = (
            conv(
                torch.from_numpy(own[first:last]).to(device),
                torch.from_numpy(np.concatenate([own[:0], *neighbours])).to(device),
                edges,
                torch.from_numpy(focal[first:last]).to(device),
            )
            .cpu()
            .numpy()
        )
    return out


def _smoothed(
    model: SpaceModel, graph: Graph, lists: dict[EdgeType, Csr], signals: dict[str, Floats]
) -> dict[str, Floats]:
    """Every node's signals with the mean of its neighbours' (per edge type, then over the edge types present)."""
    import scipy.sparse as sp

    out = {}
    for node_type, own in signals.items():
        total, present = np.zeros_like(own), np.zeros(len(own), np.float32)
        for each in model.shape.edge_types:
            if each.node_type != node_type:
                continue
            csr = lists[each]
            degree = np.diff(csr.indptr)
            share = np.repeat(1.0 / np.maximum(degree, 1), degree).astype(np.float32)
            shape = (len(own), len(signals[each.neighbour_type]))
            total += sp.csr_matrix((share, csr.indices, csr.indptr), shape=shape) @ signals[each.neighbour_type]
            present += degree > 0
        mean = torch.from_numpy(total / np.maximum(present, 1.0)[:, None])
        out[node_type] = model.smoothed(torch.from_numpy(own), mean).numpy()
    return out


def _vectors(
    model: SpaceModel,
    node_type: str,
    features: Floats,
    state: Floats,
    signals: Floats,
    device: torch.device,
    joined: bool,
) -> Floats:
    parts = [np.zeros((0, model.settings.dimension + joined * model.shape.signal_width), np.float32)]
    for first in range(0, len(features), _NODES_AT_ONCE):
        chunk = slice(first, first + _NODES_AT_ONCE)
        own = torch.from_numpy(state[chunk]).to(device)
        vector = model.encoder.head(node_type, torch.from_numpy(features[chunk]).to(device), own)
        bias = model.encoder.bias[node_type](own)[:, 0]
        part = torch.from_numpy(signals[chunk]).to(device)
        done = model.joined(vector, part) if joined else model.finish(node_type, vector, bias, part)
        parts.append(done.cpu().numpy())
    return np.concatenate(parts)
