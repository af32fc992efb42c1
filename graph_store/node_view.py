"""One node as people look at it: its properties and, by relation and direction, its heaviest neighbours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from graph_store.errors import ConfigError, NodeNotFound
from graph_store.schema import GraphSchema, NodeType, Triple
from graph_store.store import GraphStore, Neighbour

Direction = Literal["out", "in"]


class NodeName(NamedTuple):
    """A node and what people call it."""

    type: str
    id: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NeighbourView:
    """One edge and the node at its other end."""

    node: NodeName
    weight: float | None
    """None where the relation declares no weight, or this edge has none."""
    properties: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class RelationView:
    """Edges of one relation in one direction, the heaviest first, ties by id."""

    triple: Triple
    direction: Direction
    count: int
    """All edges, of which ``neighbours`` shows the first."""
    neighbours: tuple[NeighbourView, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeView:
    """A node with its neighbourhood; relations in declared order, outgoing first."""

    node: NodeName
    properties: dict[str, Any]
    """Declared properties, None where one is missing."""
    relations: tuple[RelationView, ...] = field(default=())


def find(store: GraphStore, schema: GraphSchema, text: str, node_type: str | None = None) -> tuple[NodeName, ...]:
    """The nodes that a person may mean, likeliest first: by id, else by exact name, else those that contain the text.

    Raises NodeNotFound with the closest names, and ConfigError for a type that is not declared.
    """
    types = _types(schema, node_type)
    counts = store.counts().nodes
    types = [declared for declared in types if counts[declared.name]]
    by_id = [declared for declared in types if store.query(_match(store, declared), {"id": text}).rows]
    found = [NodeName(declared.name, text, _name(store, declared, text)) for declared in by_id]
    if not found:
        for declared in types:
            if declared.display:
                ids = store.find_nodes(declared.name, text)
                found += [NodeName(declared.name, id_, _name(store, declared, id_)) for id_ in ids]
        # A type whose names only contain the text stands behind one in which a node is called so.
        found.sort(key=lambda node: node.name != text)
    if not found:
        raise NodeNotFound(text, node_type=node_type, closest=closest(store, types, text))
    return tuple(found)


def view(store: GraphStore, schema: GraphSchema, node: NodeName, limit: int = 10) -> NodeView:
    """The node with at most ``limit`` neighbours per relation and direction; it must be there."""
    ((properties,),) = store.query(_match(store, schema.node_type(node.type)), {"id": node.id}).rows
    neighbours = store.neighbourhood(node.type, node.id, limit)
    totals = {
        (triple, direction): _count(store, node, triple, direction)
        for triple in dict.fromkeys(neighbour.triple for neighbour in neighbours)
        for direction in _directions(triple, node.type)
    }
    # The store's limit is per relation: where a relation joins a type with itself, one direction may take it all.
    wanted, whole = limit, sum(totals.values())
    while True:
        grouped: dict[tuple[Triple, Direction], list[Neighbour]] = defaultdict(list)
        for neighbour in neighbours:
            grouped[neighbour.triple, neighbour.direction].append(neighbour)
        if wanted >= whole or all(len(grouped[key]) >= min(limit, total) for key, total in totals.items()):
            break
        wanted *= 4
        neighbours = store.neighbourhood(node.type, node.id, wanted)
    shown = {key: edges[:limit] for key, edges in grouped.items()}
    names = _names(store, schema, [edge for edges in shown.values() for edge in edges])
    relations = []
    for (triple, direction), total in totals.items():
        if not total:
            continue
        weight = schema.relation(triple).weight
        views = tuple(
            NeighbourView(
                node=names[edge.node_type, edge.node_id],
                weight=edge.properties[weight] if weight else None,
                properties=edge.properties,
            )
            for edge in shown.get((triple, direction), ())
        )
        relations.append(RelationView(triple=triple, direction=direction, count=total, neighbours=views))
    values = {name: properties.get(name) for name in schema.node_type(node.type).properties}
    return NodeView(node=node, properties=values, relations=tuple(relations))


def closest(store: GraphStore, types: Sequence[NodeType], text: str, limit: int = 3) -> tuple[NodeName, ...]:
    """The nodes whose name or id is most like the text, by Jaro-Winkler similarity without regard to case."""
    import duckdb

    best: list[tuple[float, NodeName]] = []
    with duckdb.connect() as connection:
        for declared in types:
            for batch in store.scan_nodes(declared.name, [declared.display] if declared.display else []):
                ids = batch.column("id").cast(pa.string())
                names = batch.column(declared.display).cast(pa.string()) if declared.display else ids
                connection.register("names", pa.table({"id": ids, "name": names}))
                rows = connection.execute(
                    "SELECT id, coalesce(name, id) AS name, greatest(jaro_winkler_similarity(lower(id), lower($text)), "
                    "jaro_winkler_similarity(lower(coalesce(name, id)), lower($text))) AS likeness "
                    "FROM names ORDER BY likeness DESC, id LIMIT $limit",
                    {"text": text, "limit": limit},
                ).fetchall()
                best += [(-likeness, NodeName(declared.name, id_, name)) for id_, name, likeness in rows]
                best = sorted(best)[:limit]
    return tuple(node for _, node in best)


def _types(schema: GraphSchema, node_type: str | None) -> list[NodeType]:
    if node_type is None:
        return list(schema.node_types)
    names = [declared.name for declared in schema.node_types]
    if node_type not in names:
        raise ConfigError(f"no such node type; declared are {', '.join(names)}", key="--type", value=node_type)
    return [schema.node_type(node_type)]


def _match(store: GraphStore, declared: NodeType) -> str:
    return f"MATCH (n:{_named(store, declared.name)} {{id: $id}}) RETURN n"


def _name(store: GraphStore, declared: NodeType, node_id: str) -> str:
    """What people call a node: its display property, else its id."""
    if declared.display is None:
        return node_id
    statement = f"MATCH (n:{_named(store, declared.name)} {{id: $id}}) RETURN n.{_quoted(declared.display)}"
    ((name,),) = store.query(statement, {"id": node_id}).rows
    return node_id if name is None else str(name)


def _names(store: GraphStore, schema: GraphSchema, neighbours: Sequence[Neighbour]) -> dict[tuple[str, str], NodeName]:
    """The nodes at the other ends with their names, one query a type."""
    ids: dict[str, set[str]] = defaultdict(set)
    for neighbour in neighbours:
        ids[neighbour.node_type].add(neighbour.node_id)
    names = {(type_, id_): NodeName(type_, id_, id_) for type_, of_type in ids.items() for id_ in of_type}
    for type_, of_type in ids.items():
        display = schema.node_type(type_).display
        if display is None:
            continue
        statement = f"UNWIND $ids AS id MATCH (n:{_named(store, type_)} {{id: id}}) RETURN n.id, n.{_quoted(display)}"
        for id_, name in store.query(statement, {"ids": sorted(of_type)}, limit=len(of_type)).rows:
            if name is not None:
                names[type_, id_] = NodeName(type_, id_, name)
    return names


def _directions(triple: Triple, node_type: str) -> tuple[Direction, ...]:
    if triple.source == triple.target:
        return ("out", "in")
    return ("out",) if triple.source == node_type else ("in",)


def _count(store: GraphStore, node: NodeName, triple: Triple, direction: Direction) -> int:
    here = f"(n:{_named(store, node.type)} {{id: $id}})"
    edge = f"[:{_named(store, triple.name)}]"
    if direction == "out":
        statement = f"MATCH {here}-{edge}->(m:{_named(store, triple.target)}) RETURN count(*)"
    else:
        # A loop is one edge, told with the outgoing ones, as in a neighbourhood.
        loops = " WHERE m.id <> n.id" if triple.source == triple.target else ""
        statement = f"MATCH {here}<-{edge}-(m:{_named(store, triple.source)}){loops} RETURN count(*)"
    ((count,),) = store.query(statement, {"id": node.id}).rows
    return int(count)


def _named(store: GraphStore, name: str) -> str:
    """A type or relation as the store's Cypher calls it."""
    return _quoted(store.label_prefix + name)


def _quoted(name: str) -> str:
    return f"`{name}`"
