"""What every answer holds: nodes with their scores, and ``info`` about the answer itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from server.calls.answer_bytes import EncodedAnswer
from server.calls.search import Limits
from server.deadline import Deadline
from server.index.vector_index import Found
from server.model.catalogue import NodeKey
from server.model.served_model import ServedModel

SearchResponse = TypeVar(
    "SearchResponse",
    pb.SearchSimilarEntitiesResponse,
    pb.RetrieveEntitiesForUserResponse,
    pb.RetrieveUsersForEntityResponse,
)
Answer: TypeAlias = SearchResponse | EncodedAnswer[SearchResponse]
"""A search's response, as a message or as bytes that read like one."""
Reasons = Callable[[NodeKey], list[types_pb2.Reason]]


def search_answer(
    kind: type[SearchResponse],
    model: ServedModel,
    target: str,
    found: Found,
    limits: Limits,
    deadline: Deadline,
    *,
    reasons: Reasons | None = None,
    fallback: types_pb2.Fallback = types_pb2.FALLBACK_UNSPECIFIED,
) -> Answer[SearchResponse]:
    """The response of a search with what was found, with the reasons of each result where they are asked for."""
    answer = EncodedAnswer(kind, model.catalogue.parts(target), found.rows, found.scores)
    if fallback:
        answer.info.fallback = fallback
    if reasons is None:
        fill_search_info(answer.info, model, found, limits, deadline)
        return answer
    response = answer.message
    for row, result in zip(found.rows.tolist(), response.results, strict=True):
        deadline.check("reasons")
        result.reasons.extend(reasons(NodeKey(target, row)))
    response.info.fallback = fallback
    fill_search_info(response.info, model, found, limits, deadline)
    return response


def fill_info(info: types_pb2.ResponseInfo, model: ServedModel, deadline: Deadline) -> None:
    """Tell the bundle and the time; call it last."""
    info.bundle_version = model.version
    spent = int(deadline.spent * 1e9)
    if spent < 1_000_000_000:
        # Written in Python, FromNanoseconds takes twenty times as long.
        info.server_time.nanos = spent
    else:
        info.server_time.FromNanoseconds(spent)


def fill_search_info(
    info: types_pb2.ResponseInfo, model: ServedModel, found: Found, limits: Limits, deadline: Deadline
) -> None:
    """The same of a search, with how it went."""
    info.exact = found.exact
    info.candidates_scored = found.scored
    if found.truncated or found.network_calls:
        info.truncated, info.network_calls = found.truncated, found.network_calls
    if limits.allowed is not None:
        info.filter_passed = len(limits.allowed)
    if len(found.rows) < limits.k:
        info.shortfall_reason = _shortfall(info, found, limits)
    fill_info(info, model, deadline)


def _shortfall(info: types_pb2.ResponseInfo, found: Found, limits: Limits) -> str:
    """Why fewer were found than asked for."""
    conditions = [] if info.fallback else ["have a vector"]
    if limits.allowed is not None:
        conditions.append(f"pass the filter ({len(limits.allowed)} do)")
    if limits.min_score is not None:
        conditions.append(f"reach the score {limits.min_score:g}")
    conditions.append("are not left out")
    what = f"{', '.join(conditions[:-1])} and {conditions[-1]}" if len(conditions) > 1 else conditions[0]
    return f"only {len(found.rows)} of this type {what} (asked for {limits.k})"


def fill_batch_info(
    info: types_pb2.ResponseInfo,
    model: ServedModel,
    items: Sequence[tuple[types_pb2.ResponseInfo, int]],
    deadline: Deadline,
) -> None:
    """The ``info`` of a batch from those of the items that were answered, each with how many have it.

    It names the bundle that answered: none where several did, and ``model``'s where no item was answered.
    """
    info.exact = bool(items) and all(each.exact for each, _ in items)
    info.candidates_scored = sum(each.candidates_scored * count for each, count in items)
    info.network_calls = sum(each.network_calls * count for each, count in items)
    info.truncated = any(each.truncated for each, _ in items)
    fill_info(info, model, deadline)
    versions = {each.bundle_version for each, _ in items}
    if versions:
        info.bundle_version = versions.pop() if len(versions) == 1 else ""
