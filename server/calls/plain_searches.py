"""The most frequent item of a batch, an entity and a number of results, answered many at a time.

What a general search decides for each request is decided here once for all of a kind: the same answers, in less
time. Whatever else a request asks for takes the general way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from server.calls import queries
from server.calls.answer_bytes import EncodedAnswer
from server.calls.answers import fill_search_info
from server.calls.search import Limits
from server.calls.vectors import stored
from server.deadline import Deadline
from server.index.vector_index import Found
from server.model.catalogue import NodeKey
from server.model.served_model import SIMILAR, ServedModel

_FIELDS = pb.SearchSimilarEntitiesRequest.DESCRIPTOR.fields_by_name
_PLAIN = frozenset(_FIELDS[name].number for name in ("entity", "target_type", "top_k"))
_NONE = np.empty(0, np.int64)

Answered = EncodedAnswer[pb.SearchSimilarEntitiesResponse]
Kind = tuple[str, str, int]
"""Type of the entities asked about, type of the answers, number of results."""


def is_plain(request: pb.SearchSimilarEntitiesRequest) -> bool:
    """Whether a request names an entity and asks for nothing but its most similar."""
    return request.HasField("entity") and all(field.number in _PLAIN for field, _ in request.ListFields())


def read_plain(model: ServedModel, request: pb.SearchSimilarEntitiesRequest, max_top_k: int) -> tuple[Kind, int]:
    """Kind of a plain request, and the row of its entity. Raises what the general way raises."""
    k = queries.top_k(request.top_k, max_top_k)
    source = model.catalogue.resolve(request.entity, "entity")
    target = model.catalogue.type_named(request.target_type or source.type, "target_type", None)
    model.index(SIMILAR, target, "target_type")
    return (source.type, target, k), source.row


def answer_plain(
    model: ServedModel,
    kind: Kind,
    rows: Sequence[int],
    deadline: Deadline,
    refuse: Callable[[int, Exception], None],
) -> dict[int, Answered]:
    """Answers to requests of one kind by their place in ``rows``; ``refuse`` is told of those that have none."""
    source, target, k = kind
    deadline.check("search")
    vectors = model.vectors(SIMILAR, source, rows, "entity")
    known = vectors.any(axis=1)
    places = np.flatnonzero(known).tolist()
    for place in np.flatnonzero(~known).tolist():
        try:
            stored(model, NodeKey(source, rows[place]), SIMILAR, "entity")
        except Exception as error:
            refuse(place, error)
    if not places:
        return {}
    own = source == target
    exclude = [np.array([rows[place]]) if own else _NONE for place in places]
    found = model.index(SIMILAR, target, "target_type").search(vectors[places], k, exclude)
    parts, infos = model.catalogue.parts(target), {}
    answers = {}
    for place, left_out, one in zip(places, exclude, found, strict=True):
        told = one.exact, one.scored, len(one.rows)
        if told not in infos:
            infos[told] = _info(model, one, Limits(k=k, exclude=left_out), deadline)
        answer: Answered = EncodedAnswer(pb.SearchSimilarEntitiesResponse, parts, one.rows.tolist(), one.scores)
        answer.info = infos[told]
        answers[place] = answer
    return answers


def _info(model: ServedModel, found: Found, limits: Limits, deadline: Deadline) -> types_pb2.ResponseInfo:
    info = types_pb2.ResponseInfo()
    fill_search_info(info, model, found, limits, deadline)
    return info
