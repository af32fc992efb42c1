"""SemanticGNN's convolution: attention within each relation, then among relations.

Relation-aware attention (SemanticGNN, arXiv 2312.04071, section 4): neighbours compete within their relation, then
relations compete with each other at each node, so a relation a thousand times rarer than another is not drowned by it.
"""

from __future__ import annotations

import torch
from onnx import TensorProto
from torch import Tensor, nn
from torch.nn import functional as F

from training.encoders.convolution import LARGEST_SCORE, Convolution, Edges, PaddedEdges
from training.encoders.onnx_graph import OnnxEdges, OnnxGraph


class SemanticConv(Convolution):
    """One round of attention over typed edges: ``h_i + W_o sum_e beta_ie sum_j alpha_ij v_j``.

    ``alpha`` is a softmax over the neighbours j of i within edge type e (one pass over the combined key (i, e));
    ``beta`` a softmax over the edge types present at i and "none of them". Both per head.
    """

    def __init__(self, hidden: int, heads: int, edge_types: int, dropout: float) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden ({hidden}) must be a multiple of heads ({heads})")
        self.heads, self.width, self.edge_types = heads, hidden // heads, edge_types
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.value = nn.Linear(hidden, hidden, bias=False)
        self.relation_query = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        self.edge_key = nn.Parameter(torch.empty(edge_types, heads, self.width))
        """What a neighbour is over this edge type."""
        self.edge_value = nn.Parameter(torch.empty(edge_types, heads, self.width))
        self.edge_weight = nn.Parameter(torch.empty(edge_types, heads))
        """How much a heavier edge gets."""
        self.relation_key = nn.Parameter(torch.empty(edge_types, heads, self.width))
        self.relation_bias = nn.Parameter(torch.empty(edge_types, heads))
        """Importance of the relation wherever it is present."""
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small relation embeddings; every relation starts as important as the others."""
        for linear in (self.query, self.key, self.value, self.relation_query, self.output):
            linear.reset_parameters()
        for embedding in (self.edge_key, self.edge_value, self.relation_key):
            nn.init.normal_(embedding, std=self.width**-0.5)
        # With PyTorch's own start a message is a twentieth of a node's state, and is learned late or never.
        for linear in (self.value, self.query, self.key, self.relation_query):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.xavier_uniform_(self.output.weight, gain=2.0)
        nn.init.zeros_(self.edge_weight)
        nn.init.zeros_(self.relation_bias)

    def forward(self, nodes: Tensor, neighbours: Tensor, edges: Edges, focal: Tensor) -> Tensor:
        """See ``Convolution.forward``; without a focal point."""
        return self.received(nodes, self.sent(neighbours), edges, focal)

    def sent(self, neighbours: Tensor) -> Tensor:
        """Keys and values, [M, 2 hidden]."""
        return torch.cat([self.key(neighbours), self.value(neighbours)], dim=1)

    def received(self, nodes: Tensor, sent: Tensor, edges: Edges, focal: Tensor) -> Tensor:
        """See ``Convolution.received``."""
        sender, receiver, edge_type = edges.index[0], edges.index[1], edges.type
        count = nodes.shape[0]
        query = self.query(nodes).view(count, self.heads, self.width)
        key, value = sent.view(-1, 2, self.heads, self.width).unbind(1)

        score = (query[receiver] * (key[sender] + self.edge_key[edge_type])).sum(-1) * self.width**-0.5  # [E, heads]
        score = score + self.edge_weight[edge_type] * edges.weight[:, None]
        exponent = score.clamp(-LARGEST_SCORE, LARGEST_SCORE).exp()
        group = receiver * self.edge_types + edge_type
        total = exponent.new_zeros(count * self.edge_types, self.heads).index_add(0, group, exponent)
        beta = self._importance(nodes, total.view(count, self.edge_types, self.heads) > 0)
        share = exponent / total[group] * beta.reshape(-1, self.heads)[group]  # alpha times beta, [E, heads]
        message = share[..., None] * (value[sender] + self.edge_value[edge_type])
        gathered = nodes.new_zeros(count, self.heads, self.width).index_add(0, receiver, message)
        return self._update(nodes, gathered.flatten(1))

    def forward_padded(self, nodes: Tensor, neighbours: Tensor, edges: PaddedEdges, focal: Tensor) -> Tensor:
        """See ``Convolution.forward_padded``."""
        edge_type, mask = edges.type, edges.mask
        query = self.query(nodes).unflatten(1, (self.heads, self.width))
        key = self.key(neighbours).unflatten(2, (self.heads, self.width))
        value = self.value(neighbours).unflatten(2, (self.heads, self.width))
        score = (query[:, None] * (key + self.edge_key[edge_type])).sum(-1) * self.width**-0.5  # [N, K, heads]
        score = score + self.edge_weight[edge_type] * edges.weight[..., None]
        exponent = score.clamp(-LARGEST_SCORE, LARGEST_SCORE).exp() * mask[..., None]
        kinds = torch.arange(self.edge_types, device=nodes.device)
        member = ((edge_type[..., None] == kinds) & mask[..., None]).to(nodes.dtype)  # [N, K, edge types]
        total = torch.einsum("nke,nkh->neh", member, exponent)
        beta = self._importance(nodes, total > 0)
        weight = torch.where(total > 0, beta / total.clamp_min(1e-30), torch.zeros_like(beta))
        share = exponent * torch.einsum("nke,neh->nkh", member, weight)
        gathered = (share[..., None] * (value + self.edge_value[edge_type])).sum(1)
        return self._update(nodes, gathered.flatten(1))

    def _importance(self, nodes: Tensor, present: Tensor) -> Tensor:
        """``beta`` [N, edge types, heads]: softmax over the edge types present and one empty choice of score 0."""
        query = self.relation_query(nodes).unflatten(1, (self.heads, self.width))
        score = torch.einsum("nhd,ehd->neh", query, self.relation_key) * self.width**-0.5 + self.relation_bias
        exponent = score.clamp(-LARGEST_SCORE, LARGEST_SCORE).exp() * present
        beta: Tensor = exponent / (1.0 + exponent.sum(1, keepdim=True))
        return beta

    def _update(self, nodes: Tensor, gathered: Tensor) -> Tensor:
        updated: Tensor = nodes + self.dropout(self.output(F.gelu(gathered)))
        return updated

    def to_onnx(self, graph: OnnxGraph, nodes: str, neighbours: str, edges: OnnxEdges, focal: str) -> str:
        """See ``Convolution.to_onnx``."""
        heads, width = self.heads, self.width
        split, split_many = graph.integers([0, heads, width]), graph.integers([0, 0, heads, width])
        query = graph.op("Reshape", graph.linear(nodes, self.query), split)
        key = graph.op("Reshape", graph.linear(neighbours, self.key), split_many)
        value = graph.op("Reshape", graph.linear(neighbours, self.value), split_many)
        key = graph.op("Add", key, graph.op("Gather", graph.constant(self.edge_key), edges.type))
        value = graph.op("Add", value, graph.op("Gather", graph.constant(self.edge_value), edges.type))
        product = graph.op("Mul", graph.unsqueeze(query, 1), key)
        score = graph.op("Mul", graph.sum(product, -1, keep=0), graph.number(width**-0.5))
        slope = graph.op("Gather", graph.constant(self.edge_weight), edges.type)
        score = graph.op("Add", score, graph.op("Mul", slope, edges.weight))
        exponent = graph.op("Mul", graph.clipped_exp(score, LARGEST_SCORE), edges.mask)  # [N, K, heads]
        total = graph.op("MatMul", graph.op("Transpose", edges.member, perm=[0, 2, 1]), exponent)  # [N, types, heads]
        present = graph.op("Greater", total, graph.number(0.0))

        relation = graph.op("Reshape", graph.linear(nodes, self.relation_query), split)
        keys = graph.constant(self.relation_key.permute(1, 2, 0))  # [heads, width, edge types]
        # [heads, N, width] x [heads, width, edge types] -> [N, edge types, heads]
        scores = graph.op("MatMul", graph.op("Transpose", relation, perm=[1, 0, 2]), keys)
        scores = graph.op("Transpose", scores, perm=[1, 2, 0])
        scores = graph.op("Mul", scores, graph.number(width**-0.5))
        scores = graph.op("Add", scores, graph.constant(self.relation_bias))
        importance = graph.clipped_exp(scores, LARGEST_SCORE)
        importance = graph.op("Mul", importance, graph.op("Cast", present, to=TensorProto.FLOAT))
        beta = graph.op("Div", importance, graph.op("Add", graph.sum(importance, 1, keep=1), graph.number(1.0)))

        share = graph.op("Div", beta, graph.op("Max", total, graph.number(1e-30)))
        share = graph.op("Where", present, share, graph.number(0.0))
        share = graph.op("Mul", exponent, graph.op("MatMul", edges.member, share))
        message = graph.op("Mul", graph.unsqueeze(share, 3), value)
        gathered = graph.op("Reshape", graph.sum(message, 1, keep=0), graph.integers([0, heads * width]))
        return graph.op("Add", nodes, graph.linear(graph.gelu(gathered), self.output))
