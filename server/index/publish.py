"""Builds the indexes of a bundle in the making, tuned against the exact twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from graph_store.progress import NoProgress, Progress
from graph_store.settings import PublishSettings
from kithkin.v1 import bundle_pb2, model_service_pb2
from model_store import layout
from model_store.bundle import Bundle
from model_store.writer import BundleWriter
from server.index.exact_index import ExactIndex
from server.index.scann_index import ScannIndex, ScannParameters, scann_version
from server.index.tuning import sample_queries, truth, tune
from server.index.vector_index import VectorIndex, Vectors, unit_rows

FEW_VECTORS = 10_000
"""Below this many vectors exact search is as fast as approximate."""
_QUERIES = 1000


def build_indexes(writer: BundleWriter, settings: PublishSettings, *, progress: Progress | None = None) -> None:
    """Build an index for every entity and user type of every space, and write it and what it reached into the bundle.

    Call it after the vectors are written and ``manifest.spaces`` is filled, before ``commit``. A type with few vectors,
    or where ScaNN cannot run or does not reach ``settings.recall_target``, gets exact search, with the reason.
    """
    progress = progress or NoProgress()
    roles = {node_type.name: node_type.role for node_type in writer.manifest.node_types}
    todo = [
        (space, node_type)
        for space in writer.manifest.spaces
        for node_type in space.node_types
        if roles[node_type] in ("entity", "user")
    ]
    with progress.task("index", total=len(todo), unit="indexes") as task:
        for space in writer.manifest.spaces:
            del space.indexes[:]
        for space, node_type in todo:
            space.indexes.append(_build(writer, space, node_type, roles, settings.recall_target))
            task.advance(recall=round(space.indexes[-1].recall_at_10, 3))


def _build(
    writer: BundleWriter,
    space: bundle_pb2.SpaceManifest,
    node_type: str,
    roles: dict[str, str],
    target: float,
) -> bundle_pb2.IndexManifest:
    vectors = _load(writer.folder, space, node_type)
    count = int(np.count_nonzero(vectors.any(axis=1)))
    exact = bundle_pb2.IndexManifest(node_type=node_type, kind="exact", recall_at_10=1.0, recall_target=target)
    version = scann_version()
    if count < FEW_VECTORS:
        exact.exact_reason = f"{count} vectors, fewer than {FEW_VECTORS}: exact search is as fast"
        return exact
    if version is None:
        exact.exact_reason = "ScaNN is not installed (it has no wheel for this machine)"
        return exact

    asking = _asking_types(space, node_type, roles)
    queries = sample_queries(
        vectors if asking is None else _load(writer.folder, space, asking), _QUERIES, in_index=asking is None
    )
    right = truth(ExactIndex(vectors), queries)
    leaves = max(10, round(count**0.5))
    index = ScannIndex.build(
        vectors,
        ScannParameters(leaves=leaves, leaves_to_search=leaves, reorder=100),
        spherical=space.metric == model_service_pb2.COSINE,
    )
    tuned = tune(index, queries, right, target)
    if tuned.parameters is None:
        exact.exact_reason = f"ScaNN reaches recall {tuned.recall:.3f}, below the target {target:g}"
        return exact
    index.save(writer.index_folder(space.name, node_type))
    return bundle_pb2.IndexManifest(
        node_type=node_type,
        kind="scann",
        scann_version=version,
        leaves=leaves,
        leaves_to_search=tuned.parameters.leaves_to_search,
        reorder=tuned.parameters.reorder,
        recall_at_10=tuned.recall,
        recall_target=target,
    )


def open_index(bundle: Bundle, space: str, index: bundle_pb2.IndexManifest) -> VectorIndex:
    """The index of one type as a bundle promises it.

    ScaNN's files are read only by the version that wrote them; another builds anew with the parameters tuned then.
    Where ScaNN is not installed, exact search answers.
    """
    described = bundle.spaces[space]
    vectors = bundle.vectors(space, index.node_type)
    if described.metric == model_service_pb2.COSINE:
        vectors = unit_rows(vectors)
    version = scann_version()
    if index.kind != "scann" or version is None:
        return ExactIndex(vectors)
    parameters = ScannParameters(leaves=index.leaves, leaves_to_search=index.leaves_to_search, reorder=index.reorder)
    if version == index.scann_version:
        return ScannIndex.load(bundle.index_folder(space, index.node_type), vectors, parameters)
    return ScannIndex.build(vectors, parameters, spherical=described.metric == model_service_pb2.COSINE)


def _asking_types(space: bundle_pb2.SpaceManifest, node_type: str, roles: dict[str, str]) -> str | None:
    """The type whose vectors are the queries: users ask for entities and entities for users, where the space has both.

    None: the searched nodes themselves.
    """
    other = "entity" if roles[node_type] == "user" else "user"
    return next((name for name in space.node_types if roles[name] == other), None)


def _load(folder: Path, space: bundle_pb2.SpaceManifest, node_type: str) -> Vectors:
    vectors: Vectors = np.load(folder / layout.vectors_path(space.name, node_type), mmap_mode="r")
    return unit_rows(vectors) if space.metric == model_service_pb2.COSINE else vectors
