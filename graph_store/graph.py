"""The graph from Python: single nodes and edges, and streams of them, upserted and deleted.

with open_graph("kithkin.toml") as graph:
    graph.upsert([
        {"type": "Film", "id": "n1", "properties": {"title": "New Orbit", "year": 2026}},
        {"relation": "HAS_GENRE", "source": "n1", "target": "Space"},
    ])
    graph.delete([{"type": "Film", "id": "s4"}])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any

from graph_store.changes.batch import Batch
from graph_store.changes.checks import known_ids, possible, typed
from graph_store.changes.rows import Given, Operation, read
from graph_store.errors import InputError
from graph_store.ingest.report import total
from graph_store.project import Project, load_project
from graph_store.store import GraphStore, Written
from graph_store.stores import open_store

Record = Mapping[str, Any]
"""A change as a change file has it (docs/ingest.md): ``type`` and ``id``, or ``relation``, ``source`` and ``target``,
and ``properties``."""
_AT_ONCE = 10_000


class Graph:
    """A project's graph, open for writing; one thread at a time."""

    def __init__(self, project: Project, store: GraphStore) -> None:
        self.project = project
        self.store = store
        """The store itself: tables in, scans, Cypher."""
        store.apply_schema()

    def __enter__(self) -> Graph:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the store; twice does no harm."""
        self.store.close()

    def upsert(self, records: Record | Iterable[Record]) -> Written:
        """Create nodes and edges, or change those that are there; properties that a record does not give stay.

        A stream is written by 10,000 records. Raises InputError that names the record (from 1), the field and the
        value; of the 10,000 that hold a bad record none is written, those before them are. The same again changes
        nothing.
        """
        return self.apply(_with("upsert", records))

    def delete(self, records: Record | Iterable[Record]) -> Written:
        """Delete edges, and nodes with their edges; what is not there is passed over. Raises as ``upsert``."""
        return self.apply(_with("delete", records))

    def apply(self, records: Iterable[Record]) -> Written:
        """Records with ``op`` (upsert or delete), each made after the one before. Raises as ``upsert``."""
        numbered = (Given(number=number, values=each, text="") for number, each in enumerate(records, start=1))
        parts: list[Written] = []
        while some := list(islice(numbered, _AT_ONCE)):
            changes, unread = read(self.project.schema, some)
            checked, wrong = typed(changes)
            kept, impossible = possible(checked, known_ids(self.store, changes))
            bad = sorted([*unread, *wrong, *impossible], key=lambda reject: reject.number)
            if bad:
                more = f" (and {len(bad) - 1} more bad records)" if len(bad) > 1 else ""
                message = f"record {bad[0].number}: {bad[0].reason}{more}"
                raise InputError(message, column=bad[0].column, value=bad[0].value)
            parts += Batch.of(self.project.schema, kept).write(self.store).values()
        return total(parts)


def open_graph(project: Project | Path | str | None = None) -> Graph:
    """Open a project's graph for writing; without one, that of the nearest kithkin.toml above this folder.

    Raises ConfigError, StoreUnavailable, StoreAuthError, or StoreLocked where another process writes.
    """
    if not isinstance(project, Project):
        project = load_project(None if project is None else Path(project))
    store = open_store(project)
    try:
        return Graph(project, store)
    except BaseException:
        store.close()
        raise


def _with(op: Operation, records: Record | Iterable[Record]) -> Iterable[Record]:
    single = isinstance(records, Mapping)
    listed: Iterable[Record] = [records] if single else records  # type: ignore[list-item,assignment]
    return ({**each, "op": op} for each in chain(listed))
