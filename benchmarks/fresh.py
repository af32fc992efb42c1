"""How long after a Cypher statement is a new entity found, and a deleted one gone?

    python -m benchmarks.fresh --entities 10000 100000 500000 --store embedded neo4j --rounds 5
    python -m benchmarks.fresh --only cosine

A catalogue with ten tags an entity, a bundle of it (hardly trained: only times are asked for), ``kithkin serve`` with
``serving.follow = "0.5s"``. Another process creates an entity with the tags and the year of one that is there, so that
it must be among the most similar of that one, and later deletes it. Measured from the moment the statements are
committed to the first answer of SearchSimilarEntities that has it, or has it no more; asked every 20 ms.

``cosine``: how near the vectors of 300 new entities are to those of a full offline pass of the same trained model over
the new graph, in which their neighbours' layers move too. The catalogue has 5,000 entities in clusters, the model is
trained for 500 steps; new entities take six tags of one old entity and two of another.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks._results import Results
from graph_store.changes import Comparison
from graph_store.graph import open_graph
from graph_store.project import load_project
from graph_store.schema import Triple
from graph_store.stores import open_store
from kithkin.v1 import model_service_pb2, model_service_pb2_grpc, retrieval_service_pb2_grpc, types_pb2
from kithkin.v1 import retrieval_service_pb2 as pb
from model_store.bundle_store import BundleStore

TAGS_EACH = 10
HAS_TAG = Triple("Item", "HAS_TAG", "Tag")
TOML = """
name = "fresh"
[nodes.Item]
role = "entity"
[nodes.Item.properties]
year = { type = "int", feature = "number", show = true }
[nodes.Tag]
role = "concept"
[[relations]]
triple = ["Item", "HAS_TAG", "Tag"]
role = "semantic"
[[sources]]
file = "items.csv"
node = "Item"
id = "id"
properties = { year = "year" }
[[sources]]
file = "items.csv"
relation = ["Item", "HAS_TAG", "Tag"]
source = "id"
target = { column = "tags", split = "|" }
create_target = true
[training.similar]
steps = 2
hidden = 16
heads = 2
dimension = 64
layers = 1
[publish]
recall_target = 0.9
"""
MOST_S = 300.0
COSINE_ENTITIES, COSINE_FRESH = 5_000, 300
PROGRAM = Path(sys.executable).with_name("kithkin")


def write_catalogue(folder: Path, entities: int, *, clusters: int = 0, toml: str = TOML) -> None:
    """Items with tags drawn by a power law from a twentieth as many; with ``clusters``, seven of ten from one's own."""
    rng = np.random.default_rng(1)
    tags = max(entities // 20, 100)
    share = np.cumsum(1.0 / np.arange(1, tags + 1) ** 0.7)
    with (folder / "items.csv").open("w") as file:
        file.write("id,year,tags\n")
        for number in range(entities):
            # Ten that differ are among so many, but for very few.
            drawn = np.searchsorted(share, rng.random(2 * TAGS_EACH) * share[-1])
            if clusters:
                own = np.arange(number % clusters, tags, clusters)
                drawn = np.concatenate([rng.choice(own, 7), drawn])
            listed = "|".join(f"tag{each}" for each in list(dict.fromkeys(drawn.tolist()))[:TAGS_EACH])
            file.write(f"item{number:07d},{1950 + number % 75},{listed}\n")
    (folder / "kithkin.toml").write_text(toml)


def cosines(folder: Path, entities: int, fresh: int) -> dict[str, Any]:
    """Cosine of each new entity's vector as served with that of a full pass over the new graph."""
    from server.fresh.nodes import FreshNodes
    from training.export import export_snapshot
    from training.graph import Graph
    from training.inference import embed
    from training.model import TrainedModel

    rng = np.random.default_rng(2)
    project = load_project(folder)
    # Spread among the ids: of equal weight the first by id are read, and those that come last would move nobody.
    new = [f"item{number:07d}n" for number in sorted(rng.choice(entities, fresh, replace=False).tolist())]
    with open_graph(project) as graph:
        tags: dict[str, list[str]] = {}
        for batch in graph.store.scan_edges(HAS_TAG):
            for source, target in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
                tags.setdefault(source, []).append(target)
        records: list[dict[str, Any]] = []
        for each in new:
            one, other = (f"item{number:07d}" for number in rng.choice(entities, 2, replace=False).tolist())
            records.append({"type": "Item", "id": each, "properties": {"year": int(rng.integers(1950, 2025))}})
            drawn = [*rng.choice(tags[one], 6, replace=False), *rng.choice(tags[other], 2, replace=False)]
            records += [{"relation": "HAS_TAG", "source": each, "target": str(tag)} for tag in dict.fromkeys(drawn)]
        graph.upsert(records)
    bundles = BundleStore(project.work / "models")
    bundle = bundles.open(bundles.active() or "")
    trained = TrainedModel.load(project.work / "checkpoints")
    with open_store(project, read_only=True) as store:
        nodes = FreshNodes(bundle, project.schema, project.settings.publish.max_neighbours)
        served_as = {
            row["id"]: row["vector/similar"]
            for record in nodes.records(store, {"Item": new})
            for row in record.nodes.select(["id", "vector/similar"]).to_pylist()
        }
        after = Graph(export_snapshot(store, project.schema, project.work / "now"))
    whole = embed(trained.spaces["similar"], trained.transforms, after, node_types=("Item",)).vectors["Item"]
    rows = {node_id: row for row, node_id in enumerate(after.properties("Item").column("id").to_pylist())}
    pairs = [(np.array(served_as[each]), whole[rows[each]]) for each in new]
    found = [float(one @ other / np.linalg.norm(one) / np.linalg.norm(other)) for one, other in pairs]
    return {
        "cosine_median": round(float(np.median(found)), 5),
        "cosine_1st_percentile": round(float(np.quantile(found, 0.01)), 5),
        "cosine_least": round(min(found), 5),
    }


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server that follows."""
    port = folder / "port"
    command = [str(PROGRAM), "serve", "--port", "0", "--port-file", str(port), "--set", 'serving.follow="0.5s"']
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            while not port.exists():
                if process.poll() is not None:
                    raise RuntimeError((folder / "serve.log").read_text())
                time.sleep(0.2)
            yield f"127.0.0.1:{port.read_text().strip()}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def run_cypher(folder: Path, statements: list[str]) -> float:
    """In another process, which has ended when this returns: when the last one was committed, seconds since 1970."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom graph_store.project import load_project\n"
        "from graph_store.stores import open_store\n"
        "with open_store(load_project(Path(sys.argv[1]))) as store:\n"
        "    for statement in sys.argv[2:]:\n        store.query(statement, write=True)\n"
        "    import time\n    print(time.time())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(folder), *statements], capture_output=True, text=True, check=True
    )
    return float(ended.stdout)


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of creating and deleting, as the client sees them."""
    project = load_project(folder)
    with open_store(project, read_only=True) as store:
        comparison = Comparison(store, project.schema)
        started = time.perf_counter()
        comparison.watermark()
        hashed = time.perf_counter() - started
    created: list[float] = []
    deleted: list[float] = []
    with served(folder) as address, grpc.insecure_channel(address) as channel:
        stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        status = model_service_pb2_grpc.ModelServiceStub(channel)

        def is_answered(old: str, new: str) -> bool:
            request = pb.SearchSimilarEntitiesRequest(entity=types_pb2.NodeRef(type="Item", id=old), top_k=50)
            return new in [each.node.ref.id for each in stub.SearchSimilarEntities(request, timeout=20).results]

        def is_gone(old: str, new: str) -> bool:
            return not is_answered(old, new)

        def until(since: float, check: Callable[[], bool]) -> float:
            end = time.time() + MOST_S
            while not check():
                if time.time() > end:
                    raise TimeoutError(f"not within {MOST_S:g} s\n{(folder / 'serve.log').read_text()[-3000:]}")
                time.sleep(0.02)
            return time.time() - since

        seen = lambda: status.GetStatus(model_service_pb2.GetStatusRequest(), timeout=20)  # noqa: E731
        following = until(time.time(), lambda: seen().delta.HasField("lag"))
        for number in range(rounds):
            old, new = f"item{100 + number:07d}", f"new{number}"
            committed = run_cypher(
                folder,
                [
                    f"MATCH (o:Item {{id: '{old}'}}) CREATE (n:Item {{id: '{new}', year: o.year}})",
                    f"MATCH (o:Item {{id: '{old}'}})-[:HAS_TAG]->(t:Tag), (n:Item {{id: '{new}'}}) "
                    "CREATE (n)-[:HAS_TAG]->(t)",
                ],
            )
            created.append(until(committed, partial(is_answered, old, new)))
            committed = run_cypher(folder, [f"MATCH (n:Item {{id: '{new}'}}) DETACH DELETE n"])
            deleted.append(until(committed, partial(is_gone, old, new)))
    return {
        "created_median_s": round(statistics.median(created), 2),
        "created_most_s": round(max(created), 2),
        "deleted_median_s": round(statistics.median(deleted), 2),
        "deleted_most_s": round(max(deleted), 2),
        "whole_graph_hashed_s": round(hashed, 2),
        "following_after_s": round(following, 1),
        "load_average": round(os.getloadavg()[0], 1),
    }


@contextlib.contextmanager
def store_of(kind: str, folder: Path) -> Iterator[None]:
    """The environment in which the project's store is of this kind."""
    if kind == "embedded":
        yield
        return
    from tests.neo4j.server import neo4j_server

    with neo4j_server(folder / "neo4j", heap_mib=1024) as (uri, password):
        os.environ |= {"KITHKIN_STORE__URI": uri, "KITHKIN_STORE_PASSWORD": password}
        try:
            yield
        finally:
            del os.environ["KITHKIN_STORE__URI"], os.environ["KITHKIN_STORE_PASSWORD"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--store", nargs="+", choices=("embedded", "neo4j"), default=["embedded"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("lag", "cosine"))
    parser.add_argument("--built", type=Path, help="a folder with a catalogue of this size and its bundle; is copied")
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    options = parser.parse_args()
    results = Results("fresh", again=options.again)
    if options.only in (None, "cosine"):

        def cosine() -> dict[str, Any]:
            with tempfile.TemporaryDirectory() as name:
                toml = TOML.replace("steps = 2\n", "steps = 500\n").replace("layers = 1\n", "layers = 2\n")
                write_catalogue(Path(name), COSINE_ENTITIES, clusters=10, toml=toml)
                subprocess.run([str(PROGRAM), "build"], cwd=name, check=True, stdout=subprocess.DEVNULL)
                return cosines(Path(name), COSINE_ENTITIES, COSINE_FRESH)

        settings: dict[str, Any] = {"cosine_to": "full pass", "entities": COSINE_ENTITIES, "fresh": COSINE_FRESH}
        print(settings, results.row(settings, cosine), flush=True)
    for kind in options.store if options.only in (None, "lag") else ():
        for entities in options.entities:

            def fresh(kind: str = kind, entities: int = entities) -> dict[str, Any]:
                with tempfile.TemporaryDirectory() as name, store_of(kind, Path(name)):
                    if options.built is None:
                        folder = Path(name)
                        write_catalogue(folder, entities)
                        subprocess.run([str(PROGRAM), "build"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
                    else:
                        folder = Path(shutil.copytree(options.built, Path(name) / "catalogue"))
                        if kind == "neo4j":
                            subprocess.run([str(PROGRAM), "ingest"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
                    return measure(folder, options.rounds)

            settings = {"store": kind, "entities": entities, "edges": entities * TAGS_EACH, "rounds": options.rounds}
            print(settings, results.row(settings, fresh), flush=True)


if __name__ == "__main__":
    main()
