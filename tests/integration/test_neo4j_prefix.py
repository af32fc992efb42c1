"""A project with ``store.label_prefix`` in a database that others use: the contract holds, and nothing of theirs moves.

Everything in the contract that is not asked in Cypher runs again here, beside somebody's nodes under the same labels
without the prefix (some of which no project of ours could read) and beside another project with another prefix.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import neo4j
import pyarrow as pa
import pytest

from graph_store.changes.comparison import Comparison
from graph_store.drift import drift
from graph_store.errors import StoreConflict
from graph_store.ingest import ingest
from graph_store.neo4j.log import clear_log
from graph_store.neo4j.prefixed import PrefixedStore, open_neo4j, with_prefix
from graph_store.node_view import find, view
from graph_store.project import load_project
from graph_store.schema import GraphSchema
from graph_store.settings import StoreSettings
from graph_store.statistics import statistics
from graph_store.store import GraphStore
from graph_store.stores import open_store
from tests.conftest import Neo4jServer
from tests.contract.test_graph_store import (
    FRIEND,
    HAS_TAG,
    SCHEMA,
    Opener,
    _edges,
    _fill,
    _nodes,
    _schema,
    _sorted,
    test_a_new_property_type_and_relation_are_added,
    test_a_property_of_another_type_is_a_conflict,
    test_a_read_only_store_refuses_to_write,
    test_a_table_larger_than_a_page,
    test_an_edge_to_an_unknown_node_is_refused_and_nothing_written,
    test_counts_name_all_types_and_relations,
    test_deleting_nodes_takes_their_edges,
    test_every_kind_of_value_comes_back_as_it_went_in,
    test_find_nodes_prefers_the_exact_name,
    test_neighbourhood_is_the_heaviest_first_then_by_id,
    test_parallel_edges_differ_by_time_and_kind,
    test_replace_leaves_exactly_these_edges,
    test_the_same_table_twice_changes_nothing,
    test_upsert_writes_only_what_differs,
    test_what_is_not_declared_is_a_key_error,
    test_what_was_written_is_there_after_closing,
    test_writing_before_the_schema_is_applied_is_a_conflict,
)
from tests.toy import write_toy
from training.export import export_snapshot

__all__ = [
    "test_a_new_property_type_and_relation_are_added",
    "test_a_property_of_another_type_is_a_conflict",
    "test_a_read_only_store_refuses_to_write",
    "test_a_table_larger_than_a_page",
    "test_an_edge_to_an_unknown_node_is_refused_and_nothing_written",
    "test_counts_name_all_types_and_relations",
    "test_deleting_nodes_takes_their_edges",
    "test_every_kind_of_value_comes_back_as_it_went_in",
    "test_find_nodes_prefers_the_exact_name",
    "test_neighbourhood_is_the_heaviest_first_then_by_id",
    "test_parallel_edges_differ_by_time_and_kind",
    "test_replace_leaves_exactly_these_edges",
    "test_the_same_table_twice_changes_nothing",
    "test_upsert_writes_only_what_differs",
    "test_what_is_not_declared_is_a_key_error",
    "test_what_was_written_is_there_after_closing",
    "test_writing_before_the_schema_is_applied_is_a_conflict",
]

pytestmark = pytest.mark.neo4j

THEIRS = (
    "CREATE CONSTRAINT theirs FOR (p:Person) REQUIRE p.email IS UNIQUE",
    "CREATE (a:Artist:Entity {id: 'a1', name: 'Theirs'}), (t:Tag {id: 't1'}), (u:User {id: 'u1'}), (v:User {id: 'u2'}) "
    "CREATE (a)-[:HAS_TAG {count: 99}]->(t), (u)-[:PLAYED]->(a), (u)-[:FRIEND]->(v), (a)-[:SIMILAR]->(a)",
    "CREATE (:Artist {id: 7, albums: 'many'}), (:Artist {name: 'no id'}), (:KithkinSchema {declared: '{}', writes: 3})",
    "CREATE (:Other_Artist:Other_Entity {id: 'a1', albums: 'many'})-[:Other_HAS_TAG]->(:Other_Tag {id: 't1'}), "
    '(:Other_KithkinSchema {declared: \'{"Other_Artist": "a node type"}\'})',
)
EVERYTHING = (
    "MATCH (n) WHERE none(label IN labels(n) WHERE label STARTS WITH 'Kith_') OPTIONAL MATCH (n)-[r]->(m) "
    "RETURN elementId(n) AS n, labels(n) AS labels, properties(n) AS p, type(r) AS type, properties(r) AS r, "
    "elementId(m) AS m ORDER BY n, type, m"
)


def _rows(driver: neo4j.Driver, statement: str) -> list[dict[str, Any]]:
    return [record.data() for record in driver.execute_query(statement).records]


def _settings(server: Neo4jServer, **changes: object) -> StoreSettings:
    return StoreSettings.model_validate({"uri": server.uri, "timeout_s": 20, "label_prefix": "Kith_", **changes})


@pytest.fixture
def theirs(clean_neo4j: Neo4jServer) -> Iterator[neo4j.Driver]:
    """Somebody else's data; whatever the test does, all of it must be there after it, as it was."""
    with neo4j.GraphDatabase.driver(clean_neo4j.uri, auth=(clean_neo4j.user, clean_neo4j.password)) as driver:
        for statement in THEIRS:
            driver.execute_query(statement)
        before = _rows(driver, EVERYTHING)
        assert len(before) == 12
        yield driver
        assert _rows(driver, EVERYTHING) == before
        assert {"name": "theirs"} in _rows(driver, "SHOW CONSTRAINTS YIELD name RETURN name")


@pytest.fixture
def opened(clean_neo4j: Neo4jServer, theirs: neo4j.Driver) -> Iterator[Opener]:
    """Opens the store with the prefix again and again."""
    stores: list[GraphStore] = []

    def open_(schema: GraphSchema = SCHEMA, *, read_only: bool = False) -> GraphStore:
        store = open_neo4j(schema, _settings(clean_neo4j), read_only=read_only)
        assert isinstance(store, PrefixedStore)
        stores.append(store)
        return store

    yield open_
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Opener) -> GraphStore:
    """An empty store with the schema applied."""
    store = opened()
    store.apply_schema()
    return store


def test_every_label_and_type_in_the_database_has_the_prefix(store: GraphStore, theirs: neo4j.Driver) -> None:
    _fill(store)
    labels = {row["name"] for row in _rows(theirs, "CALL db.labels() YIELD label RETURN label AS name")}
    assert labels >= {"Kith_User", "Kith_Tag", "Kith_Act", "Kith_Entity", "Kith_Concept", "Kith_KithkinSchema"}
    theirs_still = {"Artist", "Tag", "User", "Entity", "KithkinSchema", "Person"}
    assert {name for name in labels if not name.startswith(("Kith_", "Other_"))} <= theirs_still
    types = "CALL db.relationshipTypes() YIELD relationshipType AS t RETURN t"
    assert {row["t"] for row in _rows(theirs, types)} >= {"Kith_PLAYED", "Kith_HAS_TAG", "HAS_TAG"}
    between = "MATCH (a)-[]->(b) WHERE a.id IS NOT NULL RETURN labels(a) + labels(b) AS l"
    for row in _rows(theirs, between):
        assert len({label.startswith("Kith_") for label in row["l"]}) == 1, "an edge between theirs and ours"


def test_queries_name_types_with_the_prefix_and_answer_without(store: GraphStore) -> None:
    _fill(store)
    ((ours, edge),) = store.query("MATCH (a:Kith_Artist {id: 'a2'})-[r:Kith_HAS_TAG]->() RETURN a, r").rows
    assert (ours["_type"], ours["name"]) == ("Artist", "Two")
    assert edge == {"_type": "HAS_TAG", "count": 9}
    ((others,),) = store.query("MATCH (a:Artist {id: 'a1'}) RETURN [a]").rows
    assert [each["_type"] for each in others] == [":Artist"], "others' type of the same name is told apart"


def test_what_looks_at_the_graph_sees_ours_alone(store: GraphStore) -> None:
    _fill(store)
    found = statistics(store, SCHEMA)
    assert {node.name: node.count for node in found.nodes} == {"Artist": 3, "User": 3, "Tag": 2, "Act": 1}
    undeclared = drift(store, SCHEMA, store.counts(), neo4j=True, scan=True)
    assert (undeclared.node_types, undeclared.relations, undeclared.edges, undeclared.properties) == ((), (), {}, ())
    store.query("CREATE (:Kith_Extra)-[:Kith_ODD]->(:Kith_Tag {id: 't9', x: 1})", write=True)
    undeclared = drift(store, SCHEMA, store.counts(), neo4j=True, scan=True)
    assert (undeclared.node_types, undeclared.relations, undeclared.properties) == (("Extra",), ("ODD",), ("Tag.x",))
    (node,) = find(store, SCHEMA, "One")
    assert (node.type, node.id) == ("Artist", "a1")
    seen = view(store, SCHEMA, node)
    assert {relation.triple: relation.count for relation in seen.relations}[HAS_TAG] == 2


def test_changes_are_compared_among_ours_alone(store: GraphStore, theirs: neo4j.Driver) -> None:
    _fill(store)
    comparison = Comparison(store, SCHEMA)
    before = comparison.watermark()
    theirs.execute_query("CREATE (:Artist {id: 'a77', name: 'new and theirs'})")
    theirs.execute_query("MATCH (a:Kith_Artist {id: 'a2'}) SET a.name = 'ours'")
    changes = comparison.changes_since(before)
    assert (changes.upserted_nodes, changes.deleted_nodes) == ({"Artist": ["a2"]}, {})
    assert (changes.upserted_edges, changes.deleted_edges) == ({}, {})
    theirs.execute_query("MATCH (a:Artist {id: 'a77'}) DELETE a")


def test_the_log_tells_names_without_the_prefix(store: GraphStore, clean_neo4j: Neo4jServer) -> None:
    _fill(store)
    before = store.log_position()
    store.upsert_nodes("User", _nodes("u9"))
    store.upsert_edges(FRIEND, _edges(("u9", "u1")))
    told = store.written_since(before)
    assert told is not None
    assert [(each.what, each.keys) for each in told.changes] == [("User", (("u9",),)), (FRIEND.key, (("u9", "u1"),))]
    assert clear_log(_settings(clean_neo4j), "u9")
    assert store.written_since(before) is None


def test_two_projects_with_different_prefixes_do_not_meet(store: GraphStore, clean_neo4j: Neo4jServer) -> None:
    _fill(store)
    text = {"name": {"type": "string"}, "albums": {"type": "string"}}  # the other project declares it otherwise
    settings = _settings(clean_neo4j, label_prefix="Second_")
    with open_neo4j(_schema(text), settings, read_only=False) as second:
        position = store.log_position()
        second.apply_schema()
        assert set(second.counts().nodes.values()) == {0}
        second.upsert_nodes("Artist", _nodes("a1", "z1", name=["Second", "Z"], albums=["few", None]))
        second.delete_nodes("Artist", ["a1"])
        assert store.log_position() == position
        assert [row["name"] for row in _sorted(store.scan_nodes("Artist"))] == ["One", "Two", "Three"]
        assert _sorted(second.scan_nodes("Artist")) == [{"id": "z1", "name": "Z", "albums": None}]
        second.query("MATCH (n) WHERE any(l IN labels(n) WHERE l STARTS WITH 'Second_') DETACH DELETE n", write=True)


def test_prefixes_that_make_one_name_of_two_are_refused(store: GraphStore, clean_neo4j: Neo4jServer) -> None:
    schema = with_prefix(_schema(), "Kith_")  # without a prefix, types that are called as ours are in the database
    with open_neo4j(schema, _settings(clean_neo4j, label_prefix=""), read_only=False) as other:
        with pytest.raises(StoreConflict, match=r"Kith_Act, .*another project .*prefix 'Kith_'") as caught:
            other.apply_schema()
        assert "label_prefix" in caught.value.hint


def test_a_project_is_opened_with_its_prefix(tmp_path: Path, clean_neo4j: Neo4jServer, theirs: neo4j.Driver) -> None:
    (tmp_path / "kithkin.toml").write_text(
        f'[store]\nuri = "{clean_neo4j.uri}"\nlabel_prefix = "Kith_"\n[nodes.Artist]\nrole = "entity"\n'
    )
    with open_store(load_project(tmp_path)) as store:
        store.apply_schema()
        store.upsert_nodes("Artist", pa.table({"id": ["a1"]}))
        assert store.counts().nodes == {"Artist": 1}
    (row,) = _rows(theirs, "MATCH (a:Kith_Artist) RETURN labels(a) AS l")
    assert set(row["l"]) == {"Kith_Artist", "Kith_Entity"}


def test_the_snapshot_is_the_one_of_the_embedded_store(
    tmp_path: Path, clean_neo4j: Neo4jServer, theirs: neo4j.Driver
) -> None:
    folder = write_toy(tmp_path / "toy")
    hashes = []
    for number, environment in enumerate(
        ({}, {"KITHKIN_STORE__URI": clean_neo4j.uri, "KITHKIN_STORE__LABEL_PREFIX": "Kith_"})
    ):
        project = load_project(folder, environment=environment)
        with open_store(project) as store:
            assert store.label_prefix == environment.get("KITHKIN_STORE__LABEL_PREFIX", "")
            ingest(project, store)
            hashes.append(export_snapshot(store, project.schema, tmp_path / str(number)).content_hash)
    assert hashes[0] == hashes[1]
