"""Commands around the server: serve, status, bundles, activate, rollback."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import print_json, print_table, say
from cli.options import JsonOption, ProjectOption, ServerOption, SetOption, open_project

if TYPE_CHECKING:
    from kithkin.types import Activation

WaitOption = Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait until it serves.")]


def serve(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on; above serving.host.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port; 0: any free one. Above serving.port.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that answer; above serving.workers.")
    ] = None,
    port_file: Annotated[
        Path | None, typer.Option("--port-file", help="Write the port here once the server answers.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Take API keys without TLS, where the network is trusted.")
    ] = False,
    json_log: Annotated[bool, typer.Option("--json-log", help="Log lines as JSON.")] = False,
    project: ProjectOption = None,
    settings: SetOption = None,
) -> None:
    """Serve the project's active bundle over gRPC until stopped; a newly published bundle is taken up by itself."""
    from server.processes.supervisor import serve as run

    given = [*(settings or [])]
    if host is not None:
        given.append(f"serving.host={host!r}")
    if port is not None:
        given.append(f"serving.port={port}")
    if workers is not None:
        given.append(f"serving.workers={workers}")
    if insecure:
        given.append("serving.insecure=true")
    opened = open_project(project, settings=given)
    follow = None
    if opened.settings.serving.follow_s is not None:
        from server.fresh.follower import FollowOrder

        follow = FollowOrder(
            project=str(opened.file),
            root=str((opened.work / "models").absolute()),
            # What flags say above the file, the follower has to know too; the environment it has itself.
            overrides={
                "work": str(opened.work.absolute()),
                **{f"store.{name}": value for name, value in opened.settings.store.model_dump(mode="json").items()},
                "publish.max_neighbours": opened.settings.publish.max_neighbours,
            },
            every_s=opened.settings.serving.follow_s,
            json_log=json_log,
        )
    serving = opened.settings.serving.within(opened.folder)
    raise typer.Exit(run(opened.work / "models", serving, port_file=port_file, json_log=json_log, follow=follow))


def status(project: ProjectOption = None, server: ServerOption = None, as_json: JsonOption = False) -> None:
    """What the server has loaded: bundle, spaces, indexes and their audited recall."""
    from cli.connection import connected
    from cli.query_commands import project_or_server

    with connected(project_or_server(project, server), server, asking=False) as client:
        answer = client.status()
    if as_json:
        print_json(asdict(answer))
        return
    bundle = answer.bundle
    rows: list[tuple[str, object]] = [
        ("server", answer.server_version),
        ("up", f"{answer.uptime.total_seconds():.0f} s, process {answer.worker_pid}"),
        ("workers", f"{answer.workers_serving} of {answer.workers} serve this bundle"),
    ]
    if bundle is not None:
        rows += [
            ("bundle", bundle.version),
            ("published", bundle.published_at),
            ("snapshot", bundle.snapshot_hash),
            ("nodes", ", ".join(f"{count:,} {name}" for name, count in sorted(bundle.nodes.items()))),
        ]
    if answer.beside:
        rows.append(("beside", ", ".join(answer.beside)))
    if (delta := answer.delta) is not None:
        behind = "not yet whole" if delta.lag is None else f"{delta.lag.total_seconds():.1f} s behind the store"
        counts = f"{delta.fresh:,} fresh, {delta.changed:,} changed, {delta.deleted:,} deleted"
        rows.append(("delta", f"{counts}; {behind}"))
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


def bundles(project: ProjectOption = None, server: ServerOption = None, as_json: JsonOption = False) -> None:
    """The bundles there are, newest first: which is active, which is served, which cannot be opened."""
    from cli.connection import running
    from cli.query_commands import project_or_server
    from kithkin import Client
    from model_store.bundle_store import BundleStore

    opened = project_or_server(project, server)
    with ExitStack() as stack:
        client = stack.enter_context(running(opened, server))
        if client is None:
            from server.wire.local import serve_in_thread

            assert opened is not None
            # The same call without a server: of one that serves nothing and knows the project's folder.
            store = BundleStore(opened.work / "models")
            port = stack.enter_context(serve_in_thread(None, opened.settings.serving, store=store))
            client = stack.enter_context(Client(f"127.0.0.1:{port}"))
        found = list(page := client.bundles())
        while page.next_page_token:
            found += (page := client.bundles(page_token=page.next_page_token))
    if as_json:
        print_json([asdict(each) for each in found])
        return
    print_table(
        ("bundle", "", "published", "snapshot", "nodes", "problem"),
        [
            (
                each.version,
                ", ".join(word for word, true in (("active", each.active), ("serving", each.serving)) if true),
                each.published_at,
                each.snapshot_hash[:12],
                ", ".join(f"{count:,} {name}" for name, count in each.nodes.items()),
                each.problem,
            )
            for each in found
        ],
    )
    if not found:
        say("no bundle yet (`kithkin build` publishes one)")


def activate(
    version: Annotated[str, typer.Argument(help="As `kithkin bundles` lists it.")],
    timeout: WaitOption = 300,
    project: ProjectOption = None,
    server: ServerOption = None,
) -> None:
    """Make a bundle the active one; ends when the server answers from it."""
    from cli.connection import running
    from cli.query_commands import project_or_server
    from model_store.bundle_store import BundleStore

    opened = project_or_server(project, server)
    with running(opened, server) as client:
        if client is not None:
            _say_activated(client.activate(version, timeout=timeout))
            return
    assert opened is not None
    store = BundleStore(opened.work / "models")
    # Checked before it is named: whoever serves next must find it whole.
    store.open(version)
    store.activate(version)
    say(f"{version} is active; no server of this project runs")


def rollback(timeout: WaitOption = 300, project: ProjectOption = None, server: ServerOption = None) -> None:
    """Activate the bundle that was active before; called again it goes further back."""
    from cli.connection import running
    from cli.query_commands import project_or_server
    from model_store.bundle_store import BundleStore

    opened = project_or_server(project, server)
    with running(opened, server) as client:
        if client is not None:
            _say_activated(client.rollback(timeout=timeout))
            return
    assert opened is not None
    store = BundleStore(opened.work / "models")
    version = store.previous()
    if version is not None:
        store.open(version)
    say(f"{store.roll_back()} is active; no server of this project runs")


def _say_activated(activation: Activation) -> None:
    before = f" (before: {activation.previous_version})" if activation.previous_version else ""
    say(f"serving {activation.version}{before}")
