"""A guessed declaration: node types, relations and sources as they will stand in kithkin.toml."""

from __future__ import annotations

from dataclasses import dataclass, field

from graph_store.scaffold.profile import FileProfile
from graph_store.schema import NodeRole, RelationRole


@dataclass(kw_only=True)
class NodeGuess:
    """One node type."""

    name: str
    role: NodeRole
    display: str | None = None
    properties: dict[str, str] = field(default_factory=dict)
    """Property: its declaration as TOML."""
    note: str = ""


@dataclass(kw_only=True)
class RelationGuess:
    """One relation."""

    triple: tuple[str, str, str]
    role: RelationRole
    weight: str | None = None
    time: str | None = None
    kind: str | None = None
    properties: dict[str, str] = field(default_factory=dict)
    derive: str | None = None
    note: str = ""


@dataclass(kw_only=True)
class SourceGuess:
    """One source; values are TOML."""

    file: FileProfile
    fills: dict[str, str]
    properties: dict[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(kw_only=True)
class Guess:
    """A whole declaration."""

    nodes: dict[str, NodeGuess] = field(default_factory=dict)
    relations: dict[tuple[str, str, str], RelationGuess] = field(default_factory=dict)
    sources: list[SourceGuess] = field(default_factory=list)
    unused: list[tuple[FileProfile, str]] = field(default_factory=list)
    """Files that nothing reads, and why."""
