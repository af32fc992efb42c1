"""Relation-aware attention over entities, concepts and users.

After SemanticGNN (arXiv 2312.04071, section 4): neighbours compete within their relation, then relations compete with
each other at each node, so a relation a thousand times rarer than another is not drowned by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LARGEST_SCORE = 30.0
"""Attention scores are clamped to +-this: exp() of them is safe without subtracting a maximum per group, which the
edge-list form and the padded form would have to do in two ways."""


class SemanticConv(nn.Module):
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
        nn.init.zeros_(self.edge_weight)
        nn.init.zeros_(self.relation_bias)

    def forward(
        self, nodes: Tensor, neighbours: Tensor, edge_index: Tensor, edge_type: Tensor, edge_weight: Tensor
    ) -> Tensor:
        """Edge-list form.

        ``nodes`` [N, hidden] receive; ``neighbours`` [M, hidden] send; ``edge_index`` int64 [2, E] (row 0: position in
        ``neighbours``, row 1: position in ``nodes``); ``edge_type`` int64 [E]; ``edge_weight`` [E], 1 at the
        relation's median. Returns [N, hidden].
        """
        sender, receiver = edge_index[0], edge_index[1]
        count = nodes.shape[0]
        query = self.query(nodes).view(count, self.heads, self.width)
        key = self.key(neighbours).view(-1, self.heads, self.width)
        value = self.value(neighbours).view(-1, self.heads, self.width)

        score = (query[receiver] * (key[sender] + self.edge_key[edge_type])).sum(-1) * self.width**-0.5  # [E, heads]
        score = score + self.edge_weight[edge_type] * edge_weight[:, None]
        exponent = score.clamp(-LARGEST_SCORE, LARGEST_SCORE).exp()
        group = receiver * self.edge_types + edge_type
        total = exponent.new_zeros(count * self.edge_types, self.heads).index_add(0, group, exponent)
        beta = self._importance(nodes, total.view(count, self.edge_types, self.heads) > 0)
        share = exponent / total[group] * beta.reshape(-1, self.heads)[group]  # alpha times beta, [E, heads]
        message = share[..., None] * (value[sender] + self.edge_value[edge_type])
        gathered = nodes.new_zeros(count, self.heads, self.width).index_add(0, receiver, message)
        return self._update(nodes, gathered.flatten(1))

    def forward_padded(
        self, nodes: Tensor, neighbours: Tensor, edge_type: Tensor, edge_weight: Tensor, mask: Tensor
    ) -> Tensor:
        """The same with ``neighbours`` [N, K, hidden], ``edge_type``, ``edge_weight`` and ``mask`` [N, K]."""
        query = self.query(nodes).unflatten(1, (self.heads, self.width))
        key = self.key(neighbours).unflatten(2, (self.heads, self.width))
        value = self.value(neighbours).unflatten(2, (self.heads, self.width))
        score = (query[:, None] * (key + self.edge_key[edge_type])).sum(-1) * self.width**-0.5  # [N, K, heads]
        score = score + self.edge_weight[edge_type] * edge_weight[..., None]
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


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Nodes of all types in one column, with the edges of every layer; what the encoder reads in training.

    ``features`` per type [N_t, width_t], types in the encoder's order, stacked in that order; ``edges`` per layer
    (edge_index [2, E], edge_type [E], edge_weight [E]), with positions in the stacked column.
    """

    features: Mapping[str, Tensor]
    edges: Sequence[tuple[Tensor, Tensor, Tensor]]


class SemanticEncoder(nn.Module):
    """Feature-first encoder: projection per type, rounds of ``SemanticConv``, and a linear path past them.

    A node without links still gets a vector, from its features; one without features from its links.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        blocks: Mapping[str, Sequence[int]],
        *,
        edge_types: int,
        hidden: int,
        dimension: int,
        layers: int,
        heads: int,
        dropout: float,
        block_dropout: float,
    ) -> None:
        """``widths``: feature columns per node type; ``blocks``: their split into blocks, dropped whole in training."""
        super().__init__()
        self.node_types = tuple(widths)
        self.hidden, self.dimension, self.layers = hidden, dimension, layers
        self.block_dropout = block_dropout
        self.input = nn.ModuleDict({name: nn.Linear(width, hidden) for name, width in widths.items()})
        self.skip = nn.ModuleDict({name: nn.Linear(width, dimension, bias=False) for name, width in widths.items()})
        self.convs = nn.ModuleList(SemanticConv(hidden, heads, edge_types, dropout) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, dimension)
        self.bias = nn.ModuleDict({name: nn.Linear(hidden, 1) for name in widths})
        """A score of the node on its own, whoever asks; read in spaces of inner products."""
        for name, sizes in blocks.items():
            index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(list(sizes), dtype=torch.int64))
            self.register_buffer(f"block_of_{name}", index, persistent=False)

    def project(self, node_type: str, features: Tensor) -> Tensor:
        """State of layer 0, [N, hidden], from features [N, width]."""
        return F.gelu(self.input[node_type](features))

    def head(self, node_type: str, features: Tensor, state: Tensor) -> Tensor:
        """Vector of length 1 [N, dimension], from features and the last layer's state."""
        return F.normalize(self.output(self.dropout(state)) + self.skip[node_type](features), dim=1, eps=1e-6)

    def forward(self, batch: Batch, seeds: Mapping[str, int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Vectors [n, dimension] and biases [n] of the first ``seeds[type]`` nodes of each type."""
        features = {name: self._with_dropped_blocks(name, batch.features[name]) for name in self.node_types}
        state = torch.cat([self.project(name, features[name]) for name in self.node_types])
        for conv, (edge_index, edge_type, edge_weight) in zip(self.convs, batch.edges, strict=True):
            state = conv(state, state, edge_index, edge_type, edge_weight)
        vectors, biases = {}, {}
        first = 0
        for name in self.node_types:
            count = seeds.get(name, 0)
            if count:
                own = state[first : first + count]
                vectors[name] = self.head(name, features[name][:count], own)
                biases[name] = self.bias[name](own)[:, 0]
            first += len(features[name])
        return vectors, biases

    def _with_dropped_blocks(self, node_type: str, features: Tensor) -> Tensor:
        """A node with a part of its blocks must do as well as one of which that part is not known."""
        if not self.training or not self.block_dropout or not len(features):
            return features
        index = self.get_buffer(f"block_of_{node_type}")
        blocks = int(index[-1]) + 1 if len(index) else 0
        keep = torch.rand(len(features), blocks, device=features.device) >= self.block_dropout
        return features * keep[:, index]
