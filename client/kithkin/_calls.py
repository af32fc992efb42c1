"""Every call, once: its arguments, its request, and how to read the answer. The clients only carry them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2

from kithkin import _responses
from kithkin._requests import count, described_entity, event, exactly_one, many, ref, refs, text, vector_message
from kithkin.errors import HINT_OF_REASON, Internal
from kithkin.queries import Described, Entity, Event
from kithkin.types import (
    Activation,
    Batch,
    Bundles,
    Explanation,
    Fallback,
    Health,
    Node,
    Nodes,
    Results,
    Status,
    Vector,
    Vectors,
)
from kithkin.v1 import model_service_pb2 as model
from kithkin.v1 import retrieval_service_pb2 as retrieval
from kithkin.v1 import types_pb2 as wire

_FALLBACKS = {None: wire.FALLBACK_UNSPECIFIED, "popular": wire.FALLBACK_POPULAR}

A = TypeVar("A")
M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Call(Generic[A]):
    """One call: where it goes, its request, how to read its answer, and the caller's deadline and request id."""

    path: str
    request: bytes
    read: Callable[[bytes, str], A]
    timeout: float | None
    request_id: str | None
    once: bool = False
    """Never tried again: a second time does something else."""

    def answer(self, payload: bytes, request_id: str) -> A:
        """The answer in `payload`; raises `Internal` where it cannot be read."""
        try:
            return self.read(payload, request_id)
        except (DecodeError, ValueError, OverflowError) as error:
            raise Internal(
                f"the answer to {self.path} cannot be read: {error}",
                code="INTERNAL",
                hint=HINT_OF_REASON["UNDECODABLE_REQUEST"],
                request_id=request_id,
            ) from error


def _call(
    path: str,
    request: Message,
    response: type[M],
    read: Callable[[M, str], A],
    timeout: float | None,
    request_id: str | None,
) -> Call[A]:
    # Bytes in and out, parsed here: gRPC's own deserializer answers a broken message with None (async) or a logged
    # traceback (sync).
    return Call(
        f"/{path}",
        request.SerializeToString(),
        lambda payload, sent_id: read(response.FromString(payload), sent_id),
        timeout,
        request_id,
    )


def similar(
    entity: Entity | None = None,
    *,
    vector: Iterable[float] | None = None,
    described: Described | Mapping[str, Any] | None = None,
    top_k: int = 10,
    type: str | None = None,
    target_type: str | None = None,
    exclude: Iterable[Entity] = (),
    reasons: int = 0,
    timeout: float | None = None,
    request_id: str | None = None,
) -> Call[Results]:
    """Returns the entities most similar to one, to a vector, or to a described entity, best first.

    Args:
        entity: An id, ``("Type", "id")``, or anything an answer gave; it is left out of the answer itself.
        vector: Floats of the space ``similar``, instead of an entity.
        described: An entity that is not in the graph, instead: `Described` or a dict of its fields.
        top_k: How many.
        type: Node type of what is given, where it does not say itself.
        target_type: Entity type of the answer; None: the same as the query's.
        exclude: Entities to leave out.
        reasons: How many reasons to give with each result, at most 10.
        timeout: Seconds the call may take; None: the client's.
        request_id: What logs shall call this call; None: a fresh one.
    """
    request = _similar(
        entity,
        vector=vector,
        described=described,
        top_k=top_k,
        type=type,
        target_type=target_type,
        exclude=exclude,
        reasons=reasons,
    )
    return _call(
        "kithkin.v1.RetrievalService/SearchSimilarEntities",
        request,
        retrieval.SearchSimilarEntitiesResponse,
        _responses.results,
        timeout,
        request_id,
    )


def recommend(
    user: Entity | None = None,
    *,
    events: Iterable[Event | Entity] | None = None,
    vector: Iterable[float] | None = None,
    top_k: int = 10,
    type: str | None = None,
    target_type: str | None = None,
    exclude: Iterable[Entity] = (),
    include_engaged: bool = False,
    fallback: Fallback | None = None,
    reasons: int = 0,
    timeout: float | None = None,
    request_id: str | None = None,
) -> Call[Results]:
    """Returns the entities to show a user, best first.

    Args:
        user: The user's id, ``("Type", "id")`` or a node.
        events: Instead of a user, the last things somebody touched, oldest first: entities, or `Event` with weight and
            time.
        vector: Floats of the space ``user``, instead.
        top_k: How many.
        type: Node type of the user, or of the events' entities, where they do not say themselves.
        target_type: Entity type of the answer; None: the graph's single one.
        exclude: Entities to leave out.
        include_engaged: Also those the user already engaged with.
        fallback: ``"popular"``: for an unknown user the most engaged entities instead of `NotFound`; ``info.fallback``
            then says so.
        reasons: How many reasons to give with each result, at most 10.
        timeout: Seconds the call may take; None: the client's.
        request_id: What logs shall call this call; None: a fresh one.
    """
    request = _recommend(
        user,
        events=events,
        vector=vector,
        top_k=top_k,
        type=type,
        target_type=target_type,
        exclude=exclude,
        include_engaged=include_engaged,
        fallback=fallback,
        reasons=reasons,
    )
    return _call(
        "kithkin.v1.RetrievalService/RetrieveEntitiesForUser",
        request,
        retrieval.RetrieveEntitiesForUserResponse,
        _responses.results,
        timeout,
        request_id,
    )


def similar_batch(
    items: Iterable[Entity | Described | Vector | Mapping[str, Any]],
    *,
    top_k: int = 10,
    type: str | None = None,
    target_type: str | None = None,
    exclude: Iterable[Entity] = (),
    reasons: int = 0,
    timeout: float | None = None,
    request_id: str | None = None,
) -> Call[Batch]:
    """Answers at most 100 `similar` at once, from one bundle, each with its `Results` or its error, in the order given.

    Args:
        items: Entities, `Described`, a `Vector`, or dicts of arguments of `similar`, such as
            ``{"entity": "1", "top_k": 3}``, which go before those given here.
        top_k: How many for each.
        type: Node type of what is given, where it does not say itself.
        target_type: Entity type of the answers; None: the same as each query's.
        exclude: Entities to leave out of every answer.
        reasons: How many reasons to give with each result, at most 10.
        timeout: Seconds the call may take; None: the client's.
        request_id: What logs shall call this call; None: a fresh one.
    """
    common = {
        "top_k": top_k,
        "type": type,
        "target_type": target_type,
        "exclude": list(many("exclude", exclude)),
        "reasons": reasons,
    }
    return _call(
        "kithkin.v1.RetrievalService/BatchSearchSimilarEntities",
        retrieval.BatchSearchSimilarEntitiesRequest(requests=_each("similar_batch", "entity", items, _similar, common)),
        retrieval.BatchSearchSimilarEntitiesResponse,
        _responses.batch,
        timeout,
        request_id,
    )


def recommend_batch(
    items: Iterable[Entity | Vector | Mapping[str, Any]],
    *,
    top_k: int = 10,
    type: str | None = None,
    target_type: str | None = None,
    exclude: Iterable[Entity] = (),
    include_engaged: bool = False,
    fallback: Fallback | None = None,
    reasons: int = 0,
    timeout: float | None = None,
    request_id: str | None = None,
) -> Call[Batch]:
    """Answers at most 100 `recommend` at once, from one bundle, each with its `Results` or its error, as given.

    ``items`` are users, a `Vector`, or dicts of arguments of `recommend`, such as ``{"events": ["1", "7"]}``, which go
    before those given here; the other arguments are those of `recommend`, for all of them.
    """
    common = {
        "top_k": top_k,
        "type": type,
        "target_type": target_type,
        "exclude": list(many("exclude", exclude)),
        "include_engaged": include_engaged,
        "fallback": fallback,
        "reasons": reasons,
    }
    requests = _each("recommend_batch", "user", items, _recommend, common)
    return _call(
        "kithkin.v1.RetrievalService/BatchRetrieveEntitiesForUser",
        retrieval.BatchRetrieveEntitiesForUserRequest(requests=requests),
        retrieval.BatchRetrieveEntitiesForUserResponse,
        _responses.batch,
        timeout,
        request_id,
    )


def users_for(
    entity: Entity | None = None,
    *,
    vector: Iterable[float] | None = None,
    top_k: int = 10,
    type: str | None = None,
    target_type: str | None = None,
    exclude: Iterable[Entity] = (),
    include_engaged: bool = False,
    timeout: float | None = None,
    request_id: str | None = None,
) -> Call[Results]:
    """Returns the users to show an entity to, best first.

    Args:
        entity: An id, ``("Type", "id")``, or anything an answer gave.
        vector: Floats of the space ``user``, instead of an entity.
        top_k: How many.
        type: Node type of the entity, where it does not say itself.
        target_type: User type of the answer; None: the graph's single one.
        exclude: Users to leave out.
        include_engaged: Also those who already engaged with the entity.
        timeout: Seconds the call may take; None: the client's.
        request_id: What logs shall call this call; None: a fresh one.
    """
    exactly_one("users_for", entity=entity, vector=vector)
    request = retrieval.RetrieveUsersForEntityRequest(
        target_type=text("target_type", target_type),
        top_k=count("top_k", top_k, least=1),
        exclude=refs("exclude", exclude, target_type),
        include_engaged=bool(include_engaged),
    )
    if entity is not None:
        request.entity.CopyFrom(ref("entity", entity, type))
    elif vector is not None:
        request.vector.CopyFrom(vector_message(vector))
    return _call(
        "kithkin.v1.RetrievalService/RetrieveUsersForEntity",
        request,
        retrieval.RetrieveUsersForEntityResponse,
        _responses.results,
        timeout,
        request_id,
    )


def embed(
    items: Iterable[Entity | Described | Mapping[str, Any]],
    *,
    space: str = "similar",
    type: str | None = None,
    timeout: float | None = None,
    request_id: str | None = None,
) -> Call[Vectors]:
    """Returns the vectors of at most 100 entities, in the graph or described, in the order given.

    ``numpy.asarray(client.embed(ids))`` is float32 [entities, dimension]. ``type`` is the node type of items that
    do not say theirs.
    """
    request = retrieval.EmbedEntitiesRequest(space=text("space", space))
    for item in many("items", items):
        if isinstance(item, Described | Mapping):
            request.items.add().described.CopyFrom(described_entity(item, type))
        else:
            request.items.add().entity.CopyFrom(ref("items", item, type))
    if not request.items:
        raise ValueError("items is empty: give at least one entity to embed")
    return _call(
        "kithkin.v1.RetrievalService/EmbedEntities",
        request,
        retrieval.EmbedEntitiesResponse,
        _responses.vectors,
        timeout,
        request_id,
    )


def explain(
    source: Entity,
    target: Entity,
    *,
    type: str | None = None,
    max_reasons: int = 5,
    timeout: float | None = None,
    request_id: str | None = None,
) -> Call[Explanation]:
    """Returns the evidence that connects two entities, strongest first.

    ``type`` is the node type of ids that do not say theirs.
    """
    request = retrieval.ExplainSimilarityRequest(
        source=ref("source", source, type),
        target=ref("target", target, type),
        max_reasons=count("max_reasons", max_reasons, least=1),
    )
    return _call(
        "kithkin.v1.RetrievalService/ExplainSimilarity",
        request,
        retrieval.ExplainSimilarityResponse,
        _responses.explanation,
        timeout,
        request_id,
    )


def get(
    id: Entity, *, type: str | None = None, timeout: float | None = None, request_id: str | None = None
) -> Call[Node]:
    """Returns one node, entity, concept or user, with its shown properties; raises `NotFound`."""
    request = retrieval.GetEntityRequest(ref=ref("id", id, type))
    return _call(
        "kithkin.v1.RetrievalService/GetEntity",
        request,
        retrieval.GetEntityResponse,
        _responses.node,
        timeout,
        request_id,
    )


def find(
    name: str, *, type: str | None = None, timeout: float | None = None, request_id: str | None = None
) -> Call[Nodes]:
    """Returns the nodes of a name, the most engaged first: an exact match, else without regard to case.

    Looks among all entity types, or in ``type`` alone; raises `NotFound` where no node has the name.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, not {name!r}; to look up an id use get(...)")
    if not name:
        raise ValueError("name is empty")
    request = retrieval.GetEntityRequest(name=retrieval.NameQuery(name=name, type=text("type", type)))
    return _call(
        "kithkin.v1.RetrievalService/GetEntity",
        request,
        retrieval.GetEntityResponse,
        _responses.nodes,
        timeout,
        request_id,
    )


def status(*, timeout: float | None = None, request_id: str | None = None) -> Call[Status]:
    """Returns what the server has loaded: bundle, spaces, indexes, node counts."""
    return _call(
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
    return _call(
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
    return _call(
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
    call = _call(
        "kithkin.v1.ModelService/RollbackBundle",
        model.RollbackBundleRequest(),
        model.RollbackBundleResponse,
        _responses.activation,
        timeout,
        request_id,
    )
    return replace(call, once=True)


def health(service: str = "", *, timeout: float | None = None, request_id: str | None = None) -> Call[Health]:
    """Returns ``"SERVING"`` once a bundle answers, else ``"NOT_SERVING"``; raises `Unavailable` where nobody answers.

    The standard gRPC health check; ``service`` is the full name of one service, empty: the server as a whole.
    """
    return _call(
        "grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest(service=text("service", service)),
        health_pb2.HealthCheckResponse,
        _responses.health,
        timeout,
        request_id,
    )


def _similar(
    entity: Entity | None = None,
    *,
    vector: Iterable[float] | None = None,
    described: Described | Mapping[str, Any] | None = None,
    top_k: int,
    type: str | None,
    target_type: str | None,
    exclude: Iterable[Entity],
    reasons: int,
) -> retrieval.SearchSimilarEntitiesRequest:
    exactly_one("similar", entity=entity, vector=vector, described=described)
    request = retrieval.SearchSimilarEntitiesRequest(
        target_type=text("target_type", target_type),
        top_k=count("top_k", top_k, least=1),
        exclude=refs("exclude", exclude, target_type or type),
        reasons=count("reasons", reasons),
    )
    if entity is not None:
        request.entity.CopyFrom(ref("entity", entity, type))
    elif vector is not None:
        request.vector.CopyFrom(vector_message(vector))
    elif described is not None:
        request.described.CopyFrom(described_entity(described, type))
    return request


def _recommend(
    user: Entity | None = None,
    *,
    events: Iterable[Event | Entity] | None = None,
    vector: Iterable[float] | None = None,
    top_k: int,
    type: str | None,
    target_type: str | None,
    exclude: Iterable[Entity],
    include_engaged: bool,
    fallback: Fallback | None,
    reasons: int,
) -> retrieval.RetrieveEntitiesForUserRequest:
    exactly_one("recommend", user=user, events=events, vector=vector)
    if fallback not in _FALLBACKS:
        raise ValueError(f"fallback must be None or 'popular', not {fallback!r}")
    request = retrieval.RetrieveEntitiesForUserRequest(
        target_type=text("target_type", target_type),
        top_k=count("top_k", top_k, least=1),
        exclude=refs("exclude", exclude, target_type),
        include_engaged=bool(include_engaged),
        fallback=_FALLBACKS[fallback],
        reasons=count("reasons", reasons),
    )
    if user is not None:
        request.user.CopyFrom(ref("user", user, type))
    elif vector is not None:
        request.vector.CopyFrom(vector_message(vector))
    elif events is not None:
        request.events.events.extend(event(item, type) for item in many("events", events))
        if not request.events.events:
            raise ValueError("events is empty: give at least one thing the user did, oldest first")
    return request


def _each(call: str, query: str, items: Iterable[Any], build: Callable[..., M], common: Mapping[str, Any]) -> list[M]:
    """The requests of a batch; what an item says itself goes before what is common to all."""
    requests = []
    for place, item in enumerate(many("items", items)):
        if isinstance(item, Mapping):
            own = dict(item)
        elif isinstance(item, Vector):
            own = {"vector": item}
        elif isinstance(item, Described):
            own = {"described": item}
        else:
            own = {query: item}
        try:
            requests.append(build(**{**common, **own}))
        except (TypeError, ValueError) as error:
            raise error.__class__(f"items[{place}]: {error}") from None
    if not requests:
        raise ValueError(f"items is empty: give {call}() at least one")
    return requests
