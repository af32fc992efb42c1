"""Nodes, their vectors, and why two of them belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from kithkin import _responses
from kithkin._calls.call import Call, Pages, Split, call
from kithkin._calls.parts import MOST_REQUESTS, joined_of_one_bundle, placed, split
from kithkin._filter_message import filter_message
from kithkin._requests import count, described_entity, event, is_row, many, ref, text
from kithkin.filters import Filter
from kithkin.queries import Described, Entity, Event
from kithkin.types import Explanation, Node, Nodes, Page, Vectors
from kithkin.v1 import retrieval_service_pb2 as retrieval

M = TypeVar("M", bound=Message)


def embed(
    items: Iterable[Entity | Described | Mapping[str, Any]],
    *,
    space: str = "similar",
    type: str | None = None,
    bundle_version: str | None = None,
    timeout: float | None = None,
    request_id: str | None = None,
) -> Split[Vectors]:
    """Returns the vectors of entities, in the graph or described, in the order given.

    ``to_numpy()`` of the answer is one array. Any number; more than 100 are sent in parts, four at a time, under the
    one ``timeout``. All vectors are of one bundle: where another is activated in between, `Aborted` is raised.

    Args:
        items: Entities, `Described`, or dicts of the fields of `Described`.
        space: ``"similar"``, or the name of another space that holds the type.
        type: Node type of items that do not say theirs.
        bundle_version: The bundle to answer from, one that the server has loaded; None: the active one.
        timeout: Seconds the whole may take; None: the client's.
        request_id: What logs shall call this call and all its parts; None: a fresh one.
    """

    def messages() -> Iterator[retrieval.EmbedEntityItem]:
        for place, item in enumerate(rows):
            message = retrieval.EmbedEntityItem()
            try:
                if isinstance(item, Described | Mapping):
                    message.described.CopyFrom(described_entity(item, type))
                else:
                    message.entity.CopyFrom(ref("item", item, type))
            except (TypeError, ValueError) as error:
                raise placed("items", place, error) from None
            yield message

    rows = many("items", items)
    space, version = text("space", space), text("bundle_version", bundle_version)

    def send(part: Sequence[Any]) -> Call[Vectors]:
        return call(
            "kithkin.v1.RetrievalService/EmbedEntities",
            retrieval.EmbedEntitiesRequest(items=part, space=space, bundle_version=version),
            retrieval.EmbedEntitiesResponse,
            _responses.vectors,
            timeout,
            request_id,
        )

    return _vectors(messages(), send, "items is empty: give at least one entity to embed")


def embed_users(
    items: Iterable[Entity | Sequence[Event | Entity]],
    *,
    type: str | None = None,
    event_type: str | None = None,
    bundle_version: str | None = None,
    timeout: float | None = None,
    request_id: str | None = None,
) -> Split[Vectors]:
    """Returns the vectors of users in the space ``user``, in the order given.

    ``to_numpy()`` of the answer is one array. Any number, as in `embed`.

    Args:
        items: Users of the graph, or for somebody else the list of the last things they touched, oldest first:
            entities, or `Event` with weight and time.
        type: Node type of users that do not say theirs.
        event_type: Node type of the events' entities, where they do not say themselves.
        bundle_version: The bundle to answer from, one that the server has loaded; None: the active one.
        timeout: Seconds the whole may take; None: the client's.
        request_id: What logs shall call this call and all its parts; None: a fresh one.
    """

    def messages() -> Iterator[retrieval.EmbedUserItem]:
        for place, item in enumerate(rows):
            message = retrieval.EmbedUserItem()
            try:
                # A tuple names a node, ("User", "u1"); events come as a list.
                if isinstance(item, list) or is_row(item):
                    message.events.events.extend(event(each, event_type) for each in item)
                    if not message.events.events:
                        raise ValueError("no events; give at least one thing the user did, oldest first")
                else:
                    message.user.CopyFrom(ref("item", item, type))
            except (TypeError, ValueError) as error:
                raise placed("items", place, error) from None
            yield message

    rows = many("items", items)
    version = text("bundle_version", bundle_version)

    def send(part: Sequence[Any]) -> Call[Vectors]:
        return call(
            "kithkin.v1.RetrievalService/EmbedUsers",
            retrieval.EmbedUsersRequest(items=part, bundle_version=version),
            retrieval.EmbedUsersResponse,
            _responses.vectors,
            timeout,
            request_id,
        )

    return _vectors(messages(), send, "items is empty: give at least one user to embed")


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
    return call(
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
    return call(
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
    return call(
        "kithkin.v1.RetrievalService/GetEntity",
        request,
        retrieval.GetEntityResponse,
        _responses.nodes,
        timeout,
        request_id,
    )


def list_entities_page(
    type: str | None = None,
    *,
    filter: Filter | None = None,
    name_contains: str = "",
    page_size: int = 100,
    page_token: str = "",
    timeout: float | None = None,
    request_id: str | None = None,
) -> Call[Page]:
    """Returns one page of the nodes of a type, by id.

    Args:
        type: An entity or concept type; None: the graph's single entity type.
        filter: Which are listed (`kithkin.filters`).
        name_contains: Those whose name contains this, without regard to case.
        page_size: At most so many; above 1000 the server reads it as 1000.
        page_token: ``next_page_token`` of the page before, of a call with the same type, filter and name.
        timeout: Seconds the call may take; None: the client's.
        request_id: What logs shall call this call; None: a fresh one.
    """
    request = retrieval.ListEntitiesRequest(
        type=text("type", type),
        name_contains=text("name_contains", name_contains),
        page_size=count("page_size", page_size, least=1),
        page_token=text("page_token", page_token),
    )
    if filter is not None:
        request.filter.CopyFrom(filter_message(filter))
    return call(
        "kithkin.v1.RetrievalService/ListEntities",
        request,
        retrieval.ListEntitiesResponse,
        _responses.page,
        timeout,
        request_id,
    )


def list_entities(
    type: str | None = None,
    *,
    filter: Filter | None = None,
    name_contains: str = "",
    page_size: int = 1000,
    timeout: float | None = None,
    request_id: str | None = None,
) -> Pages:
    """Iterates over all nodes of a type, by id, asking for a page whenever it needs one.

    All pages come from one bundle: where it is no longer loaded, `FailedPrecondition` is raised in between, and the
    listing is to be begun again. ``timeout`` is that of each page; the other arguments are those of
    `list_entities_page`.
    """

    def page(token: str) -> Call[Page]:
        return list_entities_page(
            type,
            filter=filter,
            name_contains=name_contains,
            page_size=page_size,
            page_token=token,
            timeout=timeout,
            request_id=request_id,
        )

    return Pages(page(""), page)


def _vectors(messages: Iterable[M], send: Callable[[Any], Call[Vectors]], empty: str) -> Split[Vectors]:
    def join(outcomes: Sequence[Any], sizes: Sequence[int]) -> Vectors:
        return joined_of_one_bundle(outcomes, sizes, Vectors)

    return split(messages, MOST_REQUESTS, send, join, whole=True, empty=empty)
