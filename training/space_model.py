"""One space's model: the encoder, the fitted signals beside it, and how the two become a published vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from graph_store.schema import NodeRole
from graph_store.settings import SpaceSettings
from model_store.csr import EdgeType
from model_store.features import FeatureTransforms
from training.edge_inputs import padded_edge_inputs
from training.encoders import Batch, build_encoder
from training.graph import Graph
from training.neighbourhoods import learned_types, neighbourhoods


@dataclass(frozen=True, kw_only=True)
class SpaceShape:
    """What a space's model is built from, beside its settings."""

    name: str
    inner_product: bool
    widths: dict[str, int]
    """Feature columns per node type."""
    blocks: dict[str, tuple[int, ...]]
    """Their split into blocks."""
    roles: dict[str, str]
    edge_types: tuple[EdgeType, ...]
    medians: tuple[float, ...]
    """Median weight per edge type; 0: no weight."""
    learned: dict[str, int]
    """Number of nodes of the types that have learned vectors."""
    signal_width: int
    """Columns of the reduced signals; 0: the encoder alone."""

    @classmethod
    def of(
        cls, name: str, graph: Graph, transforms: FeatureTransforms, settings: SpaceSettings, *, inner_product: bool
    ) -> SpaceShape:
        types = [node_type.name for node_type in graph.schema.node_types]
        near = neighbourhoods(graph, settings)
        return cls(
            name=name,
            inner_product=inner_product,
            widths={each: transforms.width(each) for each in types},
            blocks={each: (*(block.width for block in transforms.blocks[each]), 1) for each in types},
            roles={node_type.name: node_type.role.value for node_type in graph.schema.node_types},
            edge_types=near.edge_types,
            medians=near.medians,
            learned=learned_types(graph, settings),
            signal_width=0 if inner_product or settings.signals == 0 else settings.dimension,
        )


class SpaceModel(nn.Module):
    """Vectors of one space.

    Space of cosines: ``unit(P [encoder, signals])``: the trained encoder's vector beside the node's weighted feature
    blocks, both reduced by one SVD. Space of inner products: users ``[encoder / temperature, 1]``, entities
    ``[encoder, bias]``.
    """

    projection: Tensor
    medians: Tensor

    def __init__(self, shape: SpaceShape, settings: SpaceSettings) -> None:
        super().__init__()
        self.shape, self.settings = shape, settings
        self.whole_rows: Mapping[str, Tensor] | None = None
        """Where the graph trained on is a part of the one the model is of: per type each node's row in that."""
        inner = settings.dimension - 1 if shape.inner_product else settings.dimension
        self.encoder = build_encoder(
            settings,
            shape.widths,
            shape.blocks,
            edge_types=len(shape.edge_types),
            dimension=inner,
            learned=shape.learned,
        )
        for name, width in shape.widths.items():
            self.register_buffer(f"signals_of_{name}", torch.zeros(width, shape.signal_width))
        self.register_buffer("projection", torch.zeros(settings.dimension, settings.dimension + shape.signal_width))
        self.register_buffer("medians", torch.tensor(shape.medians or (0.0,), dtype=torch.float32))

    @property
    def state_widths(self) -> tuple[int, ...]:
        """Columns of the published states of each layer."""
        return (self.settings.hidden,) * self.settings.layers

    def set_signals(self, matrices: Mapping[str, NDArray[np.float32]]) -> None:
        """Set the matrices ``[feature width, signal width]`` of the entity types."""
        for name, matrix in matrices.items():
            self.get_buffer(f"signals_of_{name}").copy_(torch.from_numpy(matrix))

    def signals(self, node_type: str, features: Tensor) -> Tensor:
        """Unit signals [N, signal width] from features; zeros for types that have none of their own."""
        return _unit(features @ self.get_buffer(f"signals_of_{node_type}"))

    def encode(self, batch: Batch, seeds: Mapping[str, int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Vectors and biases of the seeds, see ``Encoder.forward``; what a training step calls."""
        batch = batch.to(self.medians.device)
        if self.whole_rows is not None:
            batch = replace(batch, rows={name: self.whole_rows[name][rows] for name, rows in batch.rows.items()})
        found: tuple[dict[str, Tensor], dict[str, Tensor]] = self.encoder(batch, seeds)
        return found

    def finish(self, node_type: str, vector: Tensor, bias: Tensor, signals: Tensor) -> Tensor:
        """The published vector [N, dimension] from the encoder's vector and bias, and the signals."""
        if self.shape.inner_product:
            if self.shape.roles[node_type] == NodeRole.USER.value:
                return torch.cat([vector / self.settings.temperature, torch.ones_like(bias)[:, None]], dim=1)
            return torch.cat([vector, bias[:, None]], dim=1)
        if not self.shape.signal_width:
            return vector
        return _unit(self.joined(vector, signals) @ self.projection.T)

    def joined(self, vector: Tensor, signals: Tensor) -> Tensor:
        """The encoder's vector beside the signals, before they are reduced."""
        return torch.cat([vector, self.settings.signals * signals], dim=1)


class OnlineEncoder(nn.Module):
    """The encoder of one node type for serving: padded neighbours in, vectors out; see docs/architecture.md."""

    def __init__(self, model: SpaceModel, node_type: str) -> None:
        super().__init__()
        self.model, self.node_type = model, node_type

    def forward(
        self,
        features: Tensor,
        edge_type: Tensor | None = None,
        weight: Tensor | None = None,
        mask: Tensor | None = None,
        *states: Tensor,
    ) -> Tensor:
        model, encoder = self.model, self.model.encoder
        state = focal = encoder.project(self.node_type, features)
        signals = model.signals(self.node_type, features)
        if edge_type is not None and weight is not None and mask is not None:
            edges = padded_edge_inputs(edge_type, weight, mask, model.medians)
            for conv, published in zip(encoder.convs, states, strict=True):
                state = conv.forward_padded(state, published, edges, focal)  # type: ignore[operator]
        bias = encoder.bias[self.node_type](state)[:, 0]
        return model.finish(self.node_type, encoder.head(self.node_type, features, state), bias, signals)


def _unit(matrix: Tensor) -> Tensor:
    return F.normalize(matrix, dim=1, eps=1e-12)
