"""What looks at a graph sees the same on Neo4j as on the embedded store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from graph_store.drift import Drift, drift
from graph_store.errors import NodeNotFound
from graph_store.node_view import NodeName, find, view
from graph_store.project import Project, load_project
from graph_store.schema import NodeRole, NodeType, Relation, RelationRole, Triple
from graph_store.statistics import statistics
from graph_store.store import GraphStore
from graph_store.stores import open_store
from tests.conftest import Neo4jServer
from tests.inspected import HAS_TAG, SCHEMA, SEQUEL_OF, TOML, WATCHED, add_edges, add_nodes, fill


@pytest.fixture(params=["embedded", pytest.param("neo4j", marks=pytest.mark.neo4j)])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    overrides = {}
    if request.param == "neo4j":
        server: Neo4jServer = request.getfixturevalue("clean_neo4j")
        overrides["store.uri"] = server.uri
    (tmp_path / "kithkin.toml").write_text(TOML)
    return load_project(tmp_path, overrides=overrides)


@pytest.fixture
def store(project: Project) -> Iterator[GraphStore]:
    with open_store(project) as store:
        fill(store, SCHEMA)
        yield store


def test_statistics(store: GraphStore) -> None:
    found = statistics(store, SCHEMA)
    assert [(node.count, node.isolated, node.cold) for node in found.nodes] == [(7, 1, 5), (3, 1, None), (4, 1, None)]
    assert found.nodes[0].null_share == {"title": 1 / 7, "year": 2 / 7}
    told = [(relation.count, relation.source.max, relation.target.max) for relation in found.relations]
    assert told == [(4, 3, 3), (8, 2, 4), (2, 1, 2)]


def test_a_node_is_found_by_id_then_by_name_then_by_a_part_of_it(store: GraphStore) -> None:
    assert find(store, SCHEMA, "wide") == (NodeName("Tag", "wide", "wide"),)
    assert find(store, SCHEMA, "Two Letters") == (NodeName("Film", "f6", "Two Letters"),)
    assert find(store, SCHEMA, "MOON") == (
        NodeName("Film", "f2", "Moon Base"),
        NodeName("Film", "f3", "Moon [Base] II"),
    )
    assert find(store, SCHEMA, "f5") == (NodeName("Film", "f5", "f5"),)  # without a title
    with pytest.raises(NodeNotFound, match="no Film has the id or name 'Two Leters'") as caught:
        find(store, SCHEMA, "Two Leters", "Film")
    assert caught.value.closest[0] == ("Film", "f6", "Two Letters")


def test_a_node_is_seen_with_the_heaviest_of_each_direction(store: GraphStore) -> None:
    # f1 has four sequels; by id the two films that it is itself a sequel of come after them.
    add_edges(store, SCHEMA, SEQUEL_OF, [("f1", "f6"), ("f1", "f7"), ("f4", "f1"), ("f5", "f1"), ("f1", "f1")])
    seen = view(store, SCHEMA, NodeName("Film", "f1", "Alien Dawn"), limit=2)
    told = [(r.triple, r.direction, r.count, [edge.node.id for edge in r.neighbours]) for r in seen.relations]
    assert told == [
        (WATCHED, "in", 3, ["u1", "u1"]),
        (HAS_TAG, "out", 2, ["half", "wide"]),
        (SEQUEL_OF, "out", 3, ["f1", "f6"]),
        (SEQUEL_OF, "in", 4, ["f2", "f3"]),
    ]
    assert [edge.weight for edge in seen.relations[0].neighbours] == [1.0, 0.5]
    assert [edge.node.name for edge in seen.relations[3].neighbours] == ["Moon Base", "Moon [Base] II"]
    assert view(store, SCHEMA, NodeName("Film", "f7", "New Orbit"), limit=1).relations[0].neighbours[0].node.id == "f1"
    assert view(store, SCHEMA, NodeName("Tag", "t4", "t4")).relations == ()


def test_what_nothing_declares_is_told(store: GraphStore, project: Project) -> None:
    neo4j = project.settings.store.is_neo4j
    properties = None if neo4j else ()
    empty = Drift(node_types=(), relations=(), edges={}, properties=properties)
    assert drift(store, SCHEMA, store.counts(), neo4j=neo4j) == empty
    mood = NodeType(name="Mood", role=NodeRole.CONCEPT)
    feels = Relation(triple=Triple("Film", "FEELS", "Mood"), role=RelationRole.SEMANTIC)
    tags = Relation(triple=Triple("User", "HAS_TAG", "Tag"), role=RelationRole.SEMANTIC)
    more = {"node_types": (*SCHEMA.node_types, mood), "relations": (*SCHEMA.relations, feels, tags)}
    wider = SCHEMA.model_copy(update=more)
    store.close()
    project = replace(project, schema=wider)
    with open_store(project) as writer:
        writer.apply_schema()
        add_nodes(writer, wider, "Mood", ["sad"])
        add_edges(writer, wider, feels.triple, [("f1", "sad")])
        add_edges(writer, wider, tags.triple, [("u1", "t4"), ("u2", "t4")])
        counts = writer.counts()
        counts = replace(counts, edges={r.triple: counts.edges[r.triple] for r in SCHEMA.relations})
        found = drift(writer, SCHEMA, counts, neo4j=neo4j)
    assert found == Drift(node_types=("Mood",), relations=("FEELS",), edges={"HAS_TAG": 2}, properties=properties)


def test_properties_that_nothing_declares_are_told(store: GraphStore, project: Project) -> None:
    neo4j = project.settings.store.is_neo4j
    narrow = SCHEMA.model_copy(
        update={
            "node_types": tuple(
                each.model_copy(update={"properties": {"title": each.properties["title"]}}) if each.properties else each
                for each in SCHEMA.node_types
            ),
            "relations": tuple(
                each.model_copy(update={"properties": {}, "time": None, "weight": None, "kind": None})
                for each in SCHEMA.relations
            ),
        }
    )
    found = drift(store, narrow, store.counts(), neo4j=neo4j, scan=True)
    assert found.properties == ("Film.year", "WATCHED.share", "WATCHED.time")
    assert drift(store, SCHEMA, store.counts(), neo4j=neo4j, scan=True).properties == ()
