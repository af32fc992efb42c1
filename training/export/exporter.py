"""Export: from a store's unordered rows to a snapshot, the same from every store."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from graph_store.progress import NoProgress, Progress
from graph_store.schema import GraphSchema, Relation
from graph_store.store import Counts, GraphStore
from training.errors import SnapshotError
from training.export.backward import write_backward
from training.export.canonical import content_hash
from training.export.edge_table import edge_sorter, read_edges, write_forward
from training.export.manifest import FileEntry, Manifest
from training.export.node_rows import NodeRows, Scratch
from training.export.node_table import write_nodes
from training.export.snapshot import Snapshot, relation_files
from training.export.workspace import CHANGING, Workspace

MEMORY_MIB = 2048
"""What sorting may take unless it is said; ``export.memory_mib`` in kithkin.toml."""


def export_snapshot(
    store: GraphStore,
    schema: GraphSchema,
    root: Path,
    *,
    progress: Progress | None = None,
    memory_mib: float = MEMORY_MIB,
    known_as: str | None = None,
) -> Snapshot:
    """Write the store's content to ``root/<content hash>`` and open it; the same content is not written twice.

    ``memory_mib`` bounds what this takes, however many edges there are; docs/snapshot.md says what is beside it.
    ``known_as`` names the store, such as by its settings: with it, an export that was ended from outside is taken up
    again by the next one of the same store in the same state, and tables that were finished are not read again.
    Without it nothing is left behind when it fails.

    Raises SnapshotError for edges whose end is not in the store, for ids that are missing or there twice, for columns
    that are not of the declared type, where the graph changed meanwhile, and where the disk is full; errors of the
    store pass through.
    """
    # Scans are several reads: only an unmoved store makes them one state of the graph.
    state = store.state_token()
    known = None if known_as is None else "\n".join([known_as, state, schema.model_dump_json()])

    def check_unmoved() -> None:
        if store.state_token() != state:
            raise SnapshotError("the graph changed while it was read", hint=CHANGING)

    with Workspace.opened(root, known) as workspace:
        export = _Export(store, schema, workspace, progress or NoProgress(), int(memory_mib * 2**20), check_unmoved)
        manifest = export.write()
        place = root / manifest.content_hash
        existing = _existing(place, manifest)
        if existing is not None:
            return existing
        workspace.settle(manifest, place)
        return Snapshot.open(place)


class _Export:
    def __init__(
        self,
        store: GraphStore,
        schema: GraphSchema,
        workspace: Workspace,
        progress: Progress,
        memory: int,
        check_unmoved: Callable[[], None],
    ) -> None:
        self._store, self._schema, self._workspace, self._progress = store, schema, workspace, progress
        # Sorting takes about three times what it gathers; beside it stand two types' ids.
        self._limit, self._array_limit = memory // 8, memory // 16
        self._check_unmoved = check_unmoved
        self._counts: Counts | None = None
        self._rows: dict[str, NodeRows] = {}
        self._files: dict[str, FileEntry] = {}

    def write(self) -> Manifest:
        """All tables, those that are not finished yet; the manifest is not written."""
        nodes, relations = {}, {}
        for node_type in self._schema.node_types:
            name = node_type.name
            file = f"nodes/{name}.arrow"
            nodes[name] = self._table(f"nodes-{name}", [file], partial(self._nodes, name))
        for relation in self._schema.relations:
            key = relation.triple.key
            names = relation_files(relation)
            reverse = [name for name in names if name.startswith(f"csr/{key}__rev.")]
            forward = [name for name in names if name not in reverse]
            relations[key] = self._table(f"edges-{key}", forward, partial(self._edges, relation))
            self._table(f"reversed-{key}", reverse, partial(self._reversed, relation))
        self._check_unmoved()
        return Manifest(
            content_hash=content_hash(self._schema, nodes, relations),
            schema=self._schema,
            nodes=nodes,
            relations=relations,
            files=self._files,
        )

    def _table(self, table: str, names: list[str], write: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        finished = self._workspace.finished(table)
        if finished is None:
            entry = write()
            finished = entry, self._workspace.finish(table, entry, names)
        self._files |= finished[1]
        return finished[0]

    def _nodes(self, name: str) -> dict[str, Any]:
        scratch = self._emptied(f"nodes-{name}")
        entry = write_nodes(
            self._store,
            self._schema.node_type(name),
            self._workspace.snapshot / "nodes" / f"{name}.arrow",
            scratch,
            self._counted().nodes.get(name),
            limit=self._limit,
            progress=self._progress,
        )
        self._check_unmoved()
        return entry

    def _edges(self, relation: Relation) -> dict[str, Any]:
        table = f"edges-{relation.triple.key}"
        source, target = (self._rows_of(name) for name in (relation.triple.source, relation.triple.target))
        scratch = self._workspace.scratch(table)
        sorter = edge_sorter(relation, scratch, self._limit)
        if not sorter.sealed():
            self._emptied(table)
            total = self._counted().edges.get(relation.triple)
            read_edges(self._store, relation, (source, target), sorter, total, self._progress)
            self._check_unmoved()
            if self._workspace.resumable:
                sorter.seal()
        arrays = Scratch(scratch, self._array_limit)
        return write_forward(relation, sorter, source.count, self._workspace.snapshot, arrays, self._progress)

    def _reversed(self, relation: Relation) -> dict[str, Any]:
        table = f"reversed-{relation.triple.key}"
        scratch = self._emptied(table)
        write_backward(
            relation,
            self._rows_of(relation.triple.target).count,
            self._workspace.snapshot / "csr",
            scratch,
            Scratch(scratch, self._array_limit),
            limit=self._limit,
            progress=self._progress,
        )
        return {}

    def _rows_of(self, name: str) -> NodeRows:
        """Ids of a type; those of the two types used last stay in memory."""
        found = self._rows.pop(name, None)
        if found is None:
            scratch = Scratch(self._workspace.scratch(f"ids-{name}"), self._array_limit)
            found = NodeRows(self._workspace.snapshot / "nodes" / f"{name}.arrow", scratch)
        self._rows = dict([*self._rows.items(), (name, found)][-2:])
        return found

    def _emptied(self, table: str) -> Path:
        scratch = self._workspace.scratch(table)
        shutil.rmtree(scratch, ignore_errors=True)
        return scratch

    def _counted(self) -> Counts:
        if self._counts is None:
            self._counts = self._store.counts()
        return self._counts


def _existing(place: Path, manifest: Manifest) -> Snapshot | None:
    """The snapshot that is already there, if it is whole; a damaged one or one of another format makes room."""
    if not place.exists():
        return None
    try:
        snapshot = Snapshot.open(place)
        if snapshot.content_hash == manifest.content_hash:
            return snapshot
    except SnapshotError:
        pass
    old = place.with_name(f".replaced-{secrets.token_hex(4)}")
    place.rename(old)
    shutil.rmtree(old, ignore_errors=True)
    return None
