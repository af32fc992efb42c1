"""The services as gRPC calls them: a thin skin over ``Retrieval`` and the state of the worker."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from graph_store.settings import ServingSettings
from kithkin.v1 import model_service_pb2, model_service_pb2_grpc, retrieval_service_pb2_grpc
from kithkin.v1 import retrieval_service_pb2 as pb
from server.errors import NoBundle
from server.guard import current_deadline
from server.model import ServedModel
from server.retrieval import Retrieval


@dataclass(kw_only=True)
class State:
    """What one worker serves."""

    settings: ServingSettings
    retrieval: Retrieval | None = None
    """None: no bundle yet."""
    refused_bundle: str = ""
    """Why the newest bundle was refused."""
    started: float = field(default_factory=time.monotonic)

    def take(self, model: ServedModel) -> None:
        """Answer from this bundle from now on; calls that run keep the one they began with."""
        self.retrieval = Retrieval(model, self.settings)

    def serving(self) -> Retrieval:
        """The loaded bundle's calls. Raises NoBundle."""
        if self.retrieval is None:
            why = f": {self.refused_bundle}" if self.refused_bundle else ""
            raise NoBundle(f"no bundle is loaded yet{why}", hint="Publish one (`kithkin build`), then try again.")
        return self.retrieval


class RetrievalServicer(retrieval_service_pb2_grpc.RetrievalServiceServicer):
    """Answers in the event loop: a search takes less time than handing it to a thread."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def SearchSimilarEntities(  # noqa: N802
        self, request: pb.SearchSimilarEntitiesRequest, context: Any
    ) -> pb.SearchSimilarEntitiesResponse:
        return self._state.serving().search_similar_entities(request, current_deadline.get())

    async def RetrieveEntitiesForUser(  # noqa: N802
        self, request: pb.RetrieveEntitiesForUserRequest, context: Any
    ) -> pb.RetrieveEntitiesForUserResponse:
        return self._state.serving().retrieve_entities_for_user(request, current_deadline.get())

    async def EmbedEntities(  # noqa: N802
        self, request: pb.EmbedEntitiesRequest, context: Any
    ) -> pb.EmbedEntitiesResponse:
        return self._state.serving().embed_entities(request, current_deadline.get())

    async def ExplainSimilarity(  # noqa: N802
        self, request: pb.ExplainSimilarityRequest, context: Any
    ) -> pb.ExplainSimilarityResponse:
        return self._state.serving().explain_similarity(request, current_deadline.get())

    async def GetEntity(self, request: pb.GetEntityRequest, context: Any) -> pb.GetEntityResponse:  # noqa: N802
        return self._state.serving().get_entity(request, current_deadline.get())


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Tells operators what is loaded; answers without a bundle too."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def GetStatus(  # noqa: N802
        self, request: model_service_pb2.GetStatusRequest, context: Any
    ) -> model_service_pb2.GetStatusResponse:
        state = self._state
        response = model_service_pb2.GetStatusResponse(
            server_version=_version(), worker_pid=os.getpid(), refused_bundle=state.refused_bundle
        )
        response.uptime.FromNanoseconds(int((time.monotonic() - state.started) * 1e9))
        if state.retrieval is not None:
            response.bundle.CopyFrom(bundle_status(state.retrieval.model))
        return response


def bundle_status(model: ServedModel) -> model_service_pb2.BundleStatus:
    """What a loaded bundle holds; index kinds as loaded, which may differ from as published."""
    manifest = model.bundle.manifest
    status = model_service_pb2.BundleStatus(
        version=manifest.version,
        published_at=manifest.published_at,
        snapshot_hash=manifest.snapshot_hash,
        nodes={each.name: each.count for each in manifest.node_types},
    )
    for space in manifest.spaces:
        described = status.spaces.add(name=space.name, metric=space.metric, dimension=space.dimension)
        for index in space.indexes:
            loaded = model.indexes[space.name, index.node_type]
            replaced = loaded.kind != index.kind
            described.indexes.add(
                node_type=index.node_type,
                vectors=len(loaded),
                kind=loaded.kind,
                exact_reason="ScaNN is not installed on this machine" if replaced else index.exact_reason,
                recall_at_10=1.0 if replaced else index.recall_at_10,
                recall_target=index.recall_target,
            )
    return status


def _version() -> str:
    try:
        return metadata.version("kithkin-service")
    except metadata.PackageNotFoundError:
        return "unknown"
