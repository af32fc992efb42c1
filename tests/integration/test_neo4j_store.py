"""Neo4jStore against a real server: what goes wrong outside of it, and what others keep there."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import neo4j
import pyarrow as pa
import pytest

from graph_store.errors import ConfigError, StoreAuthError, StoreConflict, StoreUnavailable
from graph_store.neo4j.driver import Neo4jConnection
from graph_store.neo4j.store import Neo4jStore
from graph_store.schema import GraphSchema, NodeType, Relation, Triple
from graph_store.settings import StoreSettings
from graph_store.store import Written
from tests.conftest import Neo4jServer

pytestmark = pytest.mark.neo4j

LIKES = Triple("User", "LIKES", "Movie")
SCHEMA = GraphSchema(
    node_types=(
        NodeType.model_validate({"name": "Movie", "role": "entity", "properties": {"year": {"type": "int"}}}),
        NodeType.model_validate({"name": "User", "role": "user"}),
        NodeType.model_validate({"name": "Guest", "role": "user"}),
    ),
    relations=(Relation.model_validate({"triple": LIKES, "role": "engagement"}),),
)


def _settings(server: Neo4jServer, **changes: object) -> StoreSettings:
    return StoreSettings.model_validate({"uri": server.uri, "timeout_s": 10, **changes})


@pytest.fixture
def driver(clean_neo4j: Neo4jServer) -> Iterator[neo4j.Driver]:
    """A connection that is not ours."""
    with neo4j.GraphDatabase.driver(clean_neo4j.uri, auth=(clean_neo4j.user, clean_neo4j.password)) as driver:
        yield driver


def test_a_wrong_password_names_the_variable_and_not_the_password(
    clean_neo4j: Neo4jServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KITHKIN_STORE_PASSWORD", "not-the-password")
    with pytest.raises(StoreAuthError) as caught:
        Neo4jStore.open(SCHEMA, _settings(clean_neo4j), read_only=False)
    assert "KITHKIN_STORE_PASSWORD" in caught.value.hint
    assert "not-the-password" not in str(caught.value)


def test_no_password_says_where_to_put_it(clean_neo4j: Neo4jServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KITHKIN_STORE_PASSWORD")
    with pytest.raises(StoreAuthError) as caught:
        Neo4jStore.open(SCHEMA, _settings(clean_neo4j), read_only=False)
    assert "environment variable KITHKIN_STORE_PASSWORD, or" in caught.value.hint
    assert "store.password_file" in caught.value.hint


@pytest.mark.parametrize("scheme", ["bolt", "neo4j"])
def test_a_server_that_is_not_there_is_said_at_once(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITHKIN_STORE_PASSWORD", "secret-word")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: nobody else takes it, and connections are refused
        settings = StoreSettings(uri=f"{scheme}://127.0.0.1:{unused.getsockname()[1]}", timeout_s=30)
        start = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            Neo4jStore.open(SCHEMA, settings, read_only=False)
    assert time.monotonic() - start < 10
    assert settings.uri in str(caught.value)
    assert "store.uri" in caught.value.hint
    assert "secret-word" not in str(caught.value)


def test_a_server_that_does_not_answer_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KITHKIN_STORE_PASSWORD", "secret-word")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        settings = StoreSettings(uri=f"bolt://127.0.0.1:{silent.getsockname()[1]}", timeout_s=1)
        start = time.monotonic()
        with pytest.raises(StoreUnavailable):
            Neo4jStore.open(SCHEMA, settings, read_only=False)
    assert time.monotonic() - start < 10


def test_a_bad_address_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"store\.uri.*http://localhost"):
        Neo4jStore.open(SCHEMA, StoreSettings(uri="http://localhost:7474"), read_only=False)


@pytest.mark.parametrize("scheme", ["neo4j", "bolt+s", "http"])
def test_a_password_in_the_address_is_refused_and_not_repeated(scheme: str) -> None:
    with pytest.raises(ConfigError, match=r"store\.uri: holds a user or a password") as caught:
        Neo4jStore.open(SCHEMA, StoreSettings(uri=f"{scheme}://bob:secret-word@localhost"), read_only=False)
    assert "secret-word" not in str(caught.value)
    assert "KITHKIN_STORE_PASSWORD" in caught.value.hint


def test_a_database_that_is_not_there(clean_neo4j: Neo4jServer) -> None:
    with pytest.raises(StoreUnavailable, match="no database 'films'") as caught:
        Neo4jStore.open(SCHEMA, _settings(clean_neo4j, database="films"), read_only=False)
    assert "store.database" in caught.value.hint


def test_what_others_keep_there_stays(clean_neo4j: Neo4jServer, driver: neo4j.Driver) -> None:
    driver.execute_query(
        "CREATE CONSTRAINT their_own FOR (p:Person) REQUIRE p.email IS UNIQUE",
    )
    driver.execute_query("CREATE (:Person {email: 'a@b', id: 'm1'})-[:LIKES {much: true}]->(:Person {email: 'c@d'})")
    everything = (
        "MATCH (p:Person) OPTIONAL MATCH (p)-[r]->() RETURN properties(p) AS p, properties(r) AS r ORDER BY p.email"
    )
    before = [record.data() for record in driver.execute_query(everything).records]
    with Neo4jStore.open(SCHEMA, _settings(clean_neo4j), read_only=False) as store:
        store.apply_schema()
        store.upsert_nodes("Movie", pa.table({"id": ["m1", "m2"], "year": [1999, 2001]}))
        store.upsert_nodes("User", pa.table({"id": ["u1"]}))
        store.upsert_edges(LIKES, pa.table({"source": ["u1", "u1"], "target": ["m1", "m2"]}))
        assert store.counts().nodes == {"Movie": 2, "User": 1, "Guest": 0}
        assert store.counts().edges == {LIKES: 2}
        assert store.replace_edges(LIKES, pa.table({"source": ["u1"], "target": ["m2"]})).deleted == 1
        store.delete_nodes("Movie", ["m1", "m2"])
        store.delete_nodes("User", ["u1"])
    assert [record.data() for record in driver.execute_query(everything).records] == before
    names = [record["name"] for record in driver.execute_query("SHOW CONSTRAINTS YIELD name").records]
    assert "their_own" in names


def test_nodes_carry_their_role_for_people(clean_neo4j: Neo4jServer, driver: neo4j.Driver) -> None:
    with Neo4jStore.open(SCHEMA, _settings(clean_neo4j), read_only=False) as store:
        store.apply_schema()
        store.upsert_nodes("Movie", pa.table({"id": ["m1"]}))
        store.upsert_nodes("Guest", pa.table({"id": ["g1"]}))
        records = driver.execute_query("MATCH (n) WHERE n.id IS NOT NULL RETURN labels(n) AS l ORDER BY n.id").records
        # A guest is not labelled User: that is the name of another type here, and would count as one.
        assert [sorted(record["l"]) for record in records] == [["Guest"], ["Entity", "Movie"]]
        assert store.query("MATCH (n) WHERE n.id IS NOT NULL RETURN n ORDER BY n.id").rows == (
            ({"_type": "Guest", "id": "g1"},),
            ({"_type": "Movie", "id": "m1", "year": None},),
        )


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ("CREATE (:Movie {id: 7})", r"Movie\.id: the store holds the value 7"),
        ("CREATE (:Movie {title: 'no id'})", r"Movie\.id: the store holds no value"),
        ("CREATE (:Movie {id: 'm', year: '1999'})", r"Movie\.year: the store holds the value '1999'"),
        ("UNWIND [1, 2] AS n CREATE (:Movie {id: 'same'})", "does not fit"),
    ],
)
def test_data_under_our_names_that_does_not_fit_is_a_conflict(
    clean_neo4j: Neo4jServer, driver: neo4j.Driver, made: str, words: str
) -> None:
    driver.execute_query(made)
    with Neo4jStore.open(SCHEMA, _settings(clean_neo4j), read_only=False) as store:
        with pytest.raises(StoreConflict, match=words) as caught:
            store.apply_schema()
        assert caught.value.hint


def test_a_value_that_someone_broke_later_is_a_conflict(clean_neo4j: Neo4jServer, driver: neo4j.Driver) -> None:
    with Neo4jStore.open(SCHEMA, _settings(clean_neo4j), read_only=False) as store:
        store.apply_schema()
        store.upsert_nodes("Movie", pa.table({"id": ["m1", "m2"], "year": [1999, None]}))
        driver.execute_query("MATCH (m:Movie {id: 'm2'}) SET m.year = 'soon'")
        with pytest.raises(StoreConflict, match="'year'"):
            list(store.scan_nodes("Movie"))


def test_someone_elses_cypher_is_seen(clean_neo4j: Neo4jServer, driver: neo4j.Driver) -> None:
    with Neo4jStore.open(SCHEMA, _settings(clean_neo4j), read_only=True) as store:
        token = store.state_token()
        assert store.state_token() == token
        driver.execute_query("CREATE (:Movie {id: 'mine', year: 2020})")
        moved = store.state_token()
        assert moved != token
        assert [row for batch in store.scan_nodes("Movie") for row in batch.to_pylist()] == [
            {"id": "mine", "year": 2020}
        ]
        driver.execute_query("MATCH (m:Movie) RETURN m")
        assert store.state_token() == moved
        driver.execute_query("MATCH (m:Movie) DELETE m")
        assert store.state_token() != moved


@pytest.mark.parametrize("rows_per_transaction", [100_000, 50])
def test_two_writers_make_an_edge_once(
    clean_neo4j: Neo4jServer, monkeypatch: pytest.MonkeyPatch, rows_per_transaction: int
) -> None:
    # Also where the write is committed in parts: the second waits until the first has written all of them.
    monkeypatch.setattr("graph_store.neo4j.bulk.ROWS_PER_TRANSACTION", rows_per_transaction)
    monkeypatch.setattr("graph_store.neo4j.bulk.ROWS_AT_ONCE", 40)
    monkeypatch.setattr("graph_store.neo4j.statements.ROWS_AT_ONCE", 40)
    size = 300
    likes = pa.table({"source": ["u1"] * size, "target": [f"m{n}" for n in range(size)]})
    with Neo4jStore.open(SCHEMA, _settings(clean_neo4j), read_only=False) as store:
        store.apply_schema()
        store.upsert_nodes("Movie", pa.table({"id": likes["target"]}))
        store.upsert_nodes("User", pa.table({"id": ["u1"]}))
        start = threading.Barrier(2)
        results: list[Written] = []

        def write() -> None:
            with Neo4jStore.open(SCHEMA, _settings(clean_neo4j), read_only=False) as mine:
                start.wait()
                results.append(mine.upsert_edges(LIKES, likes))

        writers = [threading.Thread(target=write) for _ in range(2)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert sorted((w.created, w.unchanged) for w in results) == [(0, size), (size, 0)]
        assert store.counts().edges[LIKES] == size


def test_a_large_write_that_fails_in_the_middle_is_completed_by_the_next(
    clean_neo4j: Neo4jServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph_store.neo4j.bulk.ROWS_PER_TRANSACTION", 50)
    monkeypatch.setattr("graph_store.neo4j.bulk.SESSIONS", 1)
    monkeypatch.setattr("graph_store.neo4j.bulk.ROWS_AT_ONCE", 40)
    movies = pa.table({"id": [f"m{n}" for n in range(100)], "year": list(range(100))})
    with Neo4jStore.open(SCHEMA, _settings(clean_neo4j), read_only=False) as store:
        store.apply_schema()
        run_apart = Neo4jConnection.run_apart
        calls: list[int] = []

        def breaks(connection: Neo4jConnection, statement: str, parameters: dict[str, Any]) -> neo4j.SummaryCounters:
            calls.append(parameters["rows"])
            if len(calls) == 2:
                raise StoreUnavailable("gone")
            return run_apart(connection, statement, parameters)

        with monkeypatch.context() as patched:
            patched.setattr(Neo4jConnection, "run_apart", breaks)
            with pytest.raises(StoreUnavailable, match="gone"):
                store.upsert_nodes("Movie", movies)
        assert calls == [40, 40]
        assert store.counts().nodes["Movie"] == 40
        assert store.upsert_nodes("Movie", movies) == Written(created=60, unchanged=40)
        assert store.upsert_nodes("Movie", movies) == Written(unchanged=100)
        assert store.delete_nodes("Movie", movies["id"].to_pylist()) == Written(deleted=100)
        assert store.counts().nodes["Movie"] == 0
