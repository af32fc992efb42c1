"""EmbedEntities and EmbedUsers: vectors of what is in the graph, and of what is told of others."""

from __future__ import annotations

from graph_store.schema import NodeRole
from kithkin.v1 import retrieval_service_pb2 as pb
from server.calls.answers import fill_info
from server.calls.vectors import encoded, stored
from server.deadline import Deadline
from server.errors import InvalidField
from server.model.served_model import SIMILAR, USER, ServedModel

MOST_ITEMS = 100


def embed_entities(
    model: ServedModel, request: pb.EmbedEntitiesRequest, deadline: Deadline
) -> pb.EmbedEntitiesResponse:
    """Answer EmbedEntities."""
    if not 1 <= len(request.items) <= MOST_ITEMS:
        raise InvalidField("items", f"{len(request.items)} items, send 1 to {MOST_ITEMS}")
    space = model.space(request.space or SIMILAR, "space")
    response = pb.EmbedEntitiesResponse()
    for number, item in enumerate(request.items):
        deadline.check("next vector")
        field = f"items[{number}]"
        match item.WhichOneof("query"):
            case "entity":
                key = model.catalogue.resolve(item.entity, f"{field}.entity")
                vector = stored(model, key, space, f"{field}.entity")
            case "described":
                description = model.describer.entity(item.described, f"{field}.described")
                vector = encoded(model, description, space, f"{field}.described")
            case _:
                raise InvalidField(field, "is not set", hint="Give an entity or a described entity.")
        response.vectors.add(values=vector, space=space, bundle_version=model.version)
    response.info.exact = True
    fill_info(response.info, model, deadline)
    return response


def embed_users(model: ServedModel, request: pb.EmbedUsersRequest, deadline: Deadline) -> pb.EmbedUsersResponse:
    """Answer EmbedUsers. Events give the vector that a user of the graph with these engagements has."""
    if not 1 <= len(request.items) <= MOST_ITEMS:
        raise InvalidField("items", f"{len(request.items)} items, send 1 to {MOST_ITEMS}")
    space = model.space(USER, "items")
    response = pb.EmbedUsersResponse()
    for number, item in enumerate(request.items):
        deadline.check("next vector")
        field = f"items[{number}]"
        match item.WhichOneof("query"):
            case "user":
                user = model.catalogue.resolve(item.user, f"{field}.user", NodeRole.USER)
                vector = stored(model, user, space, f"{field}.user")
            case "events":
                description, _ = model.describer.events(item.events, f"{field}.events")
                vector = encoded(model, description, space, f"{field}.events")
            case _:
                raise InvalidField(field, "is not set", hint="Give a user or events.")
        response.vectors.add(values=vector, space=space, bundle_version=model.version)
    response.info.exact = True
    fill_info(response.info, model, deadline)
    return response
