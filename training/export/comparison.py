"""What differs between two snapshots: node types, relations, and in each the nodes and edges, exactly.

Both are read block by block from their memory-mapped files. Where the nodes of a type differ, sixteen bytes a node stay
in memory; edges never do. Columns whose hashes are equal in both manifests are not read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph_store.schema import NodeType, Relation, Triple
from model_store.csr import EdgeType
from training.export.alignment import (
    Matched,
    Pairs,
    Rows,
    common_ranks,
    differing,
    id_key,
    match_edges,
    match_ids,
    taken,
    windows,
)
from training.export.canonical import BLOCK_ROWS
from training.export.snapshot import Snapshot

SHOWN = 5
"""Nodes and edges of each kind that are named."""


@dataclass(kw_only=True, slots=True)
class Changes:
    """What differs in one node type or relation; a node is named by its id, an edge by its ends, time and kind."""

    name: str
    """The type, or the triple as people read it."""
    added: int = 0
    removed: int = 0
    changed: int = 0
    """Those of which a property differs that both snapshots declare with one type."""
    reweighted: int = 0
    """Of the changed edges those of another weight."""
    properties_added: tuple[str, ...] = ()
    properties_removed: tuple[str, ...] = ()
    properties_retyped: tuple[str, ...] = ()
    first_added: list[dict[str, Any]] = field(default_factory=list)
    first_removed: list[dict[str, Any]] = field(default_factory=list)
    first_changed: list[dict[str, Any]] = field(default_factory=list)
    """With ``properties``: the differing ones, each with its value before and after."""

    @property
    def differs(self) -> bool:
        """True where something differs."""
        properties = (self.properties_added, self.properties_removed, self.properties_retyped)
        return bool(self.added or self.removed or self.changed or any(properties))


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """From snapshot ``before`` to snapshot ``after``, both by their content hash."""

    before: str
    after: str
    node_types_added: dict[str, int]
    """Name and number of nodes."""
    node_types_removed: dict[str, int]
    relations_added: dict[str, int]
    """Triple and number of edges."""
    relations_removed: dict[str, int]
    nodes: tuple[Changes, ...]
    """Types that both have, in declared order."""
    edges: tuple[Changes, ...]
    """Relations that both have, in declared order."""

    @property
    def same(self) -> bool:
        """True where nothing that this compares differs."""
        whole = (self.node_types_added, self.node_types_removed, self.relations_added, self.relations_removed)
        return not (any(whole) or any(each.differs for each in (*self.nodes, *self.edges)))


def compare(before: Snapshot, after: Snapshot, *, shown: int = SHOWN, block: int = BLOCK_ROWS) -> Comparison:
    """Compare two snapshots; ``shown`` nodes and edges of each kind are named, ``block`` rows are read at once."""
    types = [[each.name for each in one.schema.node_types] for one in (before, after)]
    triples = [[each.triple for each in one.schema.relations] for one in (before, after)]
    comparer = _Comparer(before, after, shown, block)
    return Comparison(
        before=before.content_hash,
        after=after.content_hash,
        node_types_added={name: after.num_nodes(name) for name in types[1] if name not in types[0]},
        node_types_removed={name: before.num_nodes(name) for name in types[0] if name not in types[1]},
        relations_added={str(each): after.num_edges(each) for each in triples[1] if each not in triples[0]},
        relations_removed={str(each): before.num_edges(each) for each in triples[0] if each not in triples[1]},
        nodes=tuple(comparer.nodes(name) for name in types[0] if name in types[1]),
        edges=tuple(comparer.edges(each) for each in triples[0] if each in triples[1]),
    )


class _Comparer:
    def __init__(self, before: Snapshot, after: Snapshot, shown: int, block: int) -> None:
        self._both = (before, after)
        self._shown, self._block = shown, block
        self._ranks: dict[str, tuple[Rows, Rows] | None] = {}

    def nodes(self, name: str) -> Changes:
        declared = [one.schema.node_type(name) for one in self._both]
        hashes = [one.manifest.nodes[name]["columns"] for one in self._both]
        changes, shared = _declared(name, *declared)
        if self._same_ids(name):
            shared = [each for each in shared if hashes[0][each] != hashes[1][each]]
            if not shared:
                return changes
        tables = tuple(one.nodes(name) for one in self._both)
        ids = (tables[0]["id"], tables[1]["id"])
        for window in windows((len(ids[0]), len(ids[1])), (id_key(ids[0]), id_key(ids[1])), block=self._block):
            matched = match_ids(ids, window)
            names = [
                [{"id": each} for each in taken(column, rows[: self._shown]).to_pylist()]
                for column, rows in ((ids[0], matched.only_a), (ids[1], matched.only_b))
            ]
            self._count(changes, matched, *names)
            different, by_name = _different(tables, shared, matched)
            for row in np.flatnonzero(different)[: self._shown - len(changes.first_changed)]:
                key = {"id": ids[0][int(matched.a[row])].as_py()}
                changes.first_changed.append(key | _values(tables, by_name, matched, int(row)))
            changes.changed += int(different.sum())
        return changes

    def edges(self, triple: Triple) -> Changes:
        declared = [one.schema.relation(triple) for one in self._both]
        hashes = [one.manifest.relations[triple.key]["columns"] for one in self._both]
        changes, shared = _declared(str(triple), *declared)
        same_ends = self._same_ids(triple.source) and self._same_ids(triple.target)
        columns = ("source", "target", *shared)
        if same_ends and all(hashes[0][each] == hashes[1][each] for each in columns):
            return changes
        keys = [name for name in declared[0].key_columns[2:] if name in declared[1].key_columns and name in shared]
        compared = [name for name in shared if name not in keys]
        weight = declared[0].weight if declared[0].weight == declared[1].weight else None
        ranks = [self._common(end) for end in (triple.source, triple.target)]
        pairs = tuple(
            Pairs(one.csr(EdgeType(triple)), *(None if each is None else each[side] for each in ranks))
            for side, one in enumerate(self._both)
        )
        tables = tuple(one.edges(triple) for one in self._both)
        others = [(tables[0][name], tables[1][name]) for name in keys]
        sizes = (self._both[0].num_edges(triple), self._both[1].num_edges(triple))
        for window in windows(sizes, (pairs[0].key, pairs[1].key), block=self._block):
            matched = match_edges((pairs[0], pairs[1]), others, window)
            names = [
                [self._edge(side, triple, pairs[side], tables[side], keys, int(edge)) for edge in edges[: self._shown]]
                for side, edges in ((0, matched.only_a), (1, matched.only_b))
            ]
            self._count(changes, matched, *names)
            different, by_name = _different(tables, compared, matched)
            for row in np.flatnonzero(different)[: self._shown - len(changes.first_changed)]:
                key = self._edge(0, triple, pairs[0], tables[0], keys, int(matched.a[row]))
                changes.first_changed.append(key | _values(tables, by_name, matched, int(row)))
            changes.changed += int(different.sum())
            if weight is not None and weight in by_name:
                changes.reweighted += int(by_name[weight].sum())
        return changes

    def _count(
        self, changes: Changes, matched: Matched, removed: Sequence[dict[str, Any]], added: Sequence[dict[str, Any]]
    ) -> None:
        changes.removed += len(matched.only_a)
        changes.added += len(matched.only_b)
        changes.first_removed.extend(removed[: self._shown - len(changes.first_removed)])
        changes.first_added.extend(added[: self._shown - len(changes.first_added)])

    def _edge(
        self, side: int, triple: Triple, pairs: Pairs, table: pa.Table, keys: Sequence[str], edge: int
    ) -> dict[str, Any]:
        sources, targets = pairs.rows(edge, edge + 1)
        snapshot = self._both[side]
        return {
            "source": snapshot.nodes(triple.source)["id"][int(sources[0])].as_py(),
            "target": snapshot.nodes(triple.target)["id"][int(targets[0])].as_py(),
            **{name: table[name][edge].as_py() for name in keys},
        }

    def _same_ids(self, name: str) -> bool:
        before, after = (one.manifest.nodes[name]["columns"]["id"] for one in self._both)
        return bool(before == after)

    def _common(self, name: str) -> tuple[Rows, Rows] | None:
        if name not in self._ranks:
            ids = [one.nodes(name)["id"] for one in self._both]
            self._ranks[name] = None if self._same_ids(name) else common_ranks((ids[0], ids[1]), block=self._block)
        return self._ranks[name]


def _declared(name: str, before: NodeType | Relation, after: NodeType | Relation) -> tuple[Changes, list[str]]:
    """What differs in the declarations, and the properties that can be compared."""
    old, new = before.properties, after.properties
    both = [each for each in old if each in new]
    alike = [each for each in both if (old[each].type, old[each].dimension) == (new[each].type, new[each].dimension)]
    changes = Changes(
        name=name,
        properties_added=tuple(each for each in new if each not in old),
        properties_removed=tuple(each for each in old if each not in new),
        properties_retyped=tuple(each for each in both if each not in alike),
    )
    return changes, alike


def _different(
    tables: tuple[pa.Table, ...], names: Sequence[str], matched: Matched
) -> tuple[NDArray[np.bool_], dict[str, NDArray[np.bool_]]]:
    """Which matched rows differ, in any column and in each."""
    by_name = {name: differing(taken(tables[0][name], matched.a), taken(tables[1][name], matched.b)) for name in names}
    different = np.zeros(len(matched.a), dtype=bool)
    for each in by_name.values():
        different |= each
    return different, by_name


def _values(
    tables: tuple[pa.Table, ...], by_name: dict[str, NDArray[np.bool_]], matched: Matched, row: int
) -> dict[str, Any]:
    rows = (int(matched.a[row]), int(matched.b[row]))
    return {
        "properties": {
            name: [table[name][place].as_py() for table, place in zip(tables, rows, strict=True)]
            for name, different in by_name.items()
            if different[row]
        }
    }
