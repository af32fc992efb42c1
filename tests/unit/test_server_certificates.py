"""Certificates that change while handshakes come at once, and a handshake that takes its time."""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from graph_store.serving_settings import TlsSettings
from kithkin import Client
from kithkin.v1 import model_service_pb2 as model
from server.wire.tls import Certificates
from tests.certificates import needs_openssl, write_certificate
from tests.fake_server import FakeServer


@needs_openssl
def test_a_change_is_told_once_however_many_ask(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("kithkin.server"), "propagate", True)
    caplog.set_level(logging.INFO, logger="kithkin.server")
    for name in ("server", "stranger"):
        write_certificate(tmp_path, name)
    certificates = Certificates(TlsSettings(certificate=tmp_path / "server.pem", key=tmp_path / "server.key"))
    for kind in ("pem", "key"):
        (tmp_path / f"server.{kind}").write_bytes((tmp_path / f"stranger.{kind}").read_bytes())
    reads: list[int] = []
    all_here, read = threading.Barrier(4), certificates._read

    def slow() -> object:
        reads.append(1)
        time.sleep(0.1)
        return read()

    def fetch() -> object:
        all_here.wait(60)
        return certificates._fetch()

    monkeypatch.setattr(certificates, "_read", slow)
    with ThreadPoolExecutor(4) as pool:
        fetched = [each.result(60) for each in [pool.submit(fetch) for _ in range(4)]]
    assert len(set(map(id, fetched))) == 1
    assert len(reads) == 1
    assert [record.getMessage() for record in caplog.records] == ["certificate taken up"]


@contextmanager
def far_away(port: int, seconds: float) -> Iterator[int]:
    """Another port to the same server, over a connection that brings nothing in its first ``seconds``."""

    def carry(near: socket.socket) -> None:
        time.sleep(seconds)
        with near, socket.create_connection(("localhost", port)) as far:
            while ready := select.select([near, far], [], [], 60)[0]:
                for one in ready:
                    data = one.recv(2**16)
                    if not data:
                        return
                    (far if one is near else near).sendall(data)

    def listen() -> None:
        try:
            while True:
                threading.Thread(target=carry, args=[listening.accept()[0]], daemon=True).start()
        except OSError:
            return  # closed

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=listen, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def test_a_connection_may_take_its_time() -> None:
    """Longer than the wait before another try: that is not how long connecting may take."""
    fake = FakeServer()
    running = fake.start()
    fake.will("GetStatus", model.GetStatusResponse(worker_pid=7))
    with (
        far_away(int(fake.target.rpartition(":")[2]), 0.5) as port,
        Client(f"127.0.0.1:{port}", retries=0, timeout=60) as client,
    ):
        assert client.status().worker_pid == 7
    running.stop(None).wait()
