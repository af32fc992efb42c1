"""Write docs/cli.md from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer
from typer.main import get_command


def render() -> str:
    """The reference of all commands as Markdown."""
    from cli.main import app

    root: Any = get_command(app)
    lines = [
        "# Command line",
        "",
        "Generated from the commands by `make docs`; `kithkin COMMAND --help` says the same.",
        "",
    ]
    lines += [_one_line(root.help), "", _one_line(root.epilog), ""]
    for name, command in root.commands.items():
        lines += _section(command, f"kithkin {name}", "##")
    return "\n".join(lines)


def _section(command: Any, name: str, heading: str) -> list[str]:
    """One command, and below it those that it has."""
    lines = [f"{heading} {name}", "", _one_line(command.help), ""]
    lines += ["| | |", "|---|---|", *_parameters(command), ""]
    for inner, each in getattr(command, "commands", {}).items():
        lines += _section(each, f"{name} {inner}", heading + "#")
    return lines


def _parameters(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = f"`{parameter.name.upper()}`"
        else:
            name = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
        text = _one_line(getattr(parameter, "help", "") or "")
        default = parameter.default
        if isinstance(default, (int, float, str)) and not isinstance(default, bool) and not parameter.required:
            text += f" Default: {default}."
        if parameter.required:
            text += " Required."
        yield f"| {name} | {text.replace('|', chr(92) + '|')} |"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


if __name__ == "__main__":
    typer.echo(render())
