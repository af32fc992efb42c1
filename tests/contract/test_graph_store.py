"""One behaviour for every graph store: each test runs on the embedded store and on two versions of a real Neo4j.

u1 --PLAYED 5 (twice, at other times)--> a1 --HAS_TAG 3--> t1
u1 --FRIEND--> u2                        a1 --BAND--> b1 (an act), a1 --BAND--> a2 (an artist)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from graph_store.errors import InputError, QueryError, StoreConflict, StoreError, StoreUnavailable
from graph_store.schema import GraphSchema, NodeType, Property, Relation, Triple
from graph_store.settings import StoreSettings
from graph_store.store import GraphStore, Written

PLAYED = Triple("User", "PLAYED", "Artist")
HAS_TAG = Triple("Artist", "HAS_TAG", "Tag")
FRIEND = Triple("User", "FRIEND", "User")
BAND_ACT = Triple("Artist", "BAND", "Act")
BAND_ARTIST = Triple("Artist", "BAND", "Artist")
SIMILAR = Triple("Artist", "SIMILAR", "Artist")
EARLY = datetime(1969, 12, 31, 23, 59, 59, 999_995, UTC)
NOON = datetime(2024, 2, 29, 12, 0, 0, 123_456, UTC)
NASTY = "q\"u'o`te\\ \n\t {$x} ; // 你好 🎸 \u0301 "

ARTIST = {
    "name": {"type": "string"},
    "albums": {"type": "int"},
    "score": {"type": "float"},
    "active": {"type": "bool"},
    "born": {"type": "date"},
    "seen": {"type": "timestamp"},
    "aliases": {"type": "strings"},
    "look": {"type": "vector", "dimension": 3},
    "order": {"type": "string"},  # a word of Cypher's own
}


def _schema(artist: dict[str, Any] | None = None, **more: dict[str, Any]) -> GraphSchema:
    nodes = {
        "Artist": {"role": "entity", "display": "name", "properties": artist or ARTIST},
        "User": {"role": "user"},
        "Tag": {"role": "concept", "display": "name", "properties": {"name": {"type": "string"}}},
        "Act": {"role": "concept"},
        **more,
    }
    relations = [
        {
            "triple": PLAYED,
            "role": "engagement",
            "weight": "plays",
            "time": "time",
            "kind": "kind",
            "properties": {"plays": {"type": "int"}, "time": {"type": "timestamp"}, "kind": {"type": "string"}},
        },
        {"triple": HAS_TAG, "role": "semantic", "weight": "count", "properties": {"count": {"type": "int"}}},
        {"triple": FRIEND, "role": "semantic"},
        {"triple": BAND_ACT, "role": "semantic"},
        {"triple": BAND_ARTIST, "role": "semantic", "properties": {"since": {"type": "int"}}},
        {"triple": SIMILAR, "role": "co_engagement", "derive": {"via": "PLAYED"}},
    ]
    return GraphSchema(
        node_types=tuple(NodeType.model_validate({**body, "name": name}) for name, body in nodes.items()),
        relations=tuple(Relation.model_validate(relation) for relation in relations),
    )


SCHEMA = _schema()
Opener = Callable[..., GraphStore]


@pytest.fixture(
    params=[
        "embedded",
        pytest.param("neo4j", marks=pytest.mark.neo4j),
        pytest.param("newest_neo4j", marks=pytest.mark.neo4j),
    ]
)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same store again and again: ``opened(schema, read_only=...)``; what is still open is closed."""
    stores: list[GraphStore] = []
    server = None if request.param == "embedded" else request.getfixturevalue(f"clean_{request.param}")

    def open_(schema: GraphSchema = SCHEMA, *, read_only: bool = False) -> GraphStore:
        store: GraphStore
        if server is not None:
            from graph_store.neo4j.store import Neo4jStore

            settings = StoreSettings(uri=server.uri, timeout_s=20)
            store = Neo4jStore.open(schema, settings, read_only=read_only)
        else:
            from graph_store.embedded.store import EmbeddedStore

            settings = StoreSettings(uri="deep/folder/graph.lbug", timeout_s=2, memory_mib=128)
            store = EmbeddedStore.open(schema, settings, tmp_path, read_only=read_only)
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


def _nodes(*ids: str, **columns: Any) -> pa.Table:
    return pa.table({"id": pa.array(ids, pa.string()), **columns})


def _edges(*pairs: tuple[str, str], **columns: Any) -> pa.Table:
    sources = pa.array([source for source, _ in pairs], pa.string())
    targets = pa.array([target for _, target in pairs], pa.string())
    return pa.table({"source": sources, "target": targets, **columns})


def _times(*times: datetime | None) -> pa.Array:
    return pa.array(times, pa.timestamp("us", tz="UTC"))


def _sorted(batches: Iterator[pa.RecordBatch]) -> list[dict[str, Any]]:
    rows = [row for batch in batches for row in batch.to_pylist()]
    return sorted(rows, key=repr)


def _fill(store: GraphStore) -> None:
    store.upsert_nodes("Artist", _nodes("a1", "a2", "a3", name=["One", "Two", "Three"]))
    store.upsert_nodes("User", _nodes("u1", "u2", "u3"))
    store.upsert_nodes("Tag", _nodes("t1", "t2", name=["rock", "Rock and roll"]))
    store.upsert_nodes("Act", _nodes("b1"))
    store.upsert_edges(
        PLAYED,
        _edges(
            ("u1", "a1"),
            ("u1", "a1"),
            ("u2", "a1"),
            plays=pa.array([5, 5, None], pa.int64()),
            time=_times(EARLY, NOON, None),
            kind=["heard", "heard", None],
        ),
    )
    store.upsert_edges(HAS_TAG, _edges(("a1", "t1"), ("a1", "t2"), ("a2", "t1"), count=[3, 3, 9]))
    store.upsert_edges(FRIEND, _edges(("u1", "u2"), ("u2", "u1"), ("u3", "u3")))
    store.upsert_edges(BAND_ACT, _edges(("a1", "b1")))
    store.upsert_edges(BAND_ARTIST, _edges(("a1", "a2"), since=[1999]))


FULL = pa.table(
    {
        "id": ["a1", NASTY, "empty", ""],
        "name": [NASTY, None, "", "x" * 100_000],
        "albums": pa.array([2**63 - 1, None, 0, -(2**63)], pa.int64()),
        "score": [0.1, None, 0.0, float("inf")],
        "active": [True, None, False, True],
        "born": pa.array([date(1, 1, 1), None, date(1970, 1, 1), date(9999, 12, 31)], pa.date32()),
        "seen": _times(EARLY, None, datetime(1970, 1, 1, tzinfo=UTC), NOON),
        "aliases": pa.array([["b", "", "a"], None, [], [NASTY]], pa.list_(pa.string())),
        "look": pa.array([[0.1, -2.5, 3e30], None, [0, 0, 0], [1, 2, 3]], pa.list_(pa.float32())),
        "order": ["first", None, "", "last"],
    }
)


def test_every_kind_of_value_comes_back_as_it_went_in(store: GraphStore) -> None:
    assert store.upsert_nodes("Artist", FULL) == Written(created=4)
    batches = list(store.scan_nodes("Artist"))
    assert all(batch.schema.equals(SCHEMA.node_type("Artist").arrow_schema) for batch in batches)
    found = pa.Table.from_batches(batches).sort_by("id")
    assert found.to_pylist() == FULL.sort_by("id").to_pylist()


def test_the_same_table_twice_changes_nothing(store: GraphStore) -> None:
    store.upsert_nodes("Artist", FULL)
    _fill(store)
    token = store.state_token()
    assert store.upsert_nodes("Artist", FULL.slice(1)) == Written(unchanged=3)
    played = pa.Table.from_batches(store.scan_edges(PLAYED))
    assert played.num_rows == 3
    assert store.upsert_edges(PLAYED, played) == Written(unchanged=3)
    assert store.upsert_edges(FRIEND, _edges(("u3", "u3"), ("u1", "u2"))) == Written(unchanged=2)
    assert store.replace_edges(BAND_ARTIST, _edges(("a1", "a2"), since=[1999])) == Written(unchanged=1)
    store.apply_schema()
    assert store.delete_nodes("Artist", ["nobody"]) == Written()
    assert store.state_token() == token


def test_upsert_writes_only_what_differs(store: GraphStore) -> None:
    store.upsert_nodes("Artist", FULL)
    change = _nodes("a1", "new", "empty", name=["Changed", "New", ""])
    assert store.upsert_nodes("Artist", change) == Written(created=1, changed=1, unchanged=1)
    rows = {row["id"]: row for row in _sorted(store.scan_nodes("Artist"))}
    assert rows["a1"] == {**FULL.to_pylist()[0], "name": "Changed"}  # the columns that were not given stay
    assert rows["new"] == dict.fromkeys(rows["new"]) | {"id": "new", "name": "New"}


def test_upsert_changes_every_kind_of_value_also_to_null(store: GraphStore) -> None:
    store.upsert_nodes("Artist", FULL)
    turned = FULL.drop_columns("id").take(pa.array([1, 0, 3, 2])).add_column(0, "id", FULL.column("id"))
    assert store.upsert_nodes("Artist", turned) == Written(changed=4)
    found = pa.Table.from_batches(store.scan_nodes("Artist")).sort_by("id")
    assert found.to_pylist() == turned.sort_by("id").to_pylist()


def test_the_last_row_of_an_id_wins(store: GraphStore) -> None:
    rows = _nodes("t1", "t2", "t1", name=["first", "other", "last"])
    assert store.upsert_nodes("Tag", rows) == Written(created=2)
    assert _sorted(store.scan_nodes("Tag")) == [{"id": "t1", "name": "last"}, {"id": "t2", "name": "other"}]


def test_nan_is_no_value(store: GraphStore) -> None:
    store.upsert_nodes("Artist", _nodes("a1", score=[float("nan")]))
    assert [row["score"] for row in _sorted(store.scan_nodes("Artist"))] == [None]
    assert store.upsert_nodes("Artist", _nodes("a1", score=[float("nan")])) == Written(unchanged=1)


BAD_ROWS = (
    (pa.table({"name": ["x"]}), "no column 'id'"),
    (pa.table({"id": pa.array(["a", None])}), "1 rows have no id"),
    (_nodes("a", nickname=["x"]), "'nickname'"),
    (_nodes("a", albums=["many"]), "not of type int"),
    (_nodes("a", look=[[1.0, 2.0]]), "a vector of 2 numbers, declared are 3"),
    (_nodes("a", look=[[1.0, 2.0, float("nan")]]), "NaN"),
)


def test_bad_rows_are_named_and_nothing_is_written(store: GraphStore) -> None:
    token = store.state_token()
    for rows, words in BAD_ROWS:
        with pytest.raises(InputError, match=words):
            store.upsert_nodes("Artist", rows)
    assert store.state_token() == token


def test_parallel_edges_differ_by_time_and_kind(store: GraphStore) -> None:
    _fill(store)
    expected = [
        {"source": "u1", "target": "a1", "plays": 5, "time": EARLY, "kind": "heard"},
        {"source": "u1", "target": "a1", "plays": 5, "time": NOON, "kind": "heard"},
        {"source": "u2", "target": "a1", "plays": None, "time": None, "kind": None},
    ]
    assert _sorted(store.scan_edges(PLAYED)) == sorted(expected, key=repr)
    change = _edges(
        ("u1", "a1"),
        ("u1", "a1"),
        ("u2", "a1"),
        plays=[7, 8, 9],
        time=_times(NOON, NOON, None),
        kind=["heard", "", None],
    )
    assert store.upsert_edges(PLAYED, change) == Written(created=1, changed=2)
    expected[1]["plays"], expected[2]["plays"] = 7, 9
    expected.append({"source": "u1", "target": "a1", "plays": 8, "time": NOON, "kind": ""})
    assert _sorted(store.scan_edges(PLAYED)) == sorted(expected, key=repr)
    keys = change.select(["source", "target", "time", "kind"]).slice(1)
    assert store.delete_edges(PLAYED, keys) == Written(deleted=2)
    assert store.delete_edges(PLAYED, keys) == Written()
    assert _sorted(store.scan_edges(PLAYED)) == sorted(expected[:2], key=repr)


def test_one_relation_name_between_several_types(store: GraphStore) -> None:
    _fill(store)
    assert _sorted(store.scan_edges(BAND_ACT)) == [{"source": "a1", "target": "b1"}]
    assert _sorted(store.scan_edges(BAND_ARTIST)) == [{"source": "a1", "target": "a2", "since": 1999}]
    result = store.query("MATCH (a:Artist)-[r:BAND]->(x) RETURN x.id, r.since ORDER BY x.id")
    assert result.rows == (("a2", 1999), ("b1", None))
    assert store.replace_edges(BAND_ARTIST, _edges(("a2", "a1"), since=[2000])) == Written(created=1, deleted=1)
    assert _sorted(store.scan_edges(BAND_ACT)) == [{"source": "a1", "target": "b1"}]


def test_replace_leaves_exactly_these_edges(store: GraphStore) -> None:
    _fill(store)
    first = _edges(("a1", "a2"), ("a1", "a3"), ("a2", "a3"), weight=[0.5, 0.25, 0.125], support=[2, 3, 4])
    assert store.replace_edges(SIMILAR, first) == Written(created=3)
    second = _edges(("a1", "a2"), ("a1", "a3"), ("a3", "a3"), weight=[0.5, 0.75, 1.0], support=[2, 3, 1])
    assert store.replace_edges(SIMILAR, second) == Written(created=1, changed=1, unchanged=1, deleted=1)
    assert _sorted(store.scan_edges(SIMILAR)) == sorted(second.to_pylist(), key=repr)
    assert store.replace_edges(SIMILAR, second.slice(0, 0)) == Written(deleted=3)
    assert list(store.scan_edges(SIMILAR)) == []
    assert store.counts().edges[HAS_TAG] == 3


def test_an_edge_to_an_unknown_node_is_refused_and_nothing_written(store: GraphStore) -> None:
    _fill(store)
    token = store.state_token()
    with pytest.raises(InputError, match=r"no Tag with this id \(and 1 more\).*'nowhere'") as caught:
        store.upsert_edges(HAS_TAG, _edges(("a2", "t2"), ("a1", "nowhere"), ("a1", "nor here"), count=[1, 2, 3]))
    assert (caught.value.column, caught.value.value) == ("target", "nowhere")
    with pytest.raises(InputError, match="no User with this id"):
        store.replace_edges(FRIEND, _edges(("ghost", "u1")))
    assert store.state_token() == token
    assert store.counts().edges[HAS_TAG] == 3


def test_deleting_nodes_takes_their_edges(store: GraphStore) -> None:
    _fill(store)
    assert store.delete_nodes("Artist", ["a1", "nobody", "a1"]) == Written(deleted=1)
    assert [row["id"] for row in _sorted(store.scan_nodes("Artist"))] == ["a2", "a3"]
    assert {str(t): n for t, n in store.counts().edges.items() if n} == {str(HAS_TAG): 1, str(FRIEND): 3}


def test_counts_name_all_types_and_relations(store: GraphStore) -> None:
    empty = store.counts()
    assert empty.nodes == {"Artist": 0, "User": 0, "Tag": 0, "Act": 0}
    assert set(empty.edges.values()) == {0}
    assert len(empty.edges) == len(SCHEMA.relations)
    _fill(store)
    counts = store.counts()
    assert counts.nodes == {"Artist": 3, "User": 3, "Tag": 2, "Act": 1}
    assert counts.edges == {PLAYED: 3, HAS_TAG: 3, FRIEND: 3, BAND_ACT: 1, BAND_ARTIST: 1, SIMILAR: 0}


def test_scans_give_the_columns_asked_for(store: GraphStore) -> None:
    _fill(store)
    assert _sorted(store.scan_nodes("Tag", [])) == [{"id": "t1"}, {"id": "t2"}]
    (batch,) = store.scan_nodes("Artist", ["albums", "name"])
    assert batch.schema.names == ["id", "albums", "name"]
    (batch,) = store.scan_edges(PLAYED, ["kind"])
    assert batch.schema.names == ["source", "target", "kind"]
    assert batch.schema.types == [pa.string()] * 3


def test_a_table_larger_than_a_page(store: GraphStore) -> None:
    size = 25_000
    ids = [f"n{number}" for number in range(size)]
    names = pa.array([name if number % 3 else None for number, name in enumerate(ids)])
    tags = pa.table({"id": ids, "name": names})
    assert store.upsert_nodes("Tag", tags) == Written(created=size)
    store.upsert_nodes("Artist", _nodes("a1", "a2"))
    edges = _edges(*((f"a{1 + n % 2}", id_) for n, id_ in enumerate(ids)), count=list(range(size)))
    assert store.upsert_edges(HAS_TAG, edges) == Written(created=size)
    assert pa.Table.from_batches(store.scan_nodes("Tag")).sort_by("id").to_pydict() == tags.sort_by("id").to_pydict()
    found = pa.Table.from_batches(store.scan_edges(HAS_TAG)).sort_by("count")
    assert found.to_pylist() == edges.to_pylist()


def test_neighbourhood_is_the_heaviest_first_then_by_id(store: GraphStore) -> None:
    _fill(store)
    store.upsert_nodes("Tag", _nodes("T9", "é"))
    store.upsert_edges(HAS_TAG, _edges(("a1", "T9"), ("a1", "é"), count=pa.array([3, None], pa.int64())))
    seen = store.neighbourhood("Artist", "a1")
    tags = [(n.direction, n.node_type, n.node_id, n.properties) for n in seen if n.triple == HAS_TAG]
    assert tags == [
        ("out", "Tag", "T9", {"count": 3}),
        ("out", "Tag", "t1", {"count": 3}),
        ("out", "Tag", "t2", {"count": 3}),
        ("out", "Tag", "é", {"count": None}),
    ]
    assert [(n.triple, n.node_id) for n in seen if n.triple != HAS_TAG] == [
        (PLAYED, "u1"),
        (PLAYED, "u1"),
        (PLAYED, "u2"),
        (BAND_ACT, "b1"),
        (BAND_ARTIST, "a2"),
    ]
    played = [n for n in seen if n.triple == PLAYED]
    assert {n.direction for n in played} == {"in"}
    assert [n.properties["time"] for n in played] == [EARLY, NOON, None]
    friends = [(n.direction, n.node_id) for n in store.neighbourhood("User", "u1") if n.triple == FRIEND]
    assert friends == [("out", "u2"), ("in", "u2")]
    assert [n.direction for n in store.neighbourhood("User", "u3")] == ["out"]  # a loop is one edge
    limited = store.neighbourhood("Artist", "a1", limit=1)
    assert [n.node_id for n in limited] == ["u1", "T9", "b1", "a2"]
    assert store.neighbourhood("Artist", "nobody") == []


def test_find_nodes_prefers_the_exact_name(store: GraphStore) -> None:
    _fill(store)
    store.upsert_nodes("Tag", _nodes("t0", "t3", name=["rock", "ÉTUDE rock"]))
    assert store.find_nodes("Tag", "rock") == ["t0", "t1"]
    assert store.find_nodes("Tag", "ROCK") == ["t0", "t1", "t3", "t2"]  # the shortest first
    assert store.find_nodes("Tag", "étude") == ["t3"]
    assert store.find_nodes("Tag", "ROCK", limit=1) == ["t0"]
    assert store.find_nodes("Tag", "r.ck") == []
    assert store.find_nodes("Tag", "") == []
    assert store.find_nodes("User", "u1") == ["u1"]


def test_queries_answer_in_plain_values(store: GraphStore) -> None:
    store.upsert_nodes("Artist", FULL)
    _fill(store)
    result = store.query("MATCH (a:Artist {id: $id})-[r:HAS_TAG]->(t) RETURN a, r, t ORDER BY t.id", {"id": "a1"})
    assert result.columns == ("a", "r", "t")
    row = FULL.to_pylist()[0] | {"name": "One"}
    assert result.rows[0] == ({"_type": "Artist", **row}, {"_type": "HAS_TAG", "count": 3}, _tag("t1", "rock"))
    assert list(result.rows[0][0]) == ["_type", "id", *ARTIST]
    assert len(result.rows) == 2
    (values,) = store.query("MATCH (a:Artist {id: 'a1'}) RETURN a.seen, a.born, a.aliases, a.albums, a.`order`").rows
    assert values == (EARLY, date(1, 1, 1), ["b", "", "a"], 2**63 - 1, "first")
    (values,) = store.query("MATCH (b:Act) RETURN b, ['1', null, 'x'] AS list").rows
    assert values == ({"_type": "Act", "id": "b1"}, ["1", None, "x"])
    (values,) = store.query("MATCH p = (:User {id: 'u3'})-[:FRIEND]->() RETURN p").rows
    assert values[0] == {
        "_nodes": [{"_type": "User", "id": "u3"}, {"_type": "User", "id": "u3"}],
        "_relationships": [{"_type": "FRIEND"}],
    }


def _tag(node_id: str, name: str) -> dict[str, Any]:
    return {"_type": "Tag", "id": node_id, "name": name}


def test_the_query_of_the_first_page(store: GraphStore) -> None:
    _fill(store)
    store.upsert_nodes("Artist", _nodes("a9", name=["Radiohead"]))
    tags = [f"x{number}" for number in range(8)]
    store.upsert_nodes("Tag", _nodes(*tags, name=[f"tag {tag}" for tag in tags]))
    store.upsert_edges(HAS_TAG, _edges(*(("a9", tag) for tag in tags), count=[1, 5, 2, 5, 3, 5, 4, 0]))
    result = store.query(
        "MATCH (a:Artist {name:'Radiohead'})-[r]-(t:Tag) RETURN t.name, r.count ORDER BY r.count DESC, t.id LIMIT 5"
    )
    assert result.columns == ("t.name", "r.count")
    assert result.rows == (("tag x1", 5), ("tag x3", 5), ("tag x5", 5), ("tag x6", 4), ("tag x4", 3))
    assert not result.truncated


def test_a_sum_of_integers_is_an_integer(store: GraphStore) -> None:
    result = store.query("UNWIND [1, 2, 3] AS n RETURN sum(n) AS total")
    assert result.rows == ((6,),)
    assert type(result.rows[0][0]) is int


def test_a_query_stops_at_the_row_limit(store: GraphStore) -> None:
    cut = store.query("UNWIND range(1, 10) AS n RETURN n", limit=3)
    assert (cut.rows, cut.truncated) == (((1,), (2,), (3,)), True)
    whole = store.query("UNWIND range(1, 3) AS n RETURN n", limit=3)
    assert (len(whole.rows), whole.truncated) == (3, False)


WRITES = (
    "CREATE (:Act {id: 'b2'})",
    "MATCH (n:Act) SET n.id = 'b3'",
    "MATCH (n:Act) DETACH DELETE n",
    "MERGE (n:Act {id: 'b4'}) RETURN n",
    "RETURN 1; CREATE (:Act {id: 'b5'})",
    "COMMIT; CREATE (:Act {id: 'b6'})",
    "/* ' */ COMMIT; CREATE (:Act {id: 'b7'})",
    "// '\nCOMMIT; CREATE (:Act {id: 'b8'})",
    "COMMIT",
    "DROP TABLE BAND",
    "CREATE INDEX FOR (n:Act) ON (n.x)",
)


def test_a_query_may_not_write_unless_told(store: GraphStore) -> None:
    _fill(store)
    token = store.state_token()
    for statement in WRITES:
        with pytest.raises(QueryError):
            store.query(statement)
        assert store.state_token() == token, statement
        assert store.query("MATCH (n:Act) RETURN n.id").rows == (("b1",),), statement


def test_a_query_that_may_write_writes(store: GraphStore) -> None:
    _fill(store)
    token = store.state_token()
    result = store.query("CREATE (b:Act {id: $id}) RETURN b.id", {"id": "b2"}, write=True)
    assert result.rows == (("b2",),)
    assert store.state_token() != token
    assert _sorted(store.scan_nodes("Act")) == [{"id": "b1"}, {"id": "b2"}]


def test_a_bad_query_says_so(store: GraphStore) -> None:
    for statement in ("MATCH (n:Act RETURN n", "", "   ", "RETURN $missing", "RETURN nothing()"):
        with pytest.raises(QueryError) as caught:
            store.query(statement)
        assert str(caught.value)


def test_the_state_token_moves_with_every_write_only(store: GraphStore, opened: Opener) -> None:
    tokens = [store.state_token()]
    store.upsert_nodes("Tag", _nodes("t1"))
    tokens.append(store.state_token())
    store.upsert_nodes("Tag", _nodes("t1", name=["rock"]))
    tokens.append(store.state_token())
    store.delete_nodes("Tag", ["t1"])
    tokens.append(store.state_token())
    assert len(set(tokens)) == 4
    list(store.scan_nodes("Tag"))
    store.counts()
    store.query("RETURN 1")
    assert store.state_token() == tokens[-1]
    store.close()
    with opened(read_only=True) as reader:
        assert _sorted(reader.scan_nodes("Tag")) == []
        assert reader.state_token() == tokens[-1]
    with opened() as writer:
        assert writer.state_token() == tokens[-1]


def test_what_was_written_is_there_after_closing(store: GraphStore, opened: Opener) -> None:
    _fill(store)
    before = store.counts()
    store.close()
    store.close()
    with pytest.raises(StoreError):
        store.counts()
    again = opened(read_only=True)
    assert again.counts() == before
    assert _sorted(again.scan_edges(BAND_ARTIST)) == [{"source": "a1", "target": "a2", "since": 1999}]


def test_a_read_only_store_refuses_to_write(store: GraphStore, opened: Opener) -> None:
    _fill(store)
    store.close()
    reader = opened(read_only=True)
    with pytest.raises(StoreError, match="read-only"):
        reader.upsert_nodes("Act", _nodes("b2"))
    with pytest.raises(QueryError, match="read-only"):
        reader.query("CREATE (:Act {id: 'b2'})", write=True)
    with pytest.raises(QueryError, match="read-only"):
        reader.query("CREATE (:Act {id: 'b2'})")
    assert reader.counts().nodes["Act"] == 1


def test_a_new_property_type_and_relation_are_added(store: GraphStore, opened: Opener) -> None:
    _fill(store)
    store.close()
    artist = {**ARTIST, "label": {"type": "string"}, "face": {"type": "vector", "dimension": 2}}
    grown = _schema(artist, Mood={"role": "concept"})
    genre = Relation.model_validate(
        {"triple": ["Artist", "BAND", "Mood"], "role": "semantic", "properties": {"x": {"type": "float"}}}
    )
    grown = grown.model_copy(update={"relations": (*grown.relations, genre)})
    store = opened(grown)
    store.apply_schema()
    assert store.upsert_nodes("Artist", _nodes("a1", label=["XL"], face=[[1.0, 2.0]])) == Written(changed=1)
    store.upsert_nodes("Mood", _nodes("sad"))
    assert store.upsert_edges(genre.triple, _edges(("a1", "sad"), x=[0.5])) == Written(created=1)
    rows = {row["id"]: (row["name"], row["label"], row["face"]) for row in _sorted(store.scan_nodes("Artist"))}
    assert rows == {"a1": ("One", "XL", [1.0, 2.0]), "a2": ("Two", None, None), "a3": ("Three", None, None)}
    assert _sorted(store.scan_edges(BAND_ARTIST)) == [{"source": "a1", "target": "a2", "since": 1999}]
    assert _sorted(store.scan_edges(genre.triple)) == [{"source": "a1", "target": "sad", "x": 0.5}]
    token = store.state_token()
    store.apply_schema()
    assert store.state_token() == token


def test_a_property_of_another_type_is_a_conflict(store: GraphStore, opened: Opener) -> None:
    _fill(store)
    token = store.state_token()
    store.close()
    for changed in ("string", "float"):
        with opened(_schema({**ARTIST, "albums": {"type": changed}, "fresh": {"type": "int"}})) as other:
            with pytest.raises(StoreConflict, match=r"Artist\.albums is .* in the store") as caught:
                other.apply_schema()
            assert caught.value.hint
            assert other.state_token() == token


def test_another_vector_length_is_a_conflict(store: GraphStore, opened: Opener) -> None:
    store.close()
    look = Property.model_validate({"type": "vector", "dimension": 4})
    other = opened(_schema({**ARTIST, "look": look.model_dump()}))
    with pytest.raises(StoreConflict, match=r"Artist\.look"):
        other.apply_schema()


def test_writing_before_the_schema_is_applied_is_a_conflict(opened: Opener) -> None:
    store = opened()
    with pytest.raises(StoreConflict, match=r"schema|declares"):
        store.upsert_nodes("Tag", _nodes("t1"))
    assert store.counts().nodes["Tag"] == 0
    assert list(store.scan_nodes("Tag")) == []
    assert list(store.scan_edges(HAS_TAG)) == []
    assert store.neighbourhood("Tag", "t1") == []
    assert store.find_nodes("Tag", "t1") == []


def test_what_is_not_declared_is_a_key_error(store: GraphStore) -> None:
    for call in (
        lambda: store.upsert_nodes("Nothing", _nodes("x")),
        lambda: list(store.scan_nodes("Nothing")),
        lambda: store.replace_edges(Triple("Tag", "HAS_TAG", "Tag"), _edges()),
        lambda: store.neighbourhood("Nothing", "x"),
    ):
        with pytest.raises(KeyError):
            call()


def test_a_closed_store_says_so(store: GraphStore) -> None:
    store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.query("RETURN 1")
