"""What was written back into Neo4j, taken out: before or after the schema; and the indexes that stand in its way."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import neo4j
import pyarrow as pa
import pytest

from cli.main import main
from graph_store.errors import StoreConflict
from graph_store.neo4j.prefixed import open_neo4j
from graph_store.published import EDGES, VECTORS, Publishing
from graph_store.schema import GraphSchema, NodeType
from graph_store.settings import StoreSettings
from graph_store.store import GraphStore
from tests.conftest import Neo4jServer

pytestmark = pytest.mark.neo4j

ITEMS = ("a", "b")
SCHEMA = GraphSchema(node_types=(NodeType.model_validate({"name": "Item", "role": "entity"}),), relations=())
PUBLISHING = Publishing(
    bundle="v1",
    space="similar",
    relation="SIMILAR_TO",
    property="kithkin_vector",
    dimension=2,
    neighbours=1,
    node_types=("Item",),
)
INDEX = "kithkin_Kith_Item_vector"


class Rows:
    """Both items, joined to each other."""

    def __init__(self, dimension: int = 2) -> None:
        self._dimension = dimension

    def edges(self) -> Iterator[tuple[str, pa.Table]]:
        yield "Item", pa.table([["a", "b"], ["b", "a"], [0.5, 0.5], [None, None], [1, 1]], schema=EDGES)

    def vectors(self) -> Iterator[tuple[str, pa.Table]]:
        yield "Item", pa.table([list(ITEMS), [[1.0] * self._dimension] * 2], schema=VECTORS)


@pytest.fixture
def driver(clean_neo4j: Neo4jServer) -> Iterator[neo4j.Driver]:
    """A connection that is not ours."""
    with neo4j.GraphDatabase.driver(clean_neo4j.uri, auth=(clean_neo4j.user, clean_neo4j.password)) as driver:
        yield driver


def _open(server: Neo4jServer, prefix: str = "Kith_", **settings: Any) -> GraphStore:
    chosen = StoreSettings.model_validate({"uri": server.uri, "timeout_s": 20, "label_prefix": prefix, **settings})
    return open_neo4j(SCHEMA, chosen, read_only=False)


def _fill(server: Neo4jServer) -> None:
    with _open(server) as store:
        store.apply_schema()
        store.upsert_nodes("Item", pa.table({"id": list(ITEMS)}))
        store.write_back(PUBLISHING, Rows())


def _indexes(driver: neo4j.Driver) -> dict[str, int]:
    found = driver.execute_query(
        "SHOW VECTOR INDEXES YIELD name, options RETURN name, options.indexConfig['vector.dimensions'] AS dimension"
    )
    return {record["name"]: record["dimension"] for record in found.records}


def _constraints(driver: neo4j.Driver) -> set[str]:
    return {record["name"] for record in driver.execute_query("SHOW CONSTRAINTS YIELD name").records}


def _asked(driver: neo4j.Driver, query: str) -> int:
    return int(driver.execute_query(query).records[0][0])


def _run(folder: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["kithkin", *arguments, "-p", str(folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0


@pytest.mark.parametrize("schema_first", [True, False])
def test_both_orders_of_removal_leave_the_graph_alone(
    clean_neo4j: Neo4jServer,
    driver: neo4j.Driver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    schema_first: bool,
) -> None:
    _fill(clean_neo4j)
    uri = f'[store]\nuri = "{clean_neo4j.uri}"\nlabel_prefix = "Kith_"\n[nodes.Item]\nrole = "entity"\n'
    (tmp_path / "kithkin.toml").write_text(uri)
    steps = [("constraints", "--remove"), ("write-back", "--remove")]
    told = []
    for step in steps if schema_first else reversed(steps):
        _run(tmp_path, *step, monkeypatch=monkeypatch)
        told.append(" ".join(capsys.readouterr().err.split()))
        if step == ("constraints", "--remove") and schema_first:
            assert _asked(driver, "MATCH (:Kith_Item)-[r:Kith_SIMILAR_TO]->(:Kith_Item) RETURN count(r)") == 2
    schema, written = told if schema_first else reversed(told)
    assert "dropped kithkin_Kith_Item_id, and the note of the schema" in schema
    left = "left: what was written back of bundle v1; `kithkin write-back --remove` takes it out"
    assert (left in schema) == schema_first
    assert "removed what was written back of bundle v1" in written
    assert (_indexes(driver), _constraints(driver)) == ({}, set())
    assert _asked(driver, "MATCH ()-[r]->() RETURN count(r)") == 0
    assert _asked(driver, "MATCH (n) RETURN count(n)") == len(ITEMS)
    assert _asked(driver, "MATCH (n) WHERE size(keys(n)) = 1 RETURN count(n)") == len(ITEMS)
    # Twice does no harm, and all can be made again.
    for step in steps:
        _run(tmp_path, *step, monkeypatch=monkeypatch)
    _fill(clean_neo4j)
    assert _indexes(driver) == {INDEX: 2}


def test_the_constraint_of_another_project_on_the_same_label_stays(
    clean_neo4j: Neo4jServer, driver: neo4j.Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Kith_ and Item make the label that Kith_It and em would make.
    _fill(clean_neo4j)
    other = '[nodes.em]\nrole = "entity"\n[nodes.Own]\nrole = "entity"\n'
    (tmp_path / "kithkin.toml").write_text(f'[store]\nuri = "{clean_neo4j.uri}"\nlabel_prefix = "Kith_It"\n{other}')
    driver.execute_query("CREATE CONSTRAINT kithkin_Kith_ItOwn_id FOR (n:Kith_ItOwn) REQUIRE n.id IS UNIQUE")
    _run(tmp_path, "constraints", "--remove", monkeypatch=monkeypatch)
    assert _constraints(driver) == {"kithkin_Kith_Item_id"}
    with _open(clean_neo4j) as store:
        assert store.upsert_nodes("Item", pa.table({"id": ["c"]})).created == 1


@pytest.mark.parametrize("name", [INDEX, "theirs"])
def test_an_index_of_another_length_is_told_to_be_dropped_first(
    clean_neo4j: Neo4jServer, driver: neo4j.Driver, name: str
) -> None:
    _fill(clean_neo4j)
    if name != INDEX:
        driver.execute_query(f"DROP INDEX {INDEX}")
        driver.execute_query(
            f"CREATE VECTOR INDEX {name} FOR (n:Kith_Item) ON (n.kithkin_vector) OPTIONS {{indexConfig: "
            "{`vector.dimensions`: 2, `vector.similarity_function`: 'cosine'}}"
        )
    longer = replace(PUBLISHING, bundle="v2", dimension=3)
    with _open(clean_neo4j, create_constraints=False) as store:
        store.write_back(replace(PUBLISHING, bundle="v1b"), Rows())  # one that fits does, whoever made it
        with pytest.raises(StoreConflict, match="lacks 1 vector indexes, and store") as caught:
            store.write_back(longer, Rows(3))
        statements = [line.strip() for line in caught.value.hint.splitlines()[1:]]
        assert statements[0] == f"DROP INDEX `{name}` IF EXISTS;"
        for statement in statements:
            driver.execute_query(statement.removesuffix(";"))
        assert _indexes(driver) == {INDEX: 3}
        store.write_back(longer, Rows(3))
        assert [each.publishing.bundle for each in store.written_back()] == ["v2"]


def test_an_index_that_somebody_else_made_is_not_dropped_by_us(clean_neo4j: Neo4jServer, driver: neo4j.Driver) -> None:
    _fill(clean_neo4j)
    driver.execute_query(f"DROP INDEX {INDEX}")
    driver.execute_query(
        "CREATE VECTOR INDEX theirs FOR (n:Kith_Item) ON (n.kithkin_vector) OPTIONS {indexConfig: "
        "{`vector.dimensions`: 2, `vector.similarity_function`: 'euclidean'}}"
    )
    with contextlib.closing(_open(clean_neo4j)) as store:
        with pytest.raises(StoreConflict, match="stand in the place of ours: theirs") as caught:
            store.write_back(replace(PUBLISHING, bundle="v2"), Rows())
        assert [each.publishing.bundle for each in store.written_back()] == ["v1"]
        assert "DROP INDEX `theirs` IF EXISTS;" in caught.value.hint
        assert set(_indexes(driver)) == {"theirs"}
        driver.execute_query("DROP INDEX theirs")
        store.write_back(replace(PUBLISHING, bundle="v2"), Rows())
    assert set(_indexes(driver)) == {INDEX}
