"""ExplainSimilarity and GetEntity: what the bundle says of nodes that are named."""

from __future__ import annotations

from graph_store.schema import NodeRole
from kithkin.v1 import retrieval_service_pb2 as pb
from server.calls import queries
from server.calls.answers import fill_info
from server.deadline import Deadline
from server.errors import InvalidField, NodeNotFound
from server.index.rescoring import scores_of
from server.index.vector_index import Vectors
from server.model.catalogue import NodeKey
from server.model.served_model import SIMILAR, USER, ServedModel
from server.reasons import phrases
from server.reasons.explanation import UserProfile

MOST_EXPLAINED = 50
DEFAULT_EXPLAINED = 5
MOST_NAMED = 100
"""Nodes of one name that GetEntity answers at most."""


def explain_similarity(
    model: ServedModel, request: pb.ExplainSimilarityRequest, deadline: Deadline
) -> pb.ExplainSimilarityResponse:
    """Answer ExplainSimilarity."""
    most = queries.reasons(request.max_reasons, MOST_EXPLAINED, "max_reasons") or DEFAULT_EXPLAINED
    source = model.catalogue.resolve(request.source, "source")
    target = model.catalogue.resolve(request.target, "target")
    if source == target:
        raise InvalidField("target", "is the same node as source", hint="Name two different nodes.")
    response = pb.ExplainSimilarityResponse(source=model.catalogue.node(source), target=model.catalogue.node(target))
    is_user = model.catalogue.role(source.type) is NodeRole.USER
    space = USER if is_user else SIMILAR
    pair = [_vector_or_none(model, space, key) for key in (source, target)]
    if pair[0] is not None and pair[1] is not None:
        response.score = float(scores_of(pair[0][None], pair[1])[0])
    deadline.check("reasons")
    explainer = model.explainer
    graph = explainer.neighbourhoods
    profile = UserProfile(graph, graph.engaged(source), target) if is_user else None
    if pair[1] is None or not response.HasField("score") or not model.has_encoder(space, source.type):
        told = explainer.between(source, target, most) if profile is None else explainer.for_user(profile, target, most)
        response.reasons.extend(told)
    else:
        encoder, unit = model.encoder(space, source.type, "source"), model.metric_is_cosine(space)
        told, found = explainer.attributed(source, target, most, encoder, pair[1], unit=unit, profile=profile)
        response.reasons.extend(told)
        if found is not None:
            response.explained_score = found.explained
            response.rest = phrases.rest(response.score, found.explained)
    response.info.exact = True
    fill_info(response.info, model, deadline)
    return response


def get_entity(model: ServedModel, request: pb.GetEntityRequest, deadline: Deadline) -> pb.GetEntityResponse:
    """Answer GetEntity."""
    catalogue = model.catalogue
    match request.WhichOneof("query"):
        case "ref":
            keys = [catalogue.resolve(request.ref, "ref")]
        case "name":
            if not request.name.name.strip():
                raise InvalidField("name.name", "is empty")
            named = request.name.type
            types = (catalogue.type_named(named, "name.type", None),) if named else catalogue.entity_types
            keys = catalogue.named(request.name.name, types)
            if not keys:
                raise NodeNotFound(
                    "name",
                    "|".join(types),
                    request.name.name,
                    f"no {' or '.join(types)} is called {request.name.name!r}",
                    hint="The whole name is compared, without regard to case.",
                )
        case _:
            raise InvalidField("query", "is not set", hint="Give a reference or a name.")
    response = pb.GetEntityResponse(nodes=[catalogue.node(key) for key in keys[:MOST_NAMED]])
    response.info.exact = True
    response.info.truncated = len(keys) > MOST_NAMED
    fill_info(response.info, model, deadline)
    return response


def _vector_or_none(model: ServedModel, space: str, key: NodeKey) -> Vectors | None:
    if not model.has_vectors(space, key.type):
        return None
    return model.vector(space, key.type, key.row, "")
