"""Does the server bear twice the calls it can answer, for ten minutes, and the loss of a worker meanwhile?

    python -m benchmarks.overload --minutes 10 --workers 1 2

``kithkin``'s supervisor serves a generated bundle of 100,000 entities. First a closed loop finds out how many calls
it answers in a second; then twice as many are sent at random moments, each with a deadline, and none is tried again.
The call is a batch of searches (``--batch``), so that the driver, on the same cores, takes little of them. With two
workers one is killed (SIGKILL) in the middle. Rows tell, by status code, how the calls ended and how long they took,
and what memory the workers hold after a minute and at the end. ``--single`` sends single searches by h2load in place of
batches, whose codes the server's metrics tell.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from benchmarks._bare_server import settings
from benchmarks._catalogue import catalogue_bundle, item_ids
from benchmarks._h2load import drive
from benchmarks._open_loop import Calls, closed_loop, open_loop
from benchmarks._results import Results
from benchmarks.throughput import BEARER, SERVICE, request
from kithkin.v1 import model_service_pb2, model_service_pb2_grpc, types_pb2
from kithkin.v1 import retrieval_service_pb2 as pb

ENTITIES, DIMENSION = 100_000, 64
TOP_K = 5
DEADLINE_S = 1.0
AT_ONCE = 16
"""Calls under way while the capacity is measured: fewer than the limit, and enough for two workers."""
CAPACITY_S = 15
SAMPLED_EVERY_S = 5.0
REFUSED, OK = "RESOURCE_EXHAUSTED", "OK"


class Served:
    """A supervisor and its workers, looked at from outside."""

    def __init__(self, process: subprocess.Popen[str], port: int, metrics_port: int) -> None:
        self.process, self.port, self.metrics_port = process, port, metrics_port

    def workers(self) -> list[int]:
        """Processes of the workers that answer now."""
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as to:
            stub: Any = model_service_pb2_grpc.ModelServiceStub(to)  # type: ignore[no-untyped-call]
            asked = model_service_pb2.GetStatusRequest()
            status = stub.GetStatus(asked, timeout=10, metadata=tuple(BEARER.items()))
        found = {status.worker_pid}
        for line in Path("/proc").iterdir():
            if line.name.isdigit() and _parent(int(line.name)) == self.process.pid:
                found.add(int(line.name))
        # The supervisor's other children (the resource tracker) hold no bundle.
        return sorted(pid for pid in found if resident_mib(pid) > 60)

    def workers_serving(self) -> int:
        """How many serve the bundle, as one of them tells; 0: nobody answers."""
        try:
            with grpc.insecure_channel(f"127.0.0.1:{self.port}", options=[("grpc.use_local_subchannel_pool", 1)]) as to:
                stub: Any = model_service_pb2_grpc.ModelServiceStub(to)  # type: ignore[no-untyped-call]
                asked = model_service_pb2.GetStatusRequest()
                return int(stub.GetStatus(asked, timeout=5, metadata=tuple(BEARER.items())).workers_serving)
        except grpc.RpcError:
            return 0

    def codes(self) -> dict[str, float]:
        """Calls answered so far, by code, as the metrics tell."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        found: dict[str, float] = {}
        for line in lines:
            if line.startswith("kithkin_calls_total{") and "Search" in line:
                code = line.split('code="')[1].split('"')[0]
                found[code] = found.get(code, 0.0) + float(line.rsplit(" ", 1)[1])
        return found


@contextlib.contextmanager
def serving(folder: Path, workers: int, limit: int) -> Iterator[Served]:
    """A supervisor with so many workers, with keys, metrics and the log on."""
    with tempfile.TemporaryDirectory() as scratch:
        port_file, metrics_port = Path(scratch) / "port", _free_port()
        changed = {"workers": workers, "max_concurrent_calls": limit, "metrics_port": metrics_port}
        chosen = settings(Path(scratch)).model_copy(update=changed)
        code = (
            "import sys; from pathlib import Path; from graph_store.settings import ServingSettings;"
            "from server.processes.supervisor import serve;"
            "serve(Path(sys.argv[1]), ServingSettings.model_validate_json(sys.argv[2]), port_file=Path(sys.argv[3]))"
        )
        command = [sys.executable, "-c", code, str(folder), chosen.model_dump_json(), str(port_file)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True) as process:
            try:
                while not port_file.exists():
                    if process.poll() is not None:
                        raise RuntimeError(f"the server ended with exit code {process.returncode}")
                    time.sleep(0.05)
                served = Served(process, int(port_file.read_text()), metrics_port)
                while served.workers_serving() < workers:
                    time.sleep(0.2)
                yield served
            finally:
                process.terminate()


class Watch(threading.Thread):
    """Samples the memory of the workers, and kills one of them if asked to."""

    def __init__(self, served: Served, *, kill_after_s: float | None) -> None:
        super().__init__(daemon=True)
        self._served, self._kill_after_s = served, kill_after_s
        self._over = threading.Event()
        self.samples: list[tuple[float, list[float]]] = []
        """Seconds since the start, and MiB of each worker."""
        self.killed_at: float | None = None
        self.back_after_s: float | None = None
        """From the kill until all workers serve again."""

    def run(self) -> None:
        begun, workers = time.monotonic(), self._served.workers()
        many = len(workers)
        while not self._over.wait(1.0 if self.killed_at and not self.back_after_s else SAMPLED_EVERY_S):
            now = time.monotonic() - begun
            if self._kill_after_s is not None and self.killed_at is None and now >= self._kill_after_s:
                os.kill(workers[0], signal.SIGKILL)
                self.killed_at = now
            elif self.killed_at is not None and self.back_after_s is None:
                if self._served.workers_serving() < many:
                    continue
                self.back_after_s = now - self.killed_at
                workers = self._served.workers()
            else:
                self.samples.append((now, [resident_mib(pid) for pid in workers]))

    def end(self) -> None:
        self._over.set()
        self.join()


def measure(folder: Path, *, workers: int, minutes: float, batch: int, limit: int) -> dict[str, Any]:
    """Twice the capacity for so many minutes."""
    method = f"{SERVICE}/BatchSearchSimilarEntities"
    messages = batches(batch, 20)
    with serving(folder, workers, limit) as served:
        closed_loop(served.port, method, messages, at_once=4, seconds=3, metadata=BEARER)
        found = closed_loop(served.port, method, messages, at_once=AT_ONCE, seconds=CAPACITY_S, metadata=BEARER)
        capacity = len(found.of(OK)) / CAPACITY_S
        watch = Watch(served, kill_after_s=minutes * 30 if workers > 1 else None)
        watch.start()
        calls = open_loop(
            served.port,
            method,
            messages,
            per_second=2 * capacity,
            seconds=minutes * 60,
            deadline_s=DEADLINE_S,
            metadata=BEARER,
        )
        watch.end()
        alive = served.process.poll() is None and served.workers_serving() == workers
    return {"capacity_per_second": round(capacity, 1), "alive": alive, **figures(calls, watch, minutes)}


def batches(size: int, many: int) -> list[bytes]:
    """So many batches of searches for a few results each: answers are small, so the driver has little to read."""
    ids = item_ids(ENTITIES)
    asked = [
        pb.SearchSimilarEntitiesRequest(entity=types_pb2.NodeRef(type="Item", id=ids[37 * each]), top_k=TOP_K)
        for each in range(size * many)
    ]
    return [
        pb.BatchSearchSimilarEntitiesRequest(requests=asked[start : start + size]).SerializeToString()
        for start in range(0, len(asked), size)
    ]


def figures(calls: Calls, watch: Watch, minutes: float) -> dict[str, Any]:
    """What is told of a run."""
    counts = calls.counts()
    # What a driver that was late itself sent says nothing of the server.
    told: dict[str, Any] = {
        "calls": counts,
        "sent_per_second": round(len(calls.codes) / (minutes * 60), 1),
        "answered_per_second": round(counts.get(OK, 0) / (minutes * 60), 1),
        "let_in_within_deadline": round(
            counts.get(OK, 0) / max(len(calls.codes) - counts.get(REFUSED, 0) - counts.get("UNAVAILABLE", 0), 1), 5
        ),
        "answered_ms": _percentiles(calls.of(OK)),
        "refused_ms": _percentiles(calls.of(REFUSED)),
        "driver_late_ms": _percentiles(calls.late),
        "memory_mib": {"after a minute": _memory(watch, 60.0), "at the end": _memory(watch, minutes * 60)},
    }
    if watch.killed_at is not None:
        after = (calls.sent > watch.killed_at) & (calls.sent < watch.killed_at + (watch.back_after_s or 30.0))
        told["killed"] = {
            "after_s": round(watch.killed_at, 1),
            "all_serve_again_after_s": None if watch.back_after_s is None else round(watch.back_after_s, 1),
            "answered_per_second_meanwhile": round(
                float((calls.codes[after] == OK).sum()) / (watch.back_after_s or 30.0), 1
            ),
            "unavailable": counts.get("UNAVAILABLE", 0),
        }
    return told


def singles(folder: Path, *, workers: int, minutes: float, limit: int) -> dict[str, Any]:
    """The same with single searches."""
    method, message = f"{SERVICE}/SearchSimilarEntities", request(ENTITIES).SerializeToString()
    with serving(folder, workers, limit) as served:
        drive(served.port, method, message, seconds=3, metadata=BEARER)
        closed = drive(served.port, method, message, seconds=CAPACITY_S, connections=8, streams=8, metadata=BEARER)
        capacity = closed.per_second
        watch, before = Watch(served, kill_after_s=None), served.codes()
        watch.start()
        found = drive(
            served.port,
            method,
            message,
            seconds=int(minutes * 60),
            connections=32,
            streams=200,
            per_second=2 * capacity,
            metadata=BEARER,
        )
        watch.end()
        # Workers write their numbers every second.
        time.sleep(2.5)
        after = served.codes()
        alive = served.process.poll() is None and served.workers_serving() == workers
    counts = {code: int(count - before.get(code, 0.0)) for code, count in after.items()}
    return {
        "capacity_per_second": round(capacity, 1),
        "alive": alive,
        "calls": {code: count for code, count in counts.items() if count},
        "answered_per_second": round(counts.get(OK, 0) / (minutes * 60), 1),
        "ended_per_second": round(found.per_second, 1),
        "without_http_answer": found.failed,
        "ms": {"p50": round(found.p50_ms, 1), "p99": round(found.p99_ms, 1)},
        "memory_mib": {"after a minute": _memory(watch, 60.0), "at the end": _memory(watch, minutes * 60)},
    }


def resident_mib(pid: int) -> float:
    """Memory of a process; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(each.split()[1]) / 1024 for each in lines if each.startswith("VmRSS")), 0.0)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def _memory(watch: Watch, at_s: float) -> list[int]:
    """MiB of each worker in the sample next to a moment."""
    if not watch.samples:
        return []
    return [round(each) for each in min(watch.samples, key=lambda sample: abs(sample[0] - at_s))[1]]


def _percentiles(seconds: Any) -> dict[str, float]:
    if not len(seconds):
        return {}
    return {f"p{share}": round(float(np.percentile(seconds, share)) * 1000, 1) for share in (50, 99, 99.9)}


def _free_port() -> int:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def main() -> None:
    """Measure what is asked and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, default=100, help="searches in a call")
    parser.add_argument("--limit", type=int, default=32, help="serving.max_concurrent_calls")
    parser.add_argument("--single", action="store_true", help="single searches, by h2load")
    parser.add_argument("--again", action="store_true", help="measure rows that are there already, too")
    chosen = parser.parse_args()
    results = Results("overload", again=chosen.again)
    kept = Path(os.environ.get("KITHKIN_WORK", tempfile.gettempdir())) / f"throughput-{ENTITIES}-{DIMENSION}"
    kept.mkdir(parents=True, exist_ok=True)
    catalogue_bundle(kept, entities=ENTITIES, dimension=DIMENSION)
    for workers in chosen.workers:
        shared = {"workers": workers, "minutes": chosen.minutes, "limit": chosen.limit}
        if chosen.single:
            found = results.row(
                {**shared, "searches_a_call": 1},
                lambda workers=workers: singles(kept, workers=workers, minutes=chosen.minutes, limit=chosen.limit),  # type: ignore[misc]
            )
        else:
            asked = {**shared, "searches_a_call": chosen.batch, "deadline_s": DEADLINE_S}
            found = results.row(
                asked,
                lambda workers=workers: measure(  # type: ignore[misc]
                    kept, workers=workers, minutes=chosen.minutes, batch=chosen.batch, limit=chosen.limit
                ),
            )
        print(f"{workers} workers, {chosen.minutes:g} minutes")
        for name, value in found.items():
            print(f"  {name:24} {value}")


if __name__ == "__main__":
    main()
