"""Attention that does not tell relations apart: GATv2 (Brody et al. 2022, arXiv 2105.14491), a baseline."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.encoders.convolution import LARGEST_SCORE, Convolution, Edges, PaddedEdges
from training.encoders.onnx_graph import OnnxEdges, OnnxGraph

_SLOPE = 0.2
"""Of the leaky ReLU below zero, as in the source."""


class GatConv(Convolution):
    """``h_i + ELU(sum_j alpha_ij W_r h_j)`` over the neighbours and the node itself, heads side by side.

    ``alpha`` is one softmax over all of them, of ``a . LeakyReLU(W_l h_i + W_r h_j + w_e weight_ij)``; the weight is
    the edge's one feature, 0 for the node itself. The way past (``h_i +``) is that of Velickovic et al. (2018).
    """

    reads_relations = False

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden ({hidden}) must be a multiple of heads ({heads})")
        self.heads, self.width = heads, hidden // heads
        self.receiver = nn.Linear(hidden, hidden)
        self.sender = nn.Linear(hidden, hidden)
        self.edge = nn.Parameter(torch.empty(heads, self.width))
        self.attention = nn.Parameter(torch.empty(heads, self.width))
        self.dropout = nn.Dropout(dropout)
        for parameter in (self.edge, self.attention):
            nn.init.xavier_uniform_(parameter)

    def forward(self, nodes: Tensor, neighbours: Tensor, edges: Edges, focal: Tensor) -> Tensor:
        """See ``Convolution.forward``; without a focal point."""
        return self.received(nodes, self.sent(neighbours), edges, focal)

    def sent(self, neighbours: Tensor) -> Tensor:
        """What ``sender`` makes of the states, [M, hidden]."""
        return self.sender(neighbours)  # type: ignore[no-any-return]

    def received(self, nodes: Tensor, sent: Tensor, edges: Edges, focal: Tensor) -> Tensor:
        """See ``Convolution.received``."""
        sender, receiver, count = edges.index[0], edges.index[1], len(nodes)
        own, values = self._heads(self.receiver(nodes)), self._heads(sent)
        itself = self._heads(self.sender(nodes))
        exponent = self._exponent(own[receiver] + values[sender] + edges.weight[:, None, None] * self.edge)
        total = self._exponent(own + itself)  # the node itself, [N, heads]
        gathered = total[..., None] * itself
        gathered = gathered.index_add(0, receiver, exponent[..., None] * values[sender])
        total = total.index_add(0, receiver, exponent)
        return self._update(nodes, (gathered / total[..., None]).view(count, -1))

    def forward_padded(self, nodes: Tensor, neighbours: Tensor, edges: PaddedEdges, focal: Tensor) -> Tensor:
        """See ``Convolution.forward_padded``."""
        own, values = self._heads(self.receiver(nodes)), self._heads(self.sender(neighbours))
        itself = self._heads(self.sender(nodes))
        exponent = self._exponent(own[:, None] + values + edges.weight[..., None, None] * self.edge)
        exponent = exponent * edges.mask[..., None]
        first = self._exponent(own + itself)
        gathered = first[..., None] * itself + (exponent[..., None] * values).sum(1)
        return self._update(nodes, (gathered / (first + exponent.sum(1))[..., None]).flatten(1))

    def _heads(self, states: Tensor) -> Tensor:
        return states.view(*states.shape[:-1], self.heads, self.width)

    def _exponent(self, joined: Tensor) -> Tensor:
        """The scores' exponentials [..., heads] from what both ends and the edge say [..., heads, width]."""
        score = (F.leaky_relu(joined, _SLOPE) * self.attention).sum(-1)
        return score.clamp(-LARGEST_SCORE, LARGEST_SCORE).exp()

    def _update(self, nodes: Tensor, gathered: Tensor) -> Tensor:
        updated: Tensor = nodes + self.dropout(F.elu(gathered))
        return updated

    def to_onnx(self, graph: OnnxGraph, nodes: str, neighbours: str, edges: OnnxEdges, focal: str) -> str:
        """See ``Convolution.to_onnx``."""
        one = graph.integers([0, self.heads, self.width])
        many = graph.integers([0, 0, self.heads, self.width])
        attention = graph.constant(self.attention)

        def exponent(joined: str) -> str:
            score = graph.op("Mul", graph.op("LeakyRelu", joined, alpha=_SLOPE), attention)
            return graph.clipped_exp(graph.sum(score, -1, keep=0), LARGEST_SCORE)

        own = graph.op("Reshape", graph.linear(nodes, self.receiver), one)
        itself = graph.op("Reshape", graph.linear(nodes, self.sender), one)
        values = graph.op("Reshape", graph.linear(neighbours, self.sender), many)
        edge = graph.op("Mul", graph.unsqueeze(edges.weight, 3), graph.constant(self.edge))
        joined = graph.op("Add", graph.op("Add", graph.unsqueeze(own, 1), values), edge)
        weight = graph.op("Mul", exponent(joined), edges.mask)  # [N, K, heads]
        first = exponent(graph.op("Add", own, itself))  # [N, heads]
        gathered = graph.sum(graph.op("Mul", graph.unsqueeze(weight, 3), values), 1, keep=0)
        gathered = graph.op("Add", gathered, graph.op("Mul", graph.unsqueeze(first, 2), itself))
        total = graph.op("Add", first, graph.sum(weight, 1, keep=0))
        mean = graph.op("Div", gathered, graph.unsqueeze(total, 2))
        flat = graph.op("Reshape", mean, graph.integers([0, self.heads * self.width]))
        return graph.op("Add", nodes, graph.op("Elu", flat))
