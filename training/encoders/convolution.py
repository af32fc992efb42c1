"""The contract of all convolutions: one round of messages over typed edges, in three forms that agree to 1e-5."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from training.encoders.onnx_graph import OnnxEdges, OnnxGraph

LARGEST_SCORE = 30.0
"""Attention scores are clamped to +-this: exp() of them is safe without subtracting a maximum per group, which the
edge-list form and the padded form would have to do in two ways."""


@dataclass(frozen=True, kw_only=True)
class Edges:
    """Edges of one layer, as a list."""

    index: Tensor
    """int64 [2, E]; row 0: position of the sender among the neighbours, row 1: position of the receiver."""
    type: Tensor
    """int64 [E], number of the edge type."""
    weight: Tensor
    """float32 [E], log-scaled, 1 at the relation's median and where the relation has no weight."""
    share: Tensor
    """float32 [E], importance: the raw weight divided by the sum over the receiver's edges of this type."""


@dataclass(frozen=True, kw_only=True)
class PaddedEdges:
    """The same as slots ``[N, K]`` of each receiver; slots where ``mask`` is false are empty."""

    type: Tensor
    weight: Tensor
    share: Tensor
    """0 in empty slots."""
    mask: Tensor
    """bool [N, K]."""


class Convolution(nn.Module, ABC):
    """One round of messages. ``hidden``: width of all states; ``edge_types``: how many kinds of edges there are."""

    reads_relations: bool = True
    """Whether edge types are told apart."""

    @abstractmethod
    def forward(self, nodes: Tensor, neighbours: Tensor, edges: Edges, focal: Tensor) -> Tensor:
        """New states [N, hidden] of ``nodes`` [N, hidden], which receive from ``neighbours`` [M, hidden].

        ``focal`` [N, hidden] is what is looked for at each receiver; encoders without a focal point do not read it.
        """

    def sent(self, neighbours: Tensor) -> Tensor:
        """What nodes send [M, any width], made of their own states alone: inference makes it once for each node.

        A convolution that overrides this overrides ``received`` too; ``forward`` is the one after the other.
        """
        return neighbours

    def received(self, nodes: Tensor, sent: Tensor, edges: Edges, focal: Tensor) -> Tensor:
        """``forward`` with what the neighbours sent in place of their states."""
        states: Tensor = self.forward(nodes, sent, edges, focal)
        return states

    @abstractmethod
    def forward_padded(self, nodes: Tensor, neighbours: Tensor, edges: PaddedEdges, focal: Tensor) -> Tensor:
        """The same with ``neighbours`` [N, K, hidden]."""

    @abstractmethod
    def to_onnx(self, graph: OnnxGraph, nodes: str, neighbours: str, edges: OnnxEdges, focal: str) -> str:
        """Write the padded form into an ONNX graph; takes and returns names of values."""
