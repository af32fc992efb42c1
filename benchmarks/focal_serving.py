"""What does a user's vector around a context cost, by region of interest and by all neighbours, at which AUC?

    python -m benchmarks.focal_serving --project FOLDER        a project built with the preset zoomer, such as movielens

Cost: ``RetrieveEntitiesForUser`` with the entity that the user touched last as context, top 20, through a server in
this process, one caller; and the encoding alone. Users are those with the most engagements and users drawn at random.
AUC: of a user's held-out engagements (the newest tenth, unseen in training) against as many entities drawn evenly from
those the user never touched; the user is told by up to 1,000 events before these, the last of them is the context.
Published states and features are those of the whole graph for both, so the AUCs compare with each other alone. Weights
are the same for both: those of a training by regions of interest. On a busy machine the times say little;
``processor_ms`` is the processor time of the encoding, by its parts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks._results import Results
from graph_store.settings import ServingSettings
from kithkin.v1 import bundle_pb2, retrieval_service_pb2_grpc, types_pb2
from kithkin.v1 import retrieval_service_pb2 as pb
from model_store.bundle import Bundle
from model_store.bundle_store import BundleStore
from model_store.csr import Csr, EdgeType
from server.model.catalogue import NodeKey
from server.model.description import Description
from server.model.encoder import Link
from server.model.focal import FocalSpace
from server.model.served_model import USER, ServedModel
from server.wire.local import serve_in_thread
from training.evaluation.metrics import bootstrap
from training.export import Snapshot
from training.graph import engagements
from training.holdout import split_newest

ALL = 1_000_000
_EVENTS = 1000


def with_fan_out(bundle: Bundle, fan_out: int) -> Bundle:
    """The bundle with regions of so many neighbours."""
    manifest = bundle_pb2.BundleManifest()
    manifest.CopyFrom(bundle.manifest)
    for space in manifest.spaces:
        if space.name == USER:
            space.focal.fan_out = fan_out
    return Bundle(bundle.folder, manifest)


def asked_of(csr: Csr, users: int) -> dict[str, NDArray[np.int64]]:
    """Rows of the users with the most engagements, and of users drawn at random."""
    degree = np.diff(np.asarray(csr.indptr))
    able = np.flatnonzero(degree)
    return {
        "most engaged": np.argsort(-degree, kind="stable")[:users],
        "at random": np.random.default_rng(1).permutation(able)[:users],
    }


def costs(bundle: Bundle, relation: EdgeType, users: int) -> dict[str, Any]:
    """Milliseconds a request, and of the encoding alone, by kind of user."""
    lists = bundle.neighbours(relation)
    model = ServedModel.load(bundle)
    focal = model.focal(relation.node_type, "context")
    found: dict[str, Any] = {}
    with (
        serve_in_thread(bundle, ServingSettings()) as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        for kind, rows in asked_of(lists, users).items():
            waited, encoded = [], []
            for again in (False, True):  # the first pass fills caches and maps memory
                for row in rows.tolist():
                    last = NodeKey(relation.neighbour_type, int(lists.indices[lists.indptr[row]]))
                    request = pb.RetrieveEntitiesForUserRequest(
                        user=types_pb2.NodeRef(type=relation.node_type, id=bundle.ids(relation.node_type)[row]),
                        target_type=relation.neighbour_type,
                        top_k=20,
                        context=types_pb2.Context(
                            entity=types_pb2.NodeRef(type=last.type, id=bundle.ids(last.type)[last.row])
                        ),
                    )
                    begun = time.perf_counter()
                    stub.RetrieveEntitiesForUser(request, timeout=60)
                    between = time.perf_counter()
                    focal.of_user(NodeKey(relation.node_type, row), [last])
                    if again:
                        waited.append((between - begun) * 1000)
                        encoded.append((time.perf_counter() - between) * 1000)
            found[kind] = {
                "users": len(rows),
                "mean_engagements": float(np.diff(np.asarray(lists.indptr))[rows].mean()),
                "request_p50_ms": float(np.percentile(waited, 50)),
                "request_p99_ms": float(np.percentile(waited, 99)),
                "encoding_p50_ms": float(np.percentile(encoded, 50)),
                "encoding_p99_ms": float(np.percentile(encoded, 99)),
            }
    return found


def parts(bundle: Bundle, relation: EdgeType, users: int) -> dict[str, float]:
    """Processor milliseconds an encoding of the users with the most engagements, as a whole and by its parts."""
    lists = bundle.neighbours(relation)
    focal = ServedModel.load(bundle).focal(relation.node_type, "context")
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            begun = time.thread_time()
            found = work(*given, **named)
            spent[name] = spent.get(name, 0.0) + (time.thread_time() - begun) * 1000
            return found

        return run

    focal._features.apply = timed("features", focal._features.apply)  # type: ignore[method-assign]
    focal._region = timed("region", focal._region)  # type: ignore[method-assign]
    focal._sessions = {
        name: SimpleNamespace(run=timed("network", session.run)) for name, session in focal._sessions.items()
    }
    encode = timed("whole", focal.of_user)
    rows = asked_of(lists, users)["most engaged"]
    for _ in range(3):  # the last pass counts
        spent.clear()
        for row in rows.tolist():
            last = NodeKey(relation.neighbour_type, int(lists.indices[lists.indptr[row]]))
            encode(NodeKey(relation.node_type, row), [last])
    return {name: total / len(rows) for name, total in spent.items()}


def area(bundle: Bundle, snapshot: Snapshot, relation: EdgeType, share: float) -> dict[str, Any]:
    """AUC of held-out engagements, a mean over users, with its interval."""
    split = split_newest(snapshot, share)
    kept, held = split.graph.csr(relation), split.held_out[relation]
    model = ServedModel.load(bundle)
    focal: FocalSpace = model.focal(relation.node_type, "context")
    entities = np.asarray(bundle.vectors(USER, relation.neighbour_type))
    properties = model.describer.empty(relation.node_type).properties
    rng = np.random.default_rng(2)
    areas = []
    for row in range(kept.num_rows):
        asked, part = np.asarray(held.indices[held.row(row)]), kept.row(row)
        if len(asked) < 3 or part.stop - part.start < 5:
            continue
        order = np.arange(part.start, part.stop)
        if kept.time is not None:
            order = order[np.argsort(-np.asarray(kept.time[part]), kind="stable")]
        order = order[:_EVENTS]
        weights = np.ones(len(order)) if kept.weight is None else np.asarray(kept.weight[order])
        links = [
            Link(row=int(entity), weight=float(weight))
            for entity, weight in zip(kept.indices[order], weights, strict=True)
        ]
        told = Description(node_type=relation.node_type, properties=properties, links={relation: links})
        vector = focal.of_description(told, [NodeKey(relation.neighbour_type, links[0].row)])
        never = np.setdiff1d(np.arange(len(entities)), np.concatenate([asked, kept.indices[part]]))
        others = rng.choice(never, len(asked), replace=False)
        right, wrong = entities[asked] @ vector, entities[others] @ vector
        compared = np.sign(right[:, None] - wrong[None, :])
        areas.append(float((compared.mean() + 1) / 2))
    interval = bootstrap(np.array(areas), 2000)
    return {"auc": interval.mean, "auc_low": interval.low, "auc_high": interval.high, "auc_users": len(areas)}


def main() -> None:
    """Measure what is missing, print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True, help="folder of a built project")
    parser.add_argument("--name", default="movielens", help="how the project's rows are called")
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--holdout", type=float, default=0.1, help="as in the training")
    parser.add_argument("--again", action="store_true", help="measure rows that are there, too")
    arguments = parser.parse_args()

    bundle = BundleStore(arguments.project / ".kithkin" / "models").open(verify=False)
    snapshot = Snapshot.open(arguments.project / ".kithkin" / "snapshots" / bundle.manifest.snapshot_hash)
    (triple,) = (each.triple for each in engagements(snapshot.schema))
    relation = EdgeType(triple)
    results = Results("focal_serving", again=arguments.again)
    own = bundle.spaces[USER].focal.fan_out
    for fan_out in (own, ALL):
        changed = with_fan_out(bundle, fan_out)

        def measure(changed: Bundle = changed) -> dict[str, Any]:
            return {
                **area(changed, snapshot, relation, arguments.holdout),
                "costs": costs(changed, relation, arguments.users),
                "processor_ms": parts(changed, relation, arguments.users),
            }

        neighbours = f"the {own} most relevant" if fan_out == own else "all"
        settings = {"data": arguments.name, "neighbours": neighbours, "users": arguments.users}
        figures = results.row(settings, measure)
        print(f"{neighbours}: AUC {figures['auc']:.4f} [{figures['auc_low']:.4f}, {figures['auc_high']:.4f}]")
        print("  processor ms: " + ", ".join(f"{name} {ms:.2f}" for name, ms in figures["processor_ms"].items()))
        for kind, each in figures["costs"].items():
            print(f"  {kind}: " + ", ".join(f"{name} {value:.2f}" for name, value in each.items()), flush=True)


if __name__ == "__main__":
    main()
