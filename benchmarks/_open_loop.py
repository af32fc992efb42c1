"""Calls a gRPC method at a given rate, whether answers come or not, and tells of each how it ended.

What waits for answers before it asks again (a closed loop) slows down with an overloaded server, and so never sees what
callers see who do not know of each other. Calls are sent at random moments (Poisson), each with a deadline, nothing is
tried again.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2
from numpy.typing import NDArray

_DETAILS = "grpc-status-details-bin"
_WITHOUT_RETRY = "RESOURCE_EXHAUSTED without RetryInfo"


@dataclass(frozen=True, kw_only=True)
class Calls:
    """Every call of a run, in the order in which they ended."""

    codes: NDArray[np.str_]
    """Names of their status codes."""
    sent: NDArray[np.float64]
    """Seconds since the start of the run."""
    taken: NDArray[np.float64]
    """Seconds from sending to the answer or error."""
    late: NDArray[np.float64]
    """Seconds by which the driver sent them later than it was to: what it could not keep up with."""

    def of(self, code: str) -> NDArray[np.float64]:
        """Seconds taken by calls that ended with a code."""
        return self.taken[self.codes == code]

    def counts(self) -> dict[str, int]:
        """Calls by code."""
        return {str(code): int(count) for code, count in zip(*np.unique(self.codes, return_counts=True), strict=True)}


def open_loop(
    port: int,
    method: str,
    messages: Sequence[bytes],
    *,
    per_second: float,
    seconds: float,
    deadline_s: float,
    metadata: Mapping[str, str],
    connections: int = 16,
) -> Calls:
    """Call ``/package.Service/Method`` so often, from a process of its own. Blocks until all calls have ended."""
    return _in_a_process(port, method, messages, per_second, seconds, deadline_s, metadata, connections)


def closed_loop(
    port: int,
    method: str,
    messages: Sequence[bytes],
    *,
    at_once: int,
    seconds: float,
    metadata: Mapping[str, str],
    connections: int = 16,
) -> Calls:
    """Call with so many calls under way all the time."""
    return _in_a_process(port, method, messages, -at_once, seconds, 60.0, metadata, connections)


def _in_a_process(*arguments: Any) -> Calls:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, *arguments).result()


def _run(*arguments: Any) -> Calls:
    return asyncio.run(_call(*arguments))


async def _call(
    port: int,
    method: str,
    messages: Sequence[bytes],
    rate: float,
    seconds: float,
    deadline_s: float,
    metadata: Mapping[str, str],
    connections: int,
) -> Calls:
    # Channels to one address share a connection unless each has a pool of its own.
    own = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=own) for _ in range(connections)]
    calls = [channel.unary_unary(method) for channel in channels]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    head = tuple(metadata.items())
    ended: list[tuple[str, float, float, float]] = []
    begun = time.perf_counter()

    async def one(number: int, due: float) -> None:
        sent = time.perf_counter()
        code = "OK"
        try:
            await calls[number % connections](messages[number % len(messages)], timeout=deadline_s, metadata=head)
        except grpc.aio.AioRpcError as error:
            code = _code(error)
        ended.append((code, sent - begun, time.perf_counter() - sent, max(sent - due, 0.0)))

    async def again(first: int) -> None:
        number = first
        while time.perf_counter() - begun < seconds:
            await one(number, time.perf_counter())
            number += int(-rate)

    if rate < 0:
        await asyncio.gather(*(again(first) for first in range(int(-rate))))
    else:
        rng, running = np.random.default_rng(1), set()
        due, number = begun, 0
        while due - begun < seconds:
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            task = asyncio.create_task(one(number, due))
            running.add(task)
            task.add_done_callback(running.discard)
            due, number = due + rng.exponential(1 / rate), number + 1
        await asyncio.gather(*running)
    await asyncio.gather(*(channel.close() for channel in channels))
    codes, sent, taken, late = zip(*ended, strict=True)
    return Calls(codes=np.array(codes), sent=np.array(sent), taken=np.array(taken), late=np.array(late))


def _code(error: grpc.aio.AioRpcError) -> str:
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        raw = dict(error.trailing_metadata() or ()).get(_DETAILS, b"")
        details = status_pb2.Status.FromString(bytes(raw)).details
        if not any(each.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for each in details):
            return _WITHOUT_RETRY
    return str(error.code().name)
