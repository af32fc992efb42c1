"""Following where something dies: Neo4j stopped and started again, the follower killed in the middle of a stream."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from graph_store.graph import open_graph
from graph_store.project import load_project
from graph_store.stores import open_store
from kithkin import Client
from model_store.bundle_store import BundleStore
from server.fresh.delta import Delta
from server.fresh.delta_file import DeltaReader, delta_path
from server.fresh.follower import Follower, FollowOrder
from tests.e2e.conftest import kithkin, serving
from tests.integration.test_fresh_entities import CREATE, SMALL, _follower, eventually, status
from tests.toy import SPACE, write_toy


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy with a bundle of one round of messages."""
    folder = write_toy(tmp_path_factory.mktemp("toy"))
    with (folder / "kithkin.toml").open("a") as file:
        file.write(SMALL)
    kithkin("build", folder=folder)
    return folder


@pytest.fixture
def toy(built: Path, tmp_path: Path) -> Path:
    """A copy of it, for one test to change."""
    return Path(shutil.copytree(built, tmp_path / "toy"))


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """Stops a Neo4j that runs, and starts it again with its data, where the environment says it is."""
    from tests.neo4j.server import _free_port, neo4j_server

    port, password = _free_port(), "a word of nobody"
    with ExitStack() as running:

        def start() -> None:
            server = neo4j_server(tmp_path / "neo4j", port=port, password=password, keep=True)
            uri, _ = running.enter_context(server)
            monkeypatch.setenv("KITHKIN_STORE__URI", uri)
            monkeypatch.setenv("KITHKIN_STORE_PASSWORD", password)

        start()
        yield running.close, start


def write(folder: Path, *statements: str) -> None:
    """Another program's Cypher."""
    with open_store(load_project(folder)) as store:
        for statement in statements:
            store.query(statement, write=True)


def lag_s(address: str) -> float:
    return status(address).lag.ToMilliseconds() / 1000


@pytest.mark.neo4j
@pytest.mark.timeout(900)
def test_neo4j_stops_and_comes_back(toy: Path, started: tuple[Callable[[], None], Callable[[], None]]) -> None:
    stop, start = started
    kithkin("ingest", folder=toy)
    follow = ("--set", 'serving.follow="0.2s"', "--set", "store.timeout_s=2")
    with serving(toy, *follow) as address, Client(address, timeout=20) as client:
        eventually(lambda: status(address).HasField("lag"))
        write(toy, *CREATE)
        eventually(lambda: "n1" in client.similar("s1", top_k=5).ids)
        stop()
        eventually(lambda: lag_s(address) > 3)
        assert set(client.similar("s1", top_k=5).ids) == {*SPACE, "n1"} - {"s1"}, "retrieval goes on"
        eventually(lambda: "cannot be followed" in (toy / "server.observe.log").read_text())
        start()
        write(toy, "MATCH (f:Film {id: 's2'}) DETACH DELETE f")
        with open_graph(load_project(toy)) as graph:
            graph.upsert(
                [
                    {"type": "Film", "id": "n2", "properties": {"title": "Nebula", "year": 1996}},
                    {"relation": "HAS_GENRE", "source": "n2", "target": "Space"},
                ]
            )
        eventually(lambda: "n2" in client.similar("s1", top_k=6).ids)
        eventually(lambda: "s2" not in client.similar("s1", top_k=6).ids)
        assert {"n1", "n2"} < set(client.similar("s1", top_k=6).ids)
        eventually(lambda: lag_s(address) < 3)


@pytest.mark.timeout(900)
def test_a_follower_killed_in_the_middle_of_a_stream_loses_and_doubles_nothing(toy: Path) -> None:
    with serving(toy, "--set", 'serving.follow="0.2s"') as address, Client(address, timeout=20) as client:
        eventually(lambda: status(address).HasField("lag"))

        def stream() -> None:
            with open_graph(load_project(toy)) as graph:
                for number in range(60):
                    film = f"n{number:02d}"
                    graph.upsert(
                        [
                            {"type": "Film", "id": film, "properties": {"title": film, "year": 1990 + number % 10}},
                            {"relation": "HAS_GENRE", "source": film, "target": "Space"},
                        ]
                    )
                    if number % 4 == 3:
                        graph.delete({"type": "Film", "id": f"n{number - 1:02d}"})

        writing = threading.Thread(target=stream)
        writing.start()
        eventually(lambda: status(address).fresh > 3)
        for _ in range(2):
            before = _follower(toy)
            os.kill(before, signal.SIGKILL)
            eventually(lambda: _another(toy, before))  # noqa: B023
        writing.join()
        expected = {f"n{number:02d}" for number in range(60) if number % 4 != 2}
        eventually(lambda: status(address).fresh == len(expected))
        listed = [node.id for node in client.list_entities(type="Film") if node.id.startswith("n")]
        assert sorted(listed) == sorted(expected)
        assert set(client.similar("s1", top_k=50).ids) >= expected
        eventually(lambda: lag_s(address) < 3)
    # What was gathered through both deaths is what one that never died finds.
    bundles = BundleStore(load_project(toy).work / "models")
    version = bundles.active() or ""
    path = delta_path(bundles.root, version)
    gathered = _told(DeltaReader(path))
    project = str(toy / "kithkin.toml")
    Follower(FollowOrder(root=str(bundles.root), project=project, overrides={}, every_s=1)).look(version)
    assert gathered == _told(DeltaReader(path))


def _another(folder: Path, before: int) -> bool:
    try:
        return _follower(folder) != before
    except AssertionError:
        return False


def _told(reader: DeltaReader) -> dict[str, dict[str, tuple[object, ...]]]:
    delta = Delta().plus(reader.poll()[1])
    return {
        name: {
            row["id"]: (row["name"], row["popularity"], *(v for k, v in row.items() if k.startswith("links/") and v))
            for row in each.nodes.to_pylist()
        }
        for name, each in delta.types.items()
    }
