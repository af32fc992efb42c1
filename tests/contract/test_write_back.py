"""Results written back into the graph, on the embedded store and on a real Neo4j: the same behaviour of both.

a1 --HAS_TAG--> t1 <--HAS_TAG-- a2; u1 --PLAYED--> a1; written back: each artist's nearest, and a vector each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from graph_store.changes import Comparison
from graph_store.drift import drift
from graph_store.errors import ConfigError, StoreConflict
from graph_store.published import EDGES, VECTORS, Published, Publishing
from graph_store.schema import GraphSchema, NodeType, Relation, Triple
from graph_store.settings import StoreSettings
from graph_store.store import GraphStore

ARTISTS = ("a1", "a2", "a3", "a'4`")
PLAYED, HAS_TAG = Triple("User", "PLAYED", "Artist"), Triple("Artist", "HAS_TAG", "Tag")
PUBLISHING = Publishing(
    bundle="v1",
    space="similar",
    relation="SIMILAR_TO",
    property="kithkin_vector",
    dimension=3,
    neighbours=2,
    node_types=("Artist", "Album"),
)


def _schema(*more: dict[str, Any]) -> GraphSchema:
    nodes = {
        "Artist": {"role": "entity", "properties": {"name": {"type": "string"}}},
        "Album": {"role": "entity"},
        "Tag": {"role": "concept"},
        "User": {"role": "user"},
    }
    relations = [
        {"triple": PLAYED, "role": "engagement"},
        {"triple": HAS_TAG, "role": "semantic"},
        {"triple": ("Artist", "NEAR", "Artist"), "role": "co_engagement", "derive": {"via": "PLAYED"}},
        *more,
    ]
    return GraphSchema(
        node_types=tuple(NodeType.model_validate({**body, "name": name}) for name, body in nodes.items()),
        relations=tuple(Relation.model_validate(relation) for relation in relations),
    )


SCHEMA = _schema()
Opener = Callable[..., GraphStore]


@dataclass(kw_only=True)
class Rows:
    """Every artist joined to all others, and one album to nobody; made as they are asked for."""

    dimension: int = 3
    reason: str = "Both have the tag rock"
    artists: tuple[str, ...] = ARTISTS
    asked: list[str] = field(default_factory=list)

    def edges(self) -> Iterator[tuple[str, pa.Table]]:
        self.asked.append("edges")
        for source in self.artists:  # a table a source: several are put together
            targets = [target for target in self.artists if target != source]
            yield (
                "Artist",
                pa.table(
                    {
                        "source": [source] * len(targets),
                        "target": targets,
                        "score": [1 - number / 10 for number in range(len(targets))],
                        "reason": [self.reason, *[None] * (len(targets) - 1)],
                        "rank": list(range(1, len(targets) + 1)),
                    },
                    schema=EDGES,
                ),
            )
        yield "Artist", EDGES.empty_table()

    def vectors(self) -> Iterator[tuple[str, pa.Table]]:
        self.asked.append("vectors")
        for number, name in enumerate(self.artists):
            vector = [float(place == number % self.dimension) for place in range(self.dimension)]
            yield "Artist", pa.table({"id": [name], "vector": [vector]}, schema=VECTORS)
        yield "Album", pa.table({"id": ["b1"], "vector": [[0.5] * self.dimension]}, schema=VECTORS)


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("neo4j", marks=pytest.mark.neo4j),
        pytest.param("prefixed", marks=pytest.mark.neo4j),
    ]
)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same store again and again, as in test_graph_store."""
    stores: list[GraphStore] = []
    server = None if request.param == "embedded" else request.getfixturevalue("clean_neo4j")

    def open_(schema: GraphSchema = SCHEMA, *, read_only: bool = False) -> GraphStore:
        store: GraphStore
        if server is not None:
            from graph_store.neo4j.prefixed import open_neo4j

            prefix = "Ours_" if request.param == "prefixed" else ""
            settings = StoreSettings(uri=server.uri, timeout_s=20, label_prefix=prefix)
            store = open_neo4j(schema, settings, read_only=read_only)
        else:
            from graph_store.embedded.store import EmbeddedStore

            settings = StoreSettings(uri="graph.lbug", timeout_s=2, memory_mib=128)
            store = EmbeddedStore.open(schema, settings, tmp_path, read_only=read_only)
        stores.append(store)
        return store

    yield open_
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Opener) -> GraphStore:
    """The graph of the picture, and an album that has an artist's id."""
    store = opened()
    store.apply_schema()
    store.upsert_nodes("Artist", pa.table({"id": list(ARTISTS), "name": list(ARTISTS)}))
    store.upsert_nodes("Album", pa.table({"id": ["b1", "a1"]}))
    store.upsert_nodes("Tag", pa.table({"id": ["t1"]}))
    store.upsert_nodes("User", pa.table({"id": ["u1"]}))
    store.upsert_edges(HAS_TAG, pa.table({"source": ["a1", "a2"], "target": ["t1", "t1"]}))
    store.upsert_edges(PLAYED, pa.table({"source": ["u1"], "target": ["a1"]}))
    return store


def _edges(store: GraphStore, relation: str = "SIMILAR_TO") -> list[tuple[Any, ...]]:
    """Source, target, score, reason, bundle, rank of all edges of the name; none where there is no such name."""
    p = store.label_prefix
    edge = f"(a:`{p}Artist`)-[r:`{p}{relation}`]->(b:`{p}Artist`)"
    returned = "a.id, b.id, r.score, r.reason, r.bundle, r.rank"
    return list(store.query(f"MATCH {edge} RETURN {returned} ORDER BY a.id, r.bundle, r.rank").rows)


def _vectors(store: GraphStore, node_type: str = "Artist") -> dict[str, tuple[list[float], str]]:
    """Vector and bundle of each node that has one."""
    p = store.label_prefix
    if _is_neo4j(store):
        found = f"MATCH (a:`{p}{node_type}`) WHERE a.kithkin_vector IS NOT NULL "
        returned = "RETURN a.id, a.kithkin_vector, a.kithkin_vector_bundle"
    else:
        found = f"MATCH (a:{node_type})-[:KITHKIN_VECTOR]->(v:KithkinVector), (p:KithkinPublished) "
        returned = "RETURN a.id, v.vector, p.bundle"
    return {row[0]: (list(row[1]), row[2]) for row in store.query(found + returned).rows}


def _is_neo4j(store: GraphStore) -> bool:
    return "neo4j" in type(store).__module__


def test_edges_and_vectors_stand_beside_the_facts(store: GraphStore) -> None:
    assert store.written_back() == ()
    rows = Rows()
    written = store.write_back(PUBLISHING, rows)
    assert rows.asked == ["edges", "vectors"]
    assert (written.edges, written.vectors, written.unknown) == ({"Artist": 12}, {"Artist": 4, "Album": 1}, 0)
    assert store.written_back() == (Published(publishing=PUBLISHING, complete=True),)
    edges = _edges(store)
    assert len(edges) == 12
    assert [edge for edge in edges if edge[0] == "a1"] == [
        ("a1", "a2", 1.0, "Both have the tag rock", "v1", 1),
        ("a1", "a3", 0.9, None, "v1", 2),
        ("a1", "a'4`", 0.8, None, "v1", 3),
    ]
    assert _vectors(store)["a2"] == ([0.0, 1.0, 0.0], "v1")
    assert set(_vectors(store)) == set(ARTISTS)
    assert set(_vectors(store, "Album")) == {"b1"}  # and not the album called a1


def test_the_next_publishing_replaces_it_whole(store: GraphStore) -> None:
    store.write_back(PUBLISHING, Rows())
    other = replace(PUBLISHING, bundle="v2", dimension=2, relation="LIKE", neighbours=1, node_types=("Artist", "Album"))
    store.write_back(other, Rows(dimension=2, artists=("a1", "a3"), reason="Other"))
    assert store.written_back() == (Published(publishing=other, complete=True),)
    assert _edges(store, "LIKE") == [("a1", "a3", 1.0, "Other", "v2", 1), ("a3", "a1", 1.0, "Other", "v2", 1)]
    assert _vectors(store) == {"a1": ([1.0, 0.0], "v2"), "a3": ([0.0, 1.0], "v2")}
    if _is_neo4j(store):
        assert _edges(store) == []
    else:
        names = {row[0] for row in store.query("CALL show_tables() RETURN name").rows}
        assert "SIMILAR_TO" not in names


def test_the_same_publishing_again_doubles_nothing(store: GraphStore) -> None:
    store.write_back(PUBLISHING, Rows())
    edges, vectors = _edges(store), _vectors(store)
    store.write_back(PUBLISHING, Rows())
    assert (_edges(store), _vectors(store)) == (edges, vectors)
    assert store.written_back() == (Published(publishing=PUBLISHING, complete=True),)


def test_removed_it_leaves_no_trace(store: GraphStore) -> None:
    before = drift(store, SCHEMA, store.counts(), neo4j=_is_neo4j(store), scan=True)
    store.remove_written_back()
    store.write_back(PUBLISHING, Rows())
    store.remove_written_back(keep="v1")
    assert len(_edges(store)) == 12
    store.remove_written_back()
    store.remove_written_back()
    assert store.written_back() == ()
    after = drift(store, SCHEMA, store.counts(), neo4j=_is_neo4j(store), scan=True)
    # Neo4j keeps the names of relationship types that it has seen.
    assert set(after.relations) <= {"SIMILAR_TO"}
    assert after.node_types == ()
    assert after.properties == before.properties == ()
    if _is_neo4j(store):
        assert _vectors(store) == {}
        assert store.query("SHOW VECTOR INDEXES YIELD name").rows == ()


def test_it_is_no_part_of_the_declared_graph(store: GraphStore) -> None:
    counts = store.counts()
    nodes = {name: _all(store.scan_nodes(name)) for name in counts.nodes}
    comparison = Comparison(store, SCHEMA)
    watermark = comparison.watermark()
    near = store.neighbourhood("Artist", "a1")
    store.write_back(PUBLISHING, Rows())
    assert comparison.changes_since(watermark).empty
    assert store.counts() == counts
    assert {name: _all(store.scan_nodes(name)) for name in counts.nodes} == nodes
    assert store.neighbourhood("Artist", "a1") == near
    found = drift(store, SCHEMA, counts, neo4j=_is_neo4j(store), scan=True)
    assert (found.node_types, found.relations, found.edges, found.properties) == ((), (), {}, ())


def _all(batches: Iterator[pa.RecordBatch]) -> list[dict[str, Any]]:
    return sorted((row for batch in batches for row in batch.to_pylist()), key=lambda row: row["id"])


def test_who_follows_the_log_is_told_of_no_change(store: GraphStore) -> None:
    position = store.log_position()
    store.write_back(PUBLISHING, Rows())
    told = store.written_since(position)
    assert told is not None
    assert told.changes == ()
    assert told.complete is not _is_neo4j(store)  # Neo4j cannot tell what others committed


def test_an_entity_that_is_deleted_takes_what_is_written_back_of_it(store: GraphStore) -> None:
    store.write_back(PUBLISHING, Rows())
    store.delete_nodes("Artist", ["a1"])
    assert all("a1" not in edge[:2] for edge in _edges(store))
    assert len(_edges(store)) == 6
    assert set(_vectors(store)) == set(ARTISTS) - {"a1"}
    if not _is_neo4j(store):
        assert store.query("MATCH (v:KithkinVector) RETURN count(*)").rows == ((4,),)
    store.upsert_nodes("Artist", pa.table({"id": ["a1"], "name": ["again"]}))
    assert "a1" not in _vectors(store)


def test_entities_that_have_gone_since_are_left_out(store: GraphStore) -> None:
    store.delete_nodes("Artist", ["a3"])
    written = store.write_back(PUBLISHING, Rows())
    assert (written.edges, written.vectors, written.unknown) == ({"Artist": 6}, {"Artist": 3, "Album": 1}, 1)
    assert {end for edge in _edges(store) for end in edge[:2]} == set(ARTISTS) - {"a3"}


def test_writing_goes_on_beside_it(store: GraphStore, opened: Opener) -> None:
    store.write_back(PUBLISHING, Rows())
    store.upsert_nodes("Artist", pa.table({"id": ["a1", "a9"], "name": ["changed", "new"]}))
    store.upsert_edges(HAS_TAG, pa.table({"source": ["a9"], "target": ["t1"]}))
    store.apply_schema()
    assert len(_edges(store)) == 12
    assert _vectors(store)["a1"][1] == "v1"
    assert opened(read_only=True).written_back() == (Published(publishing=PUBLISHING, complete=True),)


@pytest.mark.parametrize("name", ["HAS_TAG", "Tag", "has_tag", "KithkinPublished"])
def test_a_name_that_is_declared_is_refused(store: GraphStore, name: str) -> None:
    if store.label_prefix and name == "KithkinPublished":
        pytest.skip("with a prefix it is another name")
    with pytest.raises(ConfigError, match="write_back_relation"):
        store.write_back(replace(PUBLISHING, relation=name), Rows())
    with pytest.raises(ConfigError, match="write_back_property"):
        store.write_back(replace(PUBLISHING, property="name"), Rows())
    assert store.written_back() == ()


def test_edges_that_somebody_else_made_stay(store: GraphStore) -> None:
    p = store.label_prefix
    if not _is_neo4j(store):
        store.query("CREATE REL TABLE SIMILAR_TO(FROM Artist TO Artist, score DOUBLE)", write=True)
    store.query(
        f"MATCH (a:`{p}Artist` {{id: 'a1'}}), (b:`{p}Artist` {{id: 'a2'}}) CREATE (a)-[:`{p}SIMILAR_TO`]->(b)",
        write=True,
    )
    with pytest.raises(StoreConflict, match="did not write back"):
        store.write_back(PUBLISHING, Rows())
    assert store.written_back() == ()
    assert store.query(f"MATCH (:`{p}Artist`)-[r:`{p}SIMILAR_TO`]->() RETURN count(r)").rows == ((1,),)


def test_a_relation_declared_later_by_that_name_is_a_conflict(store: GraphStore, opened: Opener) -> None:
    store.write_back(PUBLISHING, Rows())
    store.close()
    later = opened(_schema({"triple": ("Artist", "SIMILAR_TO", "Artist"), "role": "semantic"}))
    with pytest.raises(StoreConflict, match="write-back --remove"):
        later.apply_schema()
    later.remove_written_back()
    later.apply_schema()
    later.upsert_edges(Triple("Artist", "SIMILAR_TO", "Artist"), pa.table({"source": ["a1"], "target": ["a2"]}))
    assert later.counts().edges[Triple("Artist", "SIMILAR_TO", "Artist")] == 1


def test_rows_that_fail_half_way_leave_what_was_whole(store: GraphStore) -> None:
    class Failing(Rows):
        def vectors(self) -> Iterator[tuple[str, pa.Table]]:
            yield next(super().vectors())
            raise ValueError("no more")

    store.write_back(PUBLISHING, Rows())
    edges = _edges(store)
    with pytest.raises(ValueError, match="no more"):
        store.write_back(replace(PUBLISHING, bundle="v2"), Failing())
    assert store.written_back()[0] == Published(publishing=PUBLISHING, complete=True)
    assert [edge for edge in _edges(store) if edge[4] == "v1"] == edges
    if not _is_neo4j(store):
        assert _edges(store) == edges
    store.write_back(replace(PUBLISHING, bundle="v2"), Rows())
    assert len(_edges(store)) == 12
    assert {edge[4] for edge in _edges(store)} == {"v2"}
    assert set(_vectors(store)) == set(ARTISTS)
    assert len(store.written_back()) == 1


@pytest.mark.neo4j
def test_neo4j_answers_from_its_vector_index(store: GraphStore) -> None:
    if not _is_neo4j(store):
        pytest.skip("the embedded store has no vector index")
    store.write_back(PUBLISHING, Rows())
    label = f"{store.label_prefix}Artist"
    for bundle, dimension in (("v1", 3), ("v2", 2)):
        store.write_back(replace(PUBLISHING, bundle=bundle, dimension=dimension), Rows(dimension=dimension))
        query = [1.0, *[0.0] * (dimension - 1)]
        statement = f"CALL db.index.vector.queryNodes('kithkin_{label}_vector', 4, $query) YIELD node, score "
        found = store.query(statement + "RETURN node.id, score ORDER BY score DESC, node.id", {"query": query}).rows
        assert len(found) == 4
        assert found[0] == ("a'4`" if dimension == 3 else "a1", pytest.approx(1.0))
    assert {row[0] for row in store.query("SHOW VECTOR INDEXES YIELD name").rows} == {
        f"kithkin_{store.label_prefix}{name}_vector" for name in ("Artist", "Album")
    }
