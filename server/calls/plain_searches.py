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
from server.calls.answer_bytes import EncodedAnswer, EncodedItems
from server.calls.answers import fill_search_info
from server.calls.search import Limits
from server.calls.vectors import stored
from server.deadline import Deadline
from server.index.vector_index import Found
from server.model.catalogue import NodeKey
from server.model.served_model import SIMILAR, ServedModel

_FIELDS = pb.SearchSimilarEntitiesRequest.DESCRIPTOR.fields_by_name
_ENTITY, _TARGET, _TOP_K = (_FIELDS[name].number for name in ("entity", "target_type", "top_k"))
_NONE = np.empty(0, np.int64)

Answered = EncodedAnswer[pb.SearchSimilarEntitiesResponse]
Kind = tuple[str, str, int]
"""Type of the entities asked about, type of the answers, number of results."""
_MOST_KINDS = 1000


class PlainReader:
    """Reads plain requests of one bundle; what it found of one request's kind it knows at the next."""

    def __init__(self, model: ServedModel, max_top_k: int) -> None:
        self._model, self._max_top_k = model, max_top_k
        self._kinds: dict[Kind, Kind] = {}

    def read(self, request: pb.SearchSimilarEntitiesRequest) -> tuple[Kind, int] | None:
        """Kind of a plain request, and the row of its entity; None: it asks for more than an entity's most similar.

        Raises what the general way raises.
        """
        ref: types_pb2.NodeRef | None = None
        wanted, k = "", 0
        # One walk over the fields that are set: asking for each that there is would take longer than the search.
        for field, value in request.ListFields():
            number = field.number
            if number == _ENTITY:
                ref = value
            elif number == _TOP_K:
                k = value
            elif number == _TARGET:
                wanted = value
            else:
                return None
        if ref is None:
            return None
        asked = ref.type, wanted, k
        kind = self._kinds.get(asked)
        if kind is None:
            return self._new_kind(asked, ref)
        return kind, self._model.catalogue.row(kind[0], ref, "entity")

    def _new_kind(self, asked: Kind, ref: types_pb2.NodeRef) -> tuple[Kind, int]:
        _, wanted, k = asked
        queries.top_k(k, self._max_top_k)
        source = self._model.catalogue.resolve(ref, "entity")
        target = self._model.catalogue.type_named(wanted or source.type, "target_type", None)
        self._model.index(SIMILAR, target, "target_type")
        # Of declared types alone, for others raise; but of any number of results.
        if len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        kind = self._kinds[asked] = source.type, target, k
        return kind, source.row


def answer_one(model: ServedModel, kind: Kind, row: int, deadline: Deadline) -> Answered:
    """The answer to one request. Raises NodeWithoutVector and DeadlinePassed."""
    source, target, k = kind
    vector = stored(model, NodeKey(source, row), SIMILAR, "entity")
    exclude = np.array((row,)) if source == target else _NONE
    deadline.check("search")
    found = model.index(SIMILAR, target, "target_type").search_one(vector, k, exclude)
    parts = model.catalogue.parts(target)
    answer: Answered = EncodedAnswer(pb.SearchSimilarEntitiesResponse, parts, found.rows, found.scores)
    fill_search_info(answer.info, model, found, Limits(k=k, exclude=exclude), deadline)
    return answer


def answer_each_plain(
    model: ServedModel,
    kind: Kind,
    rows: Sequence[int],
    deadline: Deadline,
    refuse: Callable[[int, Exception], None],
) -> tuple[list[int], EncodedItems]:
    """Places in ``rows``, and answers to the requests of these; ``refuse`` is told of those that have none.

    Nearly all of it runs without the interpreter's lock.
    """
    source, target, k = kind
    deadline.check("search")
    vectors = model.vectors(SIMILAR, source, rows, "entity")
    known = vectors.any(axis=1)
    for place in np.flatnonzero(~known).tolist():
        try:
            stored(model, NodeKey(source, rows[place]), SIMILAR, "entity")
        except Exception as error:
            refuse(place, error)
    places = np.flatnonzero(known)
    if not len(places):
        return [], EncodedItems(b"", [0], [])
    exclude = np.asarray(rows, np.int64)[places] if source == target else np.full(len(places), -1)
    found = model.index(SIMILAR, target, "target_type").search_each(vectors[places], k, exclude)
    told = list(zip(found.exact.tolist(), found.scored.tolist(), found.counts.tolist(), strict=True))
    infos: dict[tuple[bool, int, int], types_pb2.ResponseInfo] = {}
    for number, outcome in enumerate(told):
        if outcome not in infos:
            infos[outcome] = _info(model, found.one(number), Limits(k=k, exclude=_NONE), deadline)
    encoded = {outcome: info.SerializeToString() for outcome, info in infos.items()}
    body, cuts = model.catalogue.parts(target).items(
        found.rows, found.scores, found.counts, [encoded[outcome] for outcome in told]
    )
    return places.tolist(), EncodedItems(body, cuts, [infos[outcome] for outcome in told])


def _info(model: ServedModel, found: Found, limits: Limits, deadline: Deadline) -> types_pb2.ResponseInfo:
    info = types_pb2.ResponseInfo()
    fill_search_info(info, model, found, limits, deadline)
    return info
