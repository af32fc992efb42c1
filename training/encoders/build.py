"""From the setting ``encoder`` to an encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graph_store.settings import SpaceSettings
from training.encoders.convolution import Convolution
from training.encoders.encoder import Encoder
from training.encoders.semantic_gnn import SemanticConv

ENCODERS: dict[str, Callable[[SpaceSettings, int], Convolution]] = {
    "semantic_gnn": lambda own, edge_types: SemanticConv(own.hidden, own.heads, edge_types, own.dropout),
}
"""Makes one convolution from the space's settings and the number of edge types."""


def build_encoder(
    settings: SpaceSettings,
    widths: Mapping[str, int],
    blocks: Mapping[str, Sequence[int]],
    *,
    edge_types: int,
    dimension: int,
    learned: Mapping[str, int] | None = None,
) -> Encoder:
    """The encoder that ``settings.encoder`` names; see ``Encoder`` for the arguments."""
    make = ENCODERS[settings.encoder]
    return Encoder(
        widths,
        blocks,
        convolutions=[make(settings, max(edge_types, 1)) for _ in range(settings.layers)],
        hidden=settings.hidden,
        dimension=dimension,
        dropout=settings.dropout,
        block_dropout=settings.block_dropout,
        learned=learned,
    )
