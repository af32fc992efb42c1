"""How many calls a second does SearchSimilarEntities answer, beside a handler that does nothing and one by hand?

    python -m benchmarks.throughput --entities 100000 --dimension 64 --seconds 5 --rounds 5

One worker with everything on (log, metrics, API keys) answers the 20 most similar of one entity, each with id, score,
name and two properties, driven by h2load with a fixed payload. ``ready``: a handler without interceptors, in the same
process, that returns a ready message. ``scann``: one that parses, asks ScaNN and builds the answer by hand. The three
take turns, round by round, and the ratios are of medians. Then: p50 and p99 at half of that load, two workers, and
batches of a hundred. Server and h2load share the machine's cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from benchmarks._bare_server import KEY, settings
from benchmarks._catalogue import catalogue_bundle, item_ids
from benchmarks._h2load import drive
from benchmarks._results import Results
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import retrieval_service_pb2_grpc, types_pb2
from server.processes.worker_process import ENVIRONMENT

SERVICE = "/kithkin.v1.RetrievalService"
BEARER = {"authorization": f"Bearer {KEY}"}
BATCH = 100


def request(entities: int, number: int = 0) -> pb.SearchSimilarEntitiesRequest:
    """The call that is repeated."""
    place = (entities // 2 + 37 * number) % entities
    return pb.SearchSimilarEntitiesRequest(
        entity=types_pb2.NodeRef(type="Item", id=item_ids(entities)[place]), top_k=20
    )


@contextlib.contextmanager
def one_process(folder: Path) -> Iterator[tuple[int, int]]:
    """Kithkin's port and the bare handlers' port, of one process."""
    command = [sys.executable, "-m", "benchmarks._bare_server", str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT | os.environ
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ports = json.loads(process.stdout.readline())
            yield ports["port"], ports["bare_port"]
        finally:
            process.stdin.close()


@contextlib.contextmanager
def workers(folder: Path, count: int) -> Iterator[int]:
    """The port of a supervisor with so many workers."""
    with tempfile.TemporaryDirectory() as scratch:
        port_file = Path(scratch) / "port"
        chosen = settings(Path(scratch)).model_copy(update={"workers": count})
        code = (
            "import sys; from pathlib import Path; from graph_store.settings import ServingSettings;"
            "from server.processes.supervisor import serve;"
            "serve(Path(sys.argv[1]), ServingSettings.model_validate_json(sys.argv[2]), port_file=Path(sys.argv[3]))"
        )
        command = [sys.executable, "-c", code, str(folder), chosen.model_dump_json(), str(port_file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            try:
                # It tells that it serves before the file is there.
                while not port_file.exists() and process.poll() is None:
                    time.sleep(0.05)
                yield int(port_file.read_text())
            finally:
                process.terminate()


def check(port: int, entities: int, *, bare_port: int | None = None) -> None:
    """What is measured must be answers: twenty results, the same from both, with what was asked for."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)  # type: ignore[no-untyped-call]
        found = stub.SearchSimilarEntities(request(entities), metadata=tuple(BEARER.items()))
    if len(found.results) != 20 or len(found.results[0].node.properties) != 2:
        raise RuntimeError(f"the server answers {len(found.results)} results, not 20 with two properties")
    if bare_port is None:
        return
    with grpc.insecure_channel(f"127.0.0.1:{bare_port}") as channel:
        call = channel.unary_unary(
            "/bare/Scann",
            request_serializer=pb.SearchSimilarEntitiesRequest.SerializeToString,
            response_deserializer=pb.SearchSimilarEntitiesResponse.FromString,
        )
        other = call(request(entities))
    ours, theirs = ({each.node.ref.id for each in answer.results} for answer in (found, other))
    if len(theirs) != 20 or len(ours & theirs) < 15:
        raise RuntimeError(f"the handler by hand answers {len(theirs)} results, {len(ours & theirs)} of them ours")


def single(folder: Path, entities: int, seconds: int, rounds: int) -> dict[str, Any]:
    """Calls a second of the three, and the time of a call at half of the load."""
    message = request(entities).SerializeToString()
    with one_process(folder) as (port, bare_port):
        check(port, entities, bare_port=bare_port)
        loads: dict[str, list[float]] = {"ready": [], "scann": [], "kithkin": []}
        for _ in range(rounds):
            for name, found in (
                ("ready", drive(bare_port, "/bare/Ready", message, seconds=seconds)),
                ("kithkin", drive(port, f"{SERVICE}/SearchSimilarEntities", message, seconds=seconds, metadata=BEARER)),
                ("scann", drive(bare_port, "/bare/Scann", message, seconds=seconds)),
            ):
                if found.failed:
                    raise RuntimeError(f"{name}: {found.failed} calls failed")
                loads[name].append(found.per_second)
        medians = {name: statistics.median(each) for name, each in loads.items()}
        method = f"{SERVICE}/SearchSimilarEntities"
        half = drive(
            port, method, message, seconds=2 * seconds, per_second=medians["kithkin"] / 2, metadata=BEARER, streams=32
        )
        many = pb.BatchSearchSimilarEntitiesRequest(requests=[request(entities, number) for number in range(BATCH)])
        batches = [
            drive(
                port,
                f"{SERVICE}/BatchSearchSimilarEntities",
                many.SerializeToString(),
                seconds=seconds,
                metadata=BEARER,
                streams=1,
                connections=4,
            ).per_second
            for _ in range(rounds)
        ]
        check(port, entities)
    entities_per_second = statistics.median(batches) * BATCH
    return {
        **{f"{name}_per_second": round(each) for name, each in medians.items()},
        "of_ready": round(statistics.median(o / r for o, r in zip(loads["kithkin"], loads["ready"], strict=True)), 3),
        "of_scann": round(statistics.median(o / r for o, r in zip(loads["kithkin"], loads["scann"], strict=True)), 3),
        "half_load_p50_ms": round(half.p50_ms, 3),
        "half_load_p99_ms": round(half.p99_ms, 3),
        "batched_entities_per_second": round(entities_per_second),
        "batched_of_single": round(entities_per_second / medians["kithkin"], 2),
    }


def several(folder: Path, entities: int, seconds: int, rounds: int, count: int) -> dict[str, Any]:
    """Calls a second of so many workers."""
    message = request(entities).SerializeToString()
    with workers(folder, count) as port:
        check(port, entities)
        found = [
            drive(port, f"{SERVICE}/SearchSimilarEntities", message, seconds=seconds, connections=8, metadata=BEARER)
            for _ in range(rounds)
        ]
        check(port, entities)
    return {"per_second": round(statistics.median(each.per_second for each in found))}


def main() -> None:
    """Measure what is asked and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--again", action="store_true", help="measure rows that are there already, too")
    chosen = parser.parse_args()
    results = Results("throughput", again=chosen.again)
    kept = (
        Path(os.environ.get("KITHKIN_WORK", tempfile.gettempdir())) / f"throughput-{chosen.entities}-{chosen.dimension}"
    )
    kept.mkdir(parents=True, exist_ok=True)
    catalogue_bundle(kept, entities=chosen.entities, dimension=chosen.dimension)
    size = {"entities": chosen.entities, "dimension": chosen.dimension}
    one = results.row({**size, "workers": 1}, lambda: single(kept, chosen.entities, chosen.seconds, chosen.rounds))
    two = results.row({**size, "workers": 2}, lambda: several(kept, chosen.entities, chosen.seconds, chosen.rounds, 2))
    for name, value in one.items():
        print(f"{name:32} {value:>12}")
    print(f"{'two workers, per second':32} {two['per_second']:>12}")


if __name__ == "__main__":
    main()
