"""What Kithkin needs in Neo4j: constraints whose names say whose they are, made or only asked for, and taken out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import neo4j
import pyarrow as pa
import pytest

from cli.main import main
from graph_store.errors import StoreAuthError, StoreConflict
from graph_store.neo4j.driver import Neo4jConnection
from graph_store.neo4j.prefixed import open_neo4j
from graph_store.neo4j.schema import lacking_constraints
from graph_store.neo4j.store import Neo4jStore
from graph_store.schema import GraphSchema, NodeType, Relation, Triple
from graph_store.settings import StoreSettings
from graph_store.store import Written
from tests.conftest import Neo4jServer

pytestmark = pytest.mark.neo4j

LIKES = Triple("User", "LIKES", "Movie")
BARE = GraphSchema(
    node_types=(
        NodeType.model_validate({"name": "Movie", "role": "entity"}),
        NodeType.model_validate({"name": "User", "role": "user"}),
    ),
    relations=(Relation.model_validate({"triple": LIKES, "role": "engagement"}),),
)
TOML = '[nodes.Movie]\nrole = "entity"\n[nodes.User]\nrole = "user"\n'


def _settings(server: Neo4jServer, **changes: object) -> StoreSettings:
    return StoreSettings.model_validate({"uri": server.uri, "timeout_s": 10, **changes})


@pytest.fixture
def driver(clean_neo4j: Neo4jServer) -> Iterator[neo4j.Driver]:
    """A connection that is not ours."""
    with neo4j.GraphDatabase.driver(clean_neo4j.uri, auth=(clean_neo4j.user, clean_neo4j.password)) as driver:
        yield driver


def _names(driver: neo4j.Driver) -> set[str]:
    return {record["name"] for record in driver.execute_query("SHOW CONSTRAINTS YIELD name").records}


def _run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["kithkin", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0


def test_a_schema_without_any_property_is_noted(clean_neo4j: Neo4jServer, driver: neo4j.Driver) -> None:
    with open_neo4j(BARE, _settings(clean_neo4j), read_only=False) as store:
        store.apply_schema()
        assert store.upsert_nodes("Movie", pa.table({"id": ["m1"]})) == Written(created=1)
        assert store.upsert_nodes("User", pa.table({"id": ["u1"]})) == Written(created=1)
        assert store.upsert_edges(LIKES, pa.table({"source": ["u1"], "target": ["m1"]})) == Written(created=1)
        token = store.state_token()
        store.apply_schema()
        assert store.state_token() == token
    (record,) = driver.execute_query("MATCH (k:KithkinSchema) RETURN k.declared AS d, k.writes AS w").records
    assert record.data() == {"d": '{"LIKES": "a relation", "Movie": "a node type", "User": "a node type"}', "w": 3}


def test_a_note_of_before_names_were_noted_is_completed(clean_neo4j: Neo4jServer, driver: neo4j.Driver) -> None:
    driver.execute_query('CREATE (:KithkinSchema {declared: \'{"Movie.year": "int"}\', writes: 4, log: []})')
    with open_neo4j(BARE, _settings(clean_neo4j), read_only=False) as store:
        store.apply_schema()
        store.upsert_nodes("Movie", pa.table({"id": ["m1"]}))
        assert store.log_position() == "5"
    (record,) = driver.execute_query("MATCH (k:KithkinSchema) RETURN k.declared AS d").records
    assert '"Movie.year": "int"' in record["d"]
    assert '"LIKES": "a relation"' in record["d"]


@pytest.mark.parametrize("prefix", ["", "Kith_"])
def test_constraints_say_whose_they_are(clean_neo4j: Neo4jServer, driver: neo4j.Driver, prefix: str) -> None:
    with open_neo4j(BARE, _settings(clean_neo4j, label_prefix=prefix), read_only=False) as store:
        store.apply_schema()
    assert _names(driver) == {f"kithkin_{prefix}Movie_id", f"kithkin_{prefix}User_id"}


def test_a_constraint_of_others_does_as_well(clean_neo4j: Neo4jServer, driver: neo4j.Driver) -> None:
    driver.execute_query("CREATE CONSTRAINT theirs FOR (n:Movie) REQUIRE n.id IS UNIQUE")
    with open_neo4j(BARE, _settings(clean_neo4j), read_only=False) as store:
        store.apply_schema()
    assert _names(driver) == {"theirs", "kithkin_User_id"}


def test_a_name_that_stands_for_something_else_is_told(clean_neo4j: Neo4jServer, driver: neo4j.Driver) -> None:
    driver.execute_query("CREATE CONSTRAINT kithkin_Movie_id FOR (n:Other) REQUIRE n.x IS UNIQUE")
    words = "called so is there, on something else: kithkin_Movie_id"
    with open_neo4j(BARE, _settings(clean_neo4j), read_only=False) as store, pytest.raises(StoreConflict, match=words):
        store.apply_schema()


def test_without_leave_to_create_the_cypher_is_told_and_run_by_somebody_else(
    clean_neo4j: Neo4jServer, driver: neo4j.Driver
) -> None:
    settings = _settings(clean_neo4j, create_constraints=False, label_prefix="Kith_")
    with open_neo4j(BARE, settings, read_only=False) as store:
        with pytest.raises(StoreConflict, match="Neo4j lacks 2 constraints") as caught:
            store.apply_schema()
        assert _names(driver) == set()
        statements = [line.strip() for line in caught.value.hint.splitlines()[1:]]
        assert len(statements) == 2
        for statement in statements:
            driver.execute_query(statement.removesuffix(";"))
        store.apply_schema()
        assert store.upsert_nodes("Movie", pa.table({"id": ["m1"]})) == Written(created=1)
    assert _names(driver) == {"kithkin_Kith_Movie_id", "kithkin_Kith_User_id"}


def test_the_command_prints_what_is_lacking_and_takes_it_out_again(
    clean_neo4j: Neo4jServer,
    driver: neo4j.Driver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "kithkin.toml").write_text(f'[store]\nuri = "{clean_neo4j.uri}"\nlabel_prefix = "Kith_"\n{TOML}')
    driver.execute_query("CREATE CONSTRAINT theirs FOR (n:Movie) REQUIRE n.id IS UNIQUE")
    _run("constraints", "-p", str(tmp_path), monkeypatch=monkeypatch)
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"CREATE CONSTRAINT `kithkin_Kith_{name}_id` IF NOT EXISTS FOR (n:`Kith_{name}`) REQUIRE n.id IS UNIQUE;"
        for name in ("Movie", "User")
    ]
    for statement in printed:
        driver.execute_query(statement.removesuffix(";"))
    settings = _settings(clean_neo4j, label_prefix="Kith_")
    with open_neo4j(BARE, settings, read_only=False) as store:
        store.apply_schema()
        store.upsert_nodes("Movie", pa.table({"id": ["m1"]}))
    _run("constraints", "-p", str(tmp_path), monkeypatch=monkeypatch)
    assert "none is lacking" in capsys.readouterr().err
    _run("constraints", "--remove", "-p", str(tmp_path), monkeypatch=monkeypatch)
    assert "kithkin_Kith_Movie_id, kithkin_Kith_User_id" in capsys.readouterr().err
    assert _names(driver) == {"theirs"}
    with open_neo4j(BARE, settings, read_only=False) as store:
        assert store.counts().nodes["Movie"] == 1, "the graph stays"
        with pytest.raises(StoreConflict, match="no schema yet"):
            store.upsert_nodes("Movie", pa.table({"id": ["m2"]}))
        store.apply_schema()
        store.upsert_nodes("Movie", pa.table({"id": ["m2"]}))


def test_a_store_opened_past_its_prefix_writes_nothing(clean_neo4j: Neo4jServer, driver: neo4j.Driver) -> None:
    with Neo4jStore.open(BARE, _settings(clean_neo4j, label_prefix="Kith_"), read_only=False) as store:
        with pytest.raises(ValueError, match="lack store"):
            store.apply_schema()
        with pytest.raises(StoreConflict, match="no schema yet"):
            store.upsert_nodes("Movie", pa.table({"id": ["m1"]}))
    assert driver.execute_query("MATCH (n) RETURN n").records == []


def test_a_database_without_kithkin_lacks_all(clean_neo4j: Neo4jServer) -> None:
    connection = Neo4jConnection(_settings(clean_neo4j), read_only=True)
    assert len(lacking_constraints(connection, BARE)) == 2
    connection.close()


def test_a_password_that_must_be_changed_first(clean_neo4j: Neo4jServer, driver: neo4j.Driver) -> None:
    driver.execute_query("CREATE OR REPLACE USER fresh SET PASSWORD $p CHANGE REQUIRED", p=clean_neo4j.password)
    try:
        with pytest.raises(StoreAuthError) as caught:
            Neo4jConnection(_settings(clean_neo4j, user="fresh"), read_only=True)
        assert "ALTER CURRENT USER SET PASSWORD" in caught.value.hint
    finally:
        driver.execute_query("DROP USER fresh")
