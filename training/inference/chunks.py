"""What inference computes of some nodes at once: the map of each layer, and what is made of the joined neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model_store.csr import Csr, EdgeType
from model_store.features import Block
from training.edge_inputs import edge_inputs
from training.encoders import Convolution
from training.space_model import SpaceModel

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Received:
    """What some nodes got from their neighbours."""

    sent: Floats
    """``[senders, width]``, each sender once for each edge type."""
    sender: NDArray[np.int64]
    """``[edges]``, row of ``sent``."""
    receiver: NDArray[np.int64]
    """``[edges]``, row among the nodes."""
    kind: NDArray[np.int64]
    """``[edges]``, number of the edge type."""
    weight: Floats
    """``[edges]``, as in the graph; 1 where it has none."""


def first_state(model: SpaceModel, node_type: str, features: Floats, rows: NDArray[np.int64]) -> Floats:
    """State of layer 0 ``[nodes, hidden]``; ``rows`` say which nodes they are."""
    known = _tensor(model, rows) if node_type in model.encoder.learned else None
    return _numpy(model.encoder.project(node_type, _tensor(model, features), known))


def own_signals(model: SpaceModel, node_type: str, features: Floats) -> Floats:
    """Signals of entities ``[nodes, signal width]``."""
    return _numpy(model.signals(node_type, _tensor(model, features)))


def sent(model: SpaceModel, layer: int, state: Floats) -> Floats:
    """What nodes send in a layer ``[nodes, width]``, from their states."""
    return _numpy(_convolution(model, layer).sent(_tensor(model, state)))


def sends_states(model: SpaceModel, layer: int) -> bool:
    """Whether a layer's nodes send their states as they are."""
    return type(_convolution(model, layer)).sent is Convolution.sent


def next_state(model: SpaceModel, layer: int, state: Floats, focal: Floats, received: Received) -> Floats:
    """State of the next layer ``[nodes, hidden]``; ``focal`` is their state of layer 0."""
    edges = edge_inputs(
        _tensor(model, np.stack([received.sender, received.receiver])),
        _tensor(model, received.kind),
        _tensor(model, received.weight),
        model.medians,
        nodes=len(state),
    )
    messages = _tensor(model, received.sent)
    return _numpy(_convolution(model, layer).received(_tensor(model, state), messages, edges, _tensor(model, focal)))


def vectors(
    model: SpaceModel, node_type: str, features: Floats, state: Floats, signals: Floats, *, joined: bool
) -> Floats:
    """Vectors from the last state and the signals; ``joined``: before the two are reduced."""
    own, part = _tensor(model, state), _tensor(model, signals)
    vector = model.encoder.head(node_type, _tensor(model, features), own)
    if joined:
        return _numpy(model.joined(vector, part))
    return _numpy(model.finish(node_type, vector, model.encoder.bias[node_type](own)[:, 0], part))


def known(blocks: tuple[Block, ...], features: Floats, links: Mapping[EdgeType, Csr]) -> NDArray[np.bool_]:
    """Which nodes have a link or a property that says something ``[nodes]``."""
    found = np.zeros(len(features), bool)
    for csr in links.values():
        found |= np.diff(csr.indptr) > 0
    begin = 0
    for block in blocks:
        found |= np.any(features[:, begin : begin + block.direction] != 0, axis=1)
        begin += block.width
    return found


def _convolution(model: SpaceModel, layer: int) -> Convolution:
    found = model.encoder.convs[layer]
    assert isinstance(found, Convolution)
    return found


def _tensor(model: SpaceModel, array: NDArray[Any]) -> torch.Tensor:
    # Torch wants memory that may be written; a memory map opened for reading is copied.
    return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(model.medians.device)


def _numpy(tensor: torch.Tensor) -> Floats:
    found: Floats = tensor.detach().cpu().numpy()
    return found
