"""A bundle that is asked beside the one that serves: how much its answers differ, and what they cost.

It answers nobody. What it is asked is asked after the answer has gone, one search at a time and in a thread; while one
runs, or where the event loop has other work, a search is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from kithkin.v1 import retrieval_service_pb2 as pb
from server.calls.answers import Answer
from server.calls.retrieval import Retrieval
from server.deadline import Deadline
from server.errors import CallError
from server.observe import log

_PAUSE_S = 0.002
"""Given to the answer, to go out first."""
_LATE_S = 0.005
"""An event loop that comes back so much later has other work."""
_LONGEST_S = 1.0
_SUMMARY = 100
"""Comparisons between two lines of the log."""

Request = pb.SearchSimilarEntitiesRequest | pb.RetrieveEntitiesForUserRequest
Response = Answer[pb.SearchSimilarEntitiesResponse] | Answer[pb.RetrieveEntitiesForUserResponse]
Q = TypeVar("Q", pb.SearchSimilarEntitiesRequest, pb.RetrieveEntitiesForUserRequest)


@dataclass
class Counters:
    """Sums since the shadow bundle was loaded."""

    sampled: int = 0
    """Searches of its share."""
    dropped: int = 0
    """Of these, not asked, because there was other work."""
    failed: int = 0
    """Of these, that the shadow bundle could not answer (an entity that it does not know, say)."""
    compared: int = 0
    """Of these, answered by both."""
    overlap: float = 0.0
    """Sum over the compared: the share of the served answer's results that the shadow's has too (overlap@k)."""
    seconds: float = 0.0
    """Time of the shadow's answers, summed over the compared."""
    served_seconds: float = 0.0
    """Time of the served answers, the same."""


class Shadow:
    """The shadow bundle of one worker. Call everything in its event loop."""

    def __init__(
        self,
        retrieval: Retrieval,
        share: float,
        *,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``share`` of the searches in [0, 1]; ``draw`` gives a number in [0, 1) for each, ``clock`` seconds."""
        self._retrieval = retrieval
        self._share, self._draw, self._clock = share, draw, clock
        self._asking: asyncio.Task[None] | None = None
        self.counters = Counters()

    @property
    def version(self) -> str:
        """The shadow bundle."""
        return self._retrieval.model.version

    def offer_similar(
        self, request: pb.SearchSimilarEntitiesRequest, response: Answer[pb.SearchSimilarEntitiesResponse]
    ) -> None:
        """A SearchSimilarEntities was answered."""
        self._offer(self._retrieval.search_similar_entities, request, response)

    def offer_for_user(
        self, request: pb.RetrieveEntitiesForUserRequest, response: Answer[pb.RetrieveEntitiesForUserResponse]
    ) -> None:
        """A RetrieveEntitiesForUser was answered."""
        self._offer(self._retrieval.retrieve_entities_for_user, request, response)

    async def idle(self) -> None:
        """Wait until nothing is being asked."""
        if self._asking is not None:
            await asyncio.wait([self._asking])

    def _offer(self, ask: Callable[[Q, Deadline], Response], request: Q, response: Response) -> None:
        # Who names a bundle wants that one and no other.
        if request.bundle_version or self._draw() >= self._share:
            return
        self.counters.sampled += 1
        if self._asking is not None:
            self.counters.dropped += 1
            return
        answered = [(each.node.ref.type, each.node.ref.id) for each in response.results]
        served_s = response.info.server_time.ToNanoseconds() / 1e9
        self._asking = asyncio.create_task(self._ask(ask, request, answered, served_s))
        self._asking.add_done_callback(self._asked)

    async def _ask(
        self, ask: Callable[[Q, Deadline], Response], request: Q, answered: Sequence[tuple[str, str]], served_s: float
    ) -> None:
        counters, began = self.counters, self._clock()
        await asyncio.sleep(_PAUSE_S)
        if self._clock() - began > _PAUSE_S + _LATE_S:
            counters.dropped += 1
            return
        own = type(request)()
        own.CopyFrom(request)
        # Reasons are not compared, and take longer than the search.
        own.reasons = 0
        deadline = Deadline(_LONGEST_S)
        try:
            response = await asyncio.to_thread(ask, own, deadline)
        except CallError as error:
            counters.failed += 1
            log.event(logging.DEBUG, "shadow refused", bundle=self.version, error=error.message)
            return
        found = {(each.node.ref.type, each.node.ref.id) for each in response.results}
        counters.compared += 1
        # Two empty answers are the same answer.
        counters.overlap += len(found.intersection(answered)) / len(answered) if answered else float(not found)
        counters.seconds += deadline.spent
        counters.served_seconds += served_s
        if counters.compared % _SUMMARY == 0:
            self.report()

    def report(self) -> None:
        """Log the counters and their means."""
        counters = self.counters
        if not counters.compared:
            return
        log.event(
            logging.INFO,
            "shadow",
            bundle=self.version,
            **asdict(counters),
            mean_overlap=round(counters.overlap / counters.compared, 4),
            mean_ms=round(counters.seconds / counters.compared * 1000, 3),
            mean_served_ms=round(counters.served_seconds / counters.compared * 1000, 3),
        )

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None
        if not task.cancelled() and task.exception() is not None:
            self.counters.failed += 1
            log.event(logging.ERROR, "shadow failed", bundle=self.version, error=repr(task.exception()))
