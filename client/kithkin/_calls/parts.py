"""Calls of any size: requests cut to what the server takes, and their answers put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, TypeVar

from google.protobuf.message import Message

from kithkin._calls.call import Call, Split
from kithkin.errors import HINT_OF_REASON, Aborted, Internal, KithkinError
from kithkin.types import Answer, ResponseInfo

Errors = Literal["return", "raise"]

MOST_REQUESTS = 100
"""Requests of a batch, items of an embedding: the server's limits."""
MOST_PAIRS = 1000
MOST_BYTES = 3 * 2**20
"""Of one part; the server takes 4 MiB unless it is set otherwise."""
MOST_RESULTS = 100_000
"""Results, each with its reasons, that one part may ask for: about 30 MiB of the 64 MiB an answer may have."""

M = TypeVar("M", bound=Message)
T = TypeVar("T")


def cut(items: Iterable[M], most: int, results: Callable[[M], int] = lambda _: 1) -> Iterator[list[M]]:
    """The items in their order, in parts that the server takes; `results`: how many an item asks for."""
    part: list[M] = []
    size = asked = 0
    for item in items:
        # A few bytes for the tag and the length of each.
        own_size, own_asked = item.ByteSize() + 8, results(item)
        if part and (len(part) == most or size + own_size > MOST_BYTES or asked + own_asked > MOST_RESULTS):
            yield part
            part, size, asked = [], 0, 0
        part.append(item)
        size += own_size
        asked += own_asked
    if part:
        yield part


def split(
    messages: Iterable[M],
    most: int,
    send: Callable[[list[M]], Call[Any]],
    join: Callable[[Sequence[Any], Sequence[int]], T],
    *,
    whole: bool,
    results: Callable[[M], int] = lambda _: 1,
    empty: str,
) -> Split[T]:
    """A call of these requests, made as they are sent; the first part is made at once.

    ``join`` takes what came of every part and how many each holds. Raises ValueError(empty) where there is no request.
    """
    sizes: list[int] = []

    def calls() -> Iterator[Call[Any]]:
        for part in cut(messages, most, results):
            sizes.append(len(part))
            yield send(part)

    made = calls()
    first = next(made, None)
    if first is None:
        raise ValueError(empty)
    return Split(first, made, lambda outcomes: join(outcomes, sizes), whole)


def placed(name: str, place: int, error: TypeError | ValueError) -> TypeError | ValueError:
    """The error of one item of a list, saying which."""
    # Not error.__class__: a UnicodeEncodeError is a ValueError and takes other arguments.
    return (TypeError if isinstance(error, TypeError) else ValueError)(f"{name}[{place}]: {error}")


def raising(errors: Errors) -> bool:
    """Whether errors of items are raised; raises ValueError for another word."""
    if errors not in ("return", "raise"):
        raise ValueError(f"errors must be 'return' or 'raise', not {errors!r}")
    return errors == "raise"


def strict(call: Call[Any]) -> Call[Any]:
    """The call raising the first error among its items."""

    def read(payload: bytes, request_id: str) -> Any:
        answer = call.read(payload, request_id)
        answer.all()
        return answer

    return replace(call, read=read)


def joined(outcomes: Sequence[Any], sizes: Sequence[int], kind: Callable[[tuple[Any, ...], ResponseInfo], T]) -> T:
    """The answers of all parts as one; where a part failed, each of its items has the error.

    Raises the first part's error where every part failed.
    """
    items: list[Any] = []
    infos: list[ResponseInfo] = []
    for outcome, size in zip(outcomes, sizes, strict=True):
        if isinstance(outcome, KithkinError):
            items += [outcome] * size
        else:
            _check_length(outcome, size)
            items += outcome.items
            infos.append(outcome.info)
    if not infos:
        raise outcomes[0]
    return kind(tuple(items), joined_info(infos))


def joined_of_one_bundle(
    outcomes: Sequence[Any], sizes: Sequence[int], kind: Callable[[tuple[Any, ...], ResponseInfo], T]
) -> T:
    """The answers of all parts as one; raises the first part's error, and `Aborted` where bundles differ."""
    for outcome in outcomes:
        if isinstance(outcome, KithkinError):
            raise outcome
    info = joined_info([outcome.info for outcome in outcomes])
    if info.other_bundles:
        raise Aborted(
            f"another bundle ({', '.join(info.other_bundles)}) was activated while the vectors of "
            f"{info.bundle_version} came: vectors of two bundles do not compare",
            code="ABORTED",
            hint="Ask again, or name the bundle: bundle_version='...'.",
            request_id=info.request_id,
        )
    return joined(outcomes, sizes, kind)


def joined_info(infos: Sequence[ResponseInfo]) -> ResponseInfo:
    """What is to be said of all parts together."""
    if len(infos) == 1:
        return infos[0]
    first = infos[0]
    bundles = dict.fromkeys(info.bundle_version for info in infos)
    return ResponseInfo(
        bundle_version=first.bundle_version,
        exact=all(info.exact for info in infos),
        candidates_scored=sum(info.candidates_scored for info in infos),
        truncated=any(info.truncated for info in infos),
        fallback=next((info.fallback for info in infos if info.fallback), None),
        shortfall_reason=next((info.shortfall_reason for info in infos if info.shortfall_reason), ""),
        server_time=sum((info.server_time for info in infos), timedelta()),
        request_id=first.request_id,
        filter_passed=first.filter_passed,
        network_calls=sum(info.network_calls for info in infos),
        other_bundles=tuple(version for version in bundles if version != first.bundle_version),
    )


def _check_length(answer: Answer[Any], size: int) -> None:
    if len(answer) != size:
        raise Internal(
            f"{size} items were asked for, {len(answer)} came",
            code="INTERNAL",
            hint=HINT_OF_REASON["UNDECODABLE_REQUEST"],
            request_id=answer.info.request_id,
        )
