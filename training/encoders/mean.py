"""The plain mean of all neighbours: what attention and relations have to be better than."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.encoders.convolution import Convolution, Edges, PaddedEdges
from training.encoders.onnx_graph import OnnxEdges, OnnxGraph


class MeanConv(Convolution):
    """``h_i + W_o GELU(mean_j W h_j)``: ``SemanticConv`` with every neighbour weighing the same."""

    reads_relations = False

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.value = nn.Linear(hidden, hidden, bias=False)
        self.output = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes: Tensor, neighbours: Tensor, edges: Edges, focal: Tensor) -> Tensor:
        """See ``Convolution.forward``; without a focal point."""
        return self.received(nodes, self.sent(neighbours), edges, focal)

    def sent(self, neighbours: Tensor) -> Tensor:
        """``W h_j``, [M, hidden]."""
        return self.value(neighbours)  # type: ignore[no-any-return]

    def received(self, nodes: Tensor, sent: Tensor, edges: Edges, focal: Tensor) -> Tensor:
        """See ``Convolution.received``."""
        sender, receiver = edges.index[0], edges.index[1]
        number = nodes.new_zeros(len(nodes)).index_add(0, receiver, torch.ones_like(edges.share))
        gathered = torch.zeros_like(nodes).index_add(0, receiver, sent[sender])
        return self._update(nodes, gathered / number.clamp_min(1.0)[:, None])

    def forward_padded(self, nodes: Tensor, neighbours: Tensor, edges: PaddedEdges, focal: Tensor) -> Tensor:
        """See ``Convolution.forward_padded``."""
        mask = edges.mask.to(nodes.dtype)[..., None]
        gathered = (self.value(neighbours) * mask).sum(1)
        return self._update(nodes, gathered / mask.sum(1).clamp_min(1.0))

    def _update(self, nodes: Tensor, gathered: Tensor) -> Tensor:
        updated: Tensor = nodes + self.dropout(self.output(F.gelu(gathered)))
        return updated

    def to_onnx(self, graph: OnnxGraph, nodes: str, neighbours: str, edges: OnnxEdges, focal: str) -> str:
        """See ``Convolution.to_onnx``."""
        gathered = graph.sum(graph.op("Mul", graph.linear(neighbours, self.value), edges.mask), 1, keep=0)
        number = graph.op("Max", graph.sum(edges.mask, 1, keep=0), graph.number(1.0))
        return graph.op("Add", nodes, graph.linear(graph.gelu(graph.op("Div", gathered, number)), self.output))
