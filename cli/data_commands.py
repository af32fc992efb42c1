"""Commands around the data: init, generate, schema, cypher."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import err, print_json, print_table, say
from cli.options import JsonOption, ProjectOption, StoreOption, open_project
from cli.progress import RichProgress
from graph_store.errors import ConfigError


def init(
    path: Annotated[Path, typer.Argument(help="Folder with CSV, JSONL or Parquet files.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Where to write kithkin.toml; default: into the folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a kithkin.toml that is there.")] = False,
) -> None:
    """Write a commented kithkin.toml from the files in a folder: types, keys and relations guessed."""
    from graph_store.scaffold import write_project

    file = write_project(path, out=out, force=force)
    say(f"wrote {file}\nRead it through, correct the guesses, then: kithkin build --project {file}")


def generate(
    folder: Annotated[Path, typer.Argument(help="Folder to write into; made where it is missing.")],
    entities: Annotated[int, typer.Option(min=50, help="Films in the catalogue.")] = 2000,
    users: Annotated[int, typer.Option(min=10, help="People who watch them.")] = 1500,
    seed: Annotated[int, typer.Option(help="The same seed writes the same files.")] = 1,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a catalogue that is there.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a synthetic catalogue with a planted truth, to try things on and to check quality against."""
    from graph_store.synthetic import generate as generate_catalogue

    catalogue = generate_catalogue(
        folder, entities=entities, users=users, seed=seed, overwrite=force, progress=RichProgress(err)
    )
    if as_json:
        print_json(catalogue.to_json())
    else:
        say(catalogue.summary())


def schema() -> None:
    """Print the JSON Schema of kithkin.toml, for editors: kithkin schema > kithkin.schema.json."""
    from graph_store.json_schema import json_schema

    print_json(json_schema())


def cypher(
    statement: Annotated[str, typer.Argument(help="One Cypher statement; - reads it from standard input.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="A parameter, $NAME in the statement; JSON, else a text."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows at most.")] = 1000,
    write: Annotated[bool, typer.Option("--write", help="Allow the statement to change the graph.")] = False,
    project: ProjectOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the graph in Cypher; read-only unless --write."""
    from graph_store.stores import open_store

    if statement == "-":
        statement = typer.get_text_stream("stdin").read()
    opened = open_project(project, store=store)
    with open_store(opened, read_only=not write) as graph:
        result = graph.query(statement, _parameters(parameter or []), limit=limit, write=write)
    if as_json:
        print_json([dict(zip(result.columns, row, strict=True)) for row in result.rows])
    elif result.columns:
        print_table(result.columns, result.rows)
    if result.truncated:
        say(f"cut at {limit} rows; --limit gives more")


def _parameters(assignments: list[str]) -> dict[str, Any]:
    parameters: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise ConfigError("write it as NAME=VALUE", key="--param", value=assignment)
        try:
            parameters[name] = json.loads(text)
        except json.JSONDecodeError:
            parameters[name] = text
    return parameters
