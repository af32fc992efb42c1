"""Commands that look at the graph: stats, show."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import cell_text, out, print_json, print_table, say
from cli.options import JsonOption, ProjectOption, StoreOption, open_project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.text import Text

    from graph_store.drift import Drift
    from graph_store.node_view import NodeView, RelationView
    from graph_store.statistics import RelationStatistics, Statistics


def stats(project: ProjectOption = None, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """What the graph holds and what looks wrong: gaps, cold entities, isolated nodes, degrees, hubs, the undeclared."""
    from graph_store.drift import drift
    from graph_store.statistics import statistics
    from graph_store.stores import open_store

    opened = open_project(project, store=store)
    with open_store(opened, read_only=True) as graph:
        found = statistics(graph, opened.schema)
        undeclared = drift(graph, opened.schema, graph.counts(), neo4j=opened.settings.store.is_neo4j, scan=True)
        written_back = graph.written_back()
    if as_json:
        print_json(_statistics_json(found, undeclared) | {"written_back": [asdict(each) for each in written_back]})
        return
    _print_statistics(found, undeclared)
    for each in written_back:
        told = each.publishing
        if each.complete:
            out.print(f"Written back: {told.relation} edges and vectors of bundle {told.bundle}.", highlight=False)
        else:
            out.print(f"! Begun and not whole: what is written back of bundle {told.bundle}.", highlight=False)


def show(
    node: Annotated[str, typer.Argument(help='An id or a name, such as "Toy Story".')],
    node_type: Annotated[str | None, typer.Option("--type", help="Its type, where several have such a node.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Neighbours per relation and direction.")] = 5,
    project: ProjectOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """One node with its properties and its heaviest neighbours."""
    from graph_store.node_view import find, view
    from graph_store.stores import open_store

    opened = open_project(project, store=store)
    with open_store(opened, read_only=True) as graph:
        found = find(graph, opened.schema, node, node_type)
        if len(found) > 1:
            others = ", ".join(f"{other.type} {other.id} {other.name!r}" for other in found[1:4])
            say(f"took {found[0].type} {found[0].id} {found[0].name!r}; other matches: {others}")
        seen = view(graph, opened.schema, found[0], limit)
    if as_json:
        print_json(_node_json(seen))
    else:
        _print_node(seen)


def _statistics_json(found: Statistics, undeclared: Drift) -> dict[str, Any]:
    return {
        "nodes": [asdict(node) for node in found.nodes],
        "relations": [asdict(relation) | {"triple": list(relation.triple)} for relation in found.relations],
        "undeclared": asdict(undeclared),
    }


def _print_statistics(found: Statistics, undeclared: Drift) -> None:
    print_table(
        ("type", "role", "nodes", "isolated", "cold", "missing"),
        [
            (
                node.name,
                node.role.value,
                node.count,
                _part(node.isolated, node.count),
                None if node.cold is None else _part(node.cold, node.count),
                _missing(node.null_share),
            )
            for node in found.nodes
        ],
        title="Nodes",
    )
    print_table(
        ("relation", "edges", "ends", "distinct", "median", "p99", "max", "missing"),
        [row for relation in found.relations for row in _relation_rows(relation)],
        title="Relations, and edges per node at each end",
    )
    warnings = list(_warnings(found, undeclared))
    for warning in warnings:
        out.print(f"! {warning}", markup=False, highlight=False)
    if not warnings:
        out.print("No suspicious hubs; nothing undeclared.", style="dim", highlight=False)


def _relation_rows(relation: RelationStatistics) -> Iterator[tuple[object, ...]]:
    first: tuple[object, ...] = (relation.triple.name, relation.count)
    missing: object = _missing(relation.null_share)
    for end, side in ((relation.source, "from"), (relation.target, "to")):
        yield (*first, f"{side} {end.node_type}", end.distinct, end.median, end.p99, end.max, missing)
        first, missing = (None, None), None


def _warnings(found: Statistics, undeclared: Drift) -> Iterator[str]:
    for relation in found.relations:
        for end in (relation.source, relation.target):
            if end.hubs:
                named = ", ".join(f"{hub.id} ({hub.degree:,})" for hub in end.hubs[:3])
                yield f"suspicious hubs ({end.hub_count:,}) among {end.node_type} of {relation.triple}: {named}"
    if undeclared.node_types:
        yield f"node types in the store that are not declared: {', '.join(undeclared.node_types)}"
    if undeclared.relations:
        yield f"relations in the store that are not declared: {', '.join(undeclared.relations)}"
    for name, count in undeclared.edges.items():
        yield f"{count:,} edges {name} join other types than declared"
    if undeclared.properties:
        yield f"properties in the store that are not declared: {', '.join(undeclared.properties)}"


def _part(number: int, whole: int) -> str:
    return f"{number:,} ({number / whole:.1%})" if number else "0"


def _missing(null_share: dict[str, float]) -> str:
    return ", ".join(f"{name} {_percent(share)}" for name, share in null_share.items() if share)


def _percent(share: float) -> str:
    return "<0.1%" if share < 0.001 else f"{share:.1%}"


def _node_json(seen: NodeView) -> dict[str, Any]:
    return {
        **seen.node._asdict(),
        "properties": seen.properties,
        "relations": [
            {
                "triple": list(relation.triple),
                "direction": relation.direction,
                "count": relation.count,
                "neighbours": [
                    {**edge.node._asdict(), "weight": edge.weight, "properties": edge.properties}
                    for edge in relation.neighbours
                ],
            }
            for relation in seen.relations
        ],
    }


def _print_node(seen: NodeView) -> None:
    from rich.text import Text
    from rich.tree import Tree

    # Text, not markup: a name may hold brackets.
    tree = Tree(Text.assemble((seen.node.name, "bold"), f"  {seen.node.type} {seen.node.id}"))
    for name, value in seen.properties.items():
        tree.add(Text.assemble((f"{name} ", "dim"), "missing" if value is None else cell_text(value)))
    for relation in seen.relations:
        branch = tree.add(_relation_text(relation))
        for edge in relation.neighbours:
            properties = ", ".join(
                f"{name} {cell_text(value)}" for name, value in edge.properties.items() if value is not None
            )
            known = "" if edge.node.name == edge.node.id else f"  {edge.node.id}"
            branch.add(Text.assemble(edge.node.name, (known, "dim"), (f"  {properties}" if properties else "", "dim")))
        if relation.count > len(relation.neighbours):
            branch.add(Text(f"... and {relation.count - len(relation.neighbours):,} more", style="dim"))
    out.print(tree, highlight=False)


def _relation_text(relation: RelationView) -> Text:
    from rich.text import Text

    source, name, target = relation.triple
    shown = f"{name} -> {target}" if relation.direction == "out" else f"{name} <- {source}"
    return Text.assemble((shown, "bold"), f"  {relation.count:,}")
