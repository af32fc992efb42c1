"""Commands that ask the service: similar, recommend, explain."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import out, print_json, print_table, say
from cli.options import JsonOption, ProjectOption, ServerOption, open_project
from graph_store.errors import ConfigError
from graph_store.project import Project
from graph_store.schema import NodeRole

if TYPE_CHECKING:
    from kithkin import Client, Described
    from kithkin.types import Results

TopOption = Annotated[int, typer.Option("--top-k", "-k", min=1, help="How many.")]
ReasonsOption = Annotated[int, typer.Option("--reasons", "-r", min=0, max=10, help="Reasons to give with each result.")]


def similar(
    entity: Annotated[str | None, typer.Argument(help='An id or a name, such as "Toy Story".')] = None,
    prop: Annotated[
        list[str] | None,
        typer.Option("--property", metavar="NAME=VALUE", help="Instead of an entity: describe one that is not there."),
    ] = None,
    link: Annotated[
        list[str] | None,
        typer.Option("--link", metavar="RELATION=NODE", help="The same: a link to a node, by id or name; repeatable."),
    ] = None,
    node_type: Annotated[str | None, typer.Option("--type", help="Entity type, where there are several.")] = None,
    top_k: TopOption = 10,
    reasons: ReasonsOption = 0,
    project: ProjectOption = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """The entities most similar to one, or to one that you describe."""
    from cli.connection import connected, find_node

    opened = project_or_server(project, server)
    with connected(opened, server) as client:
        if prop or link:
            if entity is not None:
                raise typer.BadParameter("give an entity, or describe one with --property and --link, not both")
            described = _described(client, opened, node_type, prop or [], link or [])
            _print_results(client.similar(described=described, top_k=top_k, reasons=reasons), "described", as_json)
        elif entity is not None:
            node = find_node(client, entity, node_type)
            _print_results(client.similar(node, top_k=top_k, reasons=reasons), f"similar to {node.name}", as_json)
        else:
            raise typer.BadParameter("name an entity, or describe one with --property and --link")


def recommend(
    user: Annotated[str | None, typer.Argument(help="A user's id.")] = None,
    event: Annotated[
        list[str] | None,
        typer.Option("--event", help="Instead of a user: an entity somebody touched, by id or name, oldest first."),
    ] = None,
    include_engaged: Annotated[
        bool, typer.Option("--include-engaged", help="Also what the user already engaged with.")
    ] = False,
    popular: Annotated[
        bool, typer.Option("--or-popular", help="For an unknown user the most engaged, instead of an error.")
    ] = False,
    node_type: Annotated[
        str | None, typer.Option("--type", help="Entity type of the answer and of the events, where there are several.")
    ] = None,
    top_k: TopOption = 10,
    reasons: ReasonsOption = 0,
    project: ProjectOption = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """The entities to show a user."""
    from cli.connection import connected, find_node

    if (user is None) == (not event):
        raise typer.BadParameter("name a user, or give --event")
    opened = project_or_server(project, server)
    with connected(opened, server) as client:
        results = client.recommend(
            user,
            events=[find_node(client, text, node_type) for text in event] if event else None,
            target_type=node_type,
            top_k=top_k,
            include_engaged=include_engaged,
            fallback="popular" if popular else None,
            reasons=reasons,
        )
        _print_results(results, f"for {user}" if user else "for these events", as_json)


def explain(
    source: Annotated[str, typer.Argument(help="An id or a name.")],
    target: Annotated[str, typer.Argument(help="An id or a name.")],
    max_reasons: Annotated[int, typer.Option("--reasons", "-r", min=1, max=50, help="Reasons at most.")] = 5,
    node_type: Annotated[
        str | None, typer.Option("--type", help="Type of the first, such as the user type; needed where several fit.")
    ] = None,
    target_type: Annotated[
        str | None, typer.Option("--target-type", help="Type of the second; without it the first's, if an entity type.")
    ] = None,
    project: ProjectOption = None,
    server: ServerOption = None,
    as_json: JsonOption = False,
) -> None:
    """The evidence that connects two entities, or a user and an entity."""
    from cli.connection import connected, find_node

    opened = project_or_server(project, server)
    users = {declared.name for declared in opened.schema.of_role(NodeRole.USER)} if opened else set()
    if target_type is None and node_type not in users:
        target_type = node_type
    with connected(opened, server) as client:
        ends = [find_node(client, text, kind) for text, kind in ((source, node_type), (target, target_type))]
        explanation = client.explain(*ends, max_reasons=max_reasons)
    if as_json:
        print_json(
            {
                "source": asdict(explanation.source.ref),
                "target": asdict(explanation.target.ref),
                "score": explanation.score,
                "explained_score": explanation.explained_score,
                "rest": explanation.rest,
                "reasons": [
                    {
                        "text": reason.text,
                        "contribution": reason.contribution,
                        "score_part": reason.score_part,
                        "path": [asdict(node.ref) for node in reason.path],
                        "relations": list(reason.relations),
                    }
                    for reason in explanation
                ],
            }
        )
        return
    score = "no score" if explanation.score is None else f"score {explanation.score:.3f}"
    title = f"{explanation.source.name} and {explanation.target.name}: {score}"
    told = any(reason.score_part is not None for reason in explanation)
    print_table(
        ("share", *(["of the score"] if told else []), "reason"),
        [
            (f"{reason.contribution:.0%}", *([_signed(reason.score_part)] if told else []), reason.text)
            for reason in explanation
        ],
        title=title,
    )
    if explanation.explained_score is not None:
        say(f"explained: {explanation.explained_score:.3f} of the score")
    if explanation.rest:
        say(f"the rest: {explanation.rest}")
    if not explanation.reasons:
        say("the graph holds no short connection between the two")


def _signed(part: float | None) -> str:
    return "" if part is None else f"{part:+.3f}"


def project_or_server(path: Path | None, server: str | None) -> Project | None:
    """The project; with a server named, one is not needed."""
    try:
        return open_project(path)
    except ConfigError:
        if server is None or path is not None:
            raise
        return None


def _described(
    client: Client, project: Project | None, node_type: str | None, properties: list[str], links: list[str]
) -> Described:
    from cli.connection import find_node
    from kithkin import Described, Link

    values: dict[str, Any] = {}
    for assignment in properties:
        name, text = _pair(assignment, "--property")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    linked = []
    for assignment in links:
        relation, text = _pair(assignment, "--link")
        linked.append(Link(relation, find_node(client, text, _target_type(project, node_type, relation))))
    return Described(type=node_type or "", properties=values, links=linked)


def _target_type(project: Project | None, node_type: str | None, relation: str) -> str | None:
    """Type of the nodes a relation leads to, where only one is possible."""
    if project is None:
        return None
    entities = {declared.name for declared in project.schema.of_role(NodeRole.ENTITY)}
    sources = {node_type} if node_type else entities
    targets = {
        declared.triple.target
        for declared in project.schema.relations
        if declared.triple.name == relation and declared.triple.source in sources
    }
    return targets.pop() if len(targets) == 1 else None


def _pair(assignment: str, option: str) -> tuple[str, str]:
    name, equals, text = assignment.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"{assignment!r}: write it as NAME=VALUE", param_hint=option)
    return name, text


def _print_results(results: Results, title: str, as_json: bool) -> None:
    if as_json:
        rows = results.to_dicts()
        for fields, result in zip(rows, results, strict=True):
            if result.reasons:
                fields["reasons"] = [
                    {"text": reason.text, "contribution": reason.contribution} for reason in result.reasons
                ]
        print_json(
            {
                "bundle": results.info.bundle_version,
                "exact": results.info.exact,
                "fallback": results.info.fallback,
                "shortfall_reason": results.info.shortfall_reason,
                "results": rows,
            }
        )
        return
    columns = ["", "id", "name", "score"]
    shown = sorted({key for result in results for key, value in result.properties.items() if value != result.name})
    with_reasons = any(result.reasons for result in results)
    rows_shown = []
    for number, result in enumerate(results, 1):
        row: list[object] = [number, result.id, result.name, f"{result.score:.3f}"]
        row += [result.properties.get(key) for key in shown]
        if with_reasons:
            row.append("\n".join(f"{reason.text} ({reason.contribution:.0%})" for reason in result.reasons))
        rows_shown.append(row)
    print_table([*columns, *shown, *(["why"] if with_reasons else [])], rows_shown, title=title)
    if results.info.fallback:
        say(f"nothing is known of this user; these are the most engaged ({results.info.fallback})")
    if results.info.shortfall_reason:
        say(results.info.shortfall_reason)
    out.print(f"bundle {results.info.bundle_version}", style="dim", highlight=False)
