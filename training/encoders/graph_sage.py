"""GraphSAGE's convolution with mean aggregation (Hamilton, Ying and Leskovec 2017, arXiv 1706.02216, algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.encoders.convolution import Convolution, Edges, PaddedEdges
from training.encoders.onnx_graph import OnnxEdges, OnnxGraph


class SageConv(Convolution):
    """``ReLU(W [h_i, mean_1, ..., mean_R])``, where ``mean_r`` is that of the neighbours over edge type r.

    With one edge type it is the source's ``W concat(h_i, mean_j h_j)``; with several, a matrix for each, summed (as
    PyG's ``to_hetero`` does). A type without neighbours adds nothing; weights are not read. The source's cut to length
    1 (line 7) is the encoder's head, once and not in every layer.
    """

    def __init__(self, hidden: int, edge_types: int, dropout: float) -> None:
        super().__init__()
        self.hidden, self.edge_types = hidden, edge_types
        self.own = nn.Linear(hidden, hidden)
        self.neighbours = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(edge_types))
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes: Tensor, neighbours: Tensor, edges: Edges, focal: Tensor) -> Tensor:
        """See ``Convolution.forward``; without a focal point."""
        sender, receiver = edges.index[0], edges.index[1]
        group = edges.type * len(nodes) + receiver
        number = nodes.new_zeros(self.edge_types * len(nodes)).index_add(0, group, torch.ones_like(edges.share))
        gathered = nodes.new_zeros(self.edge_types * len(nodes), self.hidden)
        gathered = gathered.index_add(0, group, neighbours[sender]) / number.clamp_min(1.0)[:, None]
        return self._update(nodes, gathered.view(self.edge_types, len(nodes), self.hidden))

    def forward_padded(self, nodes: Tensor, neighbours: Tensor, edges: PaddedEdges, focal: Tensor) -> Tensor:
        """See ``Convolution.forward_padded``."""
        kinds = torch.arange(self.edge_types, device=nodes.device)
        member = ((edges.type[..., None] == kinds) & edges.mask[..., None]).to(nodes.dtype)  # [N, K, edge types]
        share = member / member.sum(1, keepdim=True).clamp_min(1.0)
        return self._update(nodes, torch.einsum("nke,nkd->end", share, neighbours))

    def _update(self, nodes: Tensor, gathered: Tensor) -> Tensor:
        """``gathered`` [edge types, N, hidden], the means."""
        total = self.own(nodes)
        for linear, mean in zip(self.neighbours, gathered, strict=True):
            total = total + linear(mean)
        return self.dropout(F.relu(total))  # type: ignore[no-any-return]

    def to_onnx(self, graph: OnnxGraph, nodes: str, neighbours: str, edges: OnnxEdges, focal: str) -> str:
        """See ``Convolution.to_onnx``."""
        number = graph.op("Max", graph.sum(edges.member, 1, keep=1), graph.number(1.0))
        share = graph.op("Transpose", graph.op("Div", edges.member, number), perm=[0, 2, 1])  # [N, edge types, K]
        means = graph.op("MatMul", share, neighbours)  # [N, edge types, hidden]
        means = graph.op("Reshape", means, graph.integers([0, self.edge_types * self.hidden]))
        matrix = torch.cat([each.T for each in self.neighbours.parameters()])
        total = graph.op("Add", graph.linear(nodes, self.own), graph.op("MatMul", means, graph.constant(matrix)))
        return graph.op("Relu", total)
