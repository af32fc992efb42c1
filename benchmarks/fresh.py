"""How long after a Cypher statement is a new entity found, and a deleted one gone?

    python -m benchmarks.fresh --entities 10000 100000 --store embedded neo4j --rounds 5

A catalogue with ten tags an entity, a bundle of it (hardly trained: only times are asked for), ``kithkin serve`` with
``serving.follow = "0.5s"``. Another process creates an entity with the tags and the year of one that is there, so that
it must be among the most similar of that one, and later deletes it. Measured from the moment the statements are
committed to the first answer of SearchSimilarEntities that has it, or has it no more; asked every 20 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import os
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
from graph_store.project import load_project
from graph_store.stores import open_store
from kithkin.v1 import model_service_pb2, model_service_pb2_grpc, retrieval_service_pb2_grpc, types_pb2
from kithkin.v1 import retrieval_service_pb2 as pb

TAGS_EACH = 10
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
PROGRAM = Path(sys.executable).with_name("kithkin")


def write_catalogue(folder: Path, entities: int) -> None:
    """Items with tags drawn by a power law from a twentieth as many."""
    rng = np.random.default_rng(1)
    tags = max(entities // 20, 100)
    share = 1.0 / np.arange(1, tags + 1) ** 0.7
    with (folder / "items.csv").open("w") as file:
        file.write("id,year,tags\n")
        for number in range(entities):
            drawn = rng.choice(tags, TAGS_EACH, replace=False, p=share / share.sum())
            file.write(f"item{number:07d},{1950 + number % 75},{'|'.join(f'tag{each}' for each in drawn)}\n")
    (folder / "kithkin.toml").write_text(TOML)


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
            end = time.time() + 300
            while not check():
                if time.time() > end:
                    raise TimeoutError(f"not within 300 s\n{(folder / 'serve.log').read_text()[-3000:]}")
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
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    options = parser.parse_args()
    results = Results("fresh", again=options.again)
    for kind in options.store:
        for entities in options.entities:

            def fresh(kind: str = kind, entities: int = entities) -> dict[str, Any]:
                with tempfile.TemporaryDirectory() as name, store_of(kind, Path(name)):
                    write_catalogue(Path(name), entities)
                    subprocess.run([str(PROGRAM), "build"], cwd=name, check=True, stdout=subprocess.DEVNULL)
                    return measure(Path(name), options.rounds)

            settings = {"store": kind, "entities": entities, "edges": entities * TAGS_EACH, "rounds": options.rounds}
            print(settings, results.row(settings, fresh), flush=True)


if __name__ == "__main__":
    main()
