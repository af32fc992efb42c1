"""The graph as Parquet files for Spark: nodes with what their features read, and all links."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model_store.csr import Csr, EdgeType
from model_store.features import FeatureTransforms, LinkBlock
from training.graph import Graph

LINKS = pa.schema(
    [
        pa.field("kind", pa.int32()),
        pa.field("type", pa.int32()),
        pa.field("node", pa.int64()),
        pa.field("neighbour_type", pa.int32()),
        pa.field("neighbour", pa.int64()),
        pa.field("weight", pa.float32()),
        pa.field("time", pa.int64()),
    ]
)
"""``kind`` is the number of the edge type, ``type`` and ``neighbour_type`` those of the node types; weight and time are
null where the relation has none."""
_EDGES_AT_ONCE = 1 << 20
_NODES_AT_ONCE = 1 << 16


def write_nodes(graph: Graph, transforms: FeatureTransforms, node_type: str, path: Path) -> None:
    """Columns ``node`` and the properties that features are made of."""
    columns = [block.name for block in transforms.blocks[node_type] if not isinstance(block, LinkBlock)]
    table = graph.properties(node_type).select(columns or ["id"])
    schema = pa.schema([pa.field("node", pa.int64()), *table.schema])
    with _whole(path) as unfinished, pq.ParquetWriter(unfinished, schema) as writer:
        for first in range(0, table.num_rows, _NODES_AT_ONCE):
            part = table.slice(first, _NODES_AT_ONCE)
            node = pa.array(np.arange(first, first + part.num_rows))
            writer.write_table(pa.Table.from_arrays([node, *part.columns], schema=schema))


def write_links(
    graph: Graph, adjacency: dict[EdgeType, Csr], path: Path, *, edges_at_once: int = _EDGES_AT_ONCE
) -> None:
    """All edges of an adjacency, ``LINKS``; edge types are numbered in its order."""
    number_of = {node_type.name: number for number, node_type in enumerate(graph.schema.node_types)}
    with _whole(path) as unfinished, pq.ParquetWriter(unfinished, LINKS) as writer:
        for kind, (edge_type, csr) in enumerate(adjacency.items()):
            ends = number_of[edge_type.node_type], number_of[edge_type.neighbour_type]
            for first in range(0, csr.num_edges, edges_at_once):
                last = min(first + edges_at_once, csr.num_edges)
                position = np.arange(first, last)
                node = np.searchsorted(csr.indptr, position, side="right") - 1
                writer.write_table(
                    pa.Table.from_arrays(
                        [
                            _same(kind, last - first),
                            _same(ends[0], last - first),
                            pa.array(node.astype(np.int64)),
                            _same(ends[1], last - first),
                            pa.array(np.asarray(csr.indices[first:last]).astype(np.int64)),
                            _values(csr.weight, first, last, pa.float32()),
                            _values(csr.time, first, last, pa.int64()),
                        ],
                        schema=LINKS,
                    )
                )


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Where to write; renamed in the end, so that a file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    yield unfinished
    unfinished.replace(path)


def _same(value: int, count: int) -> pa.Array:
    return pa.array(np.full(count, value, np.int32))


def _values(values: NDArray[np.generic] | None, first: int, last: int, kind: pa.DataType) -> pa.Array:
    return pa.nulls(last - first, kind) if values is None else pa.array(np.asarray(values[first:last]), kind)
