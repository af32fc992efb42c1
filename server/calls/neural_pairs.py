"""ScorePairs by the neural score: one call of the network for each user."""

from __future__ import annotations

import numpy as np

from graph_store.schema import NodeRole
from kithkin.v1 import retrieval_service_pb2 as pb
from server.calls.answers import fill_info
from server.deadline import Deadline
from server.errors import InvalidField
from server.model.catalogue import NodeKey
from server.model.served_model import ServedModel
from server.wire.guard import Origin, refusal


def score_neural_pairs(
    model: ServedModel, request: pb.ScorePairsRequest, deadline: Deadline, origin: Origin
) -> pb.ScorePairsResponse:
    """Score pairs of a user and an entity; one that has no score has its error. Raises NoScorer and DeadlinePassed.

    It takes milliseconds: call it in a thread (``server.threads``).
    """
    neural = model.neural("score")
    items = [pb.ScorePairsItem() for _ in request.pairs]
    of_user: dict[NodeKey, list[tuple[int, int]]] = {}
    for number, pair in enumerate(request.pairs):
        field = f"pairs[{number}]"
        try:
            user, entity = _ends(model, pair, field)
            neural.check_target(entity.type, field)
            if user not in of_user:
                neural.events_of(user, model.catalogue.id(user), field)
            of_user.setdefault(user, []).append((number, entity.row))
        except Exception as error:
            items[number].error.CopyFrom(refusal(error, origin, deadline, item=number)[1])
    for user, asked in of_user.items():
        deadline.check("scores")
        events = neural.events_of(user, model.catalogue.id(user), "pairs")
        scores = neural.scores(events, np.array([row for _, row in asked], np.int64))
        for (number, _), score in zip(asked, scores.tolist(), strict=True):
            items[number].score = score
    response = pb.ScorePairsResponse(items=items)
    response.info.exact = True
    response.info.candidates_scored = sum(map(len, of_user.values()))
    response.info.network_calls = len(of_user)
    fill_info(response.info, model, deadline)
    return response


def _ends(model: ServedModel, pair: pb.NodePair, field: str) -> tuple[NodeKey, NodeKey]:
    """The user and the entity of a pair, told in either order."""
    ends = [model.catalogue.resolve(getattr(pair, end), f"{field}.{end}") for end in ("source", "target")]
    roles = [model.catalogue.role(each.type) for each in ends]
    if sorted(role is NodeRole.USER for role in roles) != [False, True]:
        raise InvalidField(field, "is not of a user and an entity", hint="NEURAL scores an entity for a user.")
    return (ends[0], ends[1]) if roles[0] is NodeRole.USER else (ends[1], ends[0])
