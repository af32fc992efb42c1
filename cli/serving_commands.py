"""Commands around the server: serve, status."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.console import print_json, print_table, say
from cli.options import JsonOption, ProjectOption, ServerOption, SetOption, open_project


def serve(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; above serving.host.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port; 0: any free one. Above serving.port.")] = None,
    port_file: Annotated[
        Path | None, typer.Option("--port-file", help="Write the port here once the server answers.")
    ] = None,
    json_log: Annotated[bool, typer.Option("--json-log", help="Log lines as JSON.")] = False,
    project: ProjectOption = None,
    settings: SetOption = None,
) -> None:
    """Serve the project's active bundle over gRPC until stopped; a newly published bundle is taken up by itself."""
    from server.supervisor import serve as run

    given = [*(settings or [])]
    if host is not None:
        given.append(f"serving.host={host!r}")
    if port is not None:
        given.append(f"serving.port={port}")
    opened = open_project(project, settings=given)
    raise typer.Exit(run(opened.work / "models", opened.settings.serving, port_file=port_file, json_log=json_log))


def status(project: ProjectOption = None, server: ServerOption = None, as_json: JsonOption = False) -> None:
    """What the server has loaded: bundle, spaces, indexes and their audited recall."""
    from cli.connection import connected
    from cli.query_commands import project_or_server

    with connected(project_or_server(project, server), server) as client:
        answer = client.status()
    if as_json:
        print_json(asdict(answer))
        return
    bundle = answer.bundle
    rows: list[tuple[str, object]] = [
        ("server", answer.server_version),
        ("up", f"{answer.uptime.total_seconds():.0f} s, process {answer.worker_pid}"),
    ]
    if bundle is not None:
        rows += [
            ("bundle", bundle.version),
            ("published", bundle.published_at),
            ("snapshot", bundle.snapshot_hash),
            ("nodes", ", ".join(f"{count:,} {name}" for name, count in sorted(bundle.nodes.items()))),
        ]
    if answer.refused_bundle:
        rows.append(("refused", answer.refused_bundle))
    print_table(("", ""), rows)
    if bundle is not None:
        print_table(
            ("space", "metric", "dimension", "type", "vectors", "index", "recall@10", "target"),
            [
                (
                    space.name,
                    space.metric,
                    space.dimension,
                    index.node_type,
                    index.vectors,
                    index.kind,
                    index.recall_at_10,
                    index.recall_target,
                )
                for space in bundle.spaces
                for index in space.indexes
            ],
        )
        for reason in sorted({index.exact_reason for space in bundle.spaces for index in space.indexes} - {""}):
            say(f"exact: {reason}")
