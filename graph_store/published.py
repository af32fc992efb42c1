"""What publishing writes back into the graph: vectors, and the nearest of each entity as edges with score and reason.

It stands beside the declared graph and is no part of it: nothing that reads the declaration meets it (snapshots,
co-engagement, counts, the comparison of changes). One node of ``MARKER`` tells what there is, and whether it is whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from graph_store.errors import ConfigError, StoreConflict
from graph_store.schema import GraphSchema, NodeRole

MARKER = "KithkinPublished"
"""Label of the node that tells what was written back."""
VECTOR = "KithkinVector"
"""Nodes of the embedded store that hold a vector each: ``(entity)-[:KITHKIN_VECTOR]->(:KithkinVector {vector})``."""
HAS_VECTOR = "KITHKIN_VECTOR"
NEXT = ("KITHKIN_NEXT", "KITHKIN_NEXT_VECTOR", "KithkinNextVector")
"""In the embedded store the tables of what is being written: edges, the edges to vectors, vectors."""

EDGES = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("target", pa.string(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("reason", pa.string()),
        pa.field("rank", pa.int64()),
    ]
)
"""Columns of ``PublishedRows.edges``; ``rank`` counts from 1 at each source, a reason that is not known is null."""
VECTORS = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("vector", pa.list_(pa.float32()))])
"""Columns of ``PublishedRows.vectors``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Publishing:
    """What is written back, and under which names."""

    bundle: str
    """Version of the bundle that all of it comes from."""
    space: str
    """The space of the vectors."""
    relation: str
    """Name of the edges."""
    property: str
    """In Neo4j the property that holds an entity's vector."""
    dimension: int
    neighbours: int
    """Edges of an entity, at most."""
    node_types: tuple[str, ...]
    """Entity types; an edge joins two of one type."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """A publishing in the store."""

    publishing: Publishing
    complete: bool
    """False: one that is being written or removed, or was when its process ended."""
    vectors: bool = field(default=True, compare=False)
    """False: its edges are whole, and vectors of another publishing have taken the place of some of its own."""


@dataclass(kw_only=True, slots=True)
class WrittenBack:
    """What a write-back did, in rows by type."""

    edges: dict[str, int] = field(default_factory=dict)
    vectors: dict[str, int] = field(default_factory=dict)
    unknown: int = 0
    """Vectors of entities that the graph does not have any more; their edges are left out as well."""


class PublishedRows(Protocol):
    """The rows of a publishing, made as they are asked for; each method is called once, ``edges`` first."""

    def edges(self) -> Iterator[tuple[str, pa.Table]]:
        """Entity type and edges of the columns ``EDGES``, all of one source together."""
        ...

    def vectors(self) -> Iterator[tuple[str, pa.Table]]:
        """Entity type and vectors of the columns ``VECTORS``, each id once."""
        ...


def check_names(schema: GraphSchema, publishing: Publishing) -> None:
    """Raises ConfigError where a name of the publishing is declared for something else."""
    names = {node_type.name.lower() for node_type in schema.node_types}
    names |= {relation.triple.name.lower() for relation in schema.relations}
    if publishing.relation.lower() in names | {name.lower() for name in (MARKER, VECTOR, HAS_VECTOR, *NEXT)}:
        raise ConfigError(
            "is the name of a declared node type or relation, which write-back must not touch",
            key="publish.write_back_relation",
            value=publishing.relation,
            hint="Choose another name for the edges that are written back.",
        )
    for name in publishing.node_types:
        declared = {each.lower() for each in schema.node_type(name).properties}
        for taken in (publishing.property, bundle_property(publishing.property)):
            if taken.lower() in declared | {"id"}:
                raise ConfigError(
                    f"{name}.{taken} is a declared property, which write-back must not touch",
                    key="publish.write_back_property",
                    value=publishing.property,
                    hint="Choose another name for the vectors that are written back.",
                )


def refuse_declared(schema: GraphSchema, found: tuple[Published, ...]) -> None:
    """Raises StoreConflict where a relation is declared by the name of edges that were written back."""
    names = {relation.triple.name.lower() for relation in schema.relations}
    for each in found:
        if each.publishing.relation.lower() in names:
            raise StoreConflict(
                f"the store's {each.publishing.relation} edges were written back from bundle {each.publishing.bundle},"
                " and kithkin.toml declares a relation of that name",
                hint="Remove them with `kithkin write-back --remove`, or choose another name in kithkin.toml.",
            )


def foreign_relation(relation: str) -> StoreConflict:
    """The error where edges of this name are there that nobody wrote back."""
    return StoreConflict(
        f"the store has {relation} edges that Kithkin did not write back, and would lose them",
        hint="Choose another name as publish.write_back_relation.",
    )


def bundle_property(property_: str) -> str:
    """In Neo4j the property beside the vector that names its bundle."""
    return f"{property_}_bundle"


def entity_types(schema: GraphSchema, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``names`` that the schema declares as entity types, in declared order."""
    return tuple(each.name for each in schema.of_role(NodeRole.ENTITY) if each.name in names)
