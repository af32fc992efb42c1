"""Many searches in one call: each answered by itself, all from one bundle, without holding up other calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from google.rpc import status_pb2

from server.deadline import Deadline
from server.errors import DeadlinePassed, InvalidField
from server.guard import Origin, refusal
from server.retrieval import Prepared, Retrieval

MOST_REQUESTS = 100
_TOGETHER = 16
"""Queries an index is asked at once: among 100,000 vectors exact search holds the event loop for 20 ms by these."""

Q = TypeVar("Q")
R = TypeVar("R")


async def answer_each(
    retrieval: Retrieval,
    requests: Sequence[Q],
    prepare: Callable[[Q, Deadline], Prepared[R]],
    deadline: Deadline,
    origin: Origin,
) -> list[R | status_pb2.Status]:
    """The response or the status of every request, in their order.

    Searches of the same index for the same number of results share its calls. Other calls have their turn between any
    two requests. Raises InvalidField where there are no requests or too many, and DeadlinePassed.
    """
    if not 1 <= len(requests) <= MOST_REQUESTS:
        raise InvalidField("requests", f"{len(requests)} requests, send 1 to {MOST_REQUESTS}")
    outcomes: dict[int, R | status_pb2.Status] = {}

    def refuse(number: int, error: Exception) -> None:
        if isinstance(error, DeadlinePassed):
            # The batch has one deadline: what is left of it would fail the same way.
            raise error
        outcomes[number] = refusal(error, origin, deadline, item=number)[1]

    groups: dict[tuple[str, str, int, bool], list[tuple[int, Prepared[R]]]] = {}
    for number, request in enumerate(requests):
        try:
            prepared = prepare(request, deadline)
        except Exception as error:
            refuse(number, error)
        else:
            groups.setdefault(prepared.group, []).append((number, prepared))
        await asyncio.sleep(0)
    for members in groups.values():
        for start in range(0, len(members), _TOGETHER):
            part = members[start : start + _TOGETHER]
            try:
                found = retrieval.find([prepared for _, prepared in part], deadline)
            except Exception as error:
                for number, _ in part:
                    refuse(number, error)
                continue
            await asyncio.sleep(0)
            for (number, prepared), one in zip(part, found, strict=True):
                try:
                    outcomes[number] = prepared.finish(one)
                except Exception as error:
                    refuse(number, error)
                await asyncio.sleep(0)
    return [outcomes[number] for number in range(len(requests))]
