"""A catalogue of generated vectors as a published bundle: clustered, with two shown properties; the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph_store.schema import NodeType
from graph_store.settings import PublishSettings
from kithkin.v1 import model_service_pb2
from model_store.bundle import Bundle
from model_store.bundle_store import BundleStore

_ITEM = NodeType.model_validate(
    {
        "name": "Item",
        "role": "entity",
        "display": "title",
        "properties": {
            "title": {"type": "string"},
            "year": {"type": "int", "show": True, "filter": True},
            "maker": {"type": "string", "show": True, "filter": True},
        },
    }
)
_A_CLUSTER = 100
"""Vectors of one cluster, on average."""
_SPREAD = 0.5
"""Length of what is added to a cluster's centre, relative to the centre's."""
_BLOCK = 100_000


def clustered_vectors(count: int, dimension: int, *, seed: int = 1) -> NDArray[np.float32]:
    """Unit vectors ``[count, dimension]`` around random centres, a hundred to each on average."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(count // _A_CLUSTER, 1), dimension)).astype(np.float32)
    vectors = np.empty((count, dimension), np.float32)
    for start in range(0, count, _BLOCK):
        part = vectors[start : start + _BLOCK]
        part[:] = centres[rng.integers(0, len(centres), len(part))]
        part += _SPREAD * rng.normal(size=part.shape).astype(np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return vectors


def item_ids(count: int) -> list[str]:
    """Ids in the order of their bytes."""
    return [f"item{number:08d}" for number in range(count)]


def catalogue_bundle(folder: Path, *, entities: int, dimension: int) -> Bundle:
    """The newest bundle of ``folder``; published there first where there is none."""
    from server.index.publish import build_indexes

    store = BundleStore(folder)
    known = store.versions()
    if known:
        return store.open(known[-1])
    rng = np.random.default_rng(2)
    with store.writer("generated") as writer:
        writer.write_nodes(
            _ITEM,
            pa.table(
                {
                    "id": item_ids(entities),
                    "name": [f"The item of number {number}" for number in range(entities)],
                    "popularity": rng.integers(0, 1000, entities).astype(np.float64),
                    "year": rng.integers(1950, 2026, entities),
                    "maker": [f"maker {number}" for number in rng.integers(0, 500, entities)],
                }
            ),
        )
        writer.manifest.snapshot_hash = "generated"
        space = writer.manifest.spaces.add(name="similar", metric=model_service_pb2.COSINE, dimension=dimension)
        space.node_types.append("Item")
        writer.write_vectors("similar", "Item", clustered_vectors(entities, dimension))
        build_indexes(writer, PublishSettings())
        version = writer.commit()
    store.activate(version)
    return store.open(version)
