"""Many searches or pairs at once: any number of them, cut to what the server takes in one call."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from kithkin import _responses
from kithkin._calls.call import Call, Split, call
from kithkin._calls.parts import MOST_PAIRS, MOST_REQUESTS, Errors, joined, placed, raising, split, strict
from kithkin._calls.search import recommend_request, similar_request
from kithkin._requests import SharedRefs, context_message, is_frame, is_row, many, ref, rows_of, score_value, text
from kithkin._scalars import plain
from kithkin.filters import Filter
from kithkin.queries import Context, Described, Entity
from kithkin.types import Batch, Fallback, Score, Scores, Vector
from kithkin.v1 import retrieval_service_pb2 as retrieval

M = TypeVar("M", bound=Message)


def similar_batch(
    items: Iterable[Entity | Described | Iterable[float] | Mapping[str, Any]],
    *,
    top_k: int = 10,
    type: str | None = None,
    target_type: str | None = None,
    exclude: Iterable[Entity] = (),
    filter: Filter | None = None,
    min_score: float | None = None,
    diversity: float = 0.0,
    reasons: int = 0,
    bundle_version: str | None = None,
    errors: Errors = "return",
    timeout: float | None = None,
    request_id: str | None = None,
) -> Split[Batch]:
    """Answers any number of `similar` at once, each with its `Results` or its error, in the order given.

    More than the server takes in one call (100 items) is sent in parts, four at a time, all under the one ``timeout``.
    A part that fails as a whole gives each of its items its error; where all do, it is raised. The parts come from one
    bundle unless another is activated in between: ``info.other_bundles`` then names it.

    Args:
        items: Entities, `Described`, vectors (an array [items, dimension] too), or dicts of arguments of `similar`,
            such as ``{"entity": "1", "top_k": 3}``, which go before those given here; or a pandas or Polars frame of
            such arguments.
        top_k: How many for each.
        type: Node type of what is given, where it does not say itself.
        target_type: Entity type of the answers; None: the same as each query's.
        exclude: Entities to leave out of every answer.
        filter: Which entities may be answered (`kithkin.filters`).
        min_score: Results below it are left out.
        diversity: From 0, by score alone, to 1, as unlike each other as can be.
        reasons: How many reasons to give with each result, at most 10.
        bundle_version: The bundle to answer all of it from, one that the server has loaded; None: the active one.
        errors: ``"raise"``: the first error of an item is raised; ``"return"``: it takes the place of its results.
        timeout: Seconds the whole may take; None: the client's.
        request_id: What logs shall call this call and all its parts; None: a fresh one.
    """
    common = {
        "top_k": top_k,
        "type": type,
        "target_type": target_type,
        "exclude": SharedRefs("exclude", exclude),
        "filter": filter,
        "min_score": min_score,
        "diversity": diversity,
        "reasons": reasons,
        "bundle_version": bundle_version,
    }
    requests = _each("entity", items, similar_request, common)

    def send(part: Sequence[Any]) -> Call[Batch]:
        return call(
            "kithkin.v1.RetrievalService/BatchSearchSimilarEntities",
            retrieval.BatchSearchSimilarEntitiesRequest(requests=part),
            retrieval.BatchSearchSimilarEntitiesResponse,
            _responses.batch,
            timeout,
            request_id,
        )

    empty = "items is empty: give similar_batch() at least one"
    return _split(requests, MOST_REQUESTS, send, Batch, errors, empty, _asked)


def recommend_batch(
    items: Iterable[Entity | Iterable[float] | Mapping[str, Any]],
    *,
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
    errors: Errors = "return",
    timeout: float | None = None,
    request_id: str | None = None,
) -> Split[Batch]:
    """Answers any number of `recommend` at once, each with its `Results` or its error, in the order given.

    ``items`` are users, vectors (an array [items, dimension] too), or dicts of arguments of `recommend`, such as
    ``{"events": ["1", "7"]}``, which go before those given here, or a frame of such arguments. The other arguments are
    those of `recommend`, for all of them; parts, bundles, ``errors`` and ``timeout`` are as in `similar_batch`.
    """
    common = {
        "context": context,
        "top_k": top_k,
        "type": type,
        "target_type": target_type,
        "exclude": SharedRefs("exclude", exclude),
        "include_engaged": include_engaged,
        "filter": filter,
        "min_score": min_score,
        "diversity": diversity,
        "score": score,
        "fallback": fallback,
        "reasons": reasons,
        "bundle_version": bundle_version,
    }
    requests = _each("user", items, recommend_request, common)

    def send(part: Sequence[Any]) -> Call[Batch]:
        return call(
            "kithkin.v1.RetrievalService/BatchRetrieveEntitiesForUser",
            retrieval.BatchRetrieveEntitiesForUserRequest(requests=part),
            retrieval.BatchRetrieveEntitiesForUserResponse,
            _responses.batch,
            timeout,
            request_id,
        )

    empty = "items is empty: give recommend_batch() at least one"
    return _split(requests, MOST_REQUESTS, send, Batch, errors, empty, _asked)


def score_pairs(
    pairs: Iterable[tuple[Entity, Entity]],
    *,
    context: Context | Entity | None = None,
    score: Score | None = None,
    source_type: str | None = None,
    target_type: str | None = None,
    bundle_version: str | None = None,
    errors: Errors = "return",
    timeout: float | None = None,
    request_id: str | None = None,
) -> Split[Scores]:
    """Returns the score of every pair, as a search would give it: of a user and an entity, or of two entities.

    Any number of pairs; more than 1000 are sent in parts as in `similar_batch`.

    Args:
        pairs: ``(source, target)`` each, or a pandas or Polars frame of two columns. A pair of strings is two ids; a
            node with a type is ``(("User", "u1"), ("Film", "1"))`` or `Ref`.
        context: What the users look at now: an entity, or `Context` with concepts.
        score: ``"neural"``: by the bundle's neural scorer; takes pairs of a user and an entity.
        source_type: Node type of the first of each pair, where it does not say itself.
        target_type: The same of the second.
        bundle_version: The bundle to answer from, one that the server has loaded; None: the active one.
        errors: ``"raise"``: the first error of a pair is raised; ``"return"``: it takes the place of its score.
        timeout: Seconds the whole may take; None: the client's.
        request_id: What logs shall call this call and all its parts; None: a fresh one.
    """

    def messages() -> Iterator[retrieval.NodePair]:
        for place, pair in enumerate(rows):
            if isinstance(pair, str | bytes) or not isinstance(pair, Sequence) or len(pair) != 2:
                raise TypeError(f"pairs[{place}]: a pair is (source, target), not {pair!r}")
            try:
                source, target = ref("source", pair[0], source_type), ref("target", pair[1], target_type)
            except (TypeError, ValueError) as error:
                raise placed("pairs", place, error) from None
            yield retrieval.NodePair(source=source, target=target)

    rows = _pairs(pairs)
    ranked_by = score_value(score)
    around = None if context is None else context_message(context, None)
    version = text("bundle_version", bundle_version)

    def send(part: Sequence[Any]) -> Call[Scores]:
        return call(
            "kithkin.v1.RetrievalService/ScorePairs",
            retrieval.ScorePairsRequest(pairs=part, context=around, score=ranked_by, bundle_version=version),
            retrieval.ScorePairsResponse,
            _responses.scores,
            timeout,
            request_id,
        )

    empty = "pairs is empty: give at least one (source, target)"
    return _split(messages(), MOST_PAIRS, send, Scores, errors, empty)


def _split(
    messages: Iterable[M],
    most: int,
    send: Callable[[Any], Call[Any]],
    kind: Any,
    errors: Errors,
    empty: str,
    results: Callable[[M], int] = lambda _: 1,
) -> Split[Any]:
    whole = raising(errors)

    def join(outcomes: Sequence[Any], sizes: Sequence[int]) -> Any:
        for outcome in outcomes if whole else ():
            if isinstance(outcome, Exception):
                raise outcome
        return joined(outcomes, sizes, kind)

    def sent(part: list[M]) -> Call[Any]:
        return strict(send(part)) if whole else send(part)

    return split(messages, most, sent, join, whole=whole, results=results, empty=empty)


def _is_numbers(item: Any, alone: bool) -> bool:
    """True for a vector; ``alone``: whole numbers cannot be ids of events."""
    if isinstance(item, array):
        return True
    if not isinstance(item, list | tuple) or not item:
        return False
    values = [plain(value) for value in item]
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return False
    return alone or any(isinstance(value, float) for value in values)


def _asked(request: Any) -> int:
    return int(request.top_k * (1 + request.reasons))


def _pairs(pairs: Any) -> Iterable[Any]:
    if not is_frame(pairs):
        return many("pairs", pairs)
    if len(pairs.columns) != 2:
        raise TypeError(f"pairs: a frame of two columns, (source, target), not of {len(pairs.columns)}")
    return pairs.iter_rows() if hasattr(pairs, "iter_rows") else (tuple(row) for row in pairs.itertuples(index=False))


def _each(query: str, items: Any, build: Callable[..., M], common: Mapping[str, Any]) -> Iterator[M]:
    """The requests of a batch; what an item says itself goes before what is common to all."""
    framed = is_frame(items)
    rows = rows_of(items) if framed else many("items", items)

    def requests() -> Iterator[M]:
        for place, item in enumerate(rows):
            if isinstance(item, Mapping):
                own = {name: _whole(name, value) for name, value in item.items()} if framed else dict(item)
            elif isinstance(item, Described):
                own = {"described": item}
            elif isinstance(item, Vector) or is_row(item) or _is_numbers(item, alone=query == "entity"):
                own = {"vector": item}
            elif isinstance(item, list):
                raise TypeError(
                    f"items[{place}]: of a list it cannot be told what it is: write {{'events': [...]}}, say"
                )
            else:
                own = {query: item}
            try:
                yield build(**{**common, **own})
            except (TypeError, ValueError) as error:
                raise placed("items", place, error) from None

    return requests()


def _whole(name: str, value: Any) -> Any:
    # A gap makes floats of pandas' column of whole numbers.
    counted = name in ("top_k", "reasons") and isinstance(value, float) and value.is_integer()
    return int(value) if counted else value
