"""PinSage's convolution: neighbours pooled by their importance (Ying et al. 2018, arXiv 1806.01973, algorithm 1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.encoders.convolution import Convolution, Edges, PaddedEdges
from training.encoders.onnx_graph import OnnxEdges, OnnxGraph

_LEAST = 1e-12
"""Weights that add up to less count as none; vectors shorter than this are not brought to length 1."""


class PinSageConv(Convolution):
    """``unit(ReLU(W [h_i, n_i] + w))`` with ``n_i`` the weighted mean of ``ReLU(Q h_j + q)`` over the neighbours.

    Weights are the edges' importances (``share``): over one edge type they are the normalised visit counts of the
    source, over several each type that is present weighs the same. With ``pooling="mean"`` every neighbour does.
    """

    reads_relations = False

    def __init__(self, hidden: int, pooling: Literal["importance", "mean"], dropout: float) -> None:
        super().__init__()
        self.pooling = pooling
        self.message = nn.Linear(hidden, hidden)
        self.output = nn.Linear(2 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes: Tensor, neighbours: Tensor, edges: Edges, focal: Tensor) -> Tensor:
        """See ``Convolution.forward``; without a focal point."""
        return self.received(nodes, self.sent(neighbours), edges, focal)

    def sent(self, neighbours: Tensor) -> Tensor:
        """``ReLU(Q h_j + q)``, [M, hidden]."""
        return F.relu(self.message(neighbours))

    def received(self, nodes: Tensor, sent: Tensor, edges: Edges, focal: Tensor) -> Tensor:
        """See ``Convolution.received``."""
        sender, receiver = edges.index[0], edges.index[1]
        weight = edges.share if self.pooling == "importance" else torch.ones_like(edges.share)
        total = weight.new_zeros(len(nodes)).index_add(0, receiver, weight)
        message = sent[sender] * weight[:, None]
        pooled = torch.zeros_like(nodes).index_add(0, receiver, message)
        return self._update(nodes, pooled / total.clamp_min(_LEAST)[:, None])

    def forward_padded(self, nodes: Tensor, neighbours: Tensor, edges: PaddedEdges, focal: Tensor) -> Tensor:
        """See ``Convolution.forward_padded``."""
        mask = edges.mask.to(nodes.dtype)
        weight = edges.share * mask if self.pooling == "importance" else mask
        pooled = (F.relu(self.message(neighbours)) * weight[..., None]).sum(1)
        return self._update(nodes, pooled / weight.sum(1).clamp_min(_LEAST)[:, None])

    def _update(self, nodes: Tensor, pooled: Tensor) -> Tensor:
        joined = torch.cat([nodes, pooled], dim=1)
        return F.normalize(F.relu(self.output(self.dropout(joined))), dim=1, eps=_LEAST)

    def to_onnx(self, graph: OnnxGraph, nodes: str, neighbours: str, edges: OnnxEdges, focal: str) -> str:
        """See ``Convolution.to_onnx``."""
        weight = edges.mask
        if self.pooling == "importance":
            weight = graph.op("Mul", edges.share, edges.mask)
        message = graph.op("Relu", graph.linear(neighbours, self.message))
        pooled = graph.sum(graph.op("Mul", message, weight), 1, keep=0)
        total = graph.op("Max", graph.sum(weight, 1, keep=0), graph.number(_LEAST))  # [N, 1]
        joined = graph.op("Concat", nodes, graph.op("Div", pooled, total), axis=1)
        return graph.unit(graph.op("Relu", graph.linear(joined, self.output)), _LEAST)
