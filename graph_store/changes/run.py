"""Change files into the store: all of them read and checked first, then written."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from graph_store.changes.batch import Batch
from graph_store.changes.checks import Typed, known_ids, possible, typed
from graph_store.changes.files import given_rows
from graph_store.changes.report import ChangeReport
from graph_store.changes.rows import Change, Reject, read
from graph_store.errors import TooManyRejects
from graph_store.ingest.files import inner_name
from graph_store.ingest.report import total
from graph_store.progress import NoProgress, Progress
from graph_store.project import Project
from graph_store.schema import GraphSchema
from graph_store.settings import IngestSettings
from graph_store.store import GraphStore, Written

_AT_ONCE = 50_000
"""Changes that are written together."""
_SHOWN = 3
_SILENT = NoProgress()


@dataclass(kw_only=True, slots=True)
class _Read:
    file: Path
    rows: int
    changes: list[Change]
    rejects: list[Reject]
    typed: list[Typed]


def change(project: Project, store: GraphStore, files: Sequence[Path], *, progress: Progress = _SILENT) -> ChangeReport:
    """Write the changes of files, in their order, each row after the one before.

    Every row of every file is checked before the first is written. Bad rows are left out, and stand in
    ``<work>/rejects``; past ``ingest.reject_share`` and ``ingest.reject_floor`` TooManyRejects is raised and the graph
    is as it was. The same files again change nothing. Raises InputError for a file that cannot be read at all.
    """
    started = time.perf_counter()
    store.apply_schema()
    parts = []
    for file in files:
        with progress.task(f"read {file.name}"):
            parts.append(_read(project.schema, file))
    with progress.task("check", unit="files"):
        known = known_ids(store, (each for part in parts for each in part.changes))
        for part in parts:
            part.typed, rejects = possible(part.typed, known)
            part.rejects += rejects
    written_rejects = [path for part in parts if (path := _write_rejects(project.work / "rejects", part))]
    for part in parts:
        _check_limit(part, project.settings.ingest, project.work / "rejects")
    written: dict[str, list[Written]] = {}
    changes = [each for part in parts for each in part.typed]
    with progress.task("write", total=len(changes)) as task:
        for some in _parts(changes):
            for name, count in Batch.of(project.schema, some).write(store).items():
                written.setdefault(name, []).append(count)
            task.advance(len(some))
    return ChangeReport(
        rows=sum(part.rows for part in parts),
        rejected=sum(len(part.rejects) for part in parts),
        written={name: total(each) for name, each in written.items()},
        rejects=tuple(written_rejects),
        seconds=time.perf_counter() - started,
    )


def _read(schema: GraphSchema, file: Path) -> _Read:
    part = _Read(file=file, rows=0, changes=[], rejects=[], typed=[])
    rows = iter(given_rows(file, part.rejects))
    while some := list(islice(rows, _AT_ONCE)):
        changes, rejects = read(schema, some)
        checked, wrong = typed(changes)
        part.rows += len(some)
        part.changes += changes
        part.typed += checked
        part.rejects += rejects + wrong
    part.rows += sum(reject.column == "" for reject in part.rejects)
    return part


def _parts(changes: Sequence[Typed]) -> Iterable[Sequence[Typed]]:
    return (changes[start : start + _AT_ONCE] for start in range(0, len(changes), _AT_ONCE))


def _write_rejects(folder: Path, part: _Read) -> Path | None:
    path = folder / f"{inner_name(part.file).stem}.changes.csv"
    path.unlink(missing_ok=True)
    if not part.rejects:
        return None
    part.rejects.sort(key=lambda reject: reject.number)
    lines = {reject.number for reject in part.rejects}
    texts = {row.number: row.text for row in given_rows(part.file, []) if row.number in lines}
    folder.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "line", "column", "value", "reason", "row"])
        for each in part.rejects:
            writer.writerow(
                [part.file, each.number, each.column, each.value, each.reason, texts.get(each.number, each.value)]
            )
    return path


def _check_limit(part: _Read, settings: IngestSettings, folder: Path) -> None:
    allowed = max(settings.reject_floor, int(settings.reject_share * part.rows))
    if len(part.rejects) <= allowed:
        return
    first = part.rejects[0]
    shown = "; ".join(
        f"line {each.number}: "
        + (f"column {each.column!r}: " if each.column else "")
        + each.reason
        + ("" if each.value is None else f" (got {each.value!r})")
        for each in part.rejects[:_SHOWN]
    )
    raise TooManyRejects(
        f"{len(part.rejects)} of {part.rows} changes are bad, {allowed} are allowed; nothing was written. "
        f"First: {shown}",
        file=part.file,
        line=first.number,
        column=first.column,
        value=first.value,
        hint=f"All of them are in {folder / (inner_name(part.file).stem + '.changes.csv')}. Correct the rows, or raise "
        "ingest.reject_share or ingest.reject_floor.",
    )
