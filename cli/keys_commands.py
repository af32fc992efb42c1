"""Commands of API keys: new."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cli.console import say
from graph_store.errors import ConfigError

keys = typer.Typer(help="API keys of the server.", no_args_is_help=True)


@keys.callback()
def _group() -> None:
    """API keys of the server."""


@keys.command("new")
def new(
    name: Annotated[str, typer.Option("--name", help="Whose key it is; it stands in refusals.")],
    role: Annotated[
        Literal["read", "admin"], typer.Option("--role", help="admin may also activate and roll back bundles.")
    ] = "read",
) -> None:
    """Make an API key: prints the key, this once, and the line that makes it known to the server."""
    from server.wire.keys import Role, new_key

    try:
        key, line = new_key(Role(role), name)
    except ValueError as error:
        raise ConfigError(str(error), key="--name", value=name) from None
    say("the key, for who calls; it is stored nowhere:")
    typer.echo(key)
    say("the line for serving.keys_file (or KITHKIN_API_KEYS):")
    typer.echo(line)
