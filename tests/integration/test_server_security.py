"""TLS, client certificates and API keys on a real server, and nothing secret in its log."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import kithkin
from graph_store.serving_settings import TlsSettings
from graph_store.settings import ServingSettings
from kithkin import AsyncClient, Tls
from kithkin.v1 import model_service_pb2, model_service_pb2_grpc, retrieval_service_pb2_grpc, types_pb2
from kithkin.v1 import retrieval_service_pb2 as pb
from model_store.bundle_store import BundleStore
from server.errors import StartError
from server.model.served_model import ServedModel
from server.processes.state import State
from server.wire import keys as keys_module
from server.wire.application import Application
from server.wire.keys import ENVIRONMENT, Role, new_key
from tests.bundles import write_toy_bundle
from tests.certificates import needs_openssl, write_certificate

ONE = pb.GetEntityRequest(ref=types_pb2.NodeRef(id="1"))
READER, READER_LINE = new_key(Role.READ, "reader")
ADMIN, ADMIN_LINE = new_key(Role.ADMIN, "boss")
Serve = Callable[..., Any]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """An async context manager: serve the toy bundle with these settings; gives the application and its port."""
    store = BundleStore(tmp_path / "models")
    model = ServedModel.load(store.open(write_toy_bundle(store, encoders=False)))

    @asynccontextmanager
    async def serve(**settings: Any) -> AsyncIterator[tuple[Application, int]]:
        state = State(settings=ServingSettings(drain_s=1).model_copy(update=settings))
        state.take(model)
        application = Application(state)
        port = await application.start("localhost", 0)
        try:
            yield application, port
        finally:
            await application.drain(notice=0)

    return serve


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"# for tests\n{READER_LINE}\n{ADMIN_LINE}\n")
    return file


@pytest.fixture
def pems(tmp_path: Path) -> Path:
    """A folder with an authority, and certificates of it for server and client, and another server certificate."""
    write_certificate(tmp_path, "authority")
    write_certificate(tmp_path, "stranger")
    for name in ("server", "client"):
        write_certificate(tmp_path, name, authority="authority")
    return tmp_path


def tls(folder: Path, **more: Path) -> TlsSettings:
    return TlsSettings(certificate=folder / "server.pem", key=folder / "server.key", **more)


async def reason(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    trailers = dict(raised.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return raised.value.code(), info.reason


def bearer(key: str) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer {key}"),), "timeout": 10}


async def test_keys_and_what_they_are_good_for(serve: Serve, keys_file: Path) -> None:
    async with (
        serve(keys_file=keys_file) as (_, port),
        grpc.aio.insecure_channel(f"localhost:{port}") as channel,
    ):
        retrieval = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        model = model_service_pb2_grpc.ModelServiceStub(channel)
        no_key = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED_CALLER")
        assert await reason(retrieval.GetEntity(ONE, timeout=10)) == no_key
        assert await reason(retrieval.GetEntity(ONE, **bearer("kk_guessed"))) == no_key
        assert await reason(model.GetStatus(model_service_pb2.GetStatusRequest(), timeout=10)) == no_key
        for key in (READER, ADMIN):
            assert (await retrieval.GetEntity(ONE, **bearer(key))).nodes[0].name == "Slowdive"
            assert (await model.GetStatus(model_service_pb2.GetStatusRequest(), **bearer(key))).bundle.version
        activate = model_service_pb2.ActivateBundleRequest(version="20260101T000000.000000Z")
        assert await reason(model.ActivateBundle(activate, **bearer(READER))) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "ROLE_NEEDED",
        )
        # Let in; this server has no bundles to choose from.
        code, why = await reason(model.ActivateBundle(activate, **bearer(ADMIN)))
        assert (code, why) == (grpc.StatusCode.FAILED_PRECONDITION, "BUNDLES_NOT_MANAGED")


async def test_health_is_open_and_reflection_is_not(serve: Serve, keys_file: Path) -> None:
    check = health_pb2.HealthCheckRequest()
    listing = reflection_pb2.ServerReflectionRequest(list_services="")
    async with (
        serve(keys_file=keys_file) as (_, port),
        grpc.aio.insecure_channel(f"localhost:{port}") as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        assert (await health.Check(check, timeout=10)).status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        closed = reflection.ServerReflectionInfo(iter([listing]), timeout=10)
        assert (await reason(closed.read()))[0] is grpc.StatusCode.UNAUTHENTICATED
        opened = reflection.ServerReflectionInfo(iter([listing]), **bearer(READER))
        assert len((await opened.read()).list_services_response.service) == 4
        opened.cancel()
    async with (
        serve(keys_file=keys_file, health_needs_key=True) as (_, port),
        grpc.aio.insecure_channel(f"localhost:{port}") as channel,
    ):
        health = health_pb2_grpc.HealthStub(channel)
        assert (await reason(health.Check(check, timeout=10)))[0] is grpc.StatusCode.UNAUTHENTICATED
        assert (await health.Check(check, **bearer(READER))).status == health_pb2.HealthCheckResponse.SERVING


async def test_a_key_that_is_taken_out_of_the_file_is_good_for_nothing(
    serve: Serve, keys_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "_LOOK_S", 0.0)
    async with (
        serve(keys_file=keys_file) as (_, port),
        grpc.aio.insecure_channel(f"localhost:{port}") as channel,
    ):
        retrieval = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        assert (await retrieval.GetEntity(ONE, **bearer(READER))).nodes
        keys_file.write_text(ADMIN_LINE)
        assert (await reason(retrieval.GetEntity(ONE, **bearer(READER))))[0] is grpc.StatusCode.UNAUTHENTICATED
        assert (await retrieval.GetEntity(ONE, **bearer(ADMIN))).nodes


async def test_no_key_is_ever_in_the_log(
    serve: Serve, keys_file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("kithkin.server")
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.DEBUG, logger="kithkin.server")
    async with (
        serve(keys_file=keys_file) as (application, port),
        grpc.aio.insecure_channel(f"localhost:{port}") as channel,
    ):
        retrieval = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
        raw = channel.unary_unary("/kithkin.v1.RetrievalService/GetEntity")
        await retrieval.GetEntity(ONE, **bearer(READER))
        for key in (READER, "kk_someone_elses"):
            await reason(raw(b"\xff\xff", **bearer(key)))
            await reason(retrieval.GetEntity(pb.GetEntityRequest(), **bearer(key)))
        monkeypatch.setattr(application.state, "serving", lambda: 1 / 0)
        await reason(retrieval.GetEntity(ONE, **bearer(READER)))
    told = "\n".join(
        f"{record.getMessage()} {getattr(record, 'fields', '')} {record.exc_text or ''} {record.exc_info or ''}"
        for record in caplog.records
    )
    assert "ZeroDivisionError" in told
    assert "answered" in told
    for key in (READER, "kk_someone_elses"):
        assert key not in told
        assert key.removeprefix("kk_") not in told


async def test_keys_without_tls_only_where_nobody_listens(serve: Serve, keys_file: Path) -> None:
    def start(**settings: Any) -> Application:
        return Application(State(settings=ServingSettings(keys_file=keys_file, **settings)))

    with pytest.raises(StartError, match=r"API keys on 0\.0\.0\.0 without TLS") as raised:
        start(host="0.0.0.0")
    assert "--insecure" in raised.value.hint
    for settings in ({"host": "127.0.0.1"}, {"host": "::1"}, {"host": "0.0.0.0", "insecure": True}):
        start(**settings)


def test_keys_of_the_environment_are_asked_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, READER_LINE)
    with pytest.raises(StartError, match="without TLS"):
        Application(State(settings=ServingSettings(host="0.0.0.0")))


@needs_openssl
async def test_our_client_over_tls_with_a_key(serve: Serve, keys_file: Path, pems: Path) -> None:
    async with serve(tls=tls(pems), keys_file=keys_file) as (_, port):
        trusted = Tls(ca=pems / "authority.pem")
        async with AsyncClient(f"localhost:{port}", tls=trusted, api_key=READER) as client:
            assert (await client.get("1")).name == "Slowdive"
        async with AsyncClient(f"localhost:{port}", tls=trusted, retries=0) as client:
            with pytest.raises(kithkin.KithkinError) as raised:
                await client.get("1")
            assert raised.value.reason == "UNAUTHENTICATED_CALLER"
        async with AsyncClient(f"localhost:{port}", retries=0) as client:
            with pytest.raises(kithkin.Unavailable):
                await client.get("1")


@needs_openssl
async def test_client_certificates(serve: Serve, pems: Path) -> None:
    async with serve(tls=tls(pems, client_authority=pems / "authority.pem")) as (_, port):
        for name, let_in in (("client", True), ("stranger", False), (None, False)):
            own = {} if name is None else {"certificate": pems / f"{name}.pem", "key": pems / f"{name}.key"}
            trusted = Tls(ca=pems / "authority.pem", **own)
            async with AsyncClient(f"localhost:{port}", tls=trusted, retries=0) as client:
                if let_in:
                    assert (await client.get("1")).name == "Slowdive"
                else:
                    with pytest.raises(kithkin.Unavailable):
                        await client.get("1")


@needs_openssl
async def test_certificates_are_taken_up_when_the_files_change(
    serve: Serve, pems: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("kithkin.server"), "propagate", True)
    caplog.set_level(logging.INFO, logger="kithkin.server")

    async def shown(port: int, authority: str) -> bool:
        """Whether the server shows a certificate of that authority."""
        trusted = Tls(ca=pems / f"{authority}.pem")
        async with AsyncClient(f"localhost:{port}", tls=trusted, retries=0) as client:
            try:
                return (await client.get("1")).name == "Slowdive"
            except kithkin.Unavailable:
                return False

    async with serve(tls=tls(pems)) as (_, port):
        assert await shown(port, "authority")
        # Half replaced: the new certificate does not go with the old key.
        (pems / "server.pem").write_bytes((pems / "stranger.pem").read_bytes())
        assert await shown(port, "authority")
        (pems / "server.key").write_bytes((pems / "stranger.key").read_bytes())
        assert await shown(port, "stranger")
        assert not await shown(port, "authority")
        (pems / "server.pem").write_text("damaged")
        assert await shown(port, "stranger")
        (pems / "server.key").unlink()
        assert await shown(port, "stranger")
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("certificate")]
    stays = "certificate not taken up, the one before stays"
    assert told == [stays, "certificate taken up", stays, stays]


@needs_openssl
def test_certificates_that_do_not_fit_are_told_at_the_start(pems: Path) -> None:
    for key in ("stranger.key", "server.pem", "missing.key"):
        settings = TlsSettings(certificate=pems / "server.pem", key=pems / key)
        with pytest.raises(StartError, match=r"serving\.tls: .*server\.pem|serving\.tls: .*missing\.key"):
            Application(State(settings=ServingSettings(tls=settings)))


async def test_administration_on_its_own_port(serve: Serve) -> None:
    status, check = model_service_pb2.GetStatusRequest(), health_pb2.HealthCheckRequest()
    async with serve(admin_port=0) as (application, port):
        assert application.admin_port not in (None, port)
        async with (
            grpc.aio.insecure_channel(f"localhost:{port}") as outside,
            grpc.aio.insecure_channel(f"localhost:{application.admin_port}") as inside,
        ):
            assert (await retrieval_service_pb2_grpc.RetrievalServiceStub(outside).GetEntity(ONE, timeout=10)).nodes
            assert (await model_service_pb2_grpc.ModelServiceStub(inside).GetStatus(status, timeout=10)).worker_pid
            for channel, call in (
                (outside, model_service_pb2_grpc.ModelServiceStub(outside).GetStatus(status, timeout=10)),
                (inside, retrieval_service_pb2_grpc.RetrievalServiceStub(inside).GetEntity(ONE, timeout=10)),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await call
                assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
                answer = await health_pb2_grpc.HealthStub(channel).Check(check, timeout=10)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
