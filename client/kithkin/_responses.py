"""Response messages to the types of `kithkin.types`."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf import wrappers_pb2

from kithkin._floats import vector
from kithkin._translation import from_status
from kithkin.errors import KithkinError
from kithkin.types import (
    Activation,
    Batch,
    Bundles,
    BundleStatus,
    BundleSummary,
    DeltaStatus,
    Explanation,
    Fallback,
    Health,
    IndexStatus,
    Metric,
    Node,
    Nodes,
    Page,
    PropertyValue,
    Reason,
    Ref,
    ResponseInfo,
    Results,
    ScoredEntity,
    Scores,
    SpaceStatus,
    Status,
    Vectors,
)
from kithkin.v1 import model_service_pb2 as model
from kithkin.v1 import retrieval_service_pb2 as retrieval
from kithkin.v1 import types_pb2 as wire

_FALLBACKS: dict[int, Fallback | None] = {wire.FALLBACK_UNSPECIFIED: None, wire.FALLBACK_POPULAR: "popular"}
_HEALTH: dict[int, Health] = {1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_METRICS: dict[int, Metric] = {model.COSINE: "cosine", model.INNER_PRODUCT: "inner_product"}


def results(
    response: retrieval.SearchSimilarEntitiesResponse
    | retrieval.RetrieveEntitiesForUserResponse
    | retrieval.RetrieveUsersForEntityResponse,
    request_id: str,
) -> Results:
    """Answer of the searches."""
    return Results(tuple(_scored(item) for item in response.results), _info(response.info, request_id))


def batch(
    response: retrieval.BatchSearchSimilarEntitiesResponse | retrieval.BatchRetrieveEntitiesForUserResponse,
    request_id: str,
) -> Batch:
    """Answer of the batches."""
    outcomes: list[Results | KithkinError] = []
    for item in response.items:
        match item.WhichOneof("outcome"):
            case "response":
                outcomes.append(results(item.response, request_id))
            case "error":
                outcomes.append(from_status(item.error, request_id))
            case _:
                raise ValueError("an item has neither a response nor an error")
    return Batch(tuple(outcomes), _info(response.info, request_id))


def scores(response: retrieval.ScorePairsResponse, request_id: str) -> Scores:
    """Answer of `ScorePairs`."""
    outcomes: list[float | KithkinError] = []
    for item in response.items:
        match item.WhichOneof("outcome"):
            case "score":
                outcomes.append(item.score)
            case "error":
                outcomes.append(from_status(item.error, request_id))
            case _:
                raise ValueError("a pair has neither a score nor an error")
    return Scores(tuple(outcomes), _info(response.info, request_id))


def vectors(response: retrieval.EmbedEntitiesResponse | retrieval.EmbedUsersResponse, request_id: str) -> Vectors:
    """Answer of `EmbedEntities` and `EmbedUsers`."""
    return Vectors(tuple(map(vector, response.vectors)), _info(response.info, request_id))


def explanation(response: retrieval.ExplainSimilarityResponse, request_id: str) -> Explanation:
    """Answer of `ExplainSimilarity`."""
    return Explanation(
        source=_node(response.source),
        target=_node(response.target),
        score=response.score if response.HasField("score") else None,
        reasons=tuple(_reason(item) for item in response.reasons),
        info=_info(response.info, request_id),
        explained_score=response.explained_score if response.HasField("explained_score") else None,
        rest=response.rest,
    )


def nodes(response: retrieval.GetEntityResponse, request_id: str) -> Nodes:
    """Answer of `GetEntity` by name."""
    return Nodes(tuple(_node(item) for item in response.nodes), _info(response.info, request_id))


def page(response: retrieval.ListEntitiesResponse, request_id: str) -> Page:
    """Answer of `ListEntities`."""
    found = tuple(_node(item) for item in response.nodes)
    return Page(found, _info(response.info, request_id), response.next_page_token)


def node(response: retrieval.GetEntityResponse, request_id: str) -> Node:
    """Answer of `GetEntity` by id."""
    if len(response.nodes) != 1:
        raise ValueError(f"one node was asked for by id, {len(response.nodes)} came")
    return _node(response.nodes[0])


def status(response: model.GetStatusResponse, request_id: str) -> Status:
    """Answer of `GetStatus`."""
    return Status(
        server_version=response.server_version,
        bundle=_bundle(response.bundle) if response.HasField("bundle") else None,
        uptime=response.uptime.ToTimedelta(),
        worker_pid=response.worker_pid,
        refused_bundle=response.refused_bundle,
        workers=response.workers,
        workers_serving=response.workers_serving,
        beside=tuple(response.beside),
        delta=_delta(response.delta) if response.HasField("delta") else None,
    )


def bundles(response: model.ListBundlesResponse, request_id: str) -> Bundles:
    """Answer of `ListBundles`."""
    return Bundles(
        tuple(
            BundleSummary(
                version=item.version,
                published_at=item.published_at.ToDatetime(UTC) if item.HasField("published_at") else None,
                snapshot_hash=item.snapshot_hash,
                nodes=dict(sorted(item.nodes.items())),
                active=item.active,
                serving=item.serving,
                problem=item.problem,
            )
            for item in response.bundles
        ),
        response.next_page_token,
    )


def activation(response: model.ActivateBundleResponse | model.RollbackBundleResponse, request_id: str) -> Activation:
    """Answer of `ActivateBundle` and `RollbackBundle`."""
    return Activation(response.version, response.previous_version)


def health(response: wrappers_pb2.Int32Value, request_id: str) -> Health:
    """Answer of gRPC's own health check, whose single field is the number of a state."""
    return _HEALTH.get(response.value, "UNKNOWN")


def _bundle(message: model.BundleStatus) -> BundleStatus:
    return BundleStatus(
        version=message.version,
        published_at=message.published_at.ToDatetime(UTC) if message.HasField("published_at") else None,
        snapshot_hash=message.snapshot_hash,
        spaces=tuple(
            SpaceStatus(
                name=space.name,
                metric=_METRICS.get(space.metric, "unspecified"),
                dimension=space.dimension,
                indexes=tuple(
                    IndexStatus(
                        node_type=index.node_type,
                        vectors=index.vectors,
                        kind=index.kind,
                        exact_reason=index.exact_reason,
                        recall_at_10=index.recall_at_10,
                        recall_target=index.recall_target,
                    )
                    for index in space.indexes
                ),
            )
            for space in message.spaces
        ),
        nodes=dict(sorted(message.nodes.items())),
    )


def _delta(message: model.DeltaStatus) -> DeltaStatus:
    return DeltaStatus(
        fresh=message.fresh,
        changed=message.changed,
        deleted=message.deleted,
        lag=message.lag.ToTimedelta() if message.HasField("lag") else None,
    )


def _info(message: wire.ResponseInfo, request_id: str) -> ResponseInfo:
    return ResponseInfo(
        bundle_version=message.bundle_version,
        exact=message.exact,
        candidates_scored=message.candidates_scored,
        truncated=message.truncated,
        fallback=_FALLBACKS.get(message.fallback),
        shortfall_reason=message.shortfall_reason,
        server_time=message.server_time.ToTimedelta(),
        request_id=request_id,
        filter_passed=message.filter_passed if message.HasField("filter_passed") else None,
        network_calls=message.network_calls,
    )


def _scored(message: wire.ScoredNode) -> ScoredEntity:
    return ScoredEntity(_node(message.node), message.score, tuple(_reason(item) for item in message.reasons))


def _reason(message: wire.Reason) -> Reason:
    return Reason(
        path=tuple(_node(item) for item in message.path),
        relations=tuple(message.relations),
        contribution=message.contribution,
        text=message.text,
        score_part=message.score_part if message.HasField("score_part") else None,
    )


def _node(message: wire.Node) -> Node:
    ref = Ref(message.ref.type, message.ref.id)
    # The wire's map has no order; sorted, the same node always prints the same.
    properties = {name: _property(message.properties[name]) for name in sorted(message.properties)}
    return Node(ref, message.name or ref.id, properties)


def _property(message: wire.PropertyValue) -> PropertyValue:
    match message.WhichOneof("kind"):
        case "string_value":
            return message.string_value
        case "int_value":
            return message.int_value
        case "float_value":
            return message.float_value
        case "bool_value":
            return message.bool_value
        case "strings_value":
            return tuple(message.strings_value.values)
        case "time_value":
            moment: datetime = message.time_value.ToDatetime(UTC)
            return moment
        case "vector_value":
            return tuple(message.vector_value.values)
        case _:
            return None
