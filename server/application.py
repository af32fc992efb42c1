"""One gRPC server over one state: services, health, reflection, drain."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from kithkin.v1 import (
    model_service_pb2,
    model_service_pb2_grpc,
    retrieval_service_pb2,
    retrieval_service_pb2_grpc,
)
from server.errors import StartError
from server.guard import Guard
from server.model import ServedModel
from server.services import ModelServicer, RetrievalServicer
from server.state import State

_ROOM = 1 << 20
"""gRPC's own limit lies above ours by this: past ours the answer carries details, past gRPC's it cannot."""
_NOTICE_S = 0.1
"""Between NOT_SERVING and the first refused call, for those who watch the health; and from there to the end."""

RETRIEVAL = retrieval_service_pb2.DESCRIPTOR.services_by_name["RetrievalService"].full_name
MODEL = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name


class Application:
    """A grpc.aio server. Call everything in one event loop."""

    def __init__(self, state: State) -> None:
        settings = state.settings
        self.state = state
        self.guard = Guard(settings.max_message_bytes)
        self.health: Any = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server = grpc.aio.server(
            interceptors=[self.guard],
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", 2 * settings.max_message_bytes + _ROOM),
                ("grpc.max_send_message_length", -1),
            ],
        )
        # Generated code carries no types.
        add_to_server: dict[Any, Any] = {
            retrieval_service_pb2_grpc.add_RetrievalServiceServicer_to_server: RetrievalServicer(state),
            model_service_pb2_grpc.add_ModelServiceServicer_to_server: ModelServicer(state),
            health_pb2_grpc.add_HealthServicer_to_server: self.health,
        }
        for add, servicer in add_to_server.items():
            add(servicer, self._server)
        if settings.reflection:
            from grpc_reflection.v1alpha import reflection

            names = (RETRIEVAL, MODEL, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)

    async def start(self, host: str, port: int) -> int:
        """Listen and serve; returns the port. Health is SERVING only where a bundle is loaded. Raises StartError."""
        await self._set_health()
        shown = f"[{host}]" if ":" in host else host
        try:
            bound = self._server.add_insecure_port(f"{shown}:{port}")
        except RuntimeError as error:
            bound, reason = 0, str(error)
        else:
            reason = "gRPC gave no port"
        if not bound:
            raise StartError(
                f"cannot listen on {shown}:{port}: {reason}", hint="Choose another serving.host or serving.port."
            )
        await self._server.start()
        return bound

    async def take(self, model: ServedModel) -> None:
        """Answer from another bundle from now on; no connection is touched and no call fails."""
        self.state.take(model)
        await self._set_health()

    async def drain(self, *, notice: float = _NOTICE_S) -> None:
        """Stop well: NOT_SERVING first, then no new calls, then the running ones have ``drain_s`` seconds to end.

        New calls are refused for a moment before gRPC shuts down, because from then on it cancels them, and CANCELLED
        does not tell a client to try again.
        """
        await self.health.enter_graceful_shutdown()
        await asyncio.sleep(notice)
        self.guard.draining = True
        self.guard.end_streams()
        await asyncio.sleep(notice)
        await self._server.stop(self.state.settings.drain_s)

    async def _set_health(self) -> None:
        serving = health_pb2.HealthCheckResponse.SERVING
        absent = health_pb2.HealthCheckResponse.NOT_SERVING
        answers = serving if self.state.retrieval is not None else absent
        # The empty name stands for the server as a whole; ModelService answers with or without a bundle.
        for service in ("", RETRIEVAL):
            await self.health.set(service, answers)
        await self.health.set(MODEL, serving)
