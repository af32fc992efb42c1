"""One test for both clients: an `AsyncClient` whose calls are run to their end, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from kithkin import AsyncClient, Client


class Awaited:
    """An AsyncClient that is used like a Client."""

    def __init__(self, runner: asyncio.Runner, client: AsyncClient) -> None:
        self._runner, self._client = runner, client

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            answer = getattr(self._client, name)(*args, **kwargs)
            return self._each(answer) if isinstance(answer, AsyncIterator) else self._runner.run(answer)

        return call

    def _each(self, listing: AsyncIterator[Any]) -> Iterator[Any]:
        async def following() -> list[Any]:
            return [item async for item in _first(listing)]

        while found := self._runner.run(following()):
            yield found[0]


async def _first(listing: AsyncIterator[Any]) -> AsyncIterator[Any]:
    try:
        yield await anext(listing)
    except StopAsyncIteration:
        return


@contextmanager
def both(target: str, **options: Any) -> Iterator[dict[str, Any]]:
    """A client of each kind by its kind, ``sync`` and ``async``."""
    with asyncio.Runner() as runner, Client(target, **options) as blocking:
        client = Awaited(runner, AsyncClient(target, **options))
        yield {"sync": blocking, "async": client}
        client.close()
