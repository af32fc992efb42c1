"""What does it take to write a bundle's results back into the graph: 20 neighbours with reasons, and a vector each?

    python -m benchmarks.write_back --entities 100000 --store embedded neo4j

A bundle of entities in clusters (128 dimensions), with 12 concepts each of three relations, co-engagement lists and a
log of engagements; a store that holds the entities. Measured are searching and explaining alone, which no store takes
part in; writing it back into a store that has none; and the next publishing, which replaces it. The reason of one pair
at a time (``Explainer.between``, what a server does for a request) is the peer of the reasons of many at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks._results import Results
from cli.steps import Pipeline
from cli.write_back import BundleRows, publishing_of
from graph_store.progress import NoProgress
from graph_store.project import Project, load_project
from graph_store.schema import RelationRole, Triple
from graph_store.settings import PublishSettings
from graph_store.stores import open_store
from kithkin.v1 import model_service_pb2
from model_store.bundle import Bundle
from model_store.bundle_store import BundleStore
from model_store.csr import Csr, EdgeType
from server.index.publish import build_indexes
from server.model.catalogue import Catalogue, NodeKey
from server.model.neighbourhoods import Neighbourhoods
from server.reasons.explanation import Explainer
from server.reasons.strongest import StrongestEvidence

DIMENSION = 128
KEPT = 50
ENGAGEMENTS = 30
"""Of an entity, on average."""
RELATIONS = {"HAS_TAG": ("Tag", 8), "HAS_GENRE": ("Genre", 2), "MADE_BY": ("Person", 2)}
"""Concept type, and edges of an entity."""
ALONE = 2_000
"""Pairs whose reason is asked one by one."""
TOML = """
name = "write-back"
[nodes.Item]
role = "entity"
[nodes.Item.properties]
title = { type = "string" }
[nodes.Tag]
role = "concept"
[nodes.Genre]
role = "concept"
[nodes.Person]
role = "concept"
[nodes.User]
role = "user"
""" + "".join(
    f'[[relations]]\ntriple = ["Item", "{name}", "{concept}"]\nrole = "semantic"\n'
    for name, (concept, _) in RELATIONS.items()
)


def publish(project: Project, entities: int) -> Bundle:
    """A bundle that no training made."""
    rng = np.random.default_rng(1)
    clusters = max(entities // 200, 1)
    cluster = rng.integers(0, clusters, entities)
    centres = rng.normal(size=(clusters, DIMENSION)).astype(np.float32)
    vectors = centres[cluster] + 0.5 * rng.normal(size=(entities, DIMENSION)).astype(np.float32)
    store = BundleStore(project.work / "models")
    sizes = {"Item": entities, "Tag": entities // 20, "Genre": 30, "Person": entities // 10, "User": entities // 2}
    with store.writer(project.name) as writer:
        for node_type in project.schema.node_types:
            ids = [f"{node_type.name}{number:08}" for number in range(sizes[node_type.name])]
            columns = {"id": ids, "name": ids, "popularity": np.zeros(len(ids)), "title": ids}
            names = [name for name in columns if name != "title" or node_type.properties]
            writer.write_nodes(node_type, pa.table({name: columns[name] for name in names}))
        for name, (concept, each) in RELATIONS.items():
            # Entities of a cluster draw from the same few concepts, most of the time.
            count = sizes[concept]
            near = (cluster[:, None] * 7 + rng.integers(0, 2 * each, (entities, each))) % count
            drawn = np.where(rng.random((entities, each)) < 0.7, near, rng.integers(0, count, (entities, each)))
            source = np.repeat(np.arange(entities), each)
            pairs = np.unique(source * count + drawn.ravel())
            _both_ways(writer, Triple("Item", name, concept), RelationRole.SEMANTIC, pairs, entities, count)
        users = sizes["User"]
        events = entities * ENGAGEMENTS
        entity = rng.integers(0, entities, events)
        pairs = np.unique((cluster[entity] * 13 + rng.integers(0, 60, events)) % users * entities + entity)
        _both_ways(writer, Triple("User", "PLAYED", "Item"), RelationRole.ENGAGEMENT, pairs, users, entities)
        _co_engagement(writer, cluster, rng)
        space = writer.manifest.spaces.add(name="similar", metric=model_service_pb2.COSINE, dimension=DIMENSION)
        space.node_types.append("Item")
        writer.write_vectors("similar", "Item", vectors)
        build_indexes(writer, PublishSettings(recall_target=0.9))
        version = writer.commit()
    store.activate(version)
    return store.open(version)


def _both_ways(writer: Any, triple: Triple, role: RelationRole, pairs: Any, rows: int, columns: int) -> None:
    source, target = np.divmod(pairs, columns)
    _relation(writer, triple, role, len(pairs))
    for end, (here, there, count) in enumerate(((source, target, rows), (target, source, columns))):
        if role is RelationRole.ENGAGEMENT and end:
            continue
        order = np.argsort(here, kind="stable")
        indptr = np.searchsorted(here[order], np.arange(count + 1)).astype(np.int64)
        csr = Csr(indptr=indptr, indices=there[order].astype(np.int32))
        writer.write_neighbours(EdgeType(triple, bool(end)), csr if role is RelationRole.ENGAGEMENT else _cut(csr))


def _cut(csr: Csr) -> Csr:
    kept = np.concatenate([np.arange(size)[:KEPT] for size in np.diff(csr.indptr)] or [np.empty(0, np.int64)])
    sizes = np.minimum(np.diff(csr.indptr), KEPT)
    places = np.repeat(csr.indptr[:-1], sizes) + kept
    return Csr(indptr=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), indices=csr.indices[places])


def _co_engagement(writer: Any, cluster: Any, rng: Any) -> None:
    """Ten of its cluster for each entity, by weight."""
    triple = Triple("Item", "CO_PLAYED", "Item")
    order = np.argsort(cluster, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    targets = order[(place[:, None] + np.arange(1, 11)) % len(order)]
    weight = np.sort(rng.random(targets.shape).astype(np.float32), axis=1)[:, ::-1]
    _relation(writer, triple, RelationRole.CO_ENGAGEMENT, targets.size)
    indptr = np.arange(len(order) + 1, dtype=np.int64) * targets.shape[1]
    lists = Csr(indptr=indptr, indices=targets.ravel().astype(np.int32), weight=weight.ravel())
    writer.write_neighbours(EdgeType(triple, False), lists)


def _relation(writer: Any, triple: Triple, role: RelationRole, edges: int) -> None:
    writer.manifest.relations.add(
        source=triple.source, name=triple.name, target=triple.target, role=role.value, edges=edges
    )


def measure_alone(project: Project, bundle: Bundle) -> dict[str, Any]:
    """Searching, and reasons of all pairs beside those of some pairs one by one."""
    pipeline = Pipeline(project, NoProgress())
    publishing = publishing_of(bundle, project)
    rows = BundleRows(bundle, publishing, pipeline)
    started = time.perf_counter()
    reasons = StrongestEvidence(bundle, rows._catalogue, rows._neighbourhoods, "Item")
    searching, explaining, edges, told = 0.0, 0.0, 0, 0
    batches = rows._nearest["Item"].batches(publishing.neighbours, 2_000)
    kept = None
    while True:
        at = time.perf_counter()
        batch = next(batches, None)
        searching += time.perf_counter() - at
        if batch is None:
            break
        at = time.perf_counter()
        texts = reasons.texts(batch.rows, batch.neighbours)
        explaining += time.perf_counter() - at
        edges += len(texts)
        told += sum(text is not None for text in texts)
        kept = batch if kept is None else kept
    assert kept is not None
    explainer = Explainer(bundle, Catalogue(bundle), Neighbourhoods(bundle))
    explainer.neighbourhoods.prepare()
    pairs = [
        (NodeKey("Item", row), NodeKey("Item", other))
        for row, others in zip(kept.rows.tolist(), kept.neighbours.tolist(), strict=True)
        for other in others
    ][:ALONE]
    at = time.perf_counter()
    for source, target in pairs:
        explainer.between(source, target, 1)
    alone = (time.perf_counter() - at) / len(pairs)
    return {
        "index": rows._nearest["Item"]._index.kind,
        "seconds": round(time.perf_counter() - started, 1),
        "search_seconds": round(searching, 1),
        "reason_seconds": round(explaining, 1),
        "edges": edges,
        "with_reason": told,
        "microseconds_a_reason": round(1e6 * explaining / edges, 2),
        "microseconds_a_reason_one_by_one": round(1e6 * alone, 1),
        "times_faster": round(alone * edges / explaining, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }


def measure(project: Project, bundle: Bundle) -> dict[str, Any]:
    """Write back twice: where there is nothing, and as another bundle would replace it."""
    pipeline = Pipeline(project, NoProgress())
    publishing = publishing_of(bundle, project)
    figures: dict[str, Any] = {}
    with open_store(project) as store:
        store.apply_schema()
        column = bundle.nodes("Item").column(0).cast(pa.string())
        store.upsert_nodes("Item", pa.table({"id": column, "title": column}))
        for name, version in (("first", bundle.version), ("next", "the next one")):
            started, processor = time.perf_counter(), time.process_time()
            written = store.write_back(replace(publishing, bundle=version), BundleRows(bundle, publishing, pipeline))
            figures[f"{name}_seconds"] = round(time.perf_counter() - started, 1)
            figures[f"{name}_processor_seconds"] = round(time.process_time() - processor, 1)
        figures |= {"edges": sum(written.edges.values()), "vectors": sum(written.vectors.values())}
    figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return figures


@contextlib.contextmanager
def _store(kind: str, folder: Path) -> Iterator[dict[str, Any]]:
    if kind == "embedded":
        yield {}
        return
    from tests.neo4j.server import neo4j_server

    with neo4j_server(folder / "neo4j", heap_mib=1024) as (uri, password):
        os.environ["KITHKIN_STORE_PASSWORD"] = password
        yield {"store.uri": uri}


def main() -> None:
    """Measure what is not measured yet, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, nargs="+", default=[100_000])
    parser.add_argument("--store", nargs="*", default=["embedded", "neo4j"])
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    results = Results("write_back", again=options.again)
    for entities in options.entities:
        with tempfile.TemporaryDirectory() as folder:
            _measure_all(results, Path(folder), entities, options.store)


def _measure_all(results: Results, folder: Path, entities: int, kinds: list[str]) -> None:
    (folder / "kithkin.toml").write_text(TOML)
    made: list[Bundle] = []

    def bundle() -> Bundle:
        if not made:
            made.append(publish(load_project(folder), entities))
        return made[0]

    def measured(kind: str) -> dict[str, Any]:
        if kind == "none":
            return measure_alone(load_project(folder), bundle())
        with _store(kind, folder) as overrides:
            return measure(load_project(folder, overrides=overrides), bundle())

    for kind in ("none", *kinds):
        settings = {"entities": entities, "neighbours": 20, "dimension": DIMENSION, "store": kind}
        print(entities, kind, results.row(settings, partial(measured, kind)), flush=True)


if __name__ == "__main__":
    main()
