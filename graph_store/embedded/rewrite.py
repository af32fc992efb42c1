"""An embedded store written anew: what was deleted stays in a Ladybug file's free pages, and is gone only by that."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from graph_store.drift import drift
from graph_store.embedded.change_log import Token
from graph_store.embedded.failures import no_room
from graph_store.embedded.locks import CommitGate, WriterLock
from graph_store.embedded.store import EmbeddedStore
from graph_store.errors import StoreConflict, StoreLocked
from graph_store.schema import GraphSchema
from graph_store.settings import StoreSettings

_BATCH = 100_000
"""Rows copied at once."""


def rewrite(schema: GraphSchema, settings: StoreSettings, folder: Path) -> None:
    """Replace the store's file by one that holds what can be read from it, and nothing else; its log of changes goes.

    Nobody else writes meanwhile. Raises StoreLocked where somebody does, StoreConflict where the store holds what is
    not declared (it would be lost) or an edge twice.
    """
    path = folder / settings.uri
    if Token.of(path).log:
        # Of a killed writer: folded, so that no log of the old file lies beside the new one for a moment.
        EmbeddedStore.open(schema, settings, folder, read_only=False).close()
    lock = WriterLock(path)
    holder = lock.acquire()
    if holder is not None:
        raise StoreLocked(f"{path} is being written by process {holder}", hint="Wait until it is done.")
    beside = path.with_name(path.name + ".rewritten")
    try:
        _remove(beside)
        _copy(schema, settings, folder, beside)
        if Token.of(beside).log:
            raise no_room(beside)
        with CommitGate(path).shut(time.monotonic() + settings.timeout_s):
            os.replace(beside, path)  # noqa: PTH105 - names the atomic call
            for ending in (".wal", ".wal.torn", ".changes"):
                path.with_name(path.name + ending).unlink(missing_ok=True)
    except TimeoutError:
        raise StoreLocked(f"a reader has not let go of {path}", hint="Stop the reader, and run it again.") from None
    finally:
        _remove(beside)
        lock.release()


def _copy(schema: GraphSchema, settings: StoreSettings, folder: Path, beside: Path) -> None:
    new_settings = settings.model_copy(update={"uri": str(beside.absolute())})
    with (
        EmbeddedStore.open(schema, settings, folder, read_only=True) as old,
        EmbeddedStore.open(schema, new_settings, folder, read_only=False) as new,
    ):
        counts = old.counts()
        found = drift(old, schema, counts, neo4j=False)
        undeclared = [*found.node_types, *found.relations, *found.edges, *(found.properties or ())]
        if undeclared:
            raise StoreConflict(
                f"the store holds what kithkin.toml does not declare: {', '.join(undeclared)}",
                hint="Declare it, or build the store anew from the files (remove it, then `kithkin ingest`).",
            )
        new.apply_schema()
        for node_type in schema.node_types:
            for nodes in _tables(old.scan_nodes(node_type.name)):
                new.upsert_nodes(node_type.name, nodes)
        for relation in schema.relations:
            for edges in _tables(old.scan_edges(relation.triple)):
                new.upsert_edges(relation.triple, edges)
        for published in old.written_back():
            new.write_back(published.publishing, old.stored_rows(published.publishing))
        if new.counts() != counts:
            raise StoreConflict(
                "the store holds an edge more than once, which writing it anew would change",
                hint="Build the store anew from the files (remove it, then `kithkin ingest`).",
            )


def _tables(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches put together until they are worth a transaction."""
    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(each.num_rows for each in waiting) >= _BATCH:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


def _remove(beside: Path) -> None:
    for ending in ("", ".wal", ".wal.torn", ".lock", ".commit", ".turn", ".changes"):
        beside.with_name(beside.name + ending).unlink(missing_ok=True)
