"""How long after an upsert does the server answer with it, while a thousand changes a second come for ten minutes?

    python -m benchmarks.stream --store embedded neo4j --seconds 600

A catalogue of 100,000 entities with ten tags each and a bundle of it (hardly trained: only times are asked for),
``kithkin serve`` with ``serving.follow = "0.5s"``. A process of its own upserts batches of 100 through
``graph_store.graph`` at a fixed pace (``benchmarks/_following.py``). Of each batch two changes are samples: an entity's
year, asked for by GetEntity, and a new entity's link, asked for by ListEntities with a filter; a new entity must then
also answer SearchSimilarEntities. A lag is the time from the return of upsert to the first answer with the sample; they
are asked for in their order, every 20 ms. Beside that: what calls failed, how often indexes were compacted, the most
memory of the processes and their seconds of processor, and the machine's load.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks._following import BATCH
from benchmarks._results import Results
from benchmarks.fresh import PROGRAM, served, store_of, write_catalogue
from kithkin.v1 import model_service_pb2, model_service_pb2_grpc, retrieval_service_pb2_grpc, types_pb2
from kithkin.v1 import retrieval_service_pb2 as pb

_AFTER_S = 120.0
"""How long samples are waited for once the writer has ended."""


class Probe:
    """Asks for samples one after the other."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        self.failed: list[str] = []
        self.calls = 0

    def sees(self, sample: dict[str, Any]) -> bool:
        """Whether an answer has it; what fails otherwise than by NOT_FOUND is noted."""
        self.calls += 1
        ref = types_pb2.NodeRef(type="Item", id=sample["id"])
        try:
            if "year" in sample:
                node = self._stub.GetEntity(pb.GetEntityRequest(ref=ref), timeout=10).nodes[0]
                return bool(node.properties["year"].int_value == sample["year"])
            request = pb.ListEntitiesRequest(type="Item", name_contains=sample["id"])
            request.filter.linked.relation = "HAS_TAG"
            request.filter.linked.nodes.add(id=sample["tag"])
            if not self._stub.ListEntities(request, timeout=10).nodes:
                return False
            self._stub.SearchSimilarEntities(pb.SearchSimilarEntitiesRequest(entity=ref, top_k=10), timeout=10)
            return True
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:  # type: ignore[attr-defined]
                self.failed.append(str(error))
            return False


def measure(folder: Path, seconds: float, rate: float, entities: int) -> dict[str, Any]:
    """Lags in seconds, as the client sees them."""
    with served(folder) as address, grpc.insecure_channel(address) as channel:
        status = model_service_pb2_grpc.ModelServiceStub(channel)
        while not status.GetStatus(model_service_pb2.GetStatusRequest(), timeout=20).delta.HasField("lag"):
            time.sleep(0.2)
        command = [sys.executable, "-m", "benchmarks._following", str(folder), str(seconds), str(rate)]
        command += [str(entities), str(max(entities // 20, 100))]
        written: queue.Queue[dict[str, Any] | None] = queue.Queue()
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer,
            _processes(folder.parent) as processes,
        ):
            reading = threading.Thread(target=_read, args=(writer, written), daemon=True)
            reading.start()
            probe = Probe(channel)
            batches, lags, unseen = _lags(probe, written)
        delta = status.GetStatus(model_service_pb2.GetStatusRequest(), timeout=20).delta
    log = (folder / "serve.log").read_text()
    took = np.array([each["took"] for each in batches])
    found = np.array([lag for _, lag in lags])
    thirds = [part for part in np.array_split(found, 3) if len(part)]
    return {
        "changes": len(batches) * BATCH,
        "changes_a_second": round(len(batches) * BATCH / (batches[-1]["at"] - batches[0]["at"] + took[0])),
        "upsert_median_ms": round(float(np.median(took)) * 1000),
        "upsert_p99_ms": round(float(np.quantile(took, 0.99)) * 1000),
        "writer_late_most_s": round(max(each["late"] for each in batches), 1),
        "samples": len(found),
        "unseen": unseen,
        "lag_median_s": round(float(np.median(found)), 2),
        "lag_p99_s": round(float(np.quantile(found, 0.99)), 2),
        "lag_most_s": round(float(found.max()), 2),
        "lag_p99_by_thirds_s": [round(float(np.quantile(part, 0.99)), 2) for part in thirds],
        "failed_calls": len(probe.failed),
        "calls": probe.calls,
        "delta": {"fresh": delta.fresh, "changed": delta.changed, "deleted": delta.deleted},
        "compactions": log.count("index compacted"),
        "models": log.count("delta taken up"),
        "processes": processes,
        "load_average": round(os.getloadavg()[0], 1),
    }


def _lags(
    probe: Probe, written: queue.Queue[dict[str, Any] | None]
) -> tuple[list[dict[str, Any]], list[tuple[float, float]], int]:
    """The batches, when each sample was written and its lag, and how many were never seen."""
    batches: list[dict[str, Any]] = []
    lags: list[tuple[float, float]] = []
    while (batch := written.get()) is not None:
        batches.append(batch)
        for number, sample in enumerate(batch["samples"]):
            end = time.time() + _AFTER_S
            while not probe.sees(sample):
                if time.time() > end:
                    waiting = written.qsize()
                    return batches, lags, 2 * waiting + len(batch["samples"]) - number
                time.sleep(0.02)
            lags.append((batch["at"], time.time() - batch["at"]))
    return batches, lags, 0


def _read(writer: subprocess.Popen[str], written: queue.Queue[dict[str, Any] | None]) -> None:
    assert writer.stdout is not None
    for line in writer.stdout:
        written.put(json.loads(line))
    written.put(None)


_PROCESSES = {
    "worker": b"server.processes.worker",
    "follower": b"server.fresh.follower",
    "writer": b"benchmarks._following",
    "neo4j": b"CommunityEntryPoint",
}


@contextlib.contextmanager
def _processes(folder: Path) -> Iterator[dict[str, dict[str, float]]]:
    """By process of this folder: the most resident memory (MiB), and seconds of processor while the block lasted."""
    told: dict[str, dict[str, float]] = {}
    before: dict[str, float] = {}
    ended = threading.Event()

    def look() -> None:
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                words = (process / "cmdline").read_bytes() if process.name.isdigit() else b""
                name = next((each for each, module in _PROCESSES.items() if module in words), None)
                if name is None or str(folder).encode() not in words:
                    continue
                mib = int((process / "status").read_text().split("VmRSS:")[1].split()[0]) // 1024
                ticks = (process / "stat").read_text().rsplit(")", 1)[1].split()[11:13]
                seconds = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
                # The writer begins with the block.
                before.setdefault(name, 0.0 if name == "writer" else seconds)
                most = max(told.get(name, {}).get("most_mib", 0), mib)
                told[name] = {"most_mib": most, "processor_s": round(seconds - before[name], 1)}

    def watch() -> None:
        while not ended.wait(1.0):
            look()

    look()
    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield told
    finally:
        ended.set()
        watching.join()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--store", nargs="+", choices=("embedded", "neo4j"), default=["embedded", "neo4j"])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--rate", type=float, default=1000, help="changes a second")
    parser.add_argument("--built", type=Path, help="a folder with the catalogue and its bundle, embedded; is copied")
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    options = parser.parse_args()
    results = Results("stream", again=options.again)
    for kind in options.store:

        def stream(kind: str = kind) -> dict[str, Any]:
            with tempfile.TemporaryDirectory() as name, store_of(kind, Path(name)):
                folder = Path(name) / "catalogue"
                if options.built is None:
                    folder.mkdir()
                    write_catalogue(folder, options.entities)
                    subprocess.run([str(PROGRAM), "build"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
                else:
                    shutil.copytree(options.built, folder)
                    if kind == "neo4j":
                        subprocess.run([str(PROGRAM), "ingest"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
                return measure(folder, options.seconds, options.rate, options.entities)

        settings = {
            "store": kind,
            "entities": options.entities,
            "edges": options.entities * 10,
            "rate": options.rate,
            "seconds": options.seconds,
        }
        print(settings, results.row(settings, stream), flush=True)


if __name__ == "__main__":
    main()
