"""TLS and client certificates over a real connection, with certificates made on the spot."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import kithkin
from kithkin import AsyncClient, Client, Tls
from kithkin.v1 import model_service_pb2 as model
from tests.fake_server import FakeServer

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates with openssl")


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca, server (for inside.example) and client certificates and keys."""
    folder = tmp_path_factory.mktemp("pems")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "2", *arguments], cwd=folder, check=True, capture_output=True)  # fmt: skip

    openssl("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    for name, host in (("server", "inside.example"), ("client", "somebody")):
        openssl("-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={host}", "-CA", "ca.pem",
                "-CAkey", "ca.key", "-addext", f"subjectAltName=DNS:{host}",
                "-addext", "basicConstraints=critical,CA:FALSE")  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def server(pems: Path) -> Iterator[FakeServer]:
    """A server that asks for a client certificate."""
    pair = ((pems / "server.key").read_bytes(), (pems / "server.pem").read_bytes())
    authority = (pems / "ca.pem").read_bytes()
    fake = FakeServer()
    running = fake.start(credentials=grpc.ssl_server_credentials([pair], authority, require_client_auth=True))
    fake.will("GetStatus", model.GetStatusResponse(server_version="0.1.0"))
    yield fake
    running.stop(None).wait()


def status(kind: str, target: str, **options: Any) -> kithkin.Status:
    async def ask() -> kithkin.Status:
        async with AsyncClient(target, retries=0, **options) as client:
            return await client.status()

    if kind == "async":
        with asyncio.Runner() as runner:
            return runner.run(ask())
    with Client(target, retries=0, **options) as client:
        return client.status()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_with_a_client_certificate(server: FakeServer, pems: Path, kind: str) -> None:
    tls = Tls(
        ca=pems / "ca.pem",
        certificate=(pems / "client.pem").read_bytes(),
        key=str(pems / "client.key"),
        server_name="inside.example",
    )
    assert status(kind, server.target, tls=tls, api_key="s3cret").server_version == "0.1.0"
    assert server.received["GetStatus"][-1].metadata["authorization"] == "Bearer s3cret"


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("no certificate", "Is `kithkin serve` running"),
        ("another name", r"for another name than localhost:\d+: tls=Tls\(server_name="),
        ("another authority", r"not trusted here: tls=Tls\(ca="),
        ("no TLS", r"wants Client\(..., tls=True\)"),
    ],
)
def test_refused(server: FakeServer, pems: Path, kind: str, wrong: str, hint: str) -> None:
    own = {} if wrong == "no certificate" else {"certificate": pems / "client.pem", "key": pems / "client.key"}
    ca = None if wrong == "another authority" else pems / "ca.pem"
    tls = Tls(ca=ca, server_name="" if wrong == "another name" else "inside.example", **own)
    with pytest.raises(kithkin.Unavailable, match=hint):
        status(kind, server.target, tls=False if wrong == "no TLS" else tls)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_tls_to_a_server_without(kind: str) -> None:
    fake = FakeServer()
    running = fake.start()
    with pytest.raises(kithkin.Unavailable, match="speaks without TLS: leave tls"):
        status(kind, fake.target, tls=True)
    running.stop(None).wait()
