"""A snapshot, opened: ids, properties and neighbours of every node, memory-mapped.

Layout of the folder, named by the content hash::

    manifest.json                                  schema, counts, hash per column, checksum per file
    nodes/<Type>.arrow                             id, then the declared properties; row i = node i
    edges/<triple key>.arrow                       all declared properties, in the order of the forward CSR
    csr/<edge type key>.{indptr,indices,weight,time}.npy
    csr/<triple key>__rev.position.npy             reversed edge -> its row in edges/<triple key>.arrow
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from graph_store.schema import GraphSchema, Relation, Triple
from model_store.csr import Csr, EdgeType
from training.errors import SnapshotCorrupt
from training.export.manifest import Manifest

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

NO_TIME = int(np.iinfo(np.int64).min)
"""What stands in ``Csr.time`` for an edge without a time: before everything."""

_FEW = 64
"""Up to so many ids are looked up one by one; above, a hash table of all ids pays."""


class Snapshot:
    """The graph at one moment: sorted, immutable, the same for the same content whichever store it came from."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._nodes: dict[str, pa.Table] = {}
        self._ids: dict[str, pa.StringArray] = {}
        self._csr: dict[EdgeType, Csr] = {}

    @classmethod
    def open(cls, folder: Path) -> Snapshot:
        """Open a snapshot's folder without reading the data.

        Raises SnapshotError where the folder is no snapshot, SnapshotVersionError for another format, SnapshotCorrupt
        where files are missing or cut short. ``verify`` looks at every byte.
        """
        return cls(folder, Manifest.read(folder))

    def __repr__(self) -> str:
        return f"Snapshot({str(self.folder)!r})"

    @property
    def schema(self) -> GraphSchema:
        return self.manifest.schema

    @property
    def content_hash(self) -> str:
        """64 hexadecimal digits, the same for the same content."""
        return self.manifest.content_hash

    def verify(self) -> None:
        """Read every file and compare checksums; raises SnapshotCorrupt."""
        self.manifest.verify(self.folder)

    def num_nodes(self, node_type: str) -> int:
        """Number of nodes of a type; KeyError for an undeclared one."""
        return int(self.manifest.nodes[node_type]["count"])

    def num_edges(self, triple: Triple) -> int:
        """Number of edges of a relation; KeyError for an undeclared one."""
        return int(self.manifest.relations[Triple(*triple).key]["count"])

    def nodes(self, node_type: str) -> pa.Table:
        """Table of ``NodeType.arrow_schema``; row i is node i. A float that was NaN is null."""
        if node_type not in self._nodes:
            self.schema.node_type(node_type)
            self._nodes[node_type] = self._table(f"nodes/{node_type}.arrow")
        return self._nodes[node_type]

    def ids(self, node_type: str) -> pa.StringArray:
        """Ids ``[N]`` of a type, sorted by bytes; position i is node i."""
        if node_type not in self._ids:
            ids = self.nodes(node_type).column("id")
            # One chunk up to canonical.BLOCK_ROWS nodes, which copies nothing.
            self._ids[node_type] = ids.chunk(0) if ids.num_chunks == 1 else ids.combine_chunks()
        return self._ids[node_type]

    def rows(self, node_type: str, ids: Sequence[str] | pa.Array) -> NDArray[np.int64]:
        """Node indices ``[n]`` of ids, -1 where the type has no such id."""
        known = self.ids(node_type)
        if len(ids) <= _FEW:
            texts = ids.to_pylist() if isinstance(ids, (pa.Array, pa.ChunkedArray)) else ids
            return np.fromiter((_find(known, text) for text in texts), dtype=np.int64, count=len(texts))
        if not isinstance(ids, (pa.Array, pa.ChunkedArray)):
            ids = pa.array(ids, pa.string())
        found = pc.index_in(ids.cast(pa.string()), value_set=known)
        if isinstance(found, pa.ChunkedArray):
            found = found.combine_chunks()
        return np.asarray(found.fill_null(-1)).astype(np.int64)

    @cached_property
    def edge_types(self) -> tuple[EdgeType, ...]:
        """Every relation from both ends, in declared order, forward then reversed."""
        triples = [relation.triple for relation in self.schema.relations]
        return tuple(EdgeType(triple, backward) for triple in triples for backward in (False, True))

    def csr(self, edge_type: EdgeType) -> Csr:
        """Neighbours of the nodes of ``edge_type.node_type``; within a row by neighbour index, then time, kind.

        ``weight`` is None where the relation declares none (a missing weight is 1); ``time`` is None where the relation
        declares none (a missing time is ``NO_TIME``). KeyError for an undeclared relation.
        """
        if edge_type not in self._csr:
            relation = self.schema.relation(edge_type.triple)
            key = edge_type.key
            self._csr[edge_type] = Csr(
                indptr=self._array(f"csr/{key}.indptr.npy"),
                indices=self._array(f"csr/{key}.indices.npy"),
                weight=self._array(f"csr/{key}.weight.npy") if relation.weight else None,
                time=self._array(f"csr/{key}.time.npy") if relation.time else None,
            )
        return self._csr[edge_type]

    def edges(self, triple: Triple) -> pa.Table:
        """All declared properties of a relation's edges, in the order of the forward CSR, at full precision."""
        relation = self.schema.relation(triple)
        if not relation.properties:
            return pa.table({})
        return self._table(f"edges/{relation.triple.key}.arrow")

    def edge_positions(self, edge_type: EdgeType) -> NDArray[np.int64]:
        """Row in ``edges(triple)`` of every edge of ``csr(edge_type)``, ``[E]``."""
        if not edge_type.reversed:
            return np.arange(self.num_edges(edge_type.triple), dtype=np.int64)
        return self._array(f"csr/{edge_type.key}.position.npy").astype(np.int64, copy=False)

    def to_hetero_data(self) -> HeteroData:
        """PyG's view: per type ``num_nodes`` and its numeric features, per relation ``edge_index``.

        Number features are float64 ``[N]`` (missing: NaN), vector features float32 ``[N, dimension]``, under the
        property's name. ``edge_index`` is int64 ``[2, E]``, source over target, in the order of the forward CSR, with
        ``edge_weight`` float32 and ``time`` int64 (microseconds) where declared.
        """
        import torch
        from torch_geometric.data import HeteroData

        data = HeteroData()
        for node_type in self.schema.node_types:
            store = data[node_type.name]
            store.num_nodes = self.num_nodes(node_type.name)
            for name, values in self._numeric(node_type.name).items():
                store[name] = torch.from_numpy(values)
        for relation in self.schema.relations:
            csr = self.csr(EdgeType(relation.triple))
            source = np.repeat(np.arange(csr.num_rows, dtype=np.int64), np.diff(csr.indptr))
            store = data[tuple(relation.triple)]
            store.edge_index = torch.from_numpy(np.stack([source, csr.indices.astype(np.int64)]))
            # Copies: torch does not accept read-only memory.
            if csr.weight is not None:
                store.edge_weight = torch.from_numpy(np.array(csr.weight))
            if csr.time is not None:
                store.time = torch.from_numpy(np.array(csr.time))
        return data

    def _numeric(self, node_type: str) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        for name, declared in self.schema.node_type(node_type).properties.items():
            kind = declared.feature.value if declared.feature else None
            column = self.nodes(node_type).column(name)
            if kind == "number":
                found[name] = np.array(np.asarray(column.cast(pa.float64()).fill_null(np.nan)))
            elif kind == "vector":
                assert declared.dimension is not None
                vectors = np.full((len(column), declared.dimension), np.nan, dtype=np.float32)
                values = np.asarray(pc.list_flatten(column)).reshape(-1, declared.dimension)
                vectors[np.asarray(column.is_valid())] = values
                found[name] = vectors
        return found

    def _table(self, name: str) -> pa.Table:
        try:
            return pa.ipc.open_file(pa.memory_map(str(self.folder / name))).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise self._damaged(name, error) from None

    def _array(self, name: str) -> NDArray[Any]:
        try:
            return cast(NDArray[Any], np.load(self.folder / name, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError) as error:
            raise self._damaged(name, error) from None

    def _damaged(self, name: str, error: Exception) -> SnapshotCorrupt:
        return SnapshotCorrupt(
            f"{self.folder / name} cannot be read: {error}", hint="Remove the folder and export the snapshot again."
        )


def relation_files(relation: Relation) -> tuple[str, ...]:
    """Files of one relation, inside the folder."""
    arrays = ["indptr", "indices"]
    arrays += ["weight"] if relation.weight else []
    arrays += ["time"] if relation.time else []
    key = relation.triple.key
    names = [f"csr/{edge}.{array}.npy" for edge in (key, f"{key}__rev") for array in arrays]
    names.append(f"csr/{key}__rev.position.npy")
    if relation.properties:
        names.append(f"edges/{key}.arrow")
    return tuple(names)


def _find(known: pa.StringArray, text: str | None) -> int:
    """Binary search; Python orders text by code point, which is the order of UTF-8 bytes."""
    if text is None:
        return -1
    place = bisect_left(cast(Sequence[str], range(len(known))), text, key=lambda row: known[row].as_py())
    return place if place < len(known) and known[place].as_py() == text else -1
