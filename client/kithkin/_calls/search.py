"""Searches: similar entities, entities for a user, users for an entity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kithkin import _responses
from kithkin._calls.call import Call, call
from kithkin._filter_message import filter_message
from kithkin._floats import vector_message
from kithkin._requests import (
    SharedRefs,
    context_message,
    count,
    described_entity,
    event,
    exactly_one,
    fallback_value,
    many,
    number,
    ref,
    refs,
    score_value,
    text,
)
from kithkin.filters import Filter
from kithkin.queries import Context, Described, Entity, Event
from kithkin.types import Fallback, Results, Score
from kithkin.v1 import retrieval_service_pb2 as retrieval

_Search = (
    retrieval.SearchSimilarEntitiesRequest
    | retrieval.RetrieveEntitiesForUserRequest
    | retrieval.RetrieveUsersForEntityRequest
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
    filter: Filter | None = None,
    min_score: float | None = None,
    diversity: float = 0.0,
    reasons: int = 0,
    bundle_version: str | None = None,
    timeout: float | None = None,
    request_id: str | None = None,
) -> Call[Results]:
    """Returns the entities most similar to one, to a vector, or to a described entity, best first.

    Args:
        entity: An id, ``("Type", "id")``, or anything an answer gave; it is left out of the answer itself.
        vector: Floats of the space ``similar``, instead of an entity: any sequence or array.
        described: An entity that is not in the graph, instead: `Described` or a dict of its fields.
        top_k: How many.
        type: Node type of what is given, where it does not say itself.
        target_type: Entity type of the answer; None: the same as the query's.
        exclude: Entities to leave out.
        filter: Which entities may be answered, such as ``F.year >= 1990`` (`kithkin.filters`).
        min_score: Results below it are left out.
        diversity: From 0, by score alone, to 1, as unlike each other as can be.
        reasons: How many reasons to give with each result, at most 10.
        bundle_version: The bundle to answer from, one that the server has loaded; None: the active one.
        timeout: Seconds the call may take; None: the client's.
        request_id: What logs shall call this call; None: a fresh one.
    """
    request = similar_request(
        entity,
        vector=vector,
        described=described,
        top_k=top_k,
        type=type,
        target_type=target_type,
        exclude=exclude,
        filter=filter,
        min_score=min_score,
        diversity=diversity,
        reasons=reasons,
        bundle_version=bundle_version,
    )
    return call(
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
    context: Context | Entity | None = None,
    top_k: int = 10,
    type: str | None = None,
    target_type: str | None = None,
    exclude: Iterable[Entity] = (),
    include_engaged: bool = False,
    filter: Filter | None = None,
    min_score: float | None = None,
    diversity: float = 0.0,
    score: Score | None = None,
    fallback: Fallback | None = None,
    reasons: int = 0,
    bundle_version: str | None = None,
    timeout: float | None = None,
    request_id: str | None = None,
) -> Call[Results]:
    """Returns the entities to show a user, best first.

    Args:
        user: The user's id, ``("Type", "id")`` or a node.
        events: Instead of a user, the last things somebody touched, oldest first: entities, or `Event` with weight and
            time.
        vector: Floats of the space ``user``, instead: any sequence or array.
        context: What the user looks at now: an entity, or `Context` with concepts.
        top_k: How many.
        type: Node type of the user, or of the events' entities, where they do not say themselves.
        target_type: Entity type of the answer; None: the graph's single one.
        exclude: Entities to leave out.
        include_engaged: Also those the user already engaged with.
        filter: Which entities may be answered, such as ``F.year >= 1990`` (`kithkin.filters`).
        min_score: Results below it are left out.
        diversity: From 0, by score alone, to 1, as unlike each other as can be.
        score: ``"neural"``: ranked by the bundle's neural scorer over the user's last events.
        fallback: ``"popular"``: for an unknown user the most engaged entities instead of `NotFound`; ``info.fallback``
            then says so.
        reasons: How many reasons to give with each result, at most 10.
        bundle_version: The bundle to answer from, one that the server has loaded; None: the active one.
        timeout: Seconds the call may take; None: the client's.
        request_id: What logs shall call this call; None: a fresh one.
    """
    request = recommend_request(
        user,
        events=events,
        vector=vector,
        context=context,
        top_k=top_k,
        type=type,
        target_type=target_type,
        exclude=exclude,
        include_engaged=include_engaged,
        filter=filter,
        min_score=min_score,
        diversity=diversity,
        score=score,
        fallback=fallback,
        reasons=reasons,
        bundle_version=bundle_version,
    )
    return call(
        "kithkin.v1.RetrievalService/RetrieveEntitiesForUser",
        request,
        retrieval.RetrieveEntitiesForUserResponse,
        _responses.results,
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
    filter: Filter | None = None,
    min_score: float | None = None,
    bundle_version: str | None = None,
    timeout: float | None = None,
    request_id: str | None = None,
) -> Call[Results]:
    """Returns the users to show an entity to, best first.

    Args:
        entity: An id, ``("Type", "id")``, or anything an answer gave.
        vector: Floats of the space ``user``, instead of an entity: any sequence or array.
        top_k: How many.
        type: Node type of the entity, where it does not say itself.
        target_type: User type of the answer; None: the graph's single one.
        exclude: Users to leave out.
        include_engaged: Also those who already engaged with the entity.
        filter: Which users may be answered (`kithkin.filters`).
        min_score: Results below it are left out.
        bundle_version: The bundle to answer from, one that the server has loaded; None: the active one.
        timeout: Seconds the call may take; None: the client's.
        request_id: What logs shall call this call; None: a fresh one.
    """
    exactly_one("users_for", entity=entity, vector=vector)
    request = retrieval.RetrieveUsersForEntityRequest(
        target_type=text("target_type", target_type),
        top_k=count("top_k", top_k, least=1),
        exclude=refs("exclude", exclude, target_type),
        include_engaged=bool(include_engaged),
        bundle_version=text("bundle_version", bundle_version),
    )
    _conditions(request, filter, min_score)
    if entity is not None:
        request.entity.CopyFrom(ref("entity", entity, type))
    elif vector is not None:
        request.vector.CopyFrom(vector_message(vector))
    return call(
        "kithkin.v1.RetrievalService/RetrieveUsersForEntity",
        request,
        retrieval.RetrieveUsersForEntityResponse,
        _responses.results,
        timeout,
        request_id,
    )


def similar_request(
    entity: Entity | None = None,
    *,
    vector: Iterable[float] | None = None,
    described: Described | Mapping[str, Any] | None = None,
    top_k: int,
    type: str | None,
    target_type: str | None,
    exclude: Iterable[Entity] | SharedRefs,
    filter: Filter | None,
    min_score: float | None,
    diversity: float,
    reasons: int,
    bundle_version: str | None,
) -> retrieval.SearchSimilarEntitiesRequest:
    """The request of `similar`."""
    exactly_one("similar", entity=entity, vector=vector, described=described)
    request = retrieval.SearchSimilarEntitiesRequest(
        target_type=text("target_type", target_type),
        top_k=count("top_k", top_k, least=1),
        exclude=refs("exclude", exclude, target_type or type),
        reasons=count("reasons", reasons),
        diversity=number("diversity", diversity, 0, 1),
        bundle_version=text("bundle_version", bundle_version),
    )
    _conditions(request, filter, min_score)
    if entity is not None:
        request.entity.CopyFrom(ref("entity", entity, type))
    elif vector is not None:
        request.vector.CopyFrom(vector_message(vector))
    elif described is not None:
        request.described.CopyFrom(described_entity(described, type))
    return request


def recommend_request(
    user: Entity | None = None,
    *,
    events: Iterable[Event | Entity] | None = None,
    vector: Iterable[float] | None = None,
    context: Context | Entity | None,
    top_k: int,
    type: str | None,
    target_type: str | None,
    exclude: Iterable[Entity] | SharedRefs,
    include_engaged: bool,
    filter: Filter | None,
    min_score: float | None,
    diversity: float,
    score: Score | None,
    fallback: Fallback | None,
    reasons: int,
    bundle_version: str | None,
) -> retrieval.RetrieveEntitiesForUserRequest:
    """The request of `recommend`."""
    exactly_one("recommend", user=user, events=events, vector=vector)
    request = retrieval.RetrieveEntitiesForUserRequest(
        target_type=text("target_type", target_type),
        top_k=count("top_k", top_k, least=1),
        exclude=refs("exclude", exclude, target_type),
        include_engaged=bool(include_engaged),
        diversity=number("diversity", diversity, 0, 1),
        score=score_value(score),
        fallback=fallback_value(fallback),
        reasons=count("reasons", reasons),
        bundle_version=text("bundle_version", bundle_version),
    )
    _conditions(request, filter, min_score)
    if context is not None:
        request.context.CopyFrom(context_message(context, target_type))
    if user is not None:
        request.user.CopyFrom(ref("user", user, type))
    elif vector is not None:
        request.vector.CopyFrom(vector_message(vector))
    elif events is not None:
        request.events.events.extend(event(item, type) for item in many("events", events))
        if not request.events.events:
            raise ValueError("events is empty: give at least one thing the user did, oldest first")
    return request


def _conditions(request: _Search, filter: Filter | None, min_score: float | None) -> None:
    if filter is not None:
        request.filter.CopyFrom(filter_message(filter))
    if min_score is not None:
        request.min_score = number("min_score", min_score)
