"""ScorePairs: the score of each of many pairs, as a search would answer it."""

from __future__ import annotations

from collections.abc import Sequence

from graph_store.schema import NodeRole
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from server.calls.answers import fill_info
from server.calls.focal_queries import read_context, user_vector
from server.calls.neural_pairs import score_neural_pairs
from server.calls.queries import is_neural
from server.calls.vectors import stored
from server.deadline import Deadline
from server.errors import DeadlinePassed, InvalidField
from server.index.rescoring import scores_of
from server.index.vector_index import Vectors
from server.model.catalogue import NodeKey
from server.model.served_model import SIMILAR, USER, ServedModel
from server.wire.guard import Origin, refusal

MOST_PAIRS = 1000


def score_pairs(
    model: ServedModel, request: pb.ScorePairsRequest, deadline: Deadline, origin: Origin
) -> pb.ScorePairsResponse:
    """Answer ScorePairs: a pair that has no score has its error. Raises InvalidField and DeadlinePassed."""
    if not 1 <= len(request.pairs) <= MOST_PAIRS:
        raise InvalidField("pairs", f"{len(request.pairs)} pairs, send 1 to {MOST_PAIRS}")
    if is_neural(request.score):
        if request.HasField("context"):
            raise InvalidField("context", "is not read by the neural score")
        return score_neural_pairs(model, request, deadline, origin)
    context = read_context(model.catalogue, request.context) if request.HasField("context") else None
    users: dict[NodeKey, Vectors] = {}
    response = pb.ScorePairsResponse()
    for number, pair in enumerate(request.pairs):
        try:
            response.items.add(score=_score(model, pair, f"pairs[{number}]", deadline, context, users))
        except DeadlinePassed:
            raise
        except Exception as error:
            response.items.add(error=refusal(error, origin, deadline, item=number)[1])
    response.info.exact = True
    response.info.candidates_scored = sum(item.HasField("score") for item in response.items)
    fill_info(response.info, model, deadline)
    return response


def _score(
    model: ServedModel,
    pair: pb.NodePair,
    field: str,
    deadline: Deadline,
    context: Sequence[NodeKey] | None,
    around: dict[NodeKey, Vectors],
) -> float:
    """``around``: vectors of users around the context, each computed once."""
    deadline.check("scores")
    source, target = _end(model, pair.source, f"{field}.source"), _end(model, pair.target, f"{field}.target")
    users = [model.catalogue.role(each.type) is NodeRole.USER for each in (source, target)]
    if all(users):
        raise InvalidField(field, "is of two users, who have no score together", hint="Name one user at most.")
    space = USER if any(users) else SIMILAR
    vectors = []
    for key, is_user, end in zip((source, target), users, ("source", "target"), strict=True):
        if context is None or not is_user:
            vectors.append(stored(model, key, space, f"{field}.{end}"))
            continue
        if key not in around:
            around[key] = user_vector(model, key, context, f"{field}.{end}")
        vectors.append(around[key])
    return float(scores_of(vectors[0][None], vectors[1])[0])


def _end(model: ServedModel, ref: types_pb2.NodeRef, field: str) -> NodeKey:
    if not ref.id:
        raise InvalidField(f"{field}.id", "is empty", hint="Give the node's key property `id`.")
    return model.catalogue.resolve(ref, field)
