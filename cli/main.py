"""Entry point of ``kithkin``: the commands, and how errors end.

Heavy imports stand inside the commands, so that ``kithkin --help`` is quick.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from cli import (
    build_commands,
    constraints_command,
    data_commands,
    doctor,
    evaluation_commands,
    features_commands,
    forget,
    inspection_commands,
    keys_commands,
    query_commands,
    serving_commands,
    snapshot_commands,
    write_back,
)
from cli.console import say

app = typer.Typer(
    name="kithkin",
    help="Retrieval on a knowledge graph: from files to similar entities, user retrieval and reasons over gRPC.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=(
        "Ends with 0: done; 1: a fault of Kithkin; 2: wrong usage or query; 3: configuration; 4: input data; 5: store; "
        "6: training or bundle; 7: server."
    ),
)

_START, _STEPS, _ASK, _RUN = "Start a project", "From files to a bundle", "Ask and inspect", "Run"
app.command("init", rich_help_panel=_START)(data_commands.init)
app.command("generate", rich_help_panel=_START)(data_commands.generate)
app.command("schema", rich_help_panel=_START)(data_commands.schema)
app.command("build", rich_help_panel=_STEPS)(build_commands.build)
app.command("ingest", rich_help_panel=_STEPS)(build_commands.ingest)
app.command("export", rich_help_panel=_STEPS)(build_commands.export)
app.command("train", rich_help_panel=_STEPS)(build_commands.train)
app.command("publish", rich_help_panel=_STEPS)(build_commands.publish)
app.add_typer(evaluation_commands.evaluate, name="evaluate", rich_help_panel=_STEPS)
app.command("write-back", rich_help_panel=_STEPS)(write_back.write_back_command)
app.command("export-features", rich_help_panel=_STEPS)(features_commands.export_features)
app.command("retrain", rich_help_panel=_RUN)(features_commands.retrain)
app.command("serve", rich_help_panel=_RUN)(serving_commands.serve)
app.command("forget", rich_help_panel=_RUN)(forget.forget)
app.command("doctor", rich_help_panel=_RUN)(doctor.doctor)
app.command("status", rich_help_panel=_RUN)(serving_commands.status)
app.command("bundles", rich_help_panel=_RUN)(serving_commands.bundles)
app.command("activate", rich_help_panel=_RUN)(serving_commands.activate)
app.command("rollback", rich_help_panel=_RUN)(serving_commands.rollback)
app.add_typer(keys_commands.keys, name="keys", rich_help_panel=_RUN)
app.command("similar", rich_help_panel=_ASK)(query_commands.similar)
app.command("recommend", rich_help_panel=_ASK)(query_commands.recommend)
app.command("explain", rich_help_panel=_ASK)(query_commands.explain)
app.command("stats", rich_help_panel=_ASK)(inspection_commands.stats)
app.command("show", rich_help_panel=_ASK)(inspection_commands.show)
app.add_typer(snapshot_commands.snapshot, name="snapshot", rich_help_panel=_ASK)
app.command("cypher", rich_help_panel=_ASK)(data_commands.cypher)
app.command("constraints", rich_help_panel=_ASK)(constraints_command.constraints)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kithkin {version('kithkin-service')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; an error of ours becomes one message and its exit code."""
    try:
        app()
    except KeyboardInterrupt:
        say("stopped")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:
        exit_code = _exit_code(error)
        if exit_code is None:
            raise
        say(f"[bold red]error:[/] {_escaped(_message(error))}", markup=True)
        sys.exit(exit_code)


def _exit_code(error: Exception) -> int | None:
    """What an error of ours ends with; None: it is a fault of the program."""
    exit_code = getattr(error, "exit_code", None)
    if isinstance(exit_code, int):
        return exit_code
    # The client's errors know nothing of command lines; not loaded: not the client's.
    client = sys.modules.get("kithkin.errors")
    if client is None or not isinstance(error, client.KithkinError):
        return None
    return 2 if isinstance(error, (client.NotFound, client.InvalidArgument)) else 7


def _message(error: Exception) -> str:
    client = sys.modules.get("kithkin.errors")
    if client is not None and isinstance(error, client.KithkinError):
        from cli.hints import with_hint

        with_hint(error)
    return str(error)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
