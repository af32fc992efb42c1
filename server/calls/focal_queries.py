"""The context of a request, and users' vectors with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graph_store.schema import NodeRole
from kithkin.v1 import types_pb2
from server.calls.vectors import encoded, stored
from server.errors import InvalidField
from server.index.vector_index import Vectors
from server.model.catalogue import Catalogue, NodeKey
from server.model.description import Description
from server.model.served_model import USER, ServedModel

MOST_CONCEPTS = 100


def read_context(catalogue: Catalogue, context: types_pb2.Context, field: str = "context") -> list[NodeKey]:
    """The nodes a context names. Raises InvalidField and its kinds, and NodeNotFound."""
    if len(context.concepts) > MOST_CONCEPTS:
        raise InvalidField(f"{field}.concepts", f"{len(context.concepts)} concepts, send at most {MOST_CONCEPTS}")
    keys = []
    if context.HasField("entity"):
        keys.append(catalogue.resolve(context.entity, f"{field}.entity", NodeRole.ENTITY))
    for number, concept in enumerate(context.concepts):
        keys.append(catalogue.resolve(concept, f"{field}.concepts[{number}]", NodeRole.CONCEPT))
    if not keys:
        raise InvalidField(field, "names nothing", hint="Give an entity or concepts, or leave it out.")
    return keys


def user_vector(model: ServedModel, user: NodeKey, context: Sequence[NodeKey] | None, field: str) -> Vectors:
    """The vector ``[dimension]`` of a user around a context (None: the published one). Raises NodeWithoutVector too."""
    published = stored(model, user, USER, field)
    if context is None:
        return published
    return _finite(model.focal(user.type, "context").of_user(user, context))


def told_vector(model: ServedModel, told: Description, context: Sequence[NodeKey] | None, field: str) -> Vectors:
    """The same of a user who is told by events."""
    if context is None:
        return encoded(model, told, USER, field)
    return _finite(model.focal(told.node_type, "context").of_description(told, context))


def _finite(vector: Vectors) -> Vectors:
    if not np.isfinite(vector).all():
        raise InvalidField("context", "gives a vector that is not finite", hint="A number of the user is too large.")
    return vector
