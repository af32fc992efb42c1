"""A published bundle, read in place: memory-mapped, checked when opened."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from google.protobuf import json_format
from numpy.typing import NDArray

from graph_store.schema import Triple
from kithkin.v1 import bundle_pb2
from model_store import layout
from model_store.csr import Csr, EdgeType
from model_store.durable import sha256
from model_store.errors import BundleCorrupt, BundleVersionUnknown
from model_store.node_ids import NodeIds

if TYPE_CHECKING:
    from model_store.features import FeatureTransforms


class Bundle:
    """One version of everything a server answers from. Reading costs no copy; the files are never written again."""

    def __init__(self, folder: Path, manifest: bundle_pb2.BundleManifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._tables: dict[str, pa.Table] = {}
        self._ids: dict[str, NodeIds] = {}
        self._names: dict[str, pa.Array] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._neighbours: dict[EdgeType, Csr] = {}

    @classmethod
    def load(cls, folder: Path, *, verify: bool = True) -> Bundle:
        """Open a bundle's folder and check it: layout, every file's size, and its checksum unless ``verify`` is off.

        Raises BundleCorrupt or BundleVersionUnknown.
        """
        manifest = _read_manifest(folder)
        for entry in manifest.files:
            path = folder / entry.path
            if not path.is_file():
                raise BundleCorrupt("is missing", file=path)
            size = path.stat().st_size
            if size != entry.bytes:
                raise BundleCorrupt(f"has {size} bytes, should have {entry.bytes}", file=path)
            if verify and sha256(path) != entry.sha256:
                raise BundleCorrupt("the content has changed since it was published (checksum)", file=path)
        return cls(folder, manifest)

    @property
    def version(self) -> str:
        return self.manifest.version

    @cached_property
    def node_types(self) -> dict[str, bundle_pb2.NodeTypeManifest]:
        """Node types by name."""
        return {node_type.name: node_type for node_type in self.manifest.node_types}

    @cached_property
    def relations(self) -> dict[Triple, bundle_pb2.RelationManifest]:
        """Relations by triple."""
        return {Triple(each.source, each.name, each.target): each for each in self.manifest.relations}

    @cached_property
    def spaces(self) -> dict[str, bundle_pb2.SpaceManifest]:
        """Vector spaces by name."""
        return {space.name: space for space in self.manifest.spaces}

    @cached_property
    def edge_types(self) -> tuple[EdgeType, ...]:
        """Edge types with neighbour lists, in the order of the relations, forward before reversed."""
        both = (EdgeType(triple, end) for triple in self.relations for end in (False, True))
        return tuple(each for each in both if (self.folder / layout.neighbours_path(each, "indptr")).is_file())

    def nodes(self, node_type: str) -> pa.Table:
        """Nodes of a type: id, name, popularity, then properties (see ``property_column``). KeyError: no such type."""
        if node_type not in self._tables:
            if node_type not in self.node_types:
                raise KeyError(node_type)
            path = self.folder / layout.nodes_path(node_type)
            try:
                self._tables[node_type] = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            except pa.ArrowInvalid as error:
                raise BundleCorrupt(f"is not an Arrow file: {error}", file=path) from None
        return self._tables[node_type]

    def ids(self, node_type: str) -> NodeIds:
        """Ids of a type by row."""
        if node_type not in self._ids:
            self._ids[node_type] = NodeIds(self.nodes(node_type).column(0))
        return self._ids[node_type]

    def row(self, node_type: str, node_id: str) -> int | None:
        """Row of a node; None where there is none. KeyError: no such type."""
        return self.ids(node_type).row(node_id)

    def name(self, node_type: str, row: int) -> str:
        """What people call a node: its display property, else its id."""
        if node_type not in self._names:
            column = self.nodes(node_type).column(1)
            self._names[node_type] = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        return self._names[node_type][row].as_py() or self.ids(node_type)[row]

    def popularity(self, node_type: str) -> NDArray[np.float64]:
        """Engagements per node, float64 ``[nodes]``."""
        values: NDArray[np.float64] = self.nodes(node_type).column(2).to_numpy()
        return values

    def property(self, node_type: str, name: str) -> pa.ChunkedArray:
        """Column of a property. KeyError: the bundle does not carry it."""
        return self.nodes(node_type).column(layout.property_column(name))

    def neighbours(self, edge_type: EdgeType) -> Csr:
        """Neighbour lists of an edge type; KeyError where the bundle has none."""
        if edge_type not in self._neighbours:
            if edge_type not in self.edge_types:
                raise KeyError(edge_type.key)
            weight = layout.neighbours_path(edge_type, "weight")
            self._neighbours[edge_type] = Csr(
                indptr=self._array(layout.neighbours_path(edge_type, "indptr")),
                indices=self._array(layout.neighbours_path(edge_type, "indices")),
                weight=self._array(weight) if (self.folder / weight).is_file() else None,
            )
        return self._neighbours[edge_type]

    def vectors(self, space: str, node_type: str) -> NDArray[np.float32]:
        """Vectors ``[nodes, dimension]``; a row of zeros: nothing is known. KeyError: the space lacks the type."""
        if space not in self.spaces or node_type not in self.spaces[space].node_types:
            raise KeyError(f"{space}/{node_type}")
        return self._array(layout.vectors_path(space, node_type))

    def states(self, space: str, layer: int, node_type: str) -> NDArray[np.float32]:
        """Published states ``[nodes, hidden]`` of one layer."""
        return self._array(layout.states_path(space, layer, node_type))

    def relevance(self, space: str, node_type: str) -> NDArray[np.float32]:
        """Vectors ``[nodes, d]`` by which regions of interest tell how relevant a node is."""
        return self._array(layout.relevance_path(space, node_type))

    def focal(self, space: str, node_type: str) -> NDArray[np.float32]:
        """What a node adds to a focal vector ``[nodes, hidden]``."""
        return self._array(layout.focal_path(space, node_type))

    def encoder_path(self, space: str, node_type: str) -> Path:
        """The ONNX file of a type's online encoder (there where the space's manifest names one)."""
        return self.folder / layout.encoder_path(space, node_type)

    def index_folder(self, space: str, node_type: str) -> Path:
        """Folder of a type's index files."""
        return self.folder / layout.index_path(space, node_type)

    def features(self) -> FeatureTransforms:
        """The fitted feature transforms."""
        from model_store.features import FeatureTransforms

        return FeatureTransforms.load(self.folder / "features")

    def _array(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            path = self.folder / name
            try:
                # A plain array over the map: indexing numpy's own class of maps takes ten times as long.
                self._arrays[name] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
            except FileNotFoundError:
                raise BundleCorrupt("is missing", file=path) from None
            except ValueError as error:
                if path.stat().st_size and "empty" in str(error):
                    # An array with no elements cannot be mapped.
                    self._arrays[name] = np.load(path, allow_pickle=False)
                else:
                    raise BundleCorrupt(f"is not an array file: {error}", file=path) from None
        return self._arrays[name]


def _read_manifest(folder: Path) -> bundle_pb2.BundleManifest:
    path, seal = folder / layout.MANIFEST, folder / layout.SEAL
    if not path.is_file():
        raise BundleCorrupt("is missing, the bundle is half-written", file=path)
    if not seal.is_file():
        raise BundleCorrupt("is missing, the bundle is half-written", file=seal)
    text = path.read_bytes()
    manifest = bundle_pb2.BundleManifest()
    try:
        # A newer layout may say things this release does not know; its version is read first, whatever else is there.
        json_format.Parse(text, manifest, ignore_unknown_fields=True)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise BundleCorrupt(f"cannot be read: {error}", file=path) from None
    if seal.read_text(encoding="utf-8", errors="replace").split()[:1] != [sha256(path)]:
        raise BundleCorrupt("does not match its checksum", file=path)
    if manifest.format_version != layout.FORMAT_VERSION:
        raise BundleVersionUnknown(
            f"{folder.name}: layout {manifest.format_version}, this release reads {layout.FORMAT_VERSION}",
            hint="Publish again with this release, or serve it with the release that wrote it.",
        )
    return manifest
