"""R-GCN's convolution (Schlichtkrull et al. 2018, arXiv 1703.06103, equations 2 and 3), a baseline."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.encoders.convolution import Convolution, Edges, PaddedEdges
from training.encoders.onnx_graph import OnnxEdges, OnnxGraph


class RGcnConv(Convolution):
    """``ReLU(W_0 h_i + sum_r W_r mean_j h_j)``: a matrix for each edge type, the means over each type's neighbours.

    The matrices are sums of a few shared ones, ``W_r = sum_b a_rb V_b`` (basis decomposition); weights are not read.
    """

    def __init__(self, hidden: int, bases: int, edge_types: int, dropout: float) -> None:
        super().__init__()
        self.hidden, self.bases, self.edge_types = hidden, min(bases, edge_types), edge_types
        self.own = nn.Linear(hidden, hidden)
        self.basis = nn.Parameter(torch.empty(self.bases * hidden, hidden))
        self.coefficient = nn.Parameter(torch.empty(edge_types, self.bases))
        self.dropout = nn.Dropout(dropout)
        # W_r starts with the spread of a linear layer, however many bases there are.
        nn.init.normal_(self.basis, std=hidden**-0.5)
        nn.init.normal_(self.coefficient, std=self.bases**-0.5)

    def forward(self, nodes: Tensor, neighbours: Tensor, edges: Edges, focal: Tensor) -> Tensor:
        """See ``Convolution.forward``; without a focal point."""
        sender, receiver = edges.index[0], edges.index[1]
        group = receiver * self.edge_types + edges.type
        number = edges.share.new_zeros(len(nodes) * self.edge_types).index_add(0, group, torch.ones_like(edges.share))
        share = self.coefficient[edges.type] / number[group][:, None]  # a_rb / c_ir, [E, bases]
        gathered = nodes.new_zeros(len(nodes), self.bases, self.hidden).index_add(
            0, receiver, share[..., None] * neighbours[sender][:, None]
        )
        return self._update(nodes, gathered)

    def forward_padded(self, nodes: Tensor, neighbours: Tensor, edges: PaddedEdges, focal: Tensor) -> Tensor:
        """See ``Convolution.forward_padded``."""
        kinds = torch.arange(self.edge_types, device=nodes.device)
        member = ((edges.type[..., None] == kinds) & edges.mask[..., None]).to(nodes.dtype)  # [N, K, edge types]
        weight = member / member.sum(1, keepdim=True).clamp_min(1.0)
        share = weight @ self.coefficient  # [N, K, bases]
        return self._update(nodes, torch.einsum("nkb,nkd->nbd", share, neighbours))

    def _update(self, nodes: Tensor, gathered: Tensor) -> Tensor:
        """``gathered`` [N, bases, hidden]."""
        return self.dropout(F.relu(self.own(nodes) + gathered.flatten(1) @ self.basis))  # type: ignore[no-any-return]

    def to_onnx(self, graph: OnnxGraph, nodes: str, neighbours: str, edges: OnnxEdges, focal: str) -> str:
        """See ``Convolution.to_onnx``."""
        number = graph.op("Max", graph.sum(edges.member, 1, keep=1), graph.number(1.0))
        share = graph.op("MatMul", graph.op("Div", edges.member, number), graph.constant(self.coefficient))
        gathered = graph.op("MatMul", graph.op("Transpose", share, perm=[0, 2, 1]), neighbours)  # [N, bases, hidden]
        gathered = graph.op("Reshape", gathered, graph.integers([0, self.bases * self.hidden]))
        gathered = graph.op("MatMul", gathered, graph.constant(self.basis))
        return graph.op("Relu", graph.op("Add", graph.linear(nodes, self.own), gathered))
