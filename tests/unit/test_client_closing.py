"""A client that is closed, interrupted or forked while it waits: nothing hangs, and every call under way ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

import kithkin
from kithkin import AsyncClient, Client
from kithkin.v1 import model_service_pb2 as model
from kithkin.v1 import retrieval_service_pb2 as retrieval
from model_store.bundle_store import BundleStore
from tests.bundles import write_toy_bundle
from tests.fake_server import Failure, FakeServer, retry_info

WAITING = Failure(code=grpc.StatusCode.UNAVAILABLE, details=(retry_info(600),))
LONG_S = 900.0
"""Of every call here: far longer than any test may take."""


class Held:
    """A server that says when a call has come, and answers none before it is let go."""

    def __init__(self) -> None:
        self.come, self.let_go = threading.Event(), threading.Event()
        self.fake = FakeServer()
        self.running = self.fake.start()
        for method in ("GetStatus", "BatchSearchSimilarEntities", "ScorePairs"):
            self.fake.will(method, self.hold)

    def hold(self, request: Any, context: Any) -> Any:
        """One call."""
        self.come.set()
        self.let_go.wait(60)
        return (
            retrieval.ScorePairsResponse()
            if isinstance(request, retrieval.ScorePairsRequest)
            else model.GetStatusResponse()
        )


@pytest.fixture
def held() -> Iterator[Held]:
    server = Held()
    yield server
    server.let_go.set()
    server.running.stop(None).wait()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = BundleStore(tmp_path_factory.mktemp("models"))
    store.activate(write_toy_bundle(store, encoders=False))
    return store.root


ASKED: dict[str, Callable[[Any], Any]] = {
    "call": lambda client: client.status(timeout=LONG_S),
    "one part": lambda client: client.similar_batch(["1"], timeout=LONG_S),
    "parts": lambda client: client.similar_batch([str(number) for number in range(2000)], timeout=LONG_S),
    "whole": lambda client: client.score_pairs([("1", "2")] * 9000, errors="raise", timeout=LONG_S),
}


def closed_while(client: Client, ask: Callable[[Any], Any], begun: threading.Event) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask, client)
        assert begun.wait(60)
        client.close()
        with pytest.raises(kithkin.Cancelled, match="the client was closed"):
            asked.result(60)
    with pytest.raises(RuntimeError, match="this client is closed"):
        ask(client)


async def closed_while_awaited(client: AsyncClient, ask: Callable[[Any], Any], begun: threading.Event) -> None:
    asked = asyncio.create_task(ask(client))
    assert await asyncio.to_thread(begun.wait, 60)
    await client.close()
    with pytest.raises(kithkin.Cancelled, match="the client was closed"):
        await asyncio.wait_for(asked, 60)
    with pytest.raises(RuntimeError, match="this client is closed"):
        await ask(client)


@pytest.mark.parametrize("ask", ASKED.values(), ids=list(ASKED))
def test_close_ends_what_a_server_has_not_answered(held: Held, ask: Callable[[Any], Any]) -> None:
    closed_while(Client(held.fake.target), ask, held.come)


@pytest.mark.parametrize("ask", ASKED.values(), ids=list(ASKED))
async def test_close_ends_what_a_server_has_not_answered_async(held: Held, ask: Callable[[Any], Any]) -> None:
    await closed_while_awaited(AsyncClient(held.fake.target), ask, held.come)


def refusing(held: Held) -> threading.Event:
    """The server says "in ten minutes" to every call; set once the client has heard it."""

    def refuse(_: Any, context: Any) -> Any:
        context.add_callback(held.come.set)
        held.fake.fail(context, WAITING)

    for method in ("GetStatus", "BatchSearchSimilarEntities", "ScorePairs"):
        held.fake.will(method, refuse)
    return held.come


@pytest.mark.parametrize("ask", ASKED.values(), ids=list(ASKED))
def test_close_ends_the_wait_before_another_try(held: Held, ask: Callable[[Any], Any]) -> None:
    closed_while(Client(held.fake.target), ask, refusing(held))


@pytest.mark.parametrize("ask", ASKED.values(), ids=list(ASKED))
async def test_close_ends_the_wait_before_another_try_async(held: Held, ask: Callable[[Any], Any]) -> None:
    await closed_while_awaited(AsyncClient(held.fake.target), ask, refusing(held))


def never_answering(client: Any, begun: threading.Event) -> None:
    async def answer(path: str, request: bytes, context: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    client._channel._service._answer = answer


@pytest.mark.parametrize("ask", ASKED.values(), ids=list(ASKED))
def test_close_ends_what_this_process_has_not_answered(bundle: Path, ask: Callable[[Any], Any]) -> None:
    client, begun = Client.local(bundle), threading.Event()
    never_answering(client, begun)
    closed_while(client, ask, begun)


@pytest.mark.parametrize("ask", ASKED.values(), ids=list(ASKED))
async def test_close_ends_what_this_process_has_not_answered_async(bundle: Path, ask: Callable[[Any], Any]) -> None:
    client, begun = AsyncClient.local(bundle), threading.Event()
    never_answering(client, begun)
    await closed_while_awaited(client, ask, begun)


async def test_a_cancelled_task_is_cancelled_and_the_client_lives_on(held: Held) -> None:
    async with AsyncClient(held.fake.target) as client:
        asked = asyncio.create_task(ASKED["parts"](client))
        assert await asyncio.to_thread(held.come.wait, 60)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await client.health() == "SERVING"


def test_close_while_many_threads_begin_calls(bundle: Path) -> None:
    """Whatever comes first, each thread sees an answer, `Cancelled`, or that the client is closed."""
    client = Client.local(bundle)
    begun = threading.Event()

    def ask() -> str:
        try:
            while True:
                client.get("1", timeout=60)
                begun.set()
        except (kithkin.Cancelled, RuntimeError) as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
        assert begun.wait(60)
        client.close()
        assert all("the client was closed" in each.result(60) or "is closed" in each.result(60) for each in asked)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@pytest.mark.parametrize("where", ["answer", "wait", "local"])
def test_an_interrupt_ends_a_batch(held: Held, bundle: Path, where: str) -> None:
    # In a process of its own: the interrupt is to meet no other test.
    code = """
        import asyncio, sys, threading, time
        from kithkin import Client
        where, target, bundle = sys.argv[1:]
        if where == "local":
            client = Client.local(bundle)
            async def answer(*_):
                print("begun", flush=True)
                await asyncio.Event().wait()
            client._channel._service._answer = answer
        else:
            client = Client(target)
        try:
            client.similar_batch([str(number) for number in range(2000)], timeout=900)
        except KeyboardInterrupt:
            left = [thread for thread in threading.enumerate() if thread.name.startswith("kithkin-part")]
            for thread in left:
                # The interrupt may come between a thread's making and its start.
                while "initial" in repr(thread):
                    time.sleep(0.01)
                thread.join(60)
            alive = sum(thread.is_alive() for thread in left)
            client.close()
            sys.exit(10 + alive)
    """
    begun = refusing(held) if where == "wait" else held.come
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), where, held.fake.target, str(bundle)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        try:
            assert process.stdout is not None
            if where == "local":
                assert process.stdout.readline() == b"begun\n"
            else:
                assert begun.wait(60)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 10
        finally:
            process.kill()
    assert len(held.fake.received["BatchSearchSimilarEntities"]) <= 4


@pytest.mark.skipif(sys.platform == "win32", reason="nothing forks there")
def test_a_forked_child_leaves_the_parents_client_alone(bundle: Path) -> None:
    code = """
        import asyncio, os, sys
        from kithkin import AsyncClient, Client
        with Client.local(sys.argv[1]) as client, Client("localhost:1") as far:
            other = AsyncClient.local(sys.argv[1])
            assert client.get("1").name == "Slowdive"
            child = os.fork()
            if child == 0:
                client.close()
                client._channel.close()  # by itself, too
                far.close()
                asyncio.run(other.close())
                with client:
                    pass
                os._exit(0)
            _, status = os.waitpid(child, 0)
            # The parent's goes on, and its bundle is still held.
            assert client.get("1").name == "Slowdive"
            assert os.waitstatus_to_exitcode(status) == 0
            asyncio.run(other.close())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(bundle)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
