"""A part of a snapshot as a snapshot of its own: by types, relations, a time window, and the nodes near some seeds."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from graph_store.progress import Progress
from graph_store.schema import GraphSchema, NodeRole, Relation, RelationRole, Triple
from graph_store.store import Counts
from model_store.csr import EdgeType
from training.errors import SnapshotError
from training.export.alignment import Pairs
from training.export.canonical import blocks
from training.export.exporter import MEMORY_MIB, export_snapshot
from training.export.snapshot import NO_TIME, Snapshot

if TYPE_CHECKING:
    from graph_store.store import GraphStore

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which part of a graph; what is not said is not narrowed."""

    node_types: Collection[str] | None = None
    relations: Collection[str] | None = None
    """Names, or triples' keys (``Film__HAS_TAG__Tag``) where several relations have the name."""
    since: datetime | None = None
    """Edges of relations with a time: only from this moment on; those without a time value are left out."""
    until: datetime | None = None
    """The same: only before this moment."""
    seeds: Mapping[str, Sequence[str]] | None = None
    """Ids by type: these nodes and those within ``hops`` of them, over the edges that are left, in either direction."""
    hops: int = 0


def write_subgraph(
    snapshot: Snapshot,
    selection: Selection,
    root: Path,
    *,
    progress: Progress | None = None,
    memory_mib: float = MEMORY_MIB,
) -> Snapshot:
    """Write the part to ``root/<content hash>``: the nodes chosen, and all edges left between them.

    ``memory_mib`` is that of ``export_snapshot``; beside it a byte a node and the ids of a relation's two types are in
    memory. Raises SnapshotError for names that are not declared, for seeds that are not there, and where no entity type
    is left.
    """
    schema = _narrowed(snapshot.schema, selection)
    part = _Part(snapshot, schema, selection)
    if selection.seeds is not None:
        part.reach(selection.seeds, selection.hops)
    return export_snapshot(cast("GraphStore", part), schema, root, progress=progress, memory_mib=memory_mib)


class _Part:
    """What an export reads of a store: the rows of a snapshot that are chosen."""

    def __init__(self, snapshot: Snapshot, schema: GraphSchema, selection: Selection) -> None:
        self._snapshot, self._schema = snapshot, schema
        self._window = tuple(
            None if moment is None else _microseconds(moment) for moment in (selection.since, selection.until)
        )
        self._kept: dict[str, Mask] | None = None

    def reach(self, seeds: Mapping[str, Sequence[str]], hops: int) -> None:
        """Keep the seeds and what lies within so many hops."""
        kept = {
            each.name: np.zeros(self._snapshot.num_nodes(each.name), dtype=bool) for each in self._schema.node_types
        }
        for name, ids in seeds.items():
            if name not in kept:
                known = ", ".join(kept)
                raise SnapshotError(
                    f"seeds of the type {name!r}, which the part does not have", hint=f"It has {known}."
                )
            rows = self._snapshot.rows(name, list(ids))
            if (rows < 0).any():
                missing = [each for each, row in zip(ids, rows, strict=True) if row < 0]
                raise SnapshotError(
                    f"{len(missing)} seeds are no {name} of the graph, such as {missing[0]!r}",
                    hint="Take them out of the list, or export again where the graph has them by now.",
                )
            kept[name][rows] = True
        for _ in range(hops):
            reached = {name: mask.copy() for name, mask in kept.items()}
            for relation in self._schema.relations:
                source, _, target = relation.triple
                for sources, targets, _ in self._edges(relation):
                    reached[target][targets[kept[source][sources]]] = True
                    reached[source][sources[kept[target][targets]]] = True
            if all((reached[name] == kept[name]).all() for name in kept):
                break
            kept = reached
        self._kept = kept

    # ------------------------------------------------------------------ what an export asks of a store

    def state_token(self) -> str:
        return self._snapshot.content_hash

    def counts(self) -> Counts:
        return Counts()

    def scan_nodes(self, node_type: str) -> Iterator[pa.RecordBatch]:
        table = self._snapshot.nodes(node_type)
        for start, length in blocks(len(table)):
            rows = table.slice(start, length)
            if self._kept is not None:
                rows = rows.filter(pa.array(self._kept[node_type][start : start + length]))
            yield from rows.to_batches()

    def scan_edges(self, triple: Triple) -> Iterator[pa.RecordBatch]:
        relation = self._schema.relation(triple)
        source_ids, target_ids = self._snapshot.ids(triple.source), self._snapshot.ids(triple.target)
        table = self._snapshot.edges(triple) if relation.properties else None
        for sources, targets, edges in self._edges(relation):
            if self._kept is not None:
                inside = self._kept[triple.source][sources] & self._kept[triple.target][targets]
                sources, targets, edges = sources[inside], targets[inside], edges[inside]
            if not len(edges):
                continue
            columns: dict[str, Any] = {
                "source": source_ids.take(pa.array(sources)),
                "target": target_ids.take(pa.array(targets)),
            }
            if table is not None:
                start = int(edges[0])
                rows = table.slice(start, int(edges[-1]) + 1 - start).take(pa.array(edges - start))
                columns |= {name: rows[name].combine_chunks() for name in relation.properties}
            yield pa.RecordBatch.from_arrays(
                [columns[field.name] for field in relation.arrow_schema], schema=relation.arrow_schema
            )

    def _edges(self, relation: Relation) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """Rows of sources and targets, and the edges' own rows, of those within the time window, block by block."""
        csr = self._snapshot.csr(EdgeType(relation.triple))
        pairs = Pairs(csr, None, None)
        for start, length in blocks(csr.num_edges):
            sources, targets = pairs.rows(start, start + length)
            edges = np.arange(start, start + length, dtype=np.int64)
            since, until = self._window
            if csr.time is not None and (since is not None or until is not None):
                time = csr.time[start : start + length]
                inside = time != NO_TIME
                if since is not None:
                    inside &= time >= since
                if until is not None:
                    inside &= time < until
                sources, targets, edges = sources[inside], targets[inside], edges[inside]
            yield sources, targets, edges


def _narrowed(schema: GraphSchema, selection: Selection) -> GraphSchema:
    types = [each.name for each in schema.node_types]
    wanted_types = set(types if selection.node_types is None else selection.node_types)
    known = {name for each in schema.relations for name in (each.triple.name, each.triple.key)}
    wanted = known if selection.relations is None else set(selection.relations)
    for kind, unknown, names in (("node type", wanted_types - set(types), types), ("relation", wanted - known, known)):
        if unknown:
            raise SnapshotError(
                f"no {kind} {min(unknown)!r} is declared", hint=f"Known are {', '.join(sorted(names))}."
            )
    kept_types = tuple(each for each in schema.node_types if each.name in wanted_types)
    if not any(each.role is NodeRole.ENTITY for each in kept_types):
        raise SnapshotError("the part has no entity type", hint="Name one of the role entity among the types.")
    relations = [
        each
        for each in schema.relations
        if {each.triple.source, each.triple.target} <= wanted_types and wanted & {each.triple.name, each.triple.key}
    ]
    engaged = {(each.triple.name, each.triple.target) for each in relations if each.role is RelationRole.ENGAGEMENT}
    # Edges whose engagements are left out stay, and are given then, no longer derived.
    given = [
        each.model_copy(update={"derive": None})
        if each.derive and (each.derive.via, each.triple.target) not in engaged
        else each
        for each in relations
    ]
    try:
        return GraphSchema(node_types=kept_types, relations=tuple(given))
    except ValidationError as error:
        raise SnapshotError(f"the part is no graph: {error.errors()[0]['msg']}") from None


def _microseconds(moment: datetime) -> int:
    """UTC microseconds; without an offset it is UTC."""
    stamp = pa.scalar(moment, pa.timestamp("us", "UTC" if moment.tzinfo is not None else None))
    return int(stamp.cast(pa.int64()).as_py())
