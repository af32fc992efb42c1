"""One gRPC server over one state: services, health, reflection, what guards them, drain."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from graph_store.settings import ServingSettings
from kithkin.v1 import (
    model_service_pb2,
    model_service_pb2_grpc,
    retrieval_service_pb2,
    retrieval_service_pb2_grpc,
)
from server.errors import StartError
from server.model.served_model import ServedModel
from server.observe import log
from server.processes.state import State
from server.wire import connections
from server.wire.acceptors import Acceptors
from server.wire.admission import Admission
from server.wire.guard import Guard
from server.wire.keys import Keys
from server.wire.services import ModelServicer, RetrievalServicer
from server.wire.tls import Certificates

if TYPE_CHECKING:
    from server.observe.audit import RecallAudit
    from server.observe.impressions import Impressions
    from server.observe.metrics import Metrics

_NOTICE_S = 0.1
"""Between NOT_SERVING and the first refused call, for those who watch the health; and from there to the end."""
_SHOWN_EVERY_S = 1.0
"""How old the numbers of a worker may be that another process shows."""

RETRIEVAL = retrieval_service_pb2.DESCRIPTOR.services_by_name["RetrievalService"].full_name
MODEL = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name


class Application:
    """A grpc.aio server. Call everything in one event loop."""

    def __init__(self, state: State, *, with_keys: bool = True) -> None:
        """``with_keys`` false: everybody may call, whatever keys there are.

        Raises StartError where keys, certificates or the folder of impressions do not fit.
        """
        settings = state.settings
        self.state = state
        self._taking = asyncio.Lock()
        self._open = ExitStack()
        """What drain closes."""
        self._metrics, self._audit = self._measured(settings)
        self.admission = Admission(settings.max_concurrent_calls)
        guarded = partial(
            Guard,
            settings.max_message_bytes,
            admission=self.admission,
            keys=_keys(settings) if with_keys else None,
            health_needs_key=settings.health_needs_key,
            metrics=self._metrics,
            impressions=self._impressions(settings),
        )
        self.metrics_port: int | None = None
        """Where this process shows its metrics; None: nowhere, or the supervisor does."""
        self.admin_port: int | None = None
        """Where ModelService is, if not with the others."""
        self._following: asyncio.Task[None] | None = None
        self._credentials = None if settings.tls.certificate is None else Certificates(settings.tls).credentials()
        self.health: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
        apart = settings.admin_port is not None
        # One for each server: it remembers which methods that has.
        self.guard, self._admin_guard = guarded(), guarded()
        self._server = self._serving([RETRIEVAL] if apart else [RETRIEVAL, MODEL], self.guard)
        self._admin_server = self._serving([MODEL], self._admin_guard) if apart else None
        if self._audit is not None and state.retrieval is not None:
            self._audit.watch(state.retrieval.model)

    async def start(self, host: str, port: int) -> int:
        """Listen and serve; returns the port. Health is SERVING only where a bundle is loaded. Raises StartError."""
        await self._set_health()
        settings = self.state.settings
        bound = self._listen(self._server, host, port, "serving.port")
        if self._admin_server is not None:
            assert settings.admin_port is not None
            self.admin_port = self._listen(self._admin_server, host, settings.admin_port, "serving.admin_port")
        if self._metrics is not None:
            from server.observe.metrics_page import page_of, shown_elsewhere

            if not shown_elsewhere():
                self.metrics_port = self._open.enter_context(page_of(self._metrics.registry, settings))
            self._following = asyncio.create_task(self._follow(self._metrics))
        for server in self._servers:
            await server.start()
        if not self.acceptors.start():
            log.event(logging.WARNING, "calls are taken one by one", grpc=grpc.__version__)
        return bound

    async def take(self, model: ServedModel, *, instead_of: ServedModel | None = None) -> bool:
        """Answer from another bundle from now on; no connection is touched and no call fails.

        ``instead_of``: only where that one still serves. Returns whether it was taken.
        """
        # One at a time: what was asked for last serves in the end.
        async with self._taking:
            retrieval = self.state.retrieval
            if instead_of is not None and (retrieval is None or retrieval.model is not instead_of):
                return False
            # Or this frame would keep the one before while the next is watched.
            del retrieval
            if self._audit is not None:
                await asyncio.to_thread(self._audit.watch, model)
            self.state.take(model)
            await self._set_health()
            return True

    async def drain(self, *, notice: float = _NOTICE_S) -> None:
        """Stop well: NOT_SERVING first, then no new calls, then the running ones have ``drain_s`` seconds to end.

        New calls are refused for a moment before gRPC shuts down, because from then on it cancels them, and CANCELLED
        does not tell a client to try again.
        """
        await self.health.enter_graceful_shutdown()
        await asyncio.sleep(notice)
        for guard in (self.guard, self._admin_guard):
            guard.draining = True
            guard.end_streams()
        await asyncio.sleep(notice)
        await asyncio.gather(*(server.stop(self.state.settings.drain_s) for server in self._servers))
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following
        if self._metrics is not None:
            self._metrics.add_up()
        await asyncio.to_thread(self._open.close)

    @property
    def _servers(self) -> list[Any]:
        return [self._server] if self._admin_server is None else [self._server, self._admin_server]

    def _measured(self, settings: ServingSettings) -> tuple[Metrics | None, RecallAudit | None]:
        if settings.metrics_port is None:
            return None, None
        from server.observe.audit import RecallAudit
        from server.observe.metrics import Metrics

        metrics = Metrics(lambda: self.admission.in_work)
        audit = RecallAudit(settings.audit_share, metrics)
        self._open.callback(audit.close)
        return metrics, audit

    def _impressions(self, settings: ServingSettings) -> Impressions | None:
        if settings.impressions.folder is None:
            return None
        from server.observe.impressions import Impressions

        told = (lambda outcome: None) if self._metrics is None else self._metrics.impression
        impressions = Impressions(settings.impressions, told)
        self._open.callback(impressions.close)
        return impressions

    def _serving(self, services: list[str], guard: Guard) -> Any:
        settings = self.state.settings
        server = grpc.aio.server(options=connections.options(settings))
        # Generated code carries no types.
        add: Any = retrieval_service_pb2_grpc.add_RetrievalServiceServicer_to_server
        if RETRIEVAL in services:
            add(RetrievalServicer(self.state), guard)
        add = model_service_pb2_grpc.add_ModelServiceServicer_to_server
        if MODEL in services:
            add(ModelServicer(self.state), guard)
        add = health_pb2_grpc.add_HealthServicer_to_server
        add(self.health, guard)
        if settings.reflection:
            from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

            names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
            add = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
            add(reflection.aio.ReflectionServicer(names), guard)  # type: ignore[attr-defined]
        server.add_generic_rpc_handlers((guard,))
        if RETRIEVAL in services:
            self.acceptors = Acceptors(server, RETRIEVAL, guard)
        return server

    def _listen(self, server: Any, host: str, port: int, setting: str) -> int:
        shown = f"[{host}]" if ":" in host else host
        try:
            if self._credentials is None:
                bound: int = server.add_insecure_port(f"{shown}:{port}")
            else:
                bound = server.add_secure_port(f"{shown}:{port}", self._credentials)
        except RuntimeError as error:
            bound, reason = 0, str(error)
        else:
            reason = "gRPC gave no port"
        if not bound:
            raise StartError(f"cannot listen on {shown}:{port}: {reason}", hint=f"Choose another {setting}.")
        return bound

    async def _follow(self, metrics: Metrics) -> None:
        """Add up what was noted, and show what serves: whenever that changes, and every second."""
        while True:
            news, retrieval = self.state.news, self.state.retrieval
            try:
                metrics.add_up()
                metrics.bundle(None if retrieval is None else retrieval.model, refused=bool(self.state.refused_bundle))
                if self.state.delta is not None:
                    metrics.delta(self.state.delta)
            except Exception as error:
                # The metrics of the next second must come all the same.
                log.event(logging.ERROR, "metrics not added up", trace=True, error=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(news.wait(), _SHOWN_EVERY_S)

    async def _set_health(self) -> None:
        serving = health_pb2.HealthCheckResponse.SERVING
        absent = health_pb2.HealthCheckResponse.NOT_SERVING
        answers = serving if self.state.retrieval is not None else absent
        # The empty name stands for the server as a whole; ModelService answers with or without a bundle.
        for service in ("", RETRIEVAL):
            await self.health.set(service, answers)
        await self.health.set(MODEL, serving)


def _keys(settings: ServingSettings) -> Keys | None:
    keys = Keys.of(settings.keys_file)
    if keys is None or settings.tls.certificate is not None or settings.insecure or _is_loopback(settings.host):
        return keys
    raise StartError(
        f"API keys on {settings.host} without TLS could be read by anybody on the way",
        hint="Set serving.tls.certificate and serving.tls.key, or --insecure where the network is trusted.",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
