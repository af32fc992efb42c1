"""One ingest from beginning to end."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from graph_store.errors import ConfigError, InputError, StoreError, TooManyRejects
from graph_store.ingest.checking import Checker, failure
from graph_store.ingest.ends import Ends
from graph_store.ingest.leftovers import Leftovers, made_types
from graph_store.ingest.loading import Loader, settle_overlaps
from graph_store.ingest.raw import quoted
from graph_store.ingest.rejects import Rejects
from graph_store.ingest.report import CheckReport, IngestReport, SourceReport
from graph_store.ingest.staging import Staged, Stager
from graph_store.progress import NoProgress, Progress
from graph_store.project import Project
from graph_store.schema import NodeType, Relation
from graph_store.store import GraphStore, Written

MEMORY = "1500MiB"
"""What DuckDB may hold; beyond it, it writes to the staging folder."""
_SILENT = NoProgress()


def ingest(project: Project, store: GraphStore, *, replace: bool = False, progress: Progress = _SILENT) -> IngestReport:
    """Read every source, check all rows, and only if each source is within its reject limit write them to the store.

    With ``replace`` the store then has exactly the nodes and edges that the files bring, of the types and relations
    that the sources fill: the others are deleted. Then no row may be bad.

    Twice the same files change nothing. Raises ConfigError or InputError (file, line, column, value) for what cannot
    be read at all, TooManyRejects past ``ingest.reject_share`` and ``ingest.reject_floor``, and ChecksFailed where a
    declared check of level error does; in all these cases the store is as it was. StoreError where a disk is full: what
    was committed stays, and the same call again writes the rest. Bad rows are in ``<work>/rejects``, staged ones that
    do not fit the memory in ``<work>/staging`` until the end.
    """
    started = time.perf_counter()
    with _staged(project, store, progress, replace=replace) as staged:
        if staged.failure is not None:
            raise staged.failure
        store.apply_schema()
        settle_overlaps(staged.connection, staged.sources)
        loader = Loader(staged.connection, store, project.schema, progress)
        sources = staged.sources
        nodes = {each.number: loader.write(each) for each in sources if isinstance(each.declared, NodeType)}
        created = loader.create(staged.ends)
        edges = {each.number: loader.write(each) for each in sources if isinstance(each.declared, Relation)}
        gone = Leftovers(staged.connection, project.schema, sources, staged.ends)
        if replace:
            gone.find(store, progress)
            gone.delete(store, progress)
        return staged.report(nodes | edges, created, started, gone.counts)


def check(
    project: Project, store: GraphStore | None, *, replace: bool = False, progress: Progress = _SILENT
) -> IngestReport:
    """What ``ingest`` does up to the first write, and nothing written; without a store, as if it were empty.

    The report's ``failure`` is what an ingest would raise for bad rows or failing checks. Raises ConfigError or
    InputError for what cannot be read at all. The rows are in ``<work>/rejects`` as after an ingest.
    """
    started = time.perf_counter()
    with _staged(project, store, progress, replace=replace) as staged:
        gone = Leftovers(staged.connection, project.schema, staged.sources, staged.ends)
        if replace and store is not None and staged.failure is None:
            gone.find(store, progress)
        return staged.report({}, {}, started, gone.counts)


def connect(folder: Path) -> duckdb.DuckDBPyConnection:
    """DuckDB in memory; what does not fit goes to ``folder``. Loads no extension from outside."""
    # Not a file of its own: writing every table to one takes four times as long (measured).
    connection = duckdb.connect()
    for setting in (
        f"temp_directory = {quoted(str(folder))}",
        "autoinstall_known_extensions = false",
        f"memory_limit = '{MEMORY}'",
        "TimeZone = 'UTC'",
        "preserve_insertion_order = false",
        "enable_progress_bar = false",
    ):
        connection.execute(f"SET {setting}")
    return connection


@dataclass(frozen=True, kw_only=True, slots=True)
class _Load:
    """All sources, read and checked."""

    connection: duckdb.DuckDBPyConnection
    sources: Sequence[Staged]
    ends: Ends
    rejects: Rejects
    checks: tuple[CheckReport, ...]
    failure: InputError | None

    def report(
        self, written: dict[int, Written], created: dict[str, Written], started: float, deleted: dict[str, int]
    ) -> IngestReport:
        return IngestReport(
            sources=tuple(
                SourceReport(
                    name=staged.name,
                    files=tuple(raw.file for raw in staged.files),
                    rows=staged.rows,
                    rejected=self.rejects.counts[staged.number],
                    merged=staged.merged,
                    without_edge=staged.without_edge,
                    written=written.get(staged.number, Written()),
                    rejects=self.rejects.files.get(staged.number),
                    warnings=tuple(staged.warnings),
                )
                for staged in self.sources
            ),
            created_nodes=created,
            seconds=time.perf_counter() - started,
            checks=self.checks,
            failure=self.failure,
            deleted=deleted,
        )


@contextmanager
def _staged(project: Project, store: GraphStore | None, progress: Progress, *, replace: bool) -> Iterator[_Load]:
    """Every source in DuckDB for as long as the block lasts."""
    if not project.sources:
        raise ConfigError(
            "declares no sources", file=project.file, key="sources", hint="Name a file under [[sources]] for each type."
        )
    folder = project.work / "staging"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with connect(folder) as connection:
            yield _read(project, store, progress, connection, folder, replace=replace)
    except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
        if isinstance(error, duckdb.IOException) and "write" not in str(error):
            raise
        raise StoreError(
            f"the rows cannot be staged in {folder}: {str(error).splitlines()[0]}",
            hint="Make room on that disk, or name a folder on another one (`work` in kithkin.toml or KITHKIN_WORK).",
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _read(
    project: Project,
    store: GraphStore | None,
    progress: Progress,
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    *,
    replace: bool,
) -> _Load:
    stager = Stager(connection, folder, project)
    sources = [stager.stage(number, source, progress) for number, source in enumerate(project.sources)]

    with progress.task("check edges", unit="sources"):
        ends = Ends(connection, project.schema)
        ends.gather(store, sources, replaced=made_types(sources) if replace else ())
        ends.check(sources)
    checker = Checker(connection, sources, datetime.now(UTC))
    with progress.task("check rows", len(project.checks), "checks"):
        checker.run(project.checks)
    for staged in sources:
        if isinstance(staged.declared, Relation):
            stager.merge_edges(staged)
    rejects = Rejects(connection, project.work / "rejects")
    rejects.write(sources)
    checks = checker.report(rejects)
    failed: InputError | None = failure(checks)
    try:
        rejects.check(sources, project.settings.ingest)
    except TooManyRejects as error:
        failed = error
    empty = [str(raw.file) for staged in sources if not staged.rows for raw in staged.files]
    if replace and empty and failed is None:
        failed = InputError(
            f"there are no rows in {' and '.join(empty)}, and all that such files brought before would be deleted",
            hint="Put the rows back, take the source out of kithkin.toml, or ingest without --replace.",
        )
    bad = sum(rejects.counts.values())
    if replace and bad and failed is None:
        failed = InputError(
            f"{bad:,} rows are bad, and what they brought before would be deleted",
            hint=f"Correct them ({', '.join(map(str, rejects.files.values()))}), or ingest without --replace.",
        )
    return _Load(connection=connection, sources=sources, ends=ends, rejects=rejects, checks=checks, failure=failed)
