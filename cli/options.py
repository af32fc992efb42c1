"""Options that several commands share, and the project they lead to."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from graph_store.errors import ConfigError
from graph_store.project import Project, load_project

ProjectOption = Annotated[
    Path | None,
    typer.Option("--project", "-p", help="kithkin.toml or its folder; without it, the nearest above this folder."),
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", help="Path of an embedded store, or neo4j://host:port; above kithkin.toml's store.uri."),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder that the sources' paths start from; above kithkin.toml's data.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting by dotted key, such as training.seed=2; repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Do it even where nothing has changed.")]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="HOST:PORT",
        help="The server to ask; without it the project's, or where none runs, the active bundle in this process.",
    ),
]


def open_project(
    path: Path | None, *, store: str | None = None, data: Path | None = None, settings: list[str] | None = None
) -> Project:
    """The project that a command line names, flags above environment above file."""
    overrides: dict[str, Any] = {}
    for assignment in settings or ():
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ConfigError("write it as KEY=VALUE, such as training.seed=2", key="--set", value=assignment)
        overrides[key] = _toml_value(text)
    if store is not None:
        overrides["store.uri"] = store
    if data is not None:
        overrides["data"] = str(data.resolve())
    return load_project(path, overrides=overrides)


def _toml_value(text: str) -> Any:
    """A value as it would stand in the file; what is no TOML is a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
