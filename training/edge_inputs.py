"""What convolutions read of edges, from the graph's raw weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.encoders.convolution import Edges, PaddedEdges

_LN2 = float(np.log(2.0))
LEAST_WEIGHT = 1e-12
"""What a weight of nothing counts in a share, so that edges which all weigh nothing share evenly."""


def scaled_weight(raw: Tensor, edge_type: Tensor, medians: Tensor) -> Tensor:
    """``ln(1 + w / median) / ln 2`` of raw weights; 1 where the relation has none (median 0)."""
    median = medians[edge_type]
    scaled = torch.log1p(raw.clamp_min(0.0) / median.clamp_min(LEAST_WEIGHT)) / _LN2
    return torch.where(median > 0, scaled, torch.ones_like(scaled))


def edge_inputs(index: Tensor, edge_type: Tensor, raw: Tensor, medians: Tensor, *, nodes: int) -> Edges:
    """The edges [E] of one layer with scaled weights and shares; ``raw`` is 1 where the relation has no weight,
    ``nodes`` the number of receivers.
    """
    group = index[1] * len(medians) + edge_type
    weight = raw.clamp_min(LEAST_WEIGHT)
    total = weight.new_zeros(nodes * len(medians)).index_add(0, group, weight)
    return Edges(
        index=index, type=edge_type, weight=scaled_weight(raw, edge_type, medians), share=weight / total[group]
    )


def padded_edge_inputs(edge_type: Tensor, raw: Tensor, mask: Tensor, medians: Tensor) -> PaddedEdges:
    """The same for slots [N, K]."""
    member = members(edge_type, mask, len(medians))
    weight = raw.clamp_min(LEAST_WEIGHT) * mask
    total = torch.einsum("nke,nk->ne", member, weight)
    share = weight * torch.einsum("nke,ne->nk", member, 1.0 / total.clamp_min(LEAST_WEIGHT))
    return PaddedEdges(type=edge_type, weight=scaled_weight(raw, edge_type, medians), share=share, mask=mask)


def members(edge_type: Tensor, mask: Tensor, edge_types: int) -> Tensor:
    """float32 [N, K, edge types]: 1 where a filled slot is of the type."""
    kinds = torch.arange(edge_types, device=edge_type.device)
    return ((edge_type[..., None] == kinds) & mask[..., None]).to(torch.float32)
