"""A bundle as it would be with the delta in it: rows anew in the order of ids, nothing copied that need not be."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kithkin.v1 import bundle_pb2
from model_store.bundle import Bundle
from model_store.csr import Csr, EdgeType
from model_store.features import FeatureTransforms, Floats, Links
from server.fresh.delta import Delta, TypeDelta

Rows = NDArray[np.int64]
Vector = NDArray[np.float32]


class RowMap:
    """Rows of one type before and after the delta."""

    def __init__(self, base: Bundle, node_type: str, delta: TypeDelta | None) -> None:
        ids = base.nodes(node_type).column(0)
        count = len(ids)
        if delta is None:
            self.base_of = self.new_of = np.arange(count)
            self.delta_of = np.full(count, -1, np.int64)
            self.now = np.empty(0, np.int64)
            self.ids = ids
            return
        published = _one(ids).cast(pa.string())
        own = _one(delta.nodes.column("id"))
        at = _places(own, published)
        gone = _places(pa.array(sorted(delta.deleted), pa.string()), published)
        kept = np.ones(count, np.bool_)
        kept[gone[gone >= 0]] = False
        changed = np.full(count, -1, np.int64)
        changed[at[at >= 0]] = np.flatnonzero(at >= 0)
        fresh = np.flatnonzero(at < 0)
        staying = np.flatnonzero(kept)
        every = pa.concat_arrays([published.take(pa.array(staying)), own.take(pa.array(fresh))])
        order = pc.array_sort_indices(every).to_numpy().astype(np.int64)
        before = np.concatenate([staying, np.full(len(fresh), -1, np.int64)])[order]
        self.ids = pa.chunked_array([every.take(pa.array(order))])
        self.base_of = before
        """Row in the bundle ``[new rows]``; -1: a fresh node."""
        self.new_of = np.full(count, -1, np.int64)
        """Row now ``[rows in the bundle]``; -1: deleted."""
        self.new_of[before[before >= 0]] = np.flatnonzero(before >= 0)
        self.delta_of = np.concatenate([changed[staying], fresh])[order]
        """Row of the delta's table ``[new rows]``; -1: as published."""
        self.now = np.full(len(own), -1, np.int64)
        """Row now ``[rows of the delta's table]``."""
        self.now[self.delta_of[self.delta_of >= 0]] = np.flatnonzero(self.delta_of >= 0)

    def __len__(self) -> int:
        return len(self.base_of)


class OwnVectors(NamedTuple):
    """Vectors that nodes have since the bundle was published."""

    rows: Rows
    """Rows now, ascending."""
    vectors: NDArray[np.float32]
    """``[rows, dimension]``."""


class MappedRows:
    """A matrix ``[new rows, width]`` read from the published one and the delta's, row by row as asked."""

    def __init__(self, base: NDArray[np.float32], rows: RowMap, own: OwnVectors | None = None) -> None:
        self._base, self._rows, self._own = base, rows, own
        self._place: Rows | None = None
        if own is not None and len(own.rows):
            self._place = np.full(len(rows), -1, np.int64)
            self._place[own.rows] = np.arange(len(own.rows))
        self.shape = (len(rows), base.shape[1])
        self.dtype = base.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        whole = isinstance(key, slice) or np.asarray(key).dtype.kind not in "iu"
        asked = np.arange(len(self))[key] if whole else np.asarray(key)
        flat = np.atleast_1d(asked)
        before = self._rows.base_of[flat]
        found = np.zeros((len(flat), self.shape[1]), np.float32)
        found[before >= 0] = self._base[before[before >= 0]]
        if self._place is not None and self._own is not None:
            place = self._place[flat]
            found[place >= 0] = self._own.vectors[place[place >= 0]]
        return found[0] if np.ndim(asked) == 0 else found

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        return self[:] if dtype is None else self[:].astype(dtype)


class MappedTransforms(FeatureTransforms):
    """The fitted transforms for links by new rows; a fitted factor is known of published neighbours only."""

    def __init__(self, base: FeatureTransforms, rows: dict[str, RowMap]) -> None:
        super().__init__(base.blocks)
        self._rows = rows

    def apply(self, node_type: str, properties: pa.Table, links: Links) -> Floats:
        before = {each: published(csr, self._rows[each.neighbour_type].base_of) for each, csr in links.items()}
        return super().apply(node_type, properties, before)


class FreshBundle(Bundle):
    """A published bundle with a delta."""

    def __init__(self, base: Bundle, delta: Delta) -> None:
        manifest = bundle_pb2.BundleManifest()
        manifest.CopyFrom(base.manifest)
        super().__init__(base.folder, manifest)
        self._base = base
        self._delta = delta
        self.rows = {name: RowMap(base, name, delta.types.get(name)) for name in base.node_types}
        for each in manifest.node_types:
            each.count = len(self.rows[each.name])
            self._tables[each.name] = self._nodes(each.name)
        self._matrices: dict[tuple[str, str], MappedRows] = {}
        for edge_type in base.edge_types:
            self._neighbours[edge_type] = self._lists(edge_type)

    @property
    def base(self) -> Bundle:
        """As it was published."""
        return self._base

    def vectors(self, space: str, node_type: str) -> Any:
        base = self._base.vectors(space, node_type)
        if node_type not in self._delta.types:
            return base
        if (space, node_type) not in self._matrices:
            own = self.own_vectors(space, node_type)
            self._matrices[space, node_type] = MappedRows(base, self.rows[node_type], own)
        return self._matrices[space, node_type]

    def own_vectors(self, space: str, node_type: str) -> OwnVectors:
        """The delta's vectors; none of a node that keeps the published one."""
        delta, name = self._delta.types.get(node_type), f"vector/{space}"
        if delta is None or name not in delta.nodes.column_names:
            return OwnVectors(np.empty(0, np.int64), np.empty((0, 1), np.float32))
        told = _one(delta.nodes.column(name))
        rows = np.flatnonzero(pc.is_valid(told).to_numpy(zero_copy_only=False))
        values = pc.list_flatten(told).to_numpy().astype(np.float32).reshape(len(rows), -1 if len(rows) else 1)
        now = self.rows[node_type].now[rows]
        order = np.argsort(now)
        return OwnVectors(now[order], values[order])

    def states(self, space: str, layer: int, node_type: str) -> Any:
        base = self._base.states(space, layer, node_type)
        # Of a fresh node no state is published; it sends nothing until the next training.
        return MappedRows(base, self.rows[node_type]) if node_type in self._delta.types else base

    def relevance(self, space: str, node_type: str) -> Any:
        return self._as_published(self._base.relevance(space, node_type), node_type)

    def focal(self, space: str, node_type: str) -> Any:
        return self._as_published(self._base.focal(space, node_type), node_type)

    def _as_published(self, base: NDArray[np.float32], node_type: str) -> Any:
        """Rows of a published matrix; zeros of a fresh node, which is no context until the next training."""
        return MappedRows(base, self.rows[node_type]) if node_type in self._delta.types else base

    def features(self) -> FeatureTransforms:
        return MappedTransforms(self._base.features(), self.rows)

    def _nodes(self, node_type: str) -> pa.Table:
        base, rows, delta = self._base.nodes(node_type), self.rows[node_type], self._delta.types.get(node_type)
        if delta is None:
            return base
        own = delta.nodes
        # The published table, then the delta's: every row is taken from one of them.
        columns = [
            pa.chunked_array([*column.chunks, *_column(own, field).chunks], field.type)
            for field, column in zip(base.schema, base.columns, strict=True)
        ]
        source = np.where(rows.delta_of >= 0, rows.delta_of + base.num_rows, rows.base_of)
        table = pa.Table.from_arrays(columns, schema=base.schema).take(pa.array(source)).combine_chunks()
        return table.set_column(0, base.schema.field(0), rows.ids.cast(base.schema.field(0).type))

    def _lists(self, edge_type: EdgeType) -> Csr:
        """The lists of an edge type with the delta's in place of the published, deleted neighbours left out."""
        base = self._base.neighbours(edge_type)
        rows, others = self.rows[edge_type.node_type], self.rows[edge_type.neighbour_type]
        delta = self._delta.types.get(edge_type.node_type)
        if delta is None and edge_type.neighbour_type not in self._delta.types:
            return base
        degree = np.diff(base.indptr)
        owner = rows.new_of[np.repeat(np.arange(base.num_rows), degree)]
        indices = others.new_of[base.indices]
        kept = (owner >= 0) & (indices >= 0)
        if delta is not None:
            kept &= rows.delta_of[owner] < 0
        owner, indices = owner[kept], indices[kept]
        weight = None if base.weight is None else np.asarray(base.weight)[kept]
        if delta is not None:
            more = _own_lists(delta.nodes, edge_type, rows, _one(others.ids).cast(pa.string()))
            owner = np.concatenate([owner, more[0]])
            indices = np.concatenate([indices, more[1]])
            weight = None if weight is None else np.concatenate([weight, more[2]])
        # Stable: within a row the order of the lists stays.
        order = np.argsort(owner, kind="stable")
        return Csr(
            indptr=np.searchsorted(owner[order], np.arange(len(rows) + 1)).astype(np.int64),
            indices=indices[order].astype(np.int32),
            weight=None if weight is None else weight[order].astype(np.float32),
        )


def published(csr: Csr, base_of: Rows) -> Csr:
    """The links to published neighbours, by their published rows."""
    before = base_of[csr.indices]
    kept = before >= 0
    owner = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))[kept]
    return Csr(
        indptr=np.searchsorted(owner, np.arange(csr.num_rows + 1)).astype(np.int64),
        indices=before[kept].astype(np.int32),
        weight=None if csr.weight is None else np.asarray(csr.weight)[kept],
    )


def _own_lists(nodes: pa.Table, edge_type: EdgeType, rows: RowMap, ids: pa.Array) -> tuple[Rows, Rows, Vector]:
    """Owner's row, neighbour's row and weight of every link that the delta's records tell, by owner."""
    name = edge_type.key
    if f"links/{name}" not in nodes.column_names:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    order = np.argsort(rows.now)
    lists = nodes.column(f"links/{name}").take(pa.array(order))
    degree = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
    owner = np.repeat(rows.now[order], degree)
    found = _places(pc.list_flatten(lists), ids)
    weights = pc.list_flatten(nodes.column(f"weights/{name}").take(pa.array(order))).to_numpy().astype(np.float32)
    # One that came since is in a later record, and then this node with it.
    known = found >= 0
    return owner[known], found[known], weights[known]


def _places(ids: pa.Array | pa.ChunkedArray, among: pa.Array) -> Rows:
    """Rows of ids, -1 where there is none."""
    found = pc.fill_null(pc.index_in(ids, value_set=among), -1)
    return np.asarray(found.to_numpy(), np.int64)


def _column(own: pa.Table, field: pa.Field) -> pa.ChunkedArray:
    if field.name not in own.column_names:
        return pa.chunked_array([pa.nulls(own.num_rows, field.type)])
    return own.column(field.name).cast(field.type)


def _one(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return joined.chunk(0) if isinstance(joined, pa.ChunkedArray) else joined
