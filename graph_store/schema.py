"""The declared graph: node types, properties, relations, and the Arrow schemas that follow from them.

A relation is the triple ``(source type, NAME, target type)`` everywhere in the project.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

_IDENTIFIER = re.compile(r"^[A-Za-z][A-Za-z0-9_]*$")
RESERVED_PROPERTIES = frozenset({"id"})


class NodeRole(StrEnum):
    """What a node type is in the graph."""

    ENTITY = "entity"
    CONCEPT = "concept"
    USER = "user"


class RelationRole(StrEnum):
    """What a relation is in the graph."""

    SEMANTIC = "semantic"
    ENGAGEMENT = "engagement"
    CO_ENGAGEMENT = "co_engagement"


class PropertyType(StrEnum):
    """Type of a property, the same in files, stores and snapshots."""

    STRING = "string"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    DATE = "date"
    TIMESTAMP = "timestamp"
    STRINGS = "strings"
    VECTOR = "vector"

    @property
    def arrow(self) -> pa.DataType:
        """Arrow type of a column of this property (times are UTC microseconds)."""
        return _ARROW_TYPES[self]


_ARROW_TYPES: dict[PropertyType, pa.DataType] = {
    PropertyType.STRING: pa.string(),
    PropertyType.INT: pa.int64(),
    PropertyType.FLOAT: pa.float64(),
    PropertyType.BOOL: pa.bool_(),
    PropertyType.DATE: pa.date32(),
    PropertyType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    PropertyType.STRINGS: pa.list_(pa.string()),
    PropertyType.VECTOR: pa.list_(pa.float32()),
}


class FeatureKind(StrEnum):
    """How training reads a property."""

    NUMBER = "number"
    CATEGORY = "category"
    CATEGORIES = "categories"
    DATE = "date"
    TEXT = "text"
    VECTOR = "vector"


_FEATURE_TYPES: dict[FeatureKind, frozenset[PropertyType]] = {
    FeatureKind.NUMBER: frozenset({PropertyType.INT, PropertyType.FLOAT, PropertyType.BOOL}),
    FeatureKind.CATEGORY: frozenset({PropertyType.STRING, PropertyType.INT, PropertyType.BOOL}),
    FeatureKind.CATEGORIES: frozenset({PropertyType.STRINGS}),
    FeatureKind.DATE: frozenset({PropertyType.DATE, PropertyType.TIMESTAMP}),
    FeatureKind.TEXT: frozenset({PropertyType.STRING}),
    FeatureKind.VECTOR: frozenset({PropertyType.VECTOR}),
}


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _check_identifier(value: str) -> str:
    if not _IDENTIFIER.match(value):
        raise ValueError(f"{value!r} is not a name: letters, digits and _ only, a letter first")
    return value


Identifier = Annotated[str, Field(min_length=1, max_length=64)]


class Property(_Declared):
    """One property of a node type or of a relation."""

    type: PropertyType
    """The same in files, stores and snapshots."""
    feature: FeatureKind | None = None
    """How training reads it; nothing: training does not."""
    filter: bool = False
    """May requests filter on it."""
    show: bool = False
    """Do answers carry it."""
    required: bool = False
    """Is a row without a value bad."""
    dimension: int | None = Field(default=None, gt=0)
    """Length of a vector property."""

    @model_validator(mode="after")
    def _fits(self) -> Property:
        if self.feature and self.type not in _FEATURE_TYPES[self.feature]:
            allowed = ", ".join(sorted(_FEATURE_TYPES[self.feature]))
            raise ValueError(f"feature {self.feature.value!r} needs type {allowed}, not {self.type.value}")
        if (self.type is PropertyType.VECTOR) != (self.dimension is not None):
            raise ValueError("a vector, and only a vector, has a dimension")
        return self


class NodeType(_Declared):
    """One type of nodes; its name is the label in the store, its key property is ``id``."""

    name: Identifier
    """The label in the store; in kithkin.toml the table's own name, ``[nodes.<name>]``."""
    role: NodeRole
    """What it is in the graph."""
    display: str | None = None
    """Property that people call a node by; without one, the id."""
    properties: dict[str, Property] = Field(default_factory=dict)
    """Properties by name."""

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return _check_identifier(value)

    @model_validator(mode="after")
    def _fits(self) -> NodeType:
        _check_properties(self.properties)
        if self.display is not None:
            if self.display not in self.properties:
                raise ValueError(f"display: {self.display!r} is not a declared property of {self.name}")
            if self.properties[self.display].type is not PropertyType.STRING:
                raise ValueError(f"display: {self.display!r} must be a string property")
        return self

    @property
    def arrow_schema(self) -> pa.Schema:
        """``id: string`` then the declared properties in order, all nullable but the id."""
        fields = [pa.field("id", pa.string(), nullable=False)]
        fields += [pa.field(name, prop.type.arrow) for name, prop in self.properties.items()]
        return pa.schema(fields)


class Triple(NamedTuple):
    """Name of a relation: ``(source type, NAME, target type)``."""

    source: str
    name: str
    target: str

    @classmethod
    def of(cls, *parts: str) -> Triple:
        return cls(*parts)

    def __str__(self) -> str:
        return f"({self.source})-[{self.name}]->({self.target})"

    @property
    def key(self) -> str:
        """The triple as one file-system-safe word, ``Movie__HAS_GENRE__Genre``."""
        return "__".join(self)


class CoEngagementWeight(StrEnum):
    """How the weight of a co-engagement edge is made from integer counts, with one final division.

    With c users engaging with both a and b, c_a and c_b with each, n users in all:
    count = c; cosine = c / sqrt(c_a c_b); lift = c n / (c_a c_b);
    npmi = ln(c n / (c_a c_b)) / ln(n / c), kept where positive (Bouma 2009).
    """

    COUNT = "count"
    COSINE = "cosine"
    NPMI = "npmi"
    LIFT = "lift"


class CoEngagement(_Declared):
    """How co-engagement edges are derived from an engagement relation."""

    via: str
    """Name of the engagement relation."""
    weight: CoEngagementWeight = CoEngagementWeight.COSINE
    """How an edge is weighed, from the counts of users."""
    min_support: int = Field(default=2, ge=1)
    """Edges that fewer users support are dropped."""
    top_k: int = Field(default=50, ge=1)
    """Edges kept per entity, the heaviest first, ties by id (bytes)."""
    window_days: float | None = Field(default=None, gt=0)
    """Only engagements of the last so many days, counted from the newest event."""
    min_engagement: float | None = None
    """Only engagements of at least this weight (a rating of 3.5, say)."""
    max_per_user: int = Field(default=1000, ge=2)
    """Only a user's newest (or heaviest, where no time is declared) so many engagements, against heavy users."""
    max_per_entity: int | None = Field(default=None, ge=2)
    """Of these, only an entity's newest (or heaviest) so many, against entities that everybody touches."""
    half_life_days: float | None = Field(default=None, gt=0)
    """An engagement counts half as much for every so many days that it is older than the newest event."""
    session_gap_minutes: float | None = Field(default=None, gt=0)
    """Only what one user touched in one sitting belongs together; a pause longer than this ends it. Sittings are then
    counted in place of users."""


class Relation(_Declared):
    """One relation of the graph."""

    triple: Triple
    """Source type, name, target type."""
    role: RelationRole
    """What it is in the graph."""
    weight: str | None = None
    """Numeric property that is the edge's weight; without one, every edge weighs 1."""
    time: str | None = None
    """Timestamp property that says when (engagements)."""
    kind: str | None = None
    """String property that says how (viewed, clicked, rated)."""
    properties: dict[str, Property] = Field(default_factory=dict)
    """Properties of the edges, by name."""
    derive: CoEngagement | None = None
    """For co-engagement: how to derive it; without it the edges come from a source."""

    @field_validator("triple", mode="before")
    @classmethod
    def _triple(cls, value: Any) -> Triple:
        if not isinstance(value, (list, tuple)) or len(value) != 3 or not all(isinstance(v, str) for v in value):
            raise ValueError('a relation is three names: ["Movie", "HAS_GENRE", "Genre"]')
        for part in value:
            _check_identifier(part)
        return Triple(*value)

    @model_validator(mode="before")
    @classmethod
    def _derived_weight(cls, data: Any) -> Any:
        # A derived relation always carries what was counted; nobody should have to declare it.
        if isinstance(data, dict) and data.get("derive") is not None and "properties" not in data:
            data = {**data, "weight": "weight", "properties": {"weight": {"type": "float"}, "support": {"type": "int"}}}
        return data

    @model_validator(mode="after")
    def _fits(self) -> Relation:
        _check_properties(self.properties)
        wanted = {
            "weight": (PropertyType.INT, PropertyType.FLOAT),
            "time": (PropertyType.TIMESTAMP, PropertyType.DATE),
            "kind": (PropertyType.STRING,),
        }
        for field, types in wanted.items():
            name = getattr(self, field)
            if name is None:
                continue
            if name not in self.properties:
                raise ValueError(f"{field}: {name!r} is not a declared property of {self.triple}")
            if self.properties[name].type not in types:
                raise ValueError(f"{field}: {name!r} must be of type {' or '.join(t.value for t in types)}")
        if self.derive and self.role is not RelationRole.CO_ENGAGEMENT:
            raise ValueError("only a co_engagement relation is derived")
        if (self.kind or self.time) and self.role is not RelationRole.ENGAGEMENT:
            raise ValueError("only an engagement relation has time and kind")
        if self.derive and self.triple.source != self.triple.target:
            raise ValueError("a derived co_engagement relation joins a type with itself")
        return self

    @property
    def key_columns(self) -> tuple[str, ...]:
        """Columns that identify an edge: source, target, then time and kind where declared."""
        return ("source", "target", *(name for name in (self.time, self.kind) if name))

    @property
    def arrow_schema(self) -> pa.Schema:
        """``source: string, target: string`` (node ids), then the declared properties in order."""
        fields = [pa.field("source", pa.string(), nullable=False), pa.field("target", pa.string(), nullable=False)]
        fields += [pa.field(name, prop.type.arrow) for name, prop in self.properties.items()]
        return pa.schema(fields)


class GraphSchema(_Declared):
    """All node types and relations of one graph, cross-checked."""

    node_types: tuple[NodeType, ...]
    relations: tuple[Relation, ...]

    @model_validator(mode="after")
    def _fits(self) -> GraphSchema:
        names = [node_type.name for node_type in self.node_types]
        if len(set(names)) != len(names):
            raise ValueError("two node types have the same name")
        if not any(node_type.role is NodeRole.ENTITY for node_type in self.node_types):
            raise ValueError("no node type has the role entity")
        role = {node_type.name: node_type.role for node_type in self.node_types}
        seen: set[Triple] = set()
        for relation in self.relations:
            triple = relation.triple
            if triple in seen:
                raise ValueError(f"relation {triple} is declared twice")
            seen.add(triple)
            for end in (triple.source, triple.target):
                if end not in role:
                    raise ValueError(f"relation {triple}: node type {end!r} is not declared")
            ends = (role[triple.source], role[triple.target])
            if relation.role is RelationRole.ENGAGEMENT and ends != (NodeRole.USER, NodeRole.ENTITY):
                raise ValueError(f"relation {triple}: an engagement goes from a user type to an entity type")
            if relation.role is RelationRole.CO_ENGAGEMENT and ends != (NodeRole.ENTITY, NodeRole.ENTITY):
                raise ValueError(f"relation {triple}: a co_engagement joins entity types")
            via = relation.derive.via if relation.derive else ""
            if relation.derive and not self.engagements(via, triple.target):
                raise ValueError(f"relation {triple}: derive.via: no engagement {via!r} reaches {triple.target}")
        return self

    @model_validator(mode="after")
    def _one_meaning_a_name(self) -> GraphSchema:
        # The embedded store keeps node types and relations in one catalogue that is blind to upper and lower case.
        node_types = {node_type.name.lower(): node_type.name for node_type in self.node_types}
        if len(node_types) < len(self.node_types):
            raise ValueError("two node types differ only in upper and lower case")
        names: dict[str, str] = {}
        types: dict[tuple[str, str], PropertyType] = {}
        for relation in self.relations:
            name = relation.triple.name
            if name.lower() in node_types:
                other = node_types[name.lower()]
                raise ValueError(f"relation {relation.triple}: its name is also the node type {other}; rename one")
            if names.setdefault(name.lower(), name) != name:
                raise ValueError(
                    f"relation {relation.triple}: {names[name.lower()]!r} differs only in upper and lower case"
                )
            for key, declared in relation.properties.items():
                if types.setdefault((name, key), declared.type) is not declared.type:
                    other = types[name, key].value
                    raise ValueError(f"relation {relation.triple}: property {key!r} is {other} in another {name}")
        return self

    def engagements(self, name: str, target: str) -> tuple[Relation, ...]:
        """The engagement relations called ``name`` whose target is the type ``target``."""
        return tuple(
            relation
            for relation in self.relations_of_role(RelationRole.ENGAGEMENT)
            if relation.triple[1:] == (name, target)
        )

    def node_type(self, name: str) -> NodeType:
        """The node type called ``name``; KeyError where none is."""
        for node_type in self.node_types:
            if node_type.name == name:
                return node_type
        raise KeyError(name)

    def relation(self, triple: tuple[str, str, str]) -> Relation:
        """The relation of this triple; KeyError where none is."""
        for relation in self.relations:
            if relation.triple == tuple(triple):
                return relation
        raise KeyError(triple)

    def of_role(self, role: NodeRole) -> tuple[NodeType, ...]:
        """The node types of one role, in declared order."""
        return tuple(node_type for node_type in self.node_types if node_type.role is role)

    def relations_of_role(self, role: RelationRole) -> tuple[Relation, ...]:
        """The relations of one role, in declared order."""
        return tuple(relation for relation in self.relations if relation.role is role)


def _check_properties(properties: dict[str, Property]) -> None:
    for name in properties:
        _check_identifier(name)
        if name in RESERVED_PROPERTIES | {"source", "target"}:
            raise ValueError(f"{name!r} is reserved, choose another property name")
    if len({name.lower() for name in properties}) < len(properties):
        raise ValueError("two properties differ only in upper and lower case")
