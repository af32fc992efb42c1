"""The services as gRPC calls them: a thin skin over ``Retrieval`` and the state of the worker."""

from __future__ import annotations

import os
import time
from importlib import metadata
from typing import Any

from kithkin.v1 import model_service_pb2, model_service_pb2_grpc, retrieval_service_pb2_grpc, types_pb2
from kithkin.v1 import retrieval_service_pb2 as pb
from server.calls import listing
from server.calls.answer_bytes import EncodedBatch
from server.calls.answers import Answer
from server.calls.batches import answer_each, encoded_batch, find
from server.calls.retrieval import Retrieval
from server.index.scann_index import scann_version
from server.model.served_model import ServedModel
from server.processes.state import State
from server.threads import apart
from server.wire.administration import Administration
from server.wire.guard import current_deadline, current_origin


class RetrievalServicer(retrieval_service_pb2_grpc.RetrievalServiceServicer):
    """Answers in the event loop: a search takes less time than handing it to a thread."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def SearchSimilarEntities(  # noqa: N802
        self, request: pb.SearchSimilarEntitiesRequest, context: Any
    ) -> Answer[pb.SearchSimilarEntitiesResponse]:
        response = self._state.serving(request.bundle_version).search_similar_entities(request, current_deadline.get())
        if self._state.shadow is not None:
            self._state.shadow.offer_similar(request, response)
        return response

    async def RetrieveEntitiesForUser(  # noqa: N802
        self, request: pb.RetrieveEntitiesForUserRequest, context: Any
    ) -> Answer[pb.RetrieveEntitiesForUserResponse]:
        retrieval, deadline = self._state.serving(request.bundle_version), current_deadline.get()
        prepared = retrieval.prepare_for_user(request, deadline)
        response = prepared.finish((await find(retrieval, [prepared], deadline))[0])
        if self._state.shadow is not None:
            self._state.shadow.offer_for_user(request, response)
        return response

    async def BatchSearchSimilarEntities(  # noqa: N802
        self, request: pb.BatchSearchSimilarEntitiesRequest, context: Any
    ) -> EncodedBatch:
        retrieval, deadline = self._state.serving(), current_deadline.get()
        outcomes = await answer_each(
            retrieval, request.requests, Retrieval.prepare_similar, deadline, current_origin.get(), self._state.serving
        )
        return encoded_batch(retrieval, outcomes, pb.BatchSearchSimilarEntitiesResponse, deadline)

    async def BatchRetrieveEntitiesForUser(  # noqa: N802
        self, request: pb.BatchRetrieveEntitiesForUserRequest, context: Any
    ) -> EncodedBatch:
        retrieval, deadline = self._state.serving(), current_deadline.get()
        outcomes = await answer_each(
            retrieval, request.requests, Retrieval.prepare_for_user, deadline, current_origin.get(), self._state.serving
        )
        return encoded_batch(retrieval, outcomes, pb.BatchRetrieveEntitiesForUserResponse, deadline)

    async def RetrieveUsersForEntity(  # noqa: N802
        self, request: pb.RetrieveUsersForEntityRequest, context: Any
    ) -> Answer[pb.RetrieveUsersForEntityResponse]:
        return self._state.serving(request.bundle_version).retrieve_users_for_entity(request, current_deadline.get())

    async def ScorePairs(self, request: pb.ScorePairsRequest, context: Any) -> pb.ScorePairsResponse:  # noqa: N802
        retrieval = self._state.serving(request.bundle_version)
        asked = request, current_deadline.get(), current_origin.get()
        if request.score == types_pb2.NEURAL or request.HasField("context"):
            return await apart(retrieval.score_pairs, *asked)
        return retrieval.score_pairs(*asked)

    async def EmbedUsers(self, request: pb.EmbedUsersRequest, context: Any) -> pb.EmbedUsersResponse:  # noqa: N802
        return self._state.serving(request.bundle_version).embed_users(request, current_deadline.get())

    async def ListEntities(  # noqa: N802
        self, request: pb.ListEntitiesRequest, context: Any
    ) -> pb.ListEntitiesResponse:
        return listing.list_entities(self._state.serving, request, current_deadline.get())

    async def EmbedEntities(  # noqa: N802
        self, request: pb.EmbedEntitiesRequest, context: Any
    ) -> pb.EmbedEntitiesResponse:
        return self._state.serving(request.bundle_version).embed_entities(request, current_deadline.get())

    async def ExplainSimilarity(  # noqa: N802
        self, request: pb.ExplainSimilarityRequest, context: Any
    ) -> pb.ExplainSimilarityResponse:
        return self._state.serving().explain_similarity(request, current_deadline.get())

    async def GetEntity(self, request: pb.GetEntityRequest, context: Any) -> pb.GetEntityResponse:  # noqa: N802
        return self._state.serving().get_entity(request, current_deadline.get())


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """Tells operators what is loaded, and changes it; answers without a bundle too."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._administration = Administration(state)

    async def ListBundles(  # noqa: N802
        self, request: model_service_pb2.ListBundlesRequest, context: Any
    ) -> model_service_pb2.ListBundlesResponse:
        return await self._administration.list_bundles(request)

    async def ActivateBundle(  # noqa: N802
        self, request: model_service_pb2.ActivateBundleRequest, context: Any
    ) -> model_service_pb2.ActivateBundleResponse:
        return await self._administration.activate(request.version, current_deadline.get())

    async def RollbackBundle(  # noqa: N802
        self, request: model_service_pb2.RollbackBundleRequest, context: Any
    ) -> model_service_pb2.RollbackBundleResponse:
        return await self._administration.roll_back(current_deadline.get())

    async def GetStatus(  # noqa: N802
        self, request: model_service_pb2.GetStatusRequest, context: Any
    ) -> model_service_pb2.GetStatusResponse:
        state = self._state
        workers, workers_serving = state.workers
        response = model_service_pb2.GetStatusResponse(
            server_version=_version(),
            worker_pid=os.getpid(),
            refused_bundle=state.refused_bundle,
            workers=workers,
            workers_serving=workers_serving,
            beside=sorted(state.beside),
        )
        response.uptime.FromNanoseconds(int((time.monotonic() - state.started) * 1e9))
        if state.delta is not None:
            delta = state.delta
            response.delta.fresh, response.delta.changed = delta.fresh, delta.changed
            response.delta.deleted = delta.deleted
            if delta.lag_s is not None:
                response.delta.lag.FromMilliseconds(round(delta.lag_s * 1000))
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
                exact_reason=_why_replaced(loaded.kind) if replaced else index.exact_reason,
                recall_at_10=1.0 if replaced else index.recall_at_10,
                recall_target=index.recall_target,
            )
    return status


def _version() -> str:
    try:
        return metadata.version("kithkin-service")
    except metadata.PackageNotFoundError:
        return "unknown"


def _why_replaced(kind: str) -> str:
    """Why an index is exact that was published otherwise."""
    if kind != "exact":
        return ""
    return "ScaNN is not installed on this machine" if scann_version() is None else "few vectors are left of many"
