"""One ingest from beginning to end."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import duckdb

from graph_store.errors import ConfigError
from graph_store.ingest.ends import Ends
from graph_store.ingest.loading import Loader, settle_overlaps
from graph_store.ingest.rejects import Rejects
from graph_store.ingest.report import IngestReport, SourceReport
from graph_store.ingest.staging import Stager
from graph_store.progress import NoProgress, Progress
from graph_store.project import Project
from graph_store.schema import NodeType, Relation
from graph_store.store import GraphStore

MEMORY = "1500MiB"
"""What DuckDB may hold; beyond it, it writes to the staging folder."""
_SILENT = NoProgress()


def ingest(project: Project, store: GraphStore, *, progress: Progress = _SILENT) -> IngestReport:
    """Read every source, check all rows, and only if each source is within its reject limit write them to the store.

    Twice the same files change nothing. Raises ConfigError or InputError (file, line, column, value) for what cannot
    be read at all, and TooManyRejects past ``ingest.reject_share`` and ``ingest.reject_floor``; in all these cases the
    store is as it was. Bad rows are in ``<work>/rejects``, staged ones in ``<work>/staging`` until the end.
    """
    started = time.perf_counter()
    if not project.sources:
        raise ConfigError(
            "declares no sources", file=project.file, key="sources", hint="Name a file under [[sources]] for each type."
        )
    folder = project.work / "staging"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with connect(folder) as connection:
            return _ingest(project, store, progress, connection, folder, started)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """DuckDB on a file in ``folder``: large tables spill there. Loads no extension from outside."""
    connection = duckdb.connect(str(folder / "staging.duckdb"))
    for setting in (
        "autoinstall_known_extensions = false",
        f"memory_limit = '{MEMORY}'",
        "TimeZone = 'UTC'",
        "preserve_insertion_order = false",
        "enable_progress_bar = false",
    ):
        connection.execute(f"SET {setting}")
    return connection


def _ingest(
    project: Project,
    store: GraphStore,
    progress: Progress,
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    started: float,
) -> IngestReport:
    stager = Stager(connection, folder, project)
    sources = [stager.stage(number, source, progress) for number, source in enumerate(project.sources)]

    with progress.task("check edges", unit="sources"):
        ends = Ends(connection, project.schema)
        ends.gather(store, sources)
        ends.check(sources)
        for staged in sources:
            if isinstance(staged.declared, Relation):
                stager.merge_edges(staged)
    rejects = Rejects(connection, project.work / "rejects")
    rejects.write(sources)
    rejects.check(sources, project.settings.ingest)

    store.apply_schema()
    settle_overlaps(connection, sources)
    loader = Loader(connection, store, project.schema, progress)
    nodes = {staged.number: loader.write(staged) for staged in sources if isinstance(staged.declared, NodeType)}
    created = loader.create(ends)
    edges = {staged.number: loader.write(staged) for staged in sources if isinstance(staged.declared, Relation)}
    written = nodes | edges
    return IngestReport(
        sources=tuple(
            SourceReport(
                name=staged.name,
                files=tuple(raw.file for raw in staged.files),
                rows=staged.rows,
                rejected=rejects.counts[staged.number],
                merged=staged.merged,
                without_edge=staged.without_edge,
                written=written[staged.number],
                rejects=rejects.files.get(staged.number),
                warnings=tuple(staged.warnings),
            )
            for staged in sources
        ),
        created_nodes=created,
        seconds=time.perf_counter() - started,
    )
