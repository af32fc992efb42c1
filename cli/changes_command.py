"""``kithkin ingest --changes``: single upserts and deletes from files, without reading the sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import print_json, say
from cli.steps import Pipeline
from graph_store.stores import open_store

if TYPE_CHECKING:
    from graph_store.changes import ChangeReport
    from graph_store.project import Project


def ingest_changes(pipeline: Pipeline, files: Sequence[Path], *, as_json: bool) -> None:
    """Write the changes of files, then what is derived from the engagements where those may have changed."""
    from graph_store.changes import change
    from graph_store.co_engagement import derive

    project = pipeline.project
    with pipeline.alone(), open_store(project) as store:
        report = change(project, store, files, progress=pipeline.progress)
        derived = derive(project, store, progress=pipeline.progress) if _touches_derived(project, report) else {}
    if as_json:
        print_json(
            {
                "rows": report.rows,
                "rejected": report.rejected,
                "written": {name: asdict(each) for name, each in report.written.items()},
                "derived": {str(triple): asdict(each) for triple, each in derived.items()},
                "rejects": [str(path) for path in report.rejects],
                "seconds": report.seconds,
            }
        )
        return
    total = report.total
    say(
        f"{report.rows:,} changes: {total.created:,} created, {total.changed:,} changed, {total.deleted:,} deleted, "
        f"{total.unchanged:,} as they were, {report.rejected:,} rejected"
    )
    for path in report.rejects:
        say(f"  rejected rows: {path}")


def _touches_derived(project: Project, report: ChangeReport) -> bool:
    derived = [relation for relation in project.schema.relations if relation.derive is not None]
    feeding = [
        engagement
        for relation in derived
        if relation.derive is not None
        for engagement in project.schema.engagements(relation.derive.via, relation.triple.target)
    ]
    names = {str(engagement.triple) for engagement in feeding}
    # A deleted node takes its engagements along.
    ends: set[str] = {end for engagement in feeding for end in (engagement.triple.source, engagement.triple.target)}
    return any(
        (name in names and (each.created or each.changed or each.deleted)) or (name in ends and each.deleted)
        for name, each in report.written.items()
    )
