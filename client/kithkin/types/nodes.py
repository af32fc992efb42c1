"""Nodes of the graph, and why two of them belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

PropertyValue = str | int | float | bool | tuple[str, ...] | tuple[float, ...] | datetime | None
"""A property as answers give it. Times and dates are datetimes in UTC; None: the node has no value."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Names one node: its type and its id. An empty type stands for the graph's only entity (or user) type."""

    type: str
    id: str


@dataclass(frozen=True, slots=True)
class Node:
    """A node of the graph with the properties that kithkin.toml shows."""

    ref: Ref
    name: str
    properties: Mapping[str, PropertyValue] = field(default_factory=dict, hash=False)

    @property
    def id(self) -> str:
        """Its key."""
        return self.ref.id

    @property
    def type(self) -> str:
        """Its node type, such as ``Movie``."""
        return self.ref.type

    def __repr__(self) -> str:
        shown = "".join(f", {key}={value!r}" for key, value in self.properties.items() if value != self.name)
        return f"<{self.type} {self.id!r} {self.name!r}{shown}>"


@dataclass(frozen=True, slots=True)
class Reason:
    """One piece of evidence that connects two nodes: a path of the graph, and its share of the whole in [0, 1]."""

    path: tuple[Node, ...]
    relations: tuple[str, ...]
    contribution: float
    text: str
    score_part: float | None = None
    """How much of the pair's score hangs on this evidence, in the score's units; only in an explanation, and only where
    the bundle's encoder can tell."""

    def __repr__(self) -> str:
        return f"<Reason {self.contribution:.0%} {self.text!r}>"


@dataclass(frozen=True, slots=True)
class ScoredEntity:
    """One result: a node, its score (higher is better) and, where asked for, the reasons."""

    node: Node
    score: float
    reasons: tuple[Reason, ...] = ()

    @property
    def ref(self) -> Ref:
        """Type and id of the node."""
        return self.node.ref

    @property
    def id(self) -> str:
        """Key of the node."""
        return self.node.ref.id

    @property
    def type(self) -> str:
        """Type of the node."""
        return self.node.ref.type

    @property
    def name(self) -> str:
        """What people call it."""
        return self.node.name

    @property
    def properties(self) -> Mapping[str, PropertyValue]:
        """Its shown properties."""
        return self.node.properties

    def __repr__(self) -> str:
        because = f" because {'; '.join(reason.text for reason in self.reasons)}" if self.reasons else ""
        return f"<{self.score:.4f} {self.type} {self.id!r} {self.name!r}{because}>"
