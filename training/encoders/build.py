"""From the setting ``encoder`` to an encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from graph_store.settings import SpaceSettings
from training.encoders.convolution import Convolution
from training.encoders.encoder import Encoder
from training.encoders.gat import GatConv
from training.encoders.graph_sage import SageConv
from training.encoders.mean import MeanConv
from training.encoders.pin_sage import PinSageConv
from training.encoders.r_gcn import RGcnConv
from training.encoders.semantic_gnn import SemanticConv
from training.encoders.zoomer import ZoomerConv, ZoomerEncoder

ENCODERS: dict[str, Callable[[SpaceSettings, int], Convolution]] = {
    "semantic_gnn": lambda own, edge_types: SemanticConv(own.hidden, own.heads, edge_types, own.dropout),
    "pin_sage": lambda own, _: PinSageConv(own.hidden, own.pooling, own.dropout),
    "graph_sage": lambda own, edge_types: SageConv(own.hidden, edge_types, own.dropout),
    "gat": lambda own, _: GatConv(own.hidden, own.heads, own.dropout),
    "r_gcn": lambda own, edge_types: RGcnConv(own.hidden, own.bases, edge_types, own.dropout),
    "mean": lambda own, _: MeanConv(own.hidden, own.dropout),
    "zoomer": lambda own, edge_types: ZoomerConv(own.hidden, own.heads, edge_types, own.dropout),
}
"""Makes one convolution from the space's settings and the number of edge types."""
FRAMES: dict[str, type[Encoder]] = {"zoomer": ZoomerEncoder}
"""Encoders that have a frame of their own around the convolutions."""


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
    return FRAMES.get(settings.encoder, Encoder)(
        widths,
        blocks,
        convolutions=[make(settings, max(edge_types, 1)) for _ in range(settings.layers)],
        hidden=settings.hidden,
        dimension=dimension,
        dropout=settings.dropout,
        block_dropout=settings.block_dropout,
        learned=learned,
    )
