"""Vectors of a bundle as Parquet, for another team's model to join by id."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model_store.bundle import Bundle
from model_store.durable import sync_file, sync_folder

_ROWS_AT_ONCE = 65_536
_COMPRESSION = "zstd"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedVectors:
    """One file that was written."""

    file: Path
    node_type: str
    rows: int
    dimension: int


def vector_schema(dimension: int) -> pa.Schema:
    """``bundle_version``, ``space``, ``node_type``, ``id``, and ``vector``, a fixed-size list of float32."""
    return pa.schema(
        [
            pa.field("bundle_version", pa.string(), nullable=False),
            pa.field("space", pa.string(), nullable=False),
            pa.field("node_type", pa.string(), nullable=False),
            pa.field("id", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.field("item", pa.float32(), nullable=False), dimension), nullable=False),
        ]
    )


def described_types(bundle: Bundle, space: str) -> tuple[str, ...]:
    """Users' and entities' types that have vectors in a space. Raises KeyError for a space that is not there."""
    chosen = bundle.spaces[space].node_types
    return tuple(each for each in chosen if bundle.node_types[each].role in ("user", "entity"))


def export_vectors(
    bundle: Bundle, space: str, folder: Path, *, node_types: Sequence[str] | None = None
) -> list[ExportedVectors]:
    """Write ``<folder>/<version>/<space>/<Type>.parquet`` for users and entities, or for ``node_types``.

    The files appear together: written beside, brought to disk, renamed; what a killed export left is replaced. Rows are
    in the order of the bundle; a vector of zeros says that nothing is known of the node. Memory: a chunk of rows.
    Raises KeyError for a space, or a type with no vectors in it, that is not there.
    """
    types = described_types(bundle, space) if node_types is None else tuple(node_types)
    if unknown := [each for each in types if each not in bundle.spaces[space].node_types]:
        raise KeyError(unknown[0])
    final = folder / bundle.version / space
    beside = final.with_name(f".{space}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    written = []
    for node_type in types:
        rows, dimension = _write(bundle, space, node_type, beside / f"{node_type}.parquet")
        written.append(
            ExportedVectors(file=final / f"{node_type}.parquet", node_type=node_type, rows=rows, dimension=dimension)
        )
    sync_folder(beside)
    # A bundle never changes: an earlier export of the same types is the same.
    shutil.rmtree(final, ignore_errors=True)
    beside.rename(final)
    sync_folder(final.parent)
    return written


def _write(bundle: Bundle, space: str, node_type: str, file: Path) -> tuple[int, int]:
    ids = bundle.nodes(node_type).column(0)
    vectors = bundle.vectors(space, node_type)
    rows, dimension = vectors.shape
    schema = vector_schema(dimension)
    with pq.ParquetWriter(file, schema, compression=_COMPRESSION) as writer:
        for first in range(0, max(rows, 1), _ROWS_AT_ONCE):
            chunk = np.asarray(vectors[first : first + _ROWS_AT_ONCE], dtype=np.float32)
            constants = [pa.array([value] * len(chunk), pa.string()) for value in (bundle.version, space, node_type)]
            own = ids.slice(first, len(chunk))
            own = own.combine_chunks() if isinstance(own, pa.ChunkedArray) else own
            values = pa.FixedSizeListArray.from_arrays(pa.array(chunk.ravel()), type=schema.field("vector").type)
            writer.write_table(pa.Table.from_arrays([*constants, own, values], schema=schema))
    sync_file(file)
    return int(rows), int(dimension)
