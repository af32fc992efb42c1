"""Commands from files to a bundle: ingest, export, train, publish, all of them as build."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cli.changes_command import ingest_changes
from cli.checks_command import check_only as run_checks
from cli.checks_command import checks_json, print_checks
from cli.console import err, print_json, say
from cli.options import DataOption, ForceOption, JsonOption, ProjectOption, SetOption, StoreOption, open_project
from cli.progress import RichProgress
from cli.steps import Pipeline, StepResult
from cli.subgraph_command import Part, export_part
from cli.write_back import NAME as WRITE_BACK
from cli.write_back import summary as write_back_summary
from cli.write_back import write_back
from graph_store.errors import ChecksFailed, ConfigError

WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Processes that train, each on its part of the graph (docs/distributed.md)."),
]

ChangesOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--changes",
        metavar="FILE",
        help="Write only the upserts and deletes of this file (JSON lines, CSV, Parquet); repeatable, in their order.",
    ),
]


def build(
    project: ProjectOption = None,
    store: StoreOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """From files to an active bundle: ingest, export, train, publish; unchanged steps are skipped."""
    pipeline = _pipeline(project, store, data, settings, force)
    _run(pipeline, [pipeline.ingest, pipeline.export, pipeline.train, *_publishing(pipeline)], as_json)
    if not as_json:
        given = f" -p {project}" if project else ""
        say(f"next: kithkin serve{given}, or kithkin similar NAME{given}")


def ingest(
    project: ProjectOption = None,
    store: StoreOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    changes: ChangesOption = None,
    check_only: Annotated[
        bool, typer.Option("--check-only", help="Read and check everything, and write nothing to the store.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Then delete the nodes and edges that no file brings any more.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --replace: only say what would be deleted, and write nothing.")
    ] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Read the declared files into the graph store, and derive co-engagement edges."""
    if changes and check_only:
        raise ConfigError("reads the sources, not change files", key="--check-only", hint="Leave out --changes.")
    if changes and replace:
        raise ConfigError("is for the sources; change files say themselves what to delete", key="--replace")
    if dry_run and not replace:
        raise ConfigError("is for --replace; --check-only checks the rows", key="--dry-run")
    pipeline = _pipeline(project, store, data, settings, force)
    if changes:
        ingest_changes(pipeline, changes, as_json=as_json)
        return
    if check_only or dry_run:
        run_checks(pipeline, replace=replace, as_json=as_json)
        return
    try:
        _run(pipeline, [partial(pipeline.ingest, replace=replace)], as_json)
    except ChecksFailed as error:
        if as_json:
            print_json({"passed": False, "checks": [checks_json(each) for each in error.reports]})
        else:
            print_checks(error.reports)
        raise


def export(
    types: Annotated[
        list[str] | None, typer.Option("--types", metavar="TYPE", help="Only nodes of this type; repeatable.")
    ] = None,
    relations: Annotated[
        list[str] | None, typer.Option("--relations", metavar="NAME", help="Only edges of this relation; repeatable.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Of edges with a time only those from then on.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Of edges with a time only those before.")
    ] = None,
    seeds: Annotated[
        Path | None, typer.Option("--seeds", metavar="FILE", help="Only these nodes; a CSV with type and id.")
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", metavar="CYPHER", help="Only the nodes that this returns: MATCH ... RETURN x."),
    ] = None,
    hops: Annotated[
        int, typer.Option("--hops", min=0, help="With --seeds or --where: and the nodes so many edges away.")
    ] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for a part's snapshot; default: subgraphs/ in work.")
    ] = None,
    project: ProjectOption = None,
    store: StoreOption = None,
    settings: SetOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the graph as a snapshot for training; with options that choose, a part of it beside."""
    pipeline = _pipeline(project, store, None, settings, force)
    part = Part(
        types=types or (),
        relations=relations or (),
        since=since,
        until=until,
        seeds=seeds,
        where=where,
        hops=hops,
        out=out,
    )
    if not part.whole or hops:
        export_part(pipeline, part, as_json=as_json)
        return
    _run(pipeline, [pipeline.export], as_json)


def train(
    project: ProjectOption = None,
    store: StoreOption = None,
    settings: SetOption = None,
    workers: WorkersOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train the encoders on the last snapshot; goes on from the last checkpoint."""
    if workers is not None:
        settings = [*(settings or []), f"training.workers={workers}"]
    pipeline = _pipeline(project, store, None, settings, force)
    _run(pipeline, [pipeline.train], as_json)


def publish(
    project: ProjectOption = None,
    store: StoreOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    writes_back: Annotated[
        bool,
        typer.Option("--write-back", help="Then write its results back into the graph; as publish.write_back = true."),
    ] = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Publish the trained model as the active bundle: vectors, indexes tuned and audited, evaluation."""
    if writes_back:
        settings = [*(settings or []), "publish.write_back=true"]
    pipeline = _pipeline(project, store, data, settings, force)
    _run(pipeline, _publishing(pipeline), as_json)


def _publishing(pipeline: Pipeline) -> list[Callable[[], StepResult]]:
    """Publishing, and writing back where the settings ask for it."""
    written_back = [partial(write_back, pipeline)] if pipeline.project.settings.publish.write_back else []
    return [pipeline.publish, *written_back]


def _pipeline(
    project: Path | None, store: str | None, data: Path | None, settings: list[str] | None, force: bool
) -> Pipeline:
    return Pipeline(open_project(project, store=store, data=data, settings=settings), RichProgress(err), force=force)


def _run(pipeline: Pipeline, steps: Sequence[Callable[[], StepResult]], as_json: bool) -> None:
    with pipeline.alone():
        results = _results(steps, as_json)
    if as_json:
        print_json(
            {
                result.name: {"skipped": result.skipped, "seconds": result.seconds, **result.outcome}
                for result in results
            }
        )


def _results(steps: Sequence[Callable[[], StepResult]], as_json: bool) -> list[StepResult]:
    results = []
    for step in steps:
        result = step()
        results.append(result)
        if not as_json:
            state = "unchanged" if result.skipped else f"{result.seconds:.1f} s"
            say(f"{result.name:8} {state:>10}  {_summary(result)}")
            if not result.skipped:
                _say_what_is_odd(result)
    return results


def _say_what_is_odd(result: StepResult) -> None:
    for source in result.outcome.get("sources", ()):
        if source["rejected"]:
            say(
                f"  {source['source']}: {source['rejected']:,} of {source['rows']:,} rows rejected, {source['rejects']}"
            )
        for warning in source["warnings"]:
            say(f"  {source['source']}: {warning}")
    for name, count in result.outcome.get("deleted", {}).items():
        say(f"  {name}: {count:,} deleted, which no file brings any more")
    for check in result.outcome.get("checks", ()):
        if check["failed"]:
            where = ", ".join(check["rejects"])
            say(f"  {check['name']} ({check['level']}): {check['failed']:,} of {check['checked']:,} fail, {where}")
    for note in result.outcome.get("notes", ()):
        say(f"  {note}")


def _summary(result: StepResult) -> str:
    outcome = result.outcome
    if result.name == "ingest":
        nodes, edges = sum(outcome["nodes"].values()), sum(outcome["edges"].values())
        return f"{nodes:,} nodes, {edges:,} edges"
    if result.name == "export":
        return f"snapshot {outcome['content_hash'][:12]}"
    if result.name == "publish":
        return f"bundle {outcome['version']}"
    if result.name == WRITE_BACK:
        return write_back_summary(result)
    return ", ".join(f"{space}: {figures['steps']:,.0f} steps" for space, figures in outcome["metrics"].items())
