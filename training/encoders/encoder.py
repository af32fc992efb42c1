"""The frame of all feature-first encoders: projection per node type, convolutions, and a linear path past them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.encoders.convolution import Convolution, Edges
from training.encoders.onnx_graph import OnnxGraph


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Nodes of all types in one column, with the edges of every layer; what the encoder reads in training."""

    features: Mapping[str, Tensor]
    """Per type [N_t, width_t], types in the encoder's order, stacked in that order."""
    rows: Mapping[str, Tensor]
    """Per type int64 [N_t], which node each is: what learned vectors are looked up by."""
    edges: Sequence[Edges]
    """Per layer, with positions in the stacked column."""
    focal: Tensor | None = None
    """int64 [N, F]: positions of the nodes that are the focal point of each node; None: each node its own."""

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        if device.type == "cpu":
            return self
        return Batch(
            features={name: each.to(device) for name, each in self.features.items()},
            rows={name: each.to(device) for name, each in self.rows.items()},
            edges=[
                Edges(**{each.name: getattr(edges, each.name).to(device) for each in fields(edges)})
                for edges in self.edges
            ],
            focal=None if self.focal is None else self.focal.to(device),
        )


class Encoder(nn.Module):
    """Feature-first encoder. A node without links still gets a vector, from its features; one without features from its
    links. Types in ``learned`` have a learned vector for each node beside the features; a node that training did not
    know gets their mean.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        blocks: Mapping[str, Sequence[int]],
        *,
        convolutions: Sequence[Convolution],
        hidden: int,
        dimension: int,
        dropout: float,
        block_dropout: float,
        learned: Mapping[str, int] | None = None,
    ) -> None:
        """``widths``: feature columns per node type; ``blocks``: their split into blocks, dropped whole in training;
        ``learned``: number of nodes of the types that have learned vectors.
        """
        super().__init__()
        self.node_types = tuple(widths)
        self.hidden, self.dimension, self.layers = hidden, dimension, len(convolutions)
        self.block_dropout = block_dropout
        self.input = nn.ModuleDict({name: nn.Linear(width, hidden) for name, width in widths.items()})
        self.skip = nn.ModuleDict({name: nn.Linear(width, dimension, bias=False) for name, width in widths.items()})
        self.learned = nn.ModuleDict({name: nn.Embedding(count, hidden) for name, count in (learned or {}).items()})
        for embedding in self.learned.values():
            nn.init.zeros_(embedding.weight)  # type: ignore[arg-type]
        self.convs = nn.ModuleList(convolutions)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden, dimension)
        self.bias = nn.ModuleDict({name: nn.Linear(hidden, 1) for name in widths})
        """A score of the node on its own, whoever asks; read in spaces of inner products."""
        for name, sizes in blocks.items():
            index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(list(sizes), dtype=torch.int64))
            self.register_buffer(f"block_of_{name}", index, persistent=False)

    def project(self, node_type: str, features: Tensor, rows: Tensor | None = None) -> Tensor:
        """State of layer 0, [N, hidden], from features [N, width]; ``rows`` None: nodes that training did not know."""
        projected = self.input[node_type](features)
        if node_type in self.learned:
            table = self.learned[node_type].weight
            projected = projected + (table.mean(0) if rows is None else table[rows])  # type: ignore[operator, index]
        return F.gelu(projected)

    def project_to_onnx(self, graph: OnnxGraph, node_type: str, features: str) -> str:
        """``project`` of nodes that training did not know."""
        projected = graph.linear(features, self.input[node_type])
        if node_type in self.learned:
            table = self.learned[node_type].weight
            projected = graph.op("Add", projected, graph.constant(table.mean(0)))  # type: ignore[operator]
        return graph.gelu(projected)

    def head(self, node_type: str, features: Tensor, state: Tensor) -> Tensor:
        """Vector of length 1 [N, dimension], from features and the last layer's state."""
        return F.normalize(self.output(self.dropout(state)) + self.skip[node_type](features), dim=1, eps=1e-6)

    def head_to_onnx(self, graph: OnnxGraph, node_type: str, features: str, state: str) -> str:
        """``head``, without dropout."""
        vector = graph.op("Add", graph.linear(state, self.output), graph.linear(features, self.skip[node_type]))
        return graph.unit(vector, 1e-6)

    def forward(self, batch: Batch, seeds: Mapping[str, int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Vectors [n, dimension] and biases [n] of the first ``seeds[type]`` nodes of each type."""
        features = {name: self.with_dropped_blocks(name, batch.features[name]) for name in self.node_types}
        state = self.initial(features, batch)
        focal = state if batch.focal is None else state[batch.focal].sum(1)
        for conv, edges in zip(self.convs, batch.edges, strict=True):
            state = conv(state, state, edges, focal)
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

    def initial(self, features: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """States of layer 0 of all nodes of a batch, in its order."""
        return torch.cat([self.project(name, features[name], batch.rows[name]) for name in self.node_types])

    def with_dropped_blocks(self, node_type: str, features: Tensor) -> Tensor:
        """A node with a part of its blocks must do as well as one of which that part is not known."""
        if not self.training or not self.block_dropout or not len(features):
            return features
        index = self.get_buffer(f"block_of_{node_type}")
        blocks = int(index[-1]) + 1 if len(index) else 0
        keep = torch.rand(len(features), blocks, device=features.device) >= self.block_dropout
        return features * keep[:, index]
