"""A write-back that ends anywhere: what was whole stays whole or is replaced, and the same call again completes it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from graph_store.errors import StoreConflict, StoreUnavailable
from graph_store.neo4j.driver import Neo4jConnection
from graph_store.published import EDGES, VECTORS, Publishing
from graph_store.schema import GraphSchema, NodeType
from graph_store.settings import StoreSettings
from graph_store.store import GraphStore
from tests.conftest import Neo4jServer

ITEMS = tuple(f"i{number}" for number in range(6))
SCHEMA = GraphSchema(node_types=(NodeType.model_validate({"name": "Item", "role": "entity"}),), relations=())
FIRST = Publishing(
    bundle="v1",
    space="similar",
    relation="SIMILAR_TO",
    property="kithkin_vector",
    dimension=2,
    neighbours=5,
    node_types=("Item",),
)
SECOND = replace(FIRST, bundle="v2")
EVERY = {(source, target) for source in ITEMS for target in ITEMS if source != target}


class Rows:
    """Every item joined to all others, in two parts; ``at`` is called with the place of each part."""

    def __init__(self, at: Callable[[str], object] = str) -> None:
        self._at = at

    def edges(self) -> Iterator[tuple[str, pa.Table]]:
        for part in (0, 1):
            pairs = sorted(pair for pair in EVERY if int(pair[0][1]) % 2 == part)
            columns = [[pair[0] for pair in pairs], [pair[1] for pair in pairs]]
            count = len(pairs)
            yield "Item", pa.table([*columns, [0.5] * count, ["Both"] * count, [1] * count], schema=EDGES)
            self._at(f"edges {part}")

    def vectors(self) -> Iterator[tuple[str, pa.Table]]:
        for part in (0, 1):
            ids = ITEMS[part::2]
            yield "Item", pa.table([list(ids), [[1.0, float(part)]] * len(ids)], schema=VECTORS)
            self._at(f"vectors {part}")


def _embedded(folder: Path) -> GraphStore:
    from graph_store.embedded.store import EmbeddedStore

    settings = StoreSettings(uri="graph.lbug", timeout_s=10, memory_mib=128)
    return EmbeddedStore.open(SCHEMA, settings, folder, read_only=False)


def _neo4j(uri: str, **settings: Any) -> GraphStore:
    from graph_store.neo4j.prefixed import open_neo4j

    return open_neo4j(SCHEMA, StoreSettings(uri=uri, **{"timeout_s": 20, **settings}), read_only=False)


def _fill(store: GraphStore) -> None:
    store.apply_schema()
    store.upsert_nodes("Item", pa.table({"id": list(ITEMS)}))
    store.write_back(FIRST, Rows())


def _edges(store: GraphStore, bundle: str) -> list[tuple[str, str]]:
    found = store.query(
        "MATCH (a:Item)-[r:SIMILAR_TO {bundle: $bundle}]->(b:Item) RETURN a.id, b.id", {"bundle": bundle}
    )
    return [(row[0], row[1]) for row in found.rows]


def _all_edges(store: GraphStore) -> int:
    return int(store.query("MATCH (:Item)-[r:SIMILAR_TO]->(:Item) RETURN count(r)").rows[0][0])


def _check_whole(store: GraphStore) -> str:
    """The bundle that is told to be whole, which it is."""
    (whole,) = (each.publishing.bundle for each in store.written_back() if each.complete)
    edges = _edges(store, whole)
    assert len(edges) == len(EVERY)
    assert set(edges) == EVERY
    return whole


def _check_only(store: GraphStore, publishing: Publishing) -> None:
    """Nothing but this publishing is there, none of it twice."""
    (only,) = store.written_back()
    assert (only.publishing, only.complete) == (publishing, True)
    assert _check_whole(store) == publishing.bundle
    assert _all_edges(store) == len(EVERY)


_KILLED = """
import os, signal, sys
from pathlib import Path
from graph_store.embedded import published
from graph_store.embedded.database import EmbeddedDatabase
from tests.integration import test_write_back_faults as tests

where, at = sys.argv[1:3]

def die(place):
    if place == at:
        os.kill(os.getpid(), signal.SIGKILL)

published._EDGES_A_MIB = published._VECTORS_A_MIB = 0  # a transaction for each part
renamed = False
rows = EmbeddedDatabase.rows

def dying(self, statement, parameters=None):
    global renamed
    renamed = renamed or "RENAME" in statement
    if renamed:
        die(statement.lower())
    return rows(self, statement, parameters)

EmbeddedDatabase.rows = dying
store = tests._neo4j(where) if "://" in where else tests._embedded(Path(where))
store.write_back(tests.SECOND, tests.Rows(die))
"""


def _kill_at(where: str, place: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, where, place], check=False, cwd=Path(__file__).parents[2], capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.parametrize("place", ["edges 1", "vectors 1", "commit", "checkpoint"])
def test_killed_beside_an_embedded_store(tmp_path: Path, place: str) -> None:
    with _embedded(tmp_path) as store:
        _fill(store)
    _kill_at(str(tmp_path), place)
    with _embedded(tmp_path) as store:
        # Renamed in one transaction: the old one, or where it was committed the new one.
        _check_only(store, SECOND if place == "checkpoint" else FIRST)
        store.write_back(SECOND, Rows())
        _check_only(store, SECOND)
        vectors = store.query("MATCH (:Item)-[:KITHKIN_VECTOR]->(v:KithkinVector) RETURN count(v)")
        assert vectors.rows == ((len(ITEMS),),)
        names = {row[0] for row in store.query("CALL show_tables() RETURN name").rows}
        assert names == {"Item", "SIMILAR_TO", "KithkinPublished", "KITHKIN_VECTOR", "KithkinVector"}


@pytest.mark.neo4j
def test_killed_beside_neo4j(clean_neo4j: Neo4jServer) -> None:
    with _neo4j(clean_neo4j.uri) as store:
        _fill(store)
        _kill_at(clean_neo4j.uri, "edges 1")
        assert _check_whole(store) == "v1"
        assert {each.publishing.bundle for each in store.written_back()} == {"v1", "v2"}
        assert _all_edges(store) > len(EVERY)  # what was begun stands beside it, and is told apart
        store.write_back(SECOND, Rows())
        _check_only(store, SECOND)


class Ended(BaseException):
    """Stands for the end of the process between two transactions."""


@pytest.mark.neo4j
def test_ended_between_any_two_transactions_of_neo4j(clean_neo4j: Neo4jServer, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Neo4jConnection.write
    left = [10**9]

    def counted(self: Neo4jConnection, work: Any) -> Any:
        if left[0] == 0:
            raise Ended
        left[0] -= 1
        return write(self, work)

    monkeypatch.setattr(Neo4jConnection, "write", counted)
    with _neo4j(clean_neo4j.uri) as store:
        _fill(store)
        left[0] = 10**9
        store.write_back(SECOND, Rows())
        writes = 10**9 - left[0]
        assert writes >= 8
        seen = []
        for number in range(1, writes):
            before, after = (FIRST, SECOND) if number % 2 else (SECOND, FIRST)
            left[0] = 10**9
            store.write_back(before, Rows())
            left[0] = number
            with pytest.raises(Ended):
                store.write_back(after, Rows())
            left[0] = 10**9
            seen.append(_check_whole(store) == after.bundle)
            # Another one than the one that ended, or the same, completes.
            done = after if number % 3 else before
            store.write_back(done, Rows())
            _check_only(store, done)
            held = store.query("MATCH (i:Item) RETURN DISTINCT i.kithkin_vector_bundle").rows
            assert held == ((done.bundle,),)
        assert seen == sorted(seen)  # the old one up to the switch, the new one from then on
        assert {False, True} == set(seen)


@pytest.mark.neo4j
def test_what_is_left_behind_the_switch_is_removed_alone(
    clean_neo4j: Neo4jServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _neo4j(clean_neo4j.uri) as store:
        _fill(store)

        def ended(*_: object) -> None:
            raise Ended

        with monkeypatch.context() as patched:
            patched.setattr("graph_store.neo4j.published._remove_others", ended)
            with pytest.raises(Ended):
                store.write_back(SECOND, Rows())
        assert _check_whole(store) == "v2"
        assert _all_edges(store) == 2 * len(EVERY)
        store.remove_written_back(keep="v2")
        _check_only(store, SECOND)


@pytest.mark.neo4j
def test_of_two_at_once_the_later_one_is_whole(clean_neo4j: Neo4jServer) -> None:
    with _neo4j(clean_neo4j.uri) as store, _neo4j(clean_neo4j.uri) as other:
        _fill(store)

        def overtake(place: str) -> None:
            if place == "edges 0":
                other.write_back(replace(FIRST, bundle="v3"), Rows())

        with pytest.raises(StoreConflict, match="another write-back"):
            store.write_back(SECOND, Rows(overtake))
        _check_only(store, replace(FIRST, bundle="v3"))


@pytest.mark.neo4j
def test_a_neo4j_that_stops_in_the_middle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.neo4j.server import neo4j_server

    with contextlib.ExitStack() as running:
        uri, password = running.enter_context(neo4j_server(tmp_path, keep=True))
        monkeypatch.setenv("KITHKIN_STORE_PASSWORD", password)
        with _neo4j(uri, timeout_s=3) as store:
            _fill(store)
            with pytest.raises(StoreUnavailable, match="cannot reach Neo4j") as refused:
                store.write_back(SECOND, Rows(lambda place: running.close() if place == "edges 0" else None))
            assert refused.value.exit_code == 5
    port = int(uri.rpartition(":")[2])
    with neo4j_server(tmp_path, port=port, password=password), _neo4j(uri) as store:
        assert _check_whole(store) == "v1"
        store.write_back(SECOND, Rows())
        _check_only(store, SECOND)
