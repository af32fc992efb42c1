"""What stands in a store that ``kithkin.toml`` does not declare: nothing reads it, which may be meant or forgotten."""

from __future__ import annotations

from dataclasses import dataclass

from graph_store.published import HAS_VECTOR, MARKER, NEXT, VECTOR, bundle_property
from graph_store.schema import GraphSchema
from graph_store.store import Counts, GraphStore

_NOTE = "KithkinSchema"
_ROLES = {"Entity", "Concept", "User"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """What is in the store and not declared; all names sorted."""

    node_types: tuple[str, ...]
    relations: tuple[str, ...]
    """Relation names."""
    edges: dict[str, int]
    """Edges of a declared name that join types other than declared, by name; only those with some."""
    properties: tuple[str, ...] | None
    """As ``Film.year``. None where they were not looked for."""


def drift(store: GraphStore, schema: GraphSchema, counts: Counts, *, neo4j: bool, scan: bool = False) -> Drift:
    """Compare the store's catalogue with the declaration; ``counts`` are those of the store.

    What publishing wrote back is neither: ``GraphStore.written_back`` tells of it.

    In Neo4j only names with ``store.label_prefix`` are ours, and all where there is none.
    Neo4j keeps no catalogue of properties by label: with ``scan`` every node and edge of a declared type is read for
    them, without it they are not looked for there.
    """
    declared_types = {node_type.name for node_type in schema.node_types}
    declared_relations = {relation.triple.name for relation in schema.relations}
    prefix = store.label_prefix
    if neo4j:
        labels = _first_column(store, "CALL db.labels()")
        # A node carries its role beside its type, where no type has that name. Other projects have notes of their own.
        types = {label.removeprefix(prefix) for label in labels if label.startswith(prefix)} - _ROLES
        types = {label for label in types if not label.endswith(_NOTE)}
        relations = _first_column(store, "CALL db.relationshipTypes()")
        relations = {name.removeprefix(prefix) for name in relations if name.startswith(prefix)}
    else:
        types = _first_column(store, "CALL show_tables() WHERE type = 'NODE' RETURN name")
        relations = _first_column(store, "CALL show_tables() WHERE type = 'REL' RETURN name")
    ours = store.written_back()
    types -= {MARKER, VECTOR, *NEXT}
    relations -= {each.publishing.relation for each in ours} | {HAS_VECTOR, *NEXT}
    edges = {}
    for name in sorted(declared_relations & relations):
        ((held,),) = store.query(f"MATCH ()-[r:{_quoted(prefix + name)}]->() RETURN count(*)").rows
        known = sum(number for triple, number in counts.edges.items() if triple.name == name)
        if held != known:
            edges[name] = held - known
    properties: tuple[str, ...] | None = None
    if not neo4j:
        properties = _undeclared_properties(store, schema, types | relations)
    elif scan:
        vectors = {each.publishing.property for each in ours}
        vectors |= {bundle_property(name) for name in vectors}
        properties = tuple(name for name in _scanned_properties(store, schema) if name.partition(".")[2] not in vectors)
    return Drift(
        node_types=tuple(sorted(types - declared_types)),
        relations=tuple(sorted(relations - declared_relations)),
        edges=edges,
        properties=properties,
    )


def _undeclared_properties(store: GraphStore, schema: GraphSchema, tables: set[str]) -> tuple[str, ...]:
    declared = _declared_properties(schema)
    return tuple(
        f"{name}.{column}"
        for name in sorted(declared.keys() & tables)
        for column in sorted(_first_column(store, f"CALL table_info('{name}') RETURN name") - declared[name])
    )


def _scanned_properties(store: GraphStore, schema: GraphSchema) -> tuple[str, ...]:
    declared = _declared_properties(schema)
    node_types = {node_type.name for node_type in schema.node_types}
    found = []
    for name in sorted(declared):
        label = _quoted(store.label_prefix + name)
        pattern = f"(x:{label})" if name in node_types else f"()-[x:{label}]->()"
        keys = _first_column(store, f"MATCH {pattern} UNWIND keys(x) AS key RETURN DISTINCT key")
        found += [f"{name}.{key}" for key in sorted(keys - declared[name])]
    return tuple(found)


def _declared_properties(schema: GraphSchema) -> dict[str, set[str]]:
    """By node type and by name of relation."""
    declared: dict[str, set[str]] = {node_type.name: {"id", *node_type.properties} for node_type in schema.node_types}
    for relation in schema.relations:
        declared.setdefault(relation.triple.name, set()).update(relation.properties)
    return declared


def _first_column(store: GraphStore, statement: str) -> set[str]:
    return {row[0] for row in store.query(statement, limit=100_000).rows}


def _quoted(name: str) -> str:
    return f"`{name}`"
