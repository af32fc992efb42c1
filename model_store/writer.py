"""Writes one bundle: beside, checked, synced, then named."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
from google.protobuf import json_format
from numpy.typing import NDArray

from graph_store.schema import NodeType, Triple
from kithkin.v1 import bundle_pb2
from model_store import layout
from model_store.csr import Csr, EdgeType
from model_store.durable import UNWRITABLE, naming, save_array, sha256, sync_file, sync_folder
from model_store.errors import BundleIncomplete, DiskFull
from model_store.holds import Hold
from model_store.node_ids import first_disorder


class BundleWriter:
    """One bundle in the making; a context manager that removes the unfinished folder unless ``commit`` was reached.

    Raises DiskFull at its end where a file inside could not be written for want of room.

    The caller fills ``manifest`` with what it alone knows (snapshot hash, relations, spaces, evaluation,
    configuration); node types and checksums are filled here.
    """

    def __init__(self, root: Path, project: str, *, newest: str | None = None) -> None:
        published = datetime.now(UTC)
        if newest is not None and layout.version_of(published) <= newest:
            # The clock went back, or two bundles were begun in one microsecond: versions still sort by publication.
            published = layout.time_of(newest) + timedelta(microseconds=1)
        version = layout.version_of(published)
        self.root = root
        self.folder = root / layout.unfinished_name(version)
        self.folder.mkdir(parents=True)
        # Who clears up after crashes sees by it that this one is alive.
        self._hold = Hold(self.folder)
        self.manifest = bundle_pb2.BundleManifest(
            format_version=layout.FORMAT_VERSION, version=version, project=project
        )
        self.manifest.published_at.FromDatetime(published)
        with suppress(metadata.PackageNotFoundError):
            self.manifest.software["kithkin-service"] = metadata.version("kithkin-service")
        self._committed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hold.release()
        if not self._committed:
            shutil.rmtree(self.folder, ignore_errors=True)
            if isinstance(error, OSError) and error.errno in UNWRITABLE:
                raise DiskFull(error, self.root, stays="nothing was published, and what serves serves on") from error

    def write_nodes(self, node_type: NodeType, table: pa.Table) -> None:
        """Write the nodes of one type: columns ``id``, ``name``, ``popularity`` in this order, then properties by name.

        Row i is node i: ids ascend by bytes. Kept are the properties that are shown, filterable or features. A declared
        property that is the display property may be left out (``name`` holds it). Raises BundleIncomplete.
        """
        if table.column_names[:3] != ["id", "name", "popularity"]:
            raise BundleIncomplete(f"nodes of {node_type.name}: columns must begin with id, name, popularity")
        disorder = first_disorder(table.column(0))
        if disorder is not None:
            raise BundleIncomplete(f"nodes of {node_type.name}: the id of row {disorder} does not ascend by bytes")
        positions = {name: number for number, name in enumerate(table.column_names) if number > 2}
        fields = [
            pa.field("id", pa.string(), nullable=False),
            pa.field("name", pa.string()),
            pa.field("popularity", pa.float64()),
        ]
        columns = [table.column(0), table.column(1), table.column(2)]
        described = bundle_pb2.NodeTypeManifest(name=node_type.name, role=node_type.role.value, count=table.num_rows)
        for name, declared in node_type.properties.items():
            if not (declared.show or declared.filter or declared.feature):
                continue
            if name not in positions and name != node_type.display:
                raise BundleIncomplete(f"nodes of {node_type.name}: no column for the property {name!r}")
            columns.append(table.column(positions.get(name, 1)))
            fields.append(pa.field(layout.property_column(name), declared.type.arrow))
            described.properties.add(
                name=name,
                type=declared.type.value,
                show=declared.show,
                filter=declared.filter,
                feature=declared.feature.value if declared.feature else "",
                dimension=declared.dimension or 0,
            )
        schema = pa.schema(fields)
        chunked = [column.cast(field.type).combine_chunks() for column, field in zip(columns, schema, strict=True)]
        arrays = [chunk.chunk(0) if isinstance(chunk, pa.ChunkedArray) else chunk for chunk in chunked]
        path = self._path(layout.nodes_path(node_type.name))
        with naming(path), pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
            # One batch: readers find a row without asking which batch holds it.
            file.write_batch(pa.record_batch(arrays, schema=schema))
        self.manifest.node_types.append(described)

    def write_neighbours(self, edge_type: EdgeType, csr: Csr) -> None:
        """Write the neighbour lists of one edge type; a row's order is kept (heaviest or newest first)."""
        rows, neighbours = self._count(edge_type.node_type), self._count(edge_type.neighbour_type)
        indices = np.asarray(csr.indices)
        if csr.num_rows != rows:
            raise BundleIncomplete(f"neighbours {edge_type.key}: {csr.num_rows} rows for {rows} {edge_type.node_type}")
        if len(indices) != csr.indptr[-1] or np.any(np.diff(csr.indptr) < 0):
            raise BundleIncomplete(f"neighbours {edge_type.key}: indptr does not fit {len(indices)} edges")
        if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= neighbours):
            raise BundleIncomplete(f"neighbours {edge_type.key}: an index outside the {neighbours} neighbours")
        self._save(layout.neighbours_path(edge_type, "indptr"), csr.indptr, np.int64)
        self._save(layout.neighbours_path(edge_type, "indices"), indices, np.int32)
        if csr.weight is not None:
            self._save(layout.neighbours_path(edge_type, "weight"), csr.weight, np.float32)

    def write_vectors(self, space: str, node_type: str, vectors: NDArray[np.float32]) -> None:
        """Write the vectors ``[nodes, dimension]`` of one type; a row of zeros: nothing is known of this node."""
        self._matrix(layout.vectors_path(space, node_type), node_type, vectors)

    def write_states(self, space: str, layer: int, node_type: str, states: NDArray[np.float32]) -> None:
        """Write the states ``[nodes, hidden]`` of one layer, which the online encoders read of neighbours."""
        self._matrix(layout.states_path(space, layer, node_type), node_type, states)

    def encoder_path(self, space: str, node_type: str) -> Path:
        """Where to write the ONNX file of one type's online encoder."""
        return self._path(layout.encoder_path(space, node_type))

    def focal_encoder_path(self, space: str, node_type: str) -> Path:
        """Where to write the ONNX file of one user type's encoder around a context."""
        return self._path(layout.focal_encoder_path(space, node_type))

    def write_relevance(self, space: str, node_type: str, vectors: NDArray[np.float32]) -> None:
        """Write the vectors ``[nodes, d]`` that tell how relevant a node is to a focal point."""
        self._matrix(layout.relevance_path(space, node_type), node_type, vectors)

    def write_focal(self, space: str, node_type: str, vectors: NDArray[np.float32]) -> None:
        """Write what a node adds to a focal vector ``[nodes, hidden]``."""
        self._matrix(layout.focal_path(space, node_type), node_type, vectors)

    @property
    def features_folder(self) -> Path:
        """Where to write the fitted transforms."""
        return self._folder("features")

    def index_folder(self, space: str, node_type: str) -> Path:
        """Where to write the index files of one type."""
        return self._folder(layout.index_path(space, node_type))

    @property
    def neural_folder(self) -> Path:
        """Where to write the neural scorer's files."""
        return self._folder(layout.NEURAL)

    def commit(self) -> str:
        """Check, sync and name the bundle; returns its version. Raises BundleIncomplete and publishes nothing."""
        self._check()
        files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        del self.manifest.files[:]
        for path in files:
            sync_file(path)
            name = path.relative_to(self.folder).as_posix()
            self.manifest.files.add(path=name, bytes=path.stat().st_size, sha256=sha256(path))
        manifest = self.folder / layout.MANIFEST
        with naming(manifest):
            manifest.write_text(json_format.MessageToJson(self.manifest, indent=1), encoding="utf-8")
        seal = self.folder / layout.SEAL
        with naming(seal):
            seal.write_text(f"{sha256(manifest)}  {layout.MANIFEST}\n", encoding="ascii")
        sync_file(manifest)
        sync_file(seal)
        for folder in (*(path for path in self.folder.rglob("*") if path.is_dir()), self.folder):
            sync_folder(folder)
        final = self.root / self.manifest.version
        self.folder.rename(final)
        self._committed = True
        self.folder = final
        sync_folder(self.root)
        return self.manifest.version

    def _check(self) -> None:
        """What the manifest promises must be there."""
        missing = [path for path in self._promised() if not (self.folder / path).is_file()]
        if missing:
            raise BundleIncomplete(f"the bundle lacks {', '.join(missing[:3])}" + (" ..." if missing[3:] else ""))
        known = {Triple(each.source, each.name, each.target).key for each in self.manifest.relations}
        for path in (self.folder / "neighbours").glob("*.indptr.npy"):
            key = path.name.removesuffix(".indptr.npy").removesuffix("__rev")
            if key not in known:
                raise BundleIncomplete(f"neighbours {key}: manifest.relations does not name the relation")
        for space in self.manifest.spaces:
            for name in space.node_types:
                shape = np.load(self.folder / layout.vectors_path(space.name, name), mmap_mode="r").shape
                if shape[1] != space.dimension:
                    raise BundleIncomplete(
                        f"space {space.name}: vectors of {name} have length {shape[1]}, not {space.dimension}"
                    )
        for path in sorted((self.folder / "spaces").rglob("*.npy")):
            self._check_rows(path, path.stem)
        if self.manifest.HasField("neural"):
            self._check_rows(self.folder / layout.NEURAL / "entities.npy", self.manifest.neural.events.target)

    def _check_rows(self, path: Path, node_type: str) -> None:
        """Row i is node i: a row more or less would give each node another's."""
        rows, count = len(np.load(path, mmap_mode="r")), self._count(node_type)
        if rows != count:
            name = path.relative_to(self.folder).as_posix()
            raise BundleIncomplete(f"{name}: {rows} rows for {count} nodes of {node_type}")

    def _promised(self) -> Iterator[str]:
        for space in self.manifest.spaces:
            for name in space.node_types:
                yield layout.vectors_path(space.name, name)
            yield from (encoder.onnx for encoder in space.encoders)
            yield from (encoder.onnx for encoder in space.focal.encoders)
            for name in space.focal.node_types:
                yield from (layout.relevance_path(space.name, name), layout.focal_path(space.name, name))
        if self.manifest.HasField("neural"):
            yield from (
                self.manifest.neural.scorer,
                f"{layout.NEURAL}/entities.npy",
                f"{layout.NEURAL}/graph/graph.json",
            )

    def _count(self, node_type: str) -> int:
        for described in self.manifest.node_types:
            if described.name == node_type:
                return int(described.count)
        raise BundleIncomplete(f"write the nodes of {node_type} before what refers to them")

    def _matrix(self, name: str, node_type: str, matrix: NDArray[np.float32]) -> None:
        count = self._count(node_type)
        if matrix.ndim != 2 or len(matrix) != count:
            raise BundleIncomplete(f"{name}: shape {matrix.shape} for {count} nodes of {node_type}")
        if not np.isfinite(matrix).all():
            raise BundleIncomplete(f"{name}: a value is NaN or infinite")
        self._save(name, matrix, np.float32)

    def _save(self, name: str, array: NDArray[np.generic], dtype: type[np.generic]) -> None:
        save_array(self._path(name), np.ascontiguousarray(array, dtype=dtype))

    def _path(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder
