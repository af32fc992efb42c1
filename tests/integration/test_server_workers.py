"""``serve`` with several workers on one port: change-overs, killed and hanging workers, further bundles, shadow."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from graph_store.settings import ServingSettings
from kithkin import Client
from kithkin.types import Status
from kithkin.v1 import model_service_pb2
from kithkin.v1 import retrieval_service_pb2 as pb
from model_store.bundle_store import BundleStore
from server.errors import StartError
from server.processes.port import reserve
from tests.bundles import write_toy_bundle
from tests.integration.test_server import Asker, ref
from tests.served import Server


def eventually(check: Callable[[], object], seconds: float = 90.0) -> None:
    """Wait until a check holds."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@contextmanager
def asked(port: int) -> Iterator[Asker]:
    """A connection of its own, which any of the workers may get."""
    asker = Asker(port)
    with asker.channel:
        yield asker


def status(port: int) -> Status:
    """Of the worker that a new connection gets to; asked again where that one is just being killed."""
    with Client(f"127.0.0.1:{port}", timeout=20, retries=5) as client:
        return client.status()


def serves(port: int) -> str:
    """The bundle of that worker."""
    bundle = status(port).bundle
    return "" if bundle is None else bundle.version


def pids(port: int) -> set[int]:
    """Workers that new connections get to."""
    return {status(port).worker_pid for _ in range(12)}


class Load(threading.Thread):
    """Calls by a client until told to stop; keeps the bundles that answered and every error."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self.answers: list[str] = []
        self.errors: list[Exception] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.is_set():
            # A connection each time: the port deals them out to the workers.
            with Client(f"127.0.0.1:{self._port}", timeout=10) as client:
                try:
                    for _ in range(10):
                        self.answers.append(client.similar("1", top_k=2).info.bundle_version)
                except Exception as error:
                    self.errors.append(error)

    def end(self) -> None:
        self.stopping.set()
        self.join()


def test_two_workers_through_their_life(tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "models")
    first, second = (write_toy_bundle(store, encoders=False) for _ in range(2))
    store.activate(first)
    settings = ServingSettings(port=0, workers=2, drain_s=3, hang_s=10)
    with Server(store.root, settings, tmp_path / "port") as server:
        eventually(lambda: status(server.port).workers_serving == 2)
        # gRPC may give a new channel the connection of one just closed.
        eventually(lambda: len(pids(server.port)) == 2)
        load = Load(server.port)
        load.start()

        # After the answer no new call sees the bundle before, whichever worker it gets to.
        with asked(server.port) as asker:
            for version in (second, first, second):
                asker.model.ActivateBundle(model_service_pb2.ActivateBundleRequest(version=version), timeout=60)
                seen = set()
                for _ in range(8):
                    with asked(server.port) as other:
                        answer = other.retrieval.SearchSimilarEntities(
                            pb.SearchSimilarEntitiesRequest(entity=ref("1"), top_k=1), timeout=10
                        )
                        seen.add(answer.info.bundle_version)
                assert seen == {version}

        # A worker that is killed is replaced by one with the same bundle; clients see nothing of it.
        killed = status(server.port).worker_pid
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: len(pids(server.port) - {killed}) == 2)
        assert serves(server.port) == second
        eventually(lambda: status(server.port).workers_serving == 2)
        load.end()
        assert load.errors == []
        assert set(load.answers) == {first, second}

        # One whose event loop does not turn is ended.
        hanging = status(server.port).worker_pid
        os.kill(hanging, signal.SIGSTOP)
        eventually(lambda: not Path(f"/proc/{hanging}").exists())
        eventually(lambda: status(server.port).workers_serving == 2)
        assert '"message": "worker hangs"' in server.log()
    assert '"message": "stopped"' in server.log()


def test_further_bundles_and_a_shadow(tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "models")
    beside, serving = (write_toy_bundle(store, encoders=False) for _ in range(2))
    store.activate(serving)
    settings = ServingSettings.model_validate(
        {"port": 0, "beside": [beside], "shadow": {"version": beside, "share": 1.0}}
    )
    with Server(store.root, settings, tmp_path / "port") as server:
        eventually(lambda: list(status(server.port).beside) == [beside])
        with asked(server.port) as asker:

            def answered_by(version: str) -> str:
                request = pb.SearchSimilarEntitiesRequest(entity=ref("1"), top_k=1, bundle_version=version)
                answer: str = asker.retrieval.SearchSimilarEntities(request, timeout=10).info.bundle_version
                return answer

            assert (answered_by(""), answered_by(beside), answered_by(serving)) == (serving, beside, serving)

            def shadowed() -> bool:
                answered_by("")
                return '"message": "shadow"' in server.log()

            eventually(shadowed)
        assert '"mean_overlap": 1.0' in server.log()


def test_a_start_with_a_damaged_bundle_serves_another(tmp_path: Path) -> None:
    store = BundleStore(tmp_path / "models")
    whole, damaged = (write_toy_bundle(store, encoders=False) for _ in range(2))
    store.activate(damaged)
    (store.root / damaged / "nodes/Artist.arrow").unlink()
    for _ in range(2):
        with Server(store.root, ServingSettings(port=0), tmp_path / "port") as server:
            eventually(lambda server=server: serves(server.port) == whole)
            assert "Artist.arrow is missing" in status(server.port).refused_bundle.replace(": ", " ")
            store.prune(keep=0)
            assert whole in store.versions(), "it serves"


def has(address: str) -> bool:
    """Whether this machine has an address."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as tried:
        try:
            tried.bind((address, 0))
        except OSError:
            return False
    return True


def test_localhost_is_held_in_both_families() -> None:
    held = reserve("localhost", 0)
    try:
        assert len(held) == sum(has(address) for address in ("127.0.0.1", "::1"))
        (port,) = {each.getsockname()[1] for each in held}
        for address in ("127.0.0.1", "::1"):
            if has(address):
                with pytest.raises(StartError, match=f"{address}:{port}"):
                    reserve(address, port)
    finally:
        for each in held:
            each.close()
