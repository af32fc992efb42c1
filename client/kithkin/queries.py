"""What calls take beside plain ids: described entities, their links, events, contexts, how to secure the connection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from os import PathLike

from kithkin.types import Node, Ref, ScoredEntity

Entity = str | int | tuple[str, str] | Ref | Node | ScoredEntity
"""Names a node: an id, ``("Type", "id")``, a `Ref`, or anything an answer gave."""

Value = str | int | float | bool | Sequence[str] | Iterable[float] | date | datetime | None
"""A property's value as described entities take it; a row of numbers is a vector, a time without a zone is in UTC."""


@dataclass(frozen=True, slots=True)
class Link:
    """A link of a described entity to a node that is in the graph; ``weight``: as the relation holds it."""

    relation: str
    node: Entity
    weight: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """An entity that is not in the graph, told by its properties and its links.

    ``links`` is a list of `Link`, or nodes by relation name: ``{"HAS_TAG": ["rock", "90s"]}``, with weights
    ``{"HAS_TAG": {"rock": 3, "90s": 1}}``.
    """

    type: str = ""
    """Entity type; may be left empty where the graph has a single one."""
    properties: Mapping[str, Value] = field(default_factory=dict)
    links: Iterable[Link] | Mapping[str, Iterable[Entity] | Mapping[Entity, float]] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One thing a user did, of weight 1 unless given. A time without a zone is taken as UTC."""

    entity: Entity
    weight: float | None = None
    time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a user looks at now: with the user it is the focal point of a region of interest."""

    entity: Entity | None = None
    """The entity being looked at."""
    concepts: Iterable[Entity] = ()
    """Concepts that were chosen, with their types: ``[("Genre", "noir")]``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How to secure the connection; each of the three files as a path, or its PEM bytes."""

    ca: str | PathLike[str] | bytes | None = None
    """Certificates to trust; None: those gRPC ships."""
    certificate: str | PathLike[str] | bytes | None = None
    """The client's own certificate, for servers that ask for one (mTLS); with ``key``."""
    key: str | PathLike[str] | bytes | None = None
    server_name: str = ""
    """Name in the server's certificate, where it is not the host of the target."""

    def __post_init__(self) -> None:
        """Checks that certificate and key come together."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("Tls: certificate and key belong together; give both or none")
