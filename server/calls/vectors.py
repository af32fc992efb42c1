"""The vectors of what requests name or describe."""

from __future__ import annotations

import numpy as np

from server.errors import InvalidField, NodeWithoutVector
from server.index.vector_index import Vectors, unit_rows
from server.model.catalogue import NodeKey
from server.model.description import Description
from server.model.served_model import ServedModel


def stored(model: ServedModel, key: NodeKey, space: str, field: str) -> Vectors:
    """The published vector ``[dimension]`` of a node. Raises NodeWithoutVector and NoSuchSpace."""
    vector = model.vector(space, key.type, key.row, field)
    if vector is None:
        node_id = model.catalogue.id(key)
        raise NodeWithoutVector(
            field,
            key.type,
            node_id,
            f"nothing is known of the {key.type} {node_id!r} to make a vector from",
            hint="It has no properties, links or engagements that the encoder reads.",
        )
    return vector


def encoded(model: ServedModel, description: Description, space: str, field: str) -> Vectors:
    """The vector ``[dimension]`` of what is not in the graph. Raises NoSuchSpace, and InvalidField."""
    vector = model.encoder(space, description.node_type, field).encode(description.properties, description.links)
    if not np.isfinite(vector).all():
        raise InvalidField(field, "gives a vector that is not finite", hint="A number in it is too large.")
    return unit_rows(vector[None])[0] if model.metric_is_cosine(space) else vector
