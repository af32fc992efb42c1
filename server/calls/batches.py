"""Many searches in one call: each answered by itself, without holding up other calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message
from google.rpc import status_pb2

from kithkin.v1 import retrieval_service_pb2 as pb
from server.calls.answer_bytes import EncodedBatch
from server.calls.plain_searches import Kind, answer_each_plain
from server.calls.retrieval import Retrieval
from server.calls.search import Group, Prepared, narrowed
from server.deadline import Deadline
from server.errors import DeadlinePassed, InvalidField
from server.index.vector_index import Found
from server.threads import apart
from server.wire.guard import Origin, refusal

MOST_REQUESTS = 100
_TURN_S = 0.002
"""A batch holds the event loop so long, and for a search of _TOGETHER queries, before other calls have their turn."""
_MANY = 10
"""Plain searches of a batch from which on a thread answers them."""
_TOGETHER = 16
"""Queries an index is asked at once: among 100,000 vectors exact search holds the event loop for 20 ms by these."""


class Request(Protocol):
    """What requests of a batch have in common."""

    @property
    def bundle_version(self) -> str:
        """The bundle to answer from; empty: the active one."""
        ...


Q = TypeVar("Q", bound=Request)
R = TypeVar("R")


async def answer_each(
    retrieval: Retrieval,
    requests: Sequence[Q],
    prepare: Callable[[Retrieval, Q, Deadline], Prepared[R]],
    deadline: Deadline,
    origin: Origin,
    named: Callable[[str], Retrieval],
) -> Sequence[R | status_pb2.Status]:
    """The response or the status of every request, in their order; ``EncodedItems`` where all were encoded together.

    Requests that name a bundle are answered from that one, which ``named`` gives; all others from ``retrieval``.
    Searches of the same index for the same number of results share its calls. Other calls have their turn every few
    milliseconds. Raises InvalidField where there are no requests or too many, and DeadlinePassed.
    """
    if not 1 <= len(requests) <= MOST_REQUESTS:
        raise InvalidField("requests", f"{len(requests)} requests, send 1 to {MOST_REQUESTS}")
    outcomes: dict[int, R | status_pb2.Status] = {}

    def refuse(number: int, error: Exception) -> None:
        if isinstance(error, DeadlinePassed):
            # The batch has one deadline: what is left of it would fail the same way.
            raise error
        outcomes[number] = refusal(error, origin, deadline, item=number)[1]

    # Taken once each: another bundle may be activated while the batch is answered.
    bundles = {"": retrieval, retrieval.model.version: retrieval}
    groups: dict[tuple[str, Group], list[tuple[int, Prepared[R]]]] = {}
    turn = _Turn()
    plain: dict[Kind, list[tuple[int, int]]] = {}
    for number, request in enumerate(requests):
        if turn.over:
            await turn.passed()
        try:
            if (
                isinstance(request, pb.SearchSimilarEntitiesRequest)
                and (read := retrieval.plain.read(request)) is not None
            ):
                plain.setdefault(read[0], []).append((number, read[1]))
                continue
            version = request.bundle_version
            if version not in bundles:
                bundles[version] = named(version)
            answering = bundles[version]
            prepared = prepare(answering, request, deadline)
        except Exception as error:
            refuse(number, error)
        else:
            groups.setdefault((answering.model.version, prepared.group), []).append((number, prepared))
    many = sum(map(len, plain.values())) >= _MANY
    for kind, asked in plain.items():

        def refuse_one(place: int, error: Exception, asked: list[tuple[int, int]] = asked) -> None:
            refuse(asked[place][0], error)

        work = partial(answer_each_plain, retrieval.model, kind, [row for _, row in asked], deadline, refuse_one)
        try:
            # Handing a few over to a thread takes longer than answering them.
            places, answered = await apart(work) if many else work()
        except Exception as error:
            for number, _ in asked:
                refuse(number, error)
        else:
            if len(answered) == len(requests):
                return answered
            outcomes.update((asked[place][0], answer) for place, answer in zip(places, answered, strict=True))
        await turn.passed()
    for (version, _), members in groups.items():
        for start in range(0, len(members), _TOGETHER):
            part = members[start : start + _TOGETHER]
            try:
                found = await find(bundles[version], [prepared for _, prepared in part], deadline)
            except Exception as error:
                for number, _ in part:
                    refuse(number, error)
                continue
            await turn.passed()
            for (number, prepared), one in zip(part, found, strict=True):
                try:
                    outcomes[number] = prepared.finish(one)
                except Exception as error:
                    refuse(number, error)
                await turn.passed()
    return [outcomes[number] for number in range(len(requests))]


class _Turn:
    """Other calls have theirs once this one has held the event loop for a while."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    @property
    def over(self) -> bool:
        """Whether it is time; asked where ``passed`` would take longer than what is between."""
        return time.perf_counter() - self._since > _TURN_S

    async def passed(self) -> None:
        """Let others go first, if it is time."""
        if self.over:
            await asyncio.sleep(0)
            self._since = time.perf_counter()


async def find(retrieval: Retrieval, prepared: Sequence[Prepared[R]], deadline: Deadline) -> list[Found]:
    """What searches of one group find: by an index in the event loop, by the neural score in a thread."""
    if prepared[0].neural is not None:
        return await apart(retrieval.find, prepared, deadline)
    found: list[Found] = []
    turn = _Turn()
    for each, one in zip(prepared, retrieval.search(prepared, deadline), strict=True):
        # Choosing by diversity takes milliseconds for each.
        await turn.passed()
        found.append(narrowed(retrieval.model, each, one, deadline))
    return found


def encoded_batch(
    retrieval: Retrieval, outcomes: Sequence[Any], kind: type[Message], deadline: Deadline
) -> EncodedBatch:
    """The response of a batch, of the type ``kind``, with the response or the status of every request."""
    batch = EncodedBatch(kind, outcomes)
    retrieval.describe_batch(batch.info, batch.infos, deadline)
    return batch
