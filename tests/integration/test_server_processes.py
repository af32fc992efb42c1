"""``serve`` as real processes: first bundle, hot swap under load, bad bundle, dead worker, orphan, the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from graph_store.settings import ServingSettings
from kithkin.v1 import model_service_pb2
from kithkin.v1 import retrieval_service_pb2 as pb
from model_store.bundle_store import BundleStore
from server.errors import StartError
from server.processes.port import reserve
from server.processes.supervisor import serve
from server.processes.worker import Order
from server.processes.worker_process import WorkerProcess
from tests.bundles import write_toy_bundle
from tests.integration.test_server import Asker, ref, refused

SCRIPT = """
import sys
from pathlib import Path
from graph_store.settings import ServingSettings
from server.processes.supervisor import serve
root, port_file = map(Path, sys.argv[1:3])
sys.exit(serve(root, ServingSettings(port=0, drain_s=3), port_file=port_file, json_log=True))
"""
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def eventually(check: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until a check holds."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


class Served:
    """A supervisor in its own process, and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.store = BundleStore(folder / "models")
        port_file = folder / "port"
        self.errors = (folder / "errors").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(self.store.root), str(port_file)],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        eventually(lambda: port_file.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log()
        self.port = int(port_file.read_text())
        self.asker = Asker(self.port)

    def log(self) -> str:
        self.errors.flush()
        return Path(self.errors.name).read_text()

    def status(self) -> model_service_pb2.GetStatusResponse:
        # A worker that has just gone takes the connection with it; the next call makes another.
        return self.asker.model.GetStatus(model_service_pb2.GetStatusRequest(), timeout=10, wait_for_ready=True)

    def health(self) -> int:
        status: int = self.asker.health.Check(health_pb2.HealthCheckRequest(), timeout=10, wait_for_ready=True).status
        return status

    def close(self) -> None:
        self.asker.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self.errors.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    server = Served(tmp_path)
    yield server
    server.close()


class Load(threading.Thread):
    """Calls one after the other until told to stop; counts answers by bundle, keeps every error."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.asker = Asker(port)
        self.answers: dict[str, int] = {}
        self.errors: list[grpc.RpcError] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        request = pb.SearchSimilarEntitiesRequest(entity=ref("1"), top_k=2)
        while not self.stopping.is_set():
            try:
                answer = self.asker.retrieval.SearchSimilarEntities(request, timeout=10)
            except grpc.RpcError as error:
                self.errors.append(error)
            else:
                version = answer.info.bundle_version
                self.answers[version] = self.answers.get(version, 0) + 1

    def end(self) -> None:
        self.stopping.set()
        self.join()
        self.asker.channel.close()


def test_a_server_through_its_life(served: Served) -> None:
    # No bundle: there, honest, waiting.
    assert served.health() == NOT_SERVING
    assert refused(served.asker.similar, entity=ref("1"), top_k=1).reason == "NO_BUNDLE"

    # The first one is taken up by itself.
    first = write_toy_bundle(served.store)
    served.store.activate(first)
    eventually(lambda: served.status().bundle.version == first)
    eventually(lambda: served.health() == SERVING)
    assert [each.node.name for each in served.asker.similar(entity=ref("1"), top_k=1).results] == ["Ride"]

    # Another one under load: no call fails.
    load = Load(served.port)
    load.start()
    eventually(lambda: load.answers.get(first, 0) > 50)
    second = write_toy_bundle(served.store, snapshot="newer")
    served.store.activate(second)
    eventually(lambda: load.answers.get(second, 0) > 50)
    load.end()
    assert load.errors == []
    assert set(load.answers) == {first, second}
    assert served.status().bundle.snapshot_hash == "newer"

    # A damaged one is refused; the one before serves on and says why.
    bad = write_toy_bundle(served.store)
    vectors = served.store.root / bad / "spaces/similar/Artist.npy"
    vectors.write_bytes(vectors.read_bytes()[:-4])
    served.store.activate(bad)
    eventually(lambda: served.status().refused_bundle)
    status = served.status()
    assert bad in status.refused_bundle
    assert "Artist.npy" in status.refused_bundle
    assert status.bundle.version == second
    assert served.health() == SERVING

    # A worker that dies is replaced, by the good bundle, still telling of the refused one.
    os.kill(status.worker_pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{status.worker_pid}").exists())
    assert served.status().worker_pid != status.worker_pid
    assert served.status().bundle.version == second
    assert served.status().refused_bundle == status.refused_bundle

    # A good one clears the refusal.
    third = write_toy_bundle(served.store)
    served.store.activate(third)
    eventually(lambda: served.status().bundle.version == third)
    eventually(lambda: served.status().refused_bundle == "")

    # Told to stop, it stops well.
    watching = served.asker.health.Watch(health_pb2.HealthCheckRequest(), timeout=20)
    assert next(watching).status == SERVING
    served.process.send_signal(signal.SIGTERM)
    assert next(watching).status == NOT_SERVING
    assert served.process.wait(10) == 0
    assert not (served.store.root.parent / "port").exists()
    assert served.process.stdout is not None
    lines = served.process.stdout.read().splitlines()
    place = f"127.0.0.1:{served.port}"
    assert lines == [
        f"waiting for a bundle on {place} (`kithkin build` publishes one)",
        f"serving {first} on {place}",
        f"serving {second} on {place}",
        f"serving {second} on {place}",
        f"serving {third} on {place}",
    ]
    assert '"message": "worker died"' in served.log()
    assert "SIGKILL" in served.log()


def test_bundles_are_changed_by_calls(served: Served) -> None:
    first, second = (write_toy_bundle(served.store, encoders=False) for _ in range(2))
    served.store.activate(first)
    eventually(lambda: served.status().bundle.version == first)
    answer = served.asker.model.ActivateBundle(model_service_pb2.ActivateBundleRequest(version=second), timeout=30)
    assert (answer.version, answer.previous_version) == (second, first)
    assert served.status().bundle.version == second, "it answers when the bundle serves"
    back = served.asker.model.RollbackBundle(model_service_pb2.RollbackBundleRequest(), timeout=30)
    assert (back.version, back.previous_version) == (first, second)
    assert served.status().bundle.version == first
    listed = served.asker.model.ListBundles(model_service_pb2.ListBundlesRequest(), timeout=10).bundles
    assert [(each.version, each.active, each.serving) for each in listed] == [
        (second, False, False), (first, True, True),
    ]  # fmt: skip


def test_a_damaged_first_bundle_is_told(tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "models")
    version = write_toy_bundle(store, encoders=False)
    (store.root / version / "manifest.json").write_text("{")
    store.activate(version)
    served = Served(tmp_path)
    try:
        assert served.health() == NOT_SERVING
        refusal = refused(served.asker.similar, entity=ref("1"), top_k=1)
        assert refusal.reason == "NO_BUNDLE"
        assert "manifest.json" in refusal.status.message
        assert "kithkin publish" in served.status().refused_bundle
        # Mended and activated again, it is looked at again.
        good = write_toy_bundle(store, encoders=False)
        store.activate(good)
        eventually(lambda: served.status().bundle.version == good)
        # Without its supervisor a worker does not stay.
        worker = served.status().worker_pid
        served.process.kill()
        served.process.wait()
        eventually(lambda: not Path(f"/proc/{worker}").exists())
    finally:
        served.close()


def test_a_port_that_is_taken_is_not_shared(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        port_file = tmp_path / "port"
        port_file.write_text(str(port))
        with pytest.raises(StartError, match=f"127.0.0.1:{port}.*\n.*--port") as raised:
            serve(tmp_path, ServingSettings(port=port), port_file=port_file)
        assert port_file.read_text() == str(port), "it may be that of the server which has the port"
    assert raised.value.exit_code == 7


def test_a_port_that_is_held_but_not_yet_listened_on_is_not_shared() -> None:
    with reserve("127.0.0.1", 0)[0] as held:
        port = held.getsockname()[1]
        with pytest.raises(StartError, match=f"127.0.0.1:{port}"):
            reserve("127.0.0.1", port)
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(("127.0.0.1", port))
            worker.listen()


def test_a_port_whose_connections_have_just_ended_can_be_had() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            # Closed on this side first: its end waits for a minute.
            other.accept()[0].close()
    with reserve("127.0.0.1", port)[0] as held:
        assert held.getsockname()[1] == port


def test_no_folder_for_the_port_file(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no folder for the port file"):
        serve(tmp_path, ServingSettings(port=0), port_file=tmp_path / "nowhere" / "port")


def test_a_worker_that_nobody_hears_any_more_ends(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    first, second = (write_toy_bundle(store, encoders=False) for _ in range(2))
    settings = ServingSettings(drain_s=1).model_dump()
    worker = WorkerProcess(Order(root=str(tmp_path), version=first, host="127.0.0.1", port=0, settings=settings))
    try:
        eventually(lambda: worker.read() or worker.told)
        worker.load(second)
        # Its message that it serves finds a broken pipe.
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), worker.messages)
        eventually(lambda: worker.exit_code is not None)
        assert worker.exit_code == 0
    finally:
        worker.kill()
        worker.close()


def test_a_host_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"nowhere\.invalid"):
        serve(tmp_path, ServingSettings(host="nowhere.invalid", port=0))
