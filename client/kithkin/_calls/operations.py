"""What a server has loaded, and what it shall serve: calls for operators."""

from __future__ import annotations

from dataclasses import replace

from google.protobuf import wrappers_pb2

from kithkin import _responses
from kithkin._calls.call import Call, call
from kithkin._requests import count, text
from kithkin.types import Activation, Bundles, Health, Status
from kithkin.v1 import model_service_pb2 as model


def status(*, timeout: float | None = None, request_id: str | None = None) -> Call[Status]:
    """Returns what the server has loaded: bundle, spaces, indexes, node counts."""
    return call(
        "kithkin.v1.ModelService/GetStatus",
        model.GetStatusRequest(),
        model.GetStatusResponse,
        _responses.status,
        timeout,
        request_id,
    )


def bundles(
    *, page_size: int = 100, page_token: str = "", timeout: float | None = None, request_id: str | None = None
) -> Call[Bundles]:
    """Returns the bundles that the server could serve, newest first, in pages of at most 100."""
    return call(
        "kithkin.v1.ModelService/ListBundles",
        model.ListBundlesRequest(
            page_size=count("page_size", page_size, least=1), page_token=text("page_token", page_token)
        ),
        model.ListBundlesResponse,
        _responses.bundles,
        timeout,
        request_id,
    )


def activate(version: str, *, timeout: float | None = None, request_id: str | None = None) -> Call[Activation]:
    """Makes a bundle the active one, and returns once the server answers from it.

    The bundle is read three times (checked, tried, loaded), each about a second a gigabyte: give ``timeout``
    accordingly. Where it passes, the bundle is active all the same, and serves when it is loaded. Raises `NotFound`,
    `FailedPrecondition` (damaged, or it does not answer: what served before serves on) and `Aborted` (another bundle
    was activated meanwhile).
    """
    if not text("version", version):
        raise ValueError("version is empty")
    return call(
        "kithkin.v1.ModelService/ActivateBundle",
        model.ActivateBundleRequest(version=version),
        model.ActivateBundleResponse,
        _responses.activation,
        timeout,
        request_id,
    )


def rollback(*, timeout: float | None = None, request_id: str | None = None) -> Call[Activation]:
    """Activates the bundle that was active before, and returns once the server answers from it.

    Called again it goes further back, so it is never tried twice by itself. Otherwise like `activate`; raises
    `FailedPrecondition` where nothing was active before.
    """
    once = call(
        "kithkin.v1.ModelService/RollbackBundle",
        model.RollbackBundleRequest(),
        model.RollbackBundleResponse,
        _responses.activation,
        timeout,
        request_id,
    )
    return replace(once, once=True)


def health(service: str = "", *, timeout: float | None = None, request_id: str | None = None) -> Call[Health]:
    """Returns ``"SERVING"`` once a bundle answers, else ``"NOT_SERVING"``; raises `Unavailable` where nobody answers.

    The standard gRPC health check; ``service`` is the full name of one service, empty: the server as a whole.
    """
    return call(
        "grpc.health.v1.Health/Check",
        # The bytes of grpc.health.v1's request and answer, each with one field; its package is not needed for that.
        wrappers_pb2.StringValue(value=text("service", service)),
        wrappers_pb2.Int32Value,
        _responses.health,
        timeout,
        request_id,
    )
