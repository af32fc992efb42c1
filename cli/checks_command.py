"""The declared checks of an ingest as people and scripts read them, and ``kithkin ingest --check-only``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cli.console import print_json, print_table, say
from cli.steps import Pipeline, ingest_sources

if TYPE_CHECKING:
    from graph_store.ingest import CheckReport


def check_only(pipeline: Pipeline, *, as_json: bool, replace: bool = False) -> None:
    """Read and check all sources and write nothing to the store; raises what an ingest would end with.

    With ``replace`` it tells what such an ingest would delete.
    """
    from graph_store.ingest import check
    from graph_store.stores import open_store

    project = pipeline.project
    store = project.settings.store
    with pipeline.alone():
        if store.is_neo4j or (project.folder / store.uri).is_file():
            with open_store(project, read_only=True) as opened:
                report = check(project, opened, replace=replace, progress=pipeline.progress)
        else:
            report = check(project, None, replace=replace, progress=pipeline.progress)
    if as_json:
        checks = [checks_json(each) for each in report.checks]
        deleted = {"deleted": report.deleted} if replace else {}
        sources = ingest_sources(report)
        print_json({"passed": report.failure is None, "sources": sources, "checks": checks, **deleted})
    else:
        print_table(
            ("source", "rows", "rejected", "merged"),
            [(source.name, source.rows, source.rejected, source.merged) for source in report.sources],
        )
        print_checks(report.checks)
    if report.failure is not None:
        raise report.failure
    for name, count in report.deleted.items():
        say(f"would be deleted: {count:,} {name}, which no file brings any more")
    if replace and not report.deleted:
        say("nothing would be deleted: the files bring all that is there")
    say("nothing was written; an ingest would go through")


def checks_json(report: CheckReport) -> dict[str, Any]:
    """A check as JSON keeps it."""
    return {
        **asdict(report),
        "passed": report.passed,
        "first": [{**asdict(each), "file": str(each.file)} for each in report.first],
        "rejects": [str(path) for path in report.rejects],
    }


def print_checks(reports: Sequence[CheckReport]) -> None:
    """A line for each check, then the first rows that fail."""
    if not reports:
        return
    print_table(
        ("check", "level", "rows", "fail", "may fail", ""),
        [
            (each.name, each.level, each.checked, each.failed, each.allowed, "passed" if each.passed else "fails")
            for each in reports
        ],
    )
    offenders = [
        (each.name, f"{row.file.name}:{row.line}", row.column, row.value, row.reason)
        for each in reports
        for row in each.first
    ]
    if offenders:
        print_table(("check", "row", "column", "value", "reason"), offenders, title="First rows that fail")
