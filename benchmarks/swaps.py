"""Does changing the bundle cost a call, an answer of two bundles, or memory that is not given back?

    python -m benchmarks.swaps --entities 20000 --dimension 64 --swaps 50 --workers 1
    python -m benchmarks.swaps --workers 2

Two bundles take turns, by ActivateBundle and RollbackBundle, while four callers send batches of ten searches, on a new
connection every twenty calls. An answer is mixed where its parts come from two bundles. It is late where its call
began after ActivateBundle (or RollbackBundle) had answered, and the bundle before answers all the same. Memory is the
resident memory of all workers, after each change.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc

from benchmarks._catalogue import catalogue_bundle, item_ids
from benchmarks._results import Results
from graph_store.settings import ServingSettings
from kithkin.v1 import model_service_pb2, model_service_pb2_grpc, retrieval_service_pb2_grpc, types_pb2
from kithkin.v1 import retrieval_service_pb2 as pb
from model_store.bundle_store import BundleStore
from tests.served import Server

_BATCH = 10
_CALLS_A_CONNECTION = 20


class _Caller(threading.Thread):
    """Batches one after the other until told to stop, each judged against what was to serve when it began."""

    def __init__(self, port: int, nodes: Sequence[types_pb2.NodeRef], promise: list[str | None]) -> None:
        super().__init__(daemon=True)
        self._port, self._promise = port, promise
        self._request = pb.BatchSearchSimilarEntitiesRequest(
            requests=[pb.SearchSimilarEntitiesRequest(entity=node, top_k=5) for node in nodes]
        )
        self.calls = self.mixed = self.late = 0
        self.errors: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            # Channels of one process share connections unless told otherwise.
            options = (("grpc.use_local_subchannel_pool", 1),)
            with grpc.insecure_channel(f"127.0.0.1:{self._port}", options=options) as channel:
                stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
                for _ in range(_CALLS_A_CONNECTION):
                    self._call(stub)

    def _call(self, stub: Any) -> None:
        promised, at = self._promise[-1], len(self._promise)
        self.calls += 1
        try:
            answer = stub.BatchSearchSimilarEntities(self._request, timeout=30)
        except grpc.RpcError as error:
            self.errors.append(str(error))
            return
        versions = {item.response.info.bundle_version for item in answer.items} | {answer.info.bundle_version}
        self.mixed += len(versions) > 1
        # A change that began meanwhile lets the call see either.
        self.late += promised is not None and len(self._promise) == at and versions != {promised}


def measure(
    store: BundleStore,
    versions: tuple[str, str],
    nodes: Sequence[types_pb2.NodeRef],
    *,
    workers: int,
    swaps: int,
    callers: int = 4,
    folder: Path,
) -> dict[str, Any]:
    """What ``swaps`` changes between two bundles cost, under load by ``callers`` threads; figures as JSON values."""
    store.activate(versions[1])
    store.activate(versions[0])
    with Server(store.root, ServingSettings(port=0, workers=workers), folder / "port") as server:
        channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        model = model_service_pb2_grpc.ModelServiceStub(channel)
        while model.GetStatus(model_service_pb2.GetStatusRequest(), timeout=10).workers_serving < workers:
            time.sleep(0.1)
        promise: list[str | None] = [versions[0]]
        load = [_Caller(server.port, nodes, promise) for _ in range(callers)]
        for caller in load:
            caller.start()
        private = [_memory(server, "Private")]
        resident = [_memory(server, "Rss")]
        seconds = []
        for number in range(swaps):
            promise.append(None)
            began = time.perf_counter()
            if number % 2 == 0:
                request = model_service_pb2.ActivateBundleRequest(version=versions[1])
                answer = model.ActivateBundle(request, timeout=120)
            else:
                answer = model.RollbackBundle(model_service_pb2.RollbackBundleRequest(), timeout=120)
            seconds.append(time.perf_counter() - began)
            assert answer.version == versions[(number + 1) % 2]
            promise.append(answer.version)
            # Some calls between two changes.
            calls = sum(caller.calls for caller in load)
            while sum(caller.calls for caller in load) < calls + 5 * callers:
                time.sleep(0.01)
            resident.append(_memory(server, "Rss"))
            private.append(_memory(server, "Private"))
        for caller in load:
            caller.stopping.set()
        for caller in load:
            caller.join()
        channel.close()
    half = swaps // 2
    return {
        "calls": sum(caller.calls for caller in load),
        "searches": sum(caller.calls for caller in load) * _BATCH,
        "errors": sorted(itertools.chain.from_iterable(caller.errors for caller in load)),
        "mixed_answers": sum(caller.mixed for caller in load),
        "late_answers": sum(caller.late for caller in load),
        "change_s_median": round(sorted(seconds)[len(seconds) // 2], 3),
        "change_s_max": round(max(seconds), 3),
        "resident_mib_before": resident[0],
        "resident_mib_after": resident[-1],
        "private_mib_before": private[0],
        "private_mib_after": private[-1],
        "resident_mib": resident,
        "growth_of_last_half": round(resident[-1] / resident[half] - 1, 4),
    }


def _memory(server: Server, kind: str) -> float:
    """Mebibytes of all workers, by ``smaps_rollup``."""
    pid = server.process.pid
    total = 0
    for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            trial = b'"trial": true' in Path(f"/proc/{worker}/cmdline").read_bytes()
            lines = Path(f"/proc/{worker}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            # A trial that has just ended.
            continue
        if not trial:
            total += sum(int(line.split()[1]) for line in lines if line.startswith(kind))
    return round(total / 1024, 1)


def _without_a_bundle(folder: Path) -> float:
    """Private memory of one worker that waits for its first bundle."""
    folder.mkdir()
    with Server(folder / "models", ServingSettings(port=0), folder / "port") as server:
        return _memory(server, "Private")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure again what is kept")
    given = parser.parse_args()
    settings = {name: getattr(given, name) for name in ("entities", "dimension", "swaps", "workers")}

    def run() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            store = BundleStore(folder / "models")
            first = catalogue_bundle(store.root, entities=given.entities, dimension=given.dimension).version
            second = catalogue_bundle(folder / "second", entities=given.entities, dimension=given.dimension).version
            (folder / "second" / second).rename(store.root / second)
            nodes = [types_pb2.NodeRef(type="Item", id=each) for each in item_ids(given.entities)[:_BATCH]]
            empty = _without_a_bundle(folder / "empty")
            figures = measure(store, (first, second), nodes, workers=given.workers, swaps=given.swaps, folder=folder)
            return {"private_mib_without_a_bundle": empty, **figures}

    figures = Results("swaps", again=given.again).row(settings, run)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
