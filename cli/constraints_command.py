"""``kithkin constraints``: what Neo4j lacks for the declared graph; Kithkin's constraints and note taken out."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.console import say
from cli.options import ProjectOption, SetOption, StoreOption, open_project
from graph_store.errors import ConfigError


def constraints(
    remove: Annotated[
        bool, typer.Option("--remove", help="Drop Kithkin's constraints and its note of the schema; the graph stays.")
    ] = False,
    project: ProjectOption = None,
    store: StoreOption = None,
    settings: SetOption = None,
) -> None:
    """Print the Cypher of the constraints that Neo4j lacks for kithkin.toml, to run as somebody who may."""
    from graph_store.neo4j.driver import Neo4jConnection
    from graph_store.neo4j.prefixed import with_prefix
    from graph_store.neo4j.published import published
    from graph_store.neo4j.schema import lacking_constraints, remove_schema

    opened = open_project(project, store=store, settings=settings)
    chosen = opened.settings.store
    if not chosen.is_neo4j:
        raise ConfigError("the embedded store has no constraints", key="store.uri", value=chosen.uri)
    schema = with_prefix(opened.schema, chosen.label_prefix)
    connection = Neo4jConnection(chosen, read_only=not remove)
    try:
        if remove:
            names = remove_schema(connection, schema)
            say(f"dropped {', '.join(names) or 'no constraint'}, and the note of the schema")
            for bundle in dict.fromkeys(each.publishing.bundle for each in published(connection)):
                say(f"left: what was written back of bundle {bundle}; `kithkin write-back --remove` takes it out")
            return
        lacking = lacking_constraints(connection, schema)
    finally:
        connection.close()
    for statement in lacking:
        typer.echo(f"{statement};")
    if not lacking:
        say("none is lacking")
