"""What becomes of a load or a scan when Neo4j, or the loader, dies in the middle, or two load the same."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import neo4j
import pyarrow as pa
import pytest

from graph_store.errors import StoreUnavailable
from graph_store.neo4j.driver import Neo4jConnection
from graph_store.neo4j.store import Neo4jStore
from graph_store.settings import StoreSettings
from graph_store.store import Written
from tests.conftest import Neo4jServer
from tests.integration.neo4j_loader import MOVIES, SCHEMA, SEEN, USERS, WATCHED, load, seen, small_parts, watched

pytestmark = pytest.mark.neo4j

_PASSWORD = "only-for-this-test"


class OwnServer:
    """A Neo4j that a test stops and starts; its data and its address stay."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._folder = folder
        self._running = contextlib.ExitStack()
        self.settings = StoreSettings(uri=f"bolt://127.0.0.1:{self._port}", timeout_s=100)

    def start(self, *, gently: bool) -> None:
        """Start it, to be stopped by a signal that it may tidy up on, or by none."""
        from tests.neo4j.server import neo4j_server

        server = neo4j_server(self._folder, port=self._port, password=_PASSWORD, heap_mib=384, keep=gently)
        self._running.enter_context(server)

    def stop(self) -> None:
        self._running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """With nodes, what users have seen, and nothing watched."""
    own = OwnServer(tmp_path_factory.mktemp("own-neo4j"))
    own.start(gently=True)
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("KITHKIN_STORE_PASSWORD", _PASSWORD)
            with Neo4jStore.open(SCHEMA, own.settings, read_only=False) as store:
                store.apply_schema()
                store.upsert_nodes("Movie", MOVIES)
                store.upsert_nodes("User", USERS)
                store.upsert_edges(SEEN, seen())
        yield own
    finally:
        own.stop()


def _rows(tables: Iterator[pa.RecordBatch] | list[pa.RecordBatch]) -> list[tuple[object, ...]]:
    return sorted(tuple(row.values()) for batch in tables for row in batch.to_pylist())


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_neo4j_goes_away_under_a_load_and_a_scan(
    server: OwnServer, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    monkeypatch.setenv("KITHKIN_STORE_PASSWORD", _PASSWORD)
    small_parts(monkeypatch.setattr)
    run_apart, calls = Neo4jConnection.run_apart, []

    def goes_away(connection: Neo4jConnection, statement: str, parameters: Mapping[str, Any]) -> neo4j.SummaryCounters:
        calls.append(statement)
        if len(calls) == 6:
            server.stop()
            server.start(gently=not killed)
        return run_apart(connection, statement, parameters)

    with Neo4jStore.open(SCHEMA, server.settings, read_only=False) as store:
        store.replace_edges(WATCHED, watched().slice(0, 0))
        scan = store.scan_edges(SEEN)
        first = next(scan)
        assert 0 < first.num_rows < seen().num_rows
        with monkeypatch.context() as patched:
            patched.setattr(Neo4jConnection, "run_apart", goes_away)
            written = store.upsert_edges(WATCHED, watched())
        # It went on by itself: what was committed before is found there, and the rest is written; all is told.
        assert written == Written(created=watched().num_rows)
        assert len(calls) < 2400 // 50 + 6
        assert _rows(list(store.scan_edges(WATCHED))) == _rows(watched().to_batches())
        assert store.upsert_edges(WATCHED, watched()) == Written(unchanged=watched().num_rows)
        # The scan is one transaction and cannot go on; it says so, and the next one reads all.
        with pytest.raises(StoreUnavailable) as caught:
            list(scan)
        assert "Check that Neo4j runs there" in caught.value.hint
        assert _rows(list(store.scan_edges(SEEN))) == _rows(seen().to_batches())


def _loader(server: Neo4jServer) -> subprocess.Popen[str]:
    """Another process that loads the same; it says what it does, a line each."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.neo4j_loader", server.uri],
        env={**os.environ, "KITHKIN_STORE_PASSWORD": server.password},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_loader_that_is_killed_is_completed_by_the_next(
    clean_neo4j: Neo4jServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _loader(clean_neo4j) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "part 9\n":
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    small_parts(monkeypatch.setattr)
    with Neo4jStore.open(SCHEMA, StoreSettings(uri=clean_neo4j.uri, timeout_s=60), read_only=False) as store:
        written = load(store)
        assert written.created + written.unchanged == watched().num_rows
        assert written.created > 0
        assert written.unchanged > 0
        assert _rows(list(store.scan_edges(WATCHED))) == _rows(watched().to_batches())


def test_two_loaders_at_once_make_each_edge_once(clean_neo4j: Neo4jServer) -> None:
    loaders = [_loader(clean_neo4j) for _ in range(2)]
    told = [process.communicate(timeout=200)[0].splitlines() for process in loaders]
    assert [process.returncode for process in loaders] == [0, 0]
    size = watched().num_rows
    assert sorted(lines[-1] for lines in told) == [f"created 0 unchanged {size}", f"created {size} unchanged 0"]
    with Neo4jStore.open(SCHEMA, StoreSettings(uri=clean_neo4j.uri, timeout_s=60), read_only=True) as store:
        assert _rows(list(store.scan_edges(WATCHED))) == _rows(watched().to_batches())
