"""Zoomer's encoder: attention at three levels around a focal point (Jiang et al. 2022, arXiv 2203.12596, ROI-based
multi-level attention): a node's feature blocks, the edges of a relation, the relations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor, nn
from torch.nn import functional as F

from training.encoders.convolution import LARGEST_SCORE, Convolution, Edges, PaddedEdges
from training.encoders.encoder import Batch, Encoder
from training.encoders.onnx_graph import OnnxEdges, OnnxGraph

_SLOPE = 0.2
_LEAST = 1e-6


class ZoomerConv(Convolution):
    """Edge and semantic level: ``h_i + W_o gelu(sum_t beta_it (z_it + r_t))`` with ``z_it = sum_j alpha_ij V h_j``.

    Edge level: ``alpha`` is a softmax over the neighbours j of i within edge type t of
    ``LeakyReLU(a . [h_i, h_j, c_i]) + (Q c_i) . (K h_j) / sqrt(d)``, per head. The first term is the paper's; it adds
    up what the focal vector and the neighbour say, so that the focal vector does not change the neighbours' order: that
    is why the second, the product of the authors' code, stands beside it.

    Semantic level: ``beta`` is a softmax over the edge types present of ``s cos(S c_i, z_it)``, with s learned. The
    paper adds up by the cosines themselves; those are near zero until trained, and let no message pass.
    """

    def __init__(self, hidden: int, heads: int, edge_types: int, dropout: float) -> None:
        super().__init__()
        if hidden % heads:
            raise ValueError(f"hidden ({hidden}) must be a multiple of heads ({heads})")
        self.heads, self.width, self.edge_types = heads, hidden // heads, edge_types
        self.own = nn.Linear(hidden, heads, bias=False)
        self.other = nn.Linear(hidden, heads, bias=False)
        self.aim = nn.Linear(hidden, heads)
        """The parts of ``a`` for the node, its neighbour and the focal vector."""
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.value = nn.Linear(hidden, hidden, bias=False)
        self.relation = nn.Parameter(torch.empty(edge_types, hidden))
        """``r_t``."""
        self.semantic = nn.Linear(hidden, hidden)
        self.sharpness = nn.Parameter(torch.tensor(4.0))
        self.output = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.relation, std=hidden**-0.5)
        # The source compares the states themselves, and so does this before it is trained.
        for linear in (self.query, self.key, self.value, self.semantic):
            nn.init.eye_(linear.weight)
        for linear in (self.query, self.semantic):
            nn.init.zeros_(linear.bias)

    def forward(self, nodes: Tensor, neighbours: Tensor, edges: Edges, focal: Tensor) -> Tensor:
        """See ``Convolution.forward``."""
        return self.received(nodes, self.sent(neighbours), edges, focal)

    def sent(self, neighbours: Tensor) -> Tensor:
        """The neighbour's part of ``a``, its key and its value, [M, heads + 2 hidden]."""
        return torch.cat([self.other(neighbours), self.key(neighbours), self.value(neighbours)], dim=1)

    def received(self, nodes: Tensor, sent: Tensor, edges: Edges, focal: Tensor) -> Tensor:
        """See ``Convolution.received``."""
        hidden = self.heads * self.width
        # Only what receives is worked on: most nodes of a sampled neighbourhood do not.
        group, place = torch.unique(edges.index[1] * self.edge_types + edges.type, return_inverse=True)
        at, slot = torch.unique(group // self.edge_types, return_inverse=True)  # receivers, and each group's
        receiver = slot[place]
        aim, node = focal[at], nodes[at]
        other, key, value = torch.split(sent[edges.index[0]], [self.heads, hidden, hidden], dim=1)
        score = F.leaky_relu((self.own(node) + self.aim(aim))[receiver] + other, _SLOPE)
        query = self.query(aim).view(-1, self.heads, self.width)[receiver]
        score = score + (query * key.view(-1, self.heads, self.width)).sum(-1) * self.width**-0.5  # [E, heads]
        exponent = score.clamp(-LARGEST_SCORE, LARGEST_SCORE).exp()
        total = exponent.new_zeros(len(group), self.heads).index_add(0, place, exponent)
        alpha = exponent / total[place]
        message = alpha[..., None] * value.view(-1, self.heads, self.width)
        gathered = nodes.new_zeros(len(group), hidden).index_add(0, place, message.flatten(1))
        similarity = (F.normalize(gathered, dim=1, eps=_LEAST) * self._aim(aim)[slot]).sum(1)
        importance = (self.sharpness * similarity).clamp(-LARGEST_SCORE, LARGEST_SCORE).exp()
        beta = importance / importance.new_zeros(len(at)).index_add(0, slot, importance)[slot]
        message = beta[:, None] * (gathered + self.relation[group % self.edge_types])
        combined = nodes.new_zeros(len(at), hidden).index_add(0, slot, message)
        alone = self.output(nodes.new_zeros(1, hidden)).expand(len(nodes), -1)
        updated: Tensor = nodes + self.dropout(alone.index_copy(0, at, self.output(F.gelu(combined))))
        return updated

    def forward_padded(self, nodes: Tensor, neighbours: Tensor, edges: PaddedEdges, focal: Tensor) -> Tensor:
        """See ``Convolution.forward_padded``."""
        kinds = torch.arange(self.edge_types, device=nodes.device)
        member = ((edges.type[..., None] == kinds) & edges.mask[..., None]).to(nodes.dtype)  # [N, K, edge types]
        score = F.leaky_relu((self.own(nodes) + self.aim(focal))[:, None] + self.other(neighbours), _SLOPE)
        query = self.query(focal).unflatten(1, (self.heads, self.width))[:, None]
        key = self.key(neighbours).unflatten(2, (self.heads, self.width))
        score = score + (query * key).sum(-1) * self.width**-0.5  # [N, K, heads]
        exponent = score.clamp(-LARGEST_SCORE, LARGEST_SCORE).exp() * edges.mask[..., None]
        total = torch.einsum("nke,nkh->neh", member, exponent)
        alpha = exponent / torch.einsum("nke,neh->nkh", member, total).clamp_min(1e-30)
        message = alpha[..., None] * self.value(neighbours).unflatten(2, (self.heads, self.width))
        gathered = torch.einsum("nke,nkd->ned", member, message.flatten(2))  # [N, edge types, hidden]
        there = (member.sum(1) > 0).to(nodes.dtype)
        similarity = (F.normalize(gathered, dim=2, eps=_LEAST) * self._aim(focal)[:, None]).sum(2)
        importance = (self.sharpness * similarity).clamp(-LARGEST_SCORE, LARGEST_SCORE).exp() * there
        beta = importance / importance.sum(1, keepdim=True).clamp_min(1e-30)
        combined = (beta[..., None] * (gathered + self.relation)).sum(1)
        updated: Tensor = nodes + self.dropout(self.output(F.gelu(combined)))
        return updated

    def _aim(self, focal: Tensor) -> Tensor:
        return F.normalize(self.semantic(focal), dim=1, eps=_LEAST)

    def to_onnx(self, graph: OnnxGraph, nodes: str, neighbours: str, edges: OnnxEdges, focal: str) -> str:
        """See ``Convolution.to_onnx``."""
        heads, width = self.heads, self.width
        turned = graph.op("Transpose", edges.member, perm=[0, 2, 1])  # [N, edge types, K]
        added = graph.op("Add", graph.linear(nodes, self.own), graph.linear(focal, self.aim))
        added = graph.op("Add", graph.unsqueeze(added, 1), graph.linear(neighbours, self.other))
        score = graph.op("LeakyRelu", added, alpha=_SLOPE)
        query = graph.op("Reshape", graph.linear(focal, self.query), graph.integers([0, 1, heads, width]))
        split = graph.integers([0, 0, heads, width])
        key = graph.op("Reshape", graph.linear(neighbours, self.key), split)
        product = graph.sum(graph.op("Mul", query, key), -1, keep=0)
        score = graph.op("Add", score, graph.op("Mul", product, graph.number(width**-0.5)))
        exponent = graph.op("Mul", graph.clipped_exp(score, LARGEST_SCORE), edges.mask)  # [N, K, heads]
        total = graph.op("MatMul", edges.member, graph.op("MatMul", turned, exponent))
        alpha = graph.op("Div", exponent, graph.op("Max", total, graph.number(1e-30)))
        value = graph.op("Reshape", graph.linear(neighbours, self.value), split)
        message = graph.op("Mul", graph.unsqueeze(alpha, 3), value)
        message = graph.op("Reshape", message, graph.integers([0, 0, heads * width]))
        gathered = graph.op("MatMul", turned, message)  # [N, edge types, hidden]
        filled = graph.op("Greater", graph.sum(edges.member, 1, keep=0), graph.number(0.0))
        there = graph.unsqueeze(graph.op("Cast", filled, to=TensorProto.FLOAT), 2)  # [N, edge types, 1]
        length = graph.op("ReduceL2", gathered, graph.integers([2]), keepdims=1)
        direction = graph.op("Div", gathered, graph.op("Max", length, graph.number(_LEAST)))
        aim = graph.unsqueeze(graph.unit(graph.linear(focal, self.semantic), _LEAST), 1)
        similarity = graph.sum(graph.op("Mul", direction, aim), 2, keep=1)
        scaled = graph.op("Mul", similarity, graph.constant(self.sharpness))
        importance = graph.op("Mul", graph.clipped_exp(scaled, LARGEST_SCORE), there)
        present = graph.op("Max", graph.sum(importance, 1, keep=1), graph.number(1e-30))
        beta = graph.op("Div", importance, present)
        told = graph.op("Add", gathered, graph.constant(self.relation))
        combined = graph.sum(graph.op("Mul", beta, told), 1, keep=0)
        return graph.op("Add", nodes, graph.linear(graph.gelu(combined), self.output))


class ZoomerEncoder(Encoder):
    """The frame with attention over a node's feature blocks: a state is ``sum_b n a_b W_b x_b + bias`` for n blocks.

    ``a`` is a softmax over the node's blocks that say something of ``(P c) . (W_b x_b) / sqrt(d)``; a learned vector is
    one block more. The focal vector c is the sum of the focal nodes' plain projections ``sum_b W_b x_b + bias``, a
    node's own where nothing else is given; the convolutions' is the sum of their states. States of layer 0 are linear
    in the features, as in the source: what attention compares is then the features' directions.
    """

    def __init__(self, widths: Mapping[str, int], blocks: Mapping[str, Sequence[int]], **arguments: Any) -> None:
        """See ``Encoder``."""
        super().__init__(widths, blocks, **arguments)
        self.feature_query = nn.Linear(self.hidden, self.hidden, bias=False)
        for linear in self.input.values():
            nn.init.zeros_(linear.bias)  # type: ignore[arg-type]
        for name, sizes in blocks.items():
            member = F.one_hot(self.get_buffer(f"block_of_{name}"), max(len(sizes), 1)).to(torch.float32)
            self.register_buffer(f"member_of_{name}", member, persistent=False)

    def project(
        self, node_type: str, features: Tensor, rows: Tensor | None = None, focal: Tensor | None = None
    ) -> Tensor:
        """See ``Encoder.project``; ``focal`` [N, hidden] is in place of the node's own plain projection."""
        if focal is None:
            focal = self.plain(node_type, features, rows)
        linear = self.input[node_type]
        member = self.get_buffer(f"member_of_{node_type}")
        query = self.feature_query(focal)
        # (P c) . (W_b x_b) is the sum of (W^T P c) x over the block's columns: no vector a block is made.
        score = ((query @ linear.weight) * features) @ member * self.hidden**-0.5
        there = (features.abs() @ member > 0).to(features.dtype)
        exponent = score.clamp(-LARGEST_SCORE, LARGEST_SCORE).exp() * there
        total, count = exponent.sum(1), there.sum(1)
        own = None
        if node_type in self.learned:
            own = self._learned_vectors(node_type, len(features), rows)
            learned = ((query * own).sum(1) * self.hidden**-0.5).clamp(-LARGEST_SCORE, LARGEST_SCORE).exp()
            total, count = total + learned, count + 1.0
        scale = count / total.clamp_min(1e-30)
        projected: Tensor = linear(features * ((exponent * scale[:, None]) @ member.T))
        if own is not None:
            projected = projected + (learned * scale)[:, None] * own
        return projected

    def plain(self, node_type: str, features: Tensor, rows: Tensor | None = None) -> Tensor:
        """The projection [N, hidden] without attention."""
        projected: Tensor = self.input[node_type](features)
        if node_type in self.learned:
            projected = projected + self._learned_vectors(node_type, len(features), rows)
        return projected

    def _learned_vectors(self, node_type: str, count: int, rows: Tensor | None) -> Tensor:
        table = self.learned[node_type].weight
        assert isinstance(table, Tensor)
        return table.mean(0).expand(count, -1) if rows is None else table[rows]

    def project_to_onnx(self, graph: OnnxGraph, node_type: str, features: str, context: str = "") -> str:
        """See ``Encoder.project_to_onnx``; ``context`` [N, hidden] is added to the node's own focal vector."""
        focal = graph.linear(features, self.input[node_type])
        own = ""
        if node_type in self.learned:
            own = graph.constant(self._learned_vectors(node_type, 1, None))
            focal = graph.op("Add", focal, own)
        if context:
            focal = graph.op("Add", focal, context)
        linear, member = self.input[node_type], graph.constant(self.get_buffer(f"member_of_{node_type}"))
        root = graph.number(self.hidden**-0.5)
        query = graph.linear(focal, self.feature_query)
        asked = graph.op("Mul", graph.op("MatMul", query, graph.constant(linear.weight)), features)  # type: ignore[arg-type]
        exponent = graph.clipped_exp(graph.op("Mul", graph.op("MatMul", asked, member), root), LARGEST_SCORE)
        said = graph.op("Greater", graph.op("MatMul", graph.op("Abs", features), member), graph.number(0.0))
        there = graph.op("Cast", said, to=TensorProto.FLOAT)
        exponent = graph.op("Mul", exponent, there)
        total, count = graph.sum(exponent, 1, keep=1), graph.sum(there, 1, keep=1)
        if own:
            product = graph.op("Mul", graph.sum(graph.op("Mul", query, own), 1, keep=1), root)
            learned = graph.clipped_exp(product, LARGEST_SCORE)
            total, count = graph.op("Add", total, learned), graph.op("Add", count, graph.number(1.0))
        scale = graph.op("Div", count, graph.op("Max", total, graph.number(1e-30)))
        share = graph.op("MatMul", graph.op("Mul", exponent, scale), graph.op("Transpose", member, perm=[1, 0]))
        projected = graph.linear(graph.op("Mul", features, share), linear)
        if own:
            projected = graph.op("Add", projected, graph.op("Mul", graph.op("Mul", learned, scale), own))
        return projected

    def initial(self, features: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """See ``Encoder.initial``."""
        if batch.focal is None:
            return super().initial(features, batch)
        # Plain projections are needed of the focal nodes alone.
        wanted, place = torch.unique(batch.focal, return_inverse=True)
        plain, first = [], 0
        for name in self.node_types:
            last = first + len(features[name])
            own = wanted[(wanted >= first) & (wanted < last)] - first
            plain.append(self.plain(name, features[name][own], batch.rows[name][own]))
            first = last
        focal = torch.cat(plain)[place].sum(1)
        parts, first = [], 0
        for name in self.node_types:
            last = first + len(features[name])
            parts.append(self.project(name, features[name], batch.rows[name], focal[first:last]))
            first = last
        return torch.cat(parts)
