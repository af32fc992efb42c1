"""What is counted in a graph whose numbers are known, which nodes are called hubs, and what nothing declares."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from graph_store import statistics as module
from graph_store.drift import Drift, drift
from graph_store.embedded.store import EmbeddedStore
from graph_store.project import Project, load_project
from graph_store.schema import GraphSchema, Relation, RelationRole, Triple
from graph_store.statistics import EndStatistics, Hub, statistics
from graph_store.store import GraphStore
from tests.inspected import HAS_TAG, SCHEMA, SEQUEL_OF, TOML, WATCHED, add_edges, add_nodes, fill
from tests.memory_store import MemoryStore


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "kithkin.toml").write_text(TOML)
    return load_project(tmp_path)


@pytest.fixture(params=["memory", "embedded"])
def store(request: pytest.FixtureRequest, project: Project) -> Iterator[GraphStore]:
    if request.param == "memory":
        yield _memory()
    else:
        with EmbeddedStore.open(SCHEMA, project.settings.store, project.folder, read_only=False) as opened:
            yield opened


def _memory() -> GraphStore:
    return cast("GraphStore", MemoryStore(SCHEMA))


def test_nodes_are_counted_with_their_gaps(store: GraphStore, project: Project) -> None:
    fill(store, SCHEMA)
    film, user, tag = statistics(store, SCHEMA).nodes
    assert (film.name, film.count, film.isolated, film.cold) == ("Film", 7, 1, 5)
    assert film.null_share == {"title": 1 / 7, "year": 2 / 7}
    assert (user.name, user.count, user.isolated, user.cold, user.null_share) == ("User", 3, 1, None, {})
    assert (tag.name, tag.count, tag.isolated, tag.cold) == ("Tag", 4, 1, None)


def test_relations_are_counted_from_both_ends(store: GraphStore, project: Project) -> None:
    fill(store, SCHEMA)
    found = {relation.triple: relation for relation in statistics(store, SCHEMA).relations}
    assert list(found) == [WATCHED, HAS_TAG, SEQUEL_OF]
    watched = found[WATCHED]
    assert (watched.count, watched.null_share) == (4, {"share": 0.25, "time": 0.25})
    none: dict[str, Any] = {"hub_count": 0, "hubs": ()}
    assert watched.source == EndStatistics(node_type="User", distinct=2, median=1, p99=3, max=3, **none)
    assert watched.target == EndStatistics(node_type="Film", distinct=2, median=1, p99=3, max=3, **none)
    assert found[HAS_TAG].source == EndStatistics(node_type="Film", distinct=6, median=1, p99=2, max=2, **none)
    assert found[HAS_TAG].target == EndStatistics(node_type="Tag", distinct=3, median=3, p99=4, max=4, **none)
    assert found[SEQUEL_OF].target == EndStatistics(node_type="Film", distinct=1, median=2, p99=2, max=2, **none)


def test_an_empty_graph_is_all_zero(store: GraphStore, project: Project) -> None:
    store.apply_schema()
    found = statistics(store, SCHEMA)
    assert [(node.count, node.isolated, node.cold) for node in found.nodes] == [(0, 0, 0), (0, 0, None), (0, 0, None)]
    assert found.nodes[0].null_share == {"title": 0.0, "year": 0.0}
    assert {(relation.count, relation.source.max, relation.target.p99) for relation in found.relations} == {(0, 0, 0)}


def test_a_node_joined_to_more_than_half_is_a_hub_where_a_pair_has_one_edge(project: Project) -> None:
    store = _memory()
    fill(store, SCHEMA)
    watched, has_tag, sequel_of = statistics(store, SCHEMA, hub_degree=2).relations
    # wide is on 4 of the 6 films with a tag; half is on 3, which is not more than half.
    assert (has_tag.target.hub_count, has_tag.target.hubs) == (1, (Hub(id="wide", degree=4),))
    assert has_tag.source.hub_count == 0
    # u1 has 3 of 4 events on both films: events are counted, not films, so half of them says nothing.
    assert (watched.source.max, watched.source.hub_count) == (3, 0)
    assert (sequel_of.target.max, sequel_of.target.hub_count) == (2, 0)


@pytest.mark.parametrize(("events", "hubs"), [(1000, ()), (1001, (Hub(id="robot", degree=1001),))])
def test_a_user_far_beyond_all_others_is_a_hub(project: Project, events: int, hubs: tuple[Hub, ...]) -> None:
    store = _memory()
    people = [f"p{number}" for number in range(200)]
    add_nodes(store, SCHEMA, "Film", ["f1"])
    add_nodes(store, SCHEMA, "User", [*people, "robot"])
    users = [*people, *["robot"] * events]
    add_edges(store, SCHEMA, WATCHED, [(user, "f1") for user in users], time=range(len(users)))
    (watched, _, _) = statistics(store, SCHEMA).relations
    assert (watched.source.p99, watched.source.max) == (1, events)
    assert (watched.source.hubs, watched.source.hub_count) == (hubs, len(hubs))
    # The one film has all events, and no other film to be compared with.
    assert watched.target.hubs == ()


@pytest.mark.parametrize(("events", "hubs"), [(40, ()), (50, (Hub(id="robot", degree=50),))])
def test_a_degree_far_out_among_the_logarithms_is_a_hub(project: Project, events: int, hubs: tuple[Hub, ...]) -> None:
    # Half of 200 people have 3 events, half 6: the logarithm of 40 lies 5.87 standard deviations above the mean, that
    # of 50 lies 6.35 (the robot's own degree counted).
    store = _memory()
    people = [f"p{number}" for number in range(200)]
    add_nodes(store, SCHEMA, "Film", ["f1"])
    add_nodes(store, SCHEMA, "User", [*people, "robot"])
    users = [*people * 3, *people[:100] * 3, *["robot"] * events]
    add_edges(store, SCHEMA, WATCHED, [(user, "f1") for user in users], time=range(len(users)))
    assert statistics(store, SCHEMA, hub_degree=10).relations[0].source.hubs == hubs


def test_the_hubs_named_are_the_largest_then_by_id(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HUBS_SHOWN", 2)
    store = _memory()
    films = [f"f{number}" for number in range(4)]
    add_nodes(store, SCHEMA, "Film", films)
    add_nodes(store, SCHEMA, "Tag", ["c", "b", "a"])
    pairs = [(film, tag) for tag, number in (("c", 3), ("b", 3), ("a", 4)) for film in films[:number]]
    add_edges(store, SCHEMA, HAS_TAG, pairs)
    end = statistics(store, SCHEMA, hub_degree=1).relations[1].target
    assert (end.hub_count, end.hubs) == (3, (Hub(id="a", degree=4), Hub(id="b", degree=3)))


def test_counting_in_parts_changes_nothing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _memory()
    fill(store, SCHEMA)
    films = [f"x{number}" for number in range(2500)]  # three batches
    add_nodes(store, SCHEMA, "Film", films)
    add_edges(store, SCHEMA, HAS_TAG, [(film, "wide" if n % 5 else "t4") for n, film in enumerate(films)])
    whole = statistics(store, SCHEMA)
    monkeypatch.setattr(module, "_COMPACT", 1)
    assert statistics(store, SCHEMA) == whole
    assert (whole.relations[1].target.max, whole.relations[1].source.distinct) == (2004, 2506)


def test_what_nothing_declares_is_told(project: Project) -> None:
    with EmbeddedStore.open(SCHEMA, project.settings.store, project.folder, read_only=False) as store:
        fill(store, SCHEMA)
        nothing = Drift(node_types=(), relations=(), edges={}, properties=())
        assert drift(store, SCHEMA, store.counts(), neo4j=False) == nothing
    film, user, _ = SCHEMA.node_types
    film = film.model_copy(update={"properties": {"title": film.properties["title"]}})
    schema = GraphSchema(node_types=(film, user), relations=SCHEMA.relations[:1])
    with EmbeddedStore.open(schema, project.settings.store, project.folder, read_only=True) as store:
        found = drift(store, schema, store.counts(), neo4j=False)
    assert found == Drift(node_types=("Tag",), relations=("HAS_TAG", "SEQUEL_OF"), edges={}, properties=("Film.year",))


def test_edges_of_a_declared_name_between_other_types_are_counted(project: Project) -> None:
    more = Relation(triple=Triple("User", "HAS_TAG", "Tag"), role=RelationRole.SEMANTIC)
    schema = SCHEMA.model_copy(update={"relations": (*SCHEMA.relations, more)})
    with EmbeddedStore.open(schema, project.settings.store, project.folder, read_only=False) as store:
        fill(store, SCHEMA)
        add_edges(store, schema, more.triple, [("u1", "t4"), ("u2", "t4")])
    with EmbeddedStore.open(SCHEMA, project.settings.store, project.folder, read_only=True) as store:
        found = drift(store, SCHEMA, store.counts(), neo4j=False)
    assert found == Drift(node_types=(), relations=(), edges={"HAS_TAG": 2}, properties=())
