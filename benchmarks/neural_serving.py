"""What does a neural search cost through the server, and how much of brute force under the same score does it find?

    python -m benchmarks.neural_serving --project FOLDER        a built project with [training.neural], such as gowalla
    python -m benchmarks.neural_serving --generated 1000000     generated entities, in --work

``kithkin serve`` answers in a process of its own; one caller asks one user after the other, top 100 with what the user
engaged with, as brute force here knows no exclusions. overlap@100 is against all scores of the bundle's ONNX file for
some of the users. Rows with a deadline say what is found when the caller gives so much time: the search ends before it
with the best so far. On a busy machine the times say little; ``server_processor_ms`` is the worker's processor time a
request. The generated entities have vectors in clusters, which the scorer starts from; users' events are
of three clusters; the scorer has ``--steps`` steps, half of them its inner-product twin's, which is few: what is
measured there is the search, not how good the score is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks._results import Results
from graph_store.project import parse_project
from graph_store.schema import GraphSchema, Triple
from kithkin.v1 import model_service_pb2, model_service_pb2_grpc, retrieval_service_pb2_grpc, types_pb2
from kithkin.v1 import retrieval_service_pb2 as pb
from model_store.bundle import Bundle
from model_store.bundle_store import BundleStore
from model_store.csr import Csr, EdgeType
from model_store.neural_files import NeuralFiles, open_neural
from model_store.onnx_scorer import OnnxScorer
from training.neural_metric.publish import all_scores, write_neural
from training.neural_metric.train import prepare_neural, train_neural_metric

AT = 100
DEADLINES_MS = (None, 50, 20)
VIEWED = Triple("User", "VIEWED", "Item")
CLUSTER = 500
"""Generated entities in a cluster, on average."""
PAIRS = 2_000_000
"""Pairs of user and entity scored by brute force, about; ten users at least."""


class Generated:
    """Users of events in three clusters of entities each."""

    def __init__(self, entities: int, users: int = 20_000, events: int = 30) -> None:
        document: dict[str, Any] = {
            "name": "generated",
            "nodes": {"Item": {"role": "entity"}, "User": {"role": "user"}},
            "relations": [{"triple": [*VIEWED], "role": "engagement"}],
        }
        self.schema: GraphSchema = parse_project(document, file=Path("kithkin.toml"), environment={}).schema
        self.content_hash = f"generated {entities} {users} {events}"
        self._counts = {"Item": entities, "User": users}
        rng = np.random.default_rng(0)
        clusters = max(entities // CLUSTER, 3)
        cluster = rng.integers(clusters, size=entities)
        centres = rng.standard_normal((clusters, 32)).astype(np.float32)
        self.vectors = centres[cluster] + 0.7 * rng.standard_normal((entities, 32), dtype=np.float32)
        order = np.argsort(cluster, kind="stable")
        starts = np.searchsorted(cluster[order], np.arange(clusters + 1))
        liked = rng.integers(clusters, size=(users, 3))[
            np.arange(users)[:, None], rng.integers(3, size=(users, events))
        ]
        # The first of a cluster are engaged with most.
        place = (np.diff(starts)[liked] * rng.random((users, events)) ** 2).astype(np.int64)
        indices = order[np.minimum(starts[liked] + place, entities - 1)].astype(np.int32)
        self._csr = Csr(indptr=np.arange(users + 1) * events, indices=indices.ravel())

    def num_nodes(self, node_type: str) -> int:
        return self._counts[node_type]

    def csr(self, edge_type: EdgeType) -> Csr:
        """Events of all users, in their order."""
        assert edge_type == EdgeType(VIEWED)
        return self._csr


def generated_project(folder: Path, entities: int, steps: int, audit_users: int) -> None:
    """Train and publish in ``folder``, once."""
    store = BundleStore(folder / ".kithkin" / "models")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kithkin.toml").write_text(
        'name = "generated"\n[nodes.Item]\nrole = "entity"\n[nodes.User]\nrole = "user"\n'
        '[[relations]]\ntriple = ["User", "VIEWED", "Item"]\nrole = "engagement"\n',
        encoding="utf-8",
    )
    if store.active() is not None:
        return
    graph = Generated(entities)
    document = {
        "nodes": {"Item": {"role": "entity"}, "User": {"role": "user"}},
        "relations": [{"triple": [*VIEWED], "role": "engagement"}],
        "training": {
            "preset": "nann",
            "neural": {"steps": steps, "twin_steps": steps // 2, "audit_users": audit_users},
        },
    }
    project = parse_project(document, file=folder / "kithkin.toml", environment={})
    trained = folder / ".kithkin" / "checkpoints" / "neural"
    arguments = prepare_neural(project, graph.schema)
    print("train:", train_neural_metric(graph, folder=trained, vectors=graph.vectors, **arguments).metrics, flush=True)
    with store.writer("generated") as writer:
        for name in ("Item", "User"):
            count = graph.num_nodes(name)
            ids = pa.array([f"{name[0].lower()}{number:08d}" for number in range(count)])
            nodes = pa.table({"id": ids, "name": ids, "popularity": np.zeros(count)})
            writer.write_nodes(graph.schema.node_type(name), nodes)
        csr = graph.csr(EdgeType(VIEWED))
        writer.manifest.relations.add(
            source=VIEWED[0], name=VIEWED[1], target=VIEWED[2], role="engagement", edges=csr.num_edges
        )
        writer.write_neighbours(EdgeType(VIEWED), csr)
        write_neural(writer, project, graph, trained)
        version = writer.commit()
    store.activate(version)


@contextmanager
def serving(project: Path) -> Iterator[grpc.Channel]:
    """A channel to ``kithkin serve`` of a project, which has answered."""
    with tempfile.TemporaryDirectory() as scratch:
        port_file = Path(scratch) / "port"
        command = "from cli.main import main; main()"
        arguments = ["serve", "--project", str(project), "--port", "0", "--port-file", str(port_file)]
        with subprocess.Popen(
            [sys.executable, "-c", command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                while not port_file.is_file():
                    if process.poll() is not None:
                        raise RuntimeError(f"the server ended with exit code {process.returncode}")
                    time.sleep(0.2)
                with grpc.insecure_channel(f"127.0.0.1:{port_file.read_text().strip()}") as channel:
                    yield channel
            finally:
                process.terminate()


def brute_force(files: NeuralFiles, events: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """The best 100 of each user under the bundle's score."""
    scorer = OnnxScorer(files.scorer, files.entities.shape[1])
    best = []
    for rows in events:
        scores = all_scores(scorer, files.entities, rows)
        best.append(np.lexsort((np.arange(len(scores)), -scores))[:AT])
    return best


def events_of(bundle: Bundle, files: NeuralFiles, user: int) -> NDArray[np.int64]:
    """What the server reads of a user, oldest first."""
    lists = bundle.neighbours(files.events)
    return np.asarray(lists.indices[lists.row(user)])[: files.max_events][::-1].astype(np.int64)


def measure(project: Path, users: int) -> dict[str, Any]:
    """Ask the server of a project for ``users`` users under every deadline."""
    store = BundleStore(project / ".kithkin" / "models")
    bundle = store.open(verify=False)
    files = open_neural(bundle)
    if files is None:
        raise SystemExit(f"{project}: the active bundle has no neural scorer")
    lists = bundle.neighbours(files.events)
    able = np.flatnonzero(np.diff(np.asarray(lists.indptr)) >= 2)
    asked = np.random.default_rng(1).permutation(able)[:users]
    compared = [int(user) for user in asked[: int(np.clip(PAIRS // len(files.entities), 10, users))]]
    kept = project / ".kithkin" / f"exact-{bundle.version}-{users}.npy"
    if not kept.exists():
        # Kept, so that the requests can be measured again by themselves.
        np.save(kept, np.stack(brute_force(files, [events_of(bundle, files, user) for user in compared])))
    exact = list(np.load(kept))
    ids, entities = bundle.ids(files.events.node_type), files.events.neighbour_type
    rows = []
    with serving(project) as channel:
        stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        requests = [
            pb.RetrieveEntitiesForUserRequest(
                user=types_pb2.NodeRef(type=files.events.node_type, id=ids[int(user)]),
                target_type=entities,
                top_k=AT,
                include_engaged=True,
                score=types_pb2.NEURAL,
            )
            for user in asked
        ]
        for request in requests:  # the nodes' cache fills, memory is mapped
            stub.RetrieveEntitiesForUser(request, timeout=60)
        status = model_service_pb2_grpc.ModelServiceStub(channel).GetStatus(model_service_pb2.GetStatusRequest())
        for deadline in DEADLINES_MS:
            before = processor_ms(status.worker_pid)
            row = asked_all(stub, requests, deadline, bundle, entities, exact)
            row["server_processor_ms"] = (processor_ms(status.worker_pid) - before) / len(requests)
            rows.append(row)
    neural = bundle.manifest.neural
    return {
        "entities": len(files.entities),
        "beam": neural.beam,
        "width": neural.width,
        "mean_degree": neural.mean_degree,
        "audited_overlap": neural.overlap,
        "audited_share": neural.share_evaluated,
        "compared_users": len(exact),
        "rows": rows,
    }


def processor_ms(process: int) -> float:
    """Milliseconds of processor time that a process has used so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def asked_all(
    stub: Any,
    requests: list[pb.RetrieveEntitiesForUserRequest],
    deadline_ms: int | None,
    bundle: Bundle,
    entities: str,
    exact: list[NDArray[np.int64]],
) -> dict[str, Any]:
    """One pass over the users."""
    waited, server, scored, calls, overlap = [], [], [], [], []
    truncated = late = 0
    for number, request in enumerate(requests):
        begun = time.perf_counter()
        try:
            response = stub.RetrieveEntitiesForUser(request, timeout=60 if deadline_ms is None else deadline_ms / 1000)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            late += 1
            if number < len(exact):
                overlap.append(0.0)
            continue
        waited.append((time.perf_counter() - begun) * 1000)
        server.append(response.info.server_time.ToTimedelta().total_seconds() * 1000)
        scored.append(response.info.candidates_scored)
        calls.append(response.info.network_calls)
        truncated += response.info.truncated
        if number < len(exact):
            answered = [bundle.row(entities, result.node.ref.id) or 0 for result in response.results]
            overlap.append(float(np.isin(exact[number], answered).mean()))
    return {
        "deadline_ms": deadline_ms,
        "users": len(requests),
        "overlap@100": float(np.mean(overlap)),
        "evaluations": float(np.mean(scored)) if scored else 0.0,
        "network_calls": float(np.mean(calls)) if calls else 0.0,
        "p50_ms": float(np.percentile(waited, 50)) if waited else None,
        "p99_ms": float(np.percentile(waited, 99)) if waited else None,
        "server_p50_ms": float(np.percentile(server, 50)) if server else None,
        "server_p99_ms": float(np.percentile(server, 99)) if server else None,
        "truncated": truncated,
        "late": late,
    }


def main() -> None:
    """Measure what is missing, print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, help="folder of a built project")
    parser.add_argument("--name", default="gowalla", help="how the project's row is called")
    parser.add_argument("--generated", type=int, help="so many generated entities")
    parser.add_argument("--steps", type=int, default=120, help="of the generated entities' scorer")
    parser.add_argument("--audit-users", type=int, default=10, help="by whom the generated bundle's beam is chosen")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "kithkin-neural-serving")
    parser.add_argument("--again", action="store_true", help="measure rows that are there, too")
    arguments = parser.parse_args()

    results = Results("neural_serving", again=arguments.again)
    todo: list[tuple[dict[str, Any], Path]] = []
    if arguments.project is not None:
        todo.append(({"data": arguments.name, "users": arguments.users}, arguments.project))
    if arguments.generated:
        folder = arguments.work / f"{arguments.generated}-{arguments.steps}"
        generated_project(folder, arguments.generated, arguments.steps, arguments.audit_users)
        settings = {"data": "generated", "entities": arguments.generated, "steps": arguments.steps}
        todo.append(({**settings, "users": arguments.users}, folder))
    for settings, folder in todo:
        figures = results.row(settings, lambda folder=folder: measure(folder, arguments.users))  # type: ignore[misc]
        print(f"{settings['data']}: {figures['entities']:,} entities, beam {figures['beam']}")
        for row in figures["rows"]:
            print("  " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
