"""Single nodes and edges, change files, the stores' logs and the comparison: the same on both stores.

s1 --HAS_GENRE--> Space      ann --WATCHED (twice)--> s1
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graph_store.changes import Comparison, change
from graph_store.errors import InputError, TooManyRejects
from graph_store.graph import Graph, open_graph
from graph_store.project import Project, load_project
from graph_store.schema import Triple
from graph_store.store import GraphStore, Written
from graph_store.stores import open_store
from graph_store.written import MOST_KEYS, Logged

HAS_GENRE = Triple("Film", "HAS_GENRE", "Genre")
WATCHED = Triple("User", "WATCHED", "Film")
TOML = """
[nodes.Film]
role = "entity"
display = "title"
[nodes.Film.properties]
title = { type = "string", required = true }
year = { type = "int" }
day = { type = "date" }
tags = { type = "strings" }
look = { type = "vector", dimension = 2 }
type = { type = "string" }

[nodes.Genre]
role = "concept"

[nodes.User]
role = "user"

[[relations]]
triple = ["Film", "HAS_GENRE", "Genre"]
role = "semantic"
weight = "strength"
properties = { strength = { type = "float" } }

[[relations]]
triple = ["User", "WATCHED", "Film"]
role = "engagement"
time = "at"
properties = { at = { type = "timestamp" }, stars = { type = "float" } }

[[relations]]
triple = ["User", "LIKES", "Film"]
role = "semantic"

[[relations]]
triple = ["User", "LIKES", "Genre"]
role = "semantic"
"""
NOON, LATER = datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 2, 12, tzinfo=UTC)
FIRST: list[dict[str, Any]] = [
    {"type": "Film", "id": "s1", "properties": {"title": "Alien Dawn", "year": 1990, "tags": ["a", "b"]}},
    {"type": "Film", "id": "s2", "properties": {"title": "Star Harbour", "look": [0.5, 1]}},
    {"type": "Genre", "id": "Space"},
    {"type": "User", "id": "ann"},
    {"relation": "HAS_GENRE", "source": "s1", "target": "Space", "properties": {"strength": 0.5}},
    {"relation": "WATCHED", "source": "ann", "target": "s1", "properties": {"at": NOON, "stars": 4}},
    {"relation": "WATCHED", "source": "ann", "target": "s1", "properties": {"at": LATER, "stars": 5}},
]


@pytest.fixture(params=["embedded", pytest.param("neo4j", marks=pytest.mark.neo4j)])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Project:
    """A project whose store is empty."""
    (tmp_path / "kithkin.toml").write_text(TOML, encoding="utf-8")
    overrides: dict[str, Any] = {"store.timeout_s": 20, "store.memory_mib": 128}
    if request.param == "neo4j":
        overrides["store.uri"] = request.getfixturevalue("clean_neo4j").uri
    return load_project(tmp_path, overrides=overrides)


@pytest.fixture
def graph(project: Project) -> Iterator[Graph]:
    with open_graph(project) as graph:
        yield graph


def _films(store: GraphStore) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for batch in store.scan_nodes("Film") for row in batch.to_pylist()}


def _edges(store: GraphStore, triple: Triple) -> list[dict[str, Any]]:
    return sorted((row for batch in store.scan_edges(triple) for row in batch.to_pylist()), key=repr)


def test_single_nodes_and_edges(graph: Graph) -> None:
    assert graph.upsert(FIRST) == Written(created=7)
    token = graph.store.state_token()
    assert graph.upsert(FIRST) == Written(unchanged=7)
    assert graph.store.state_token() == token
    assert graph.upsert({"type": "Film", "id": "s1", "properties": {"year": None}}) == Written(changed=1)
    assert _films(graph.store)["s1"] == {
        "id": "s1", "title": "Alien Dawn", "year": None, "day": None, "tags": ["a", "b"], "look": None, "type": None,
    }  # fmt: skip
    event = {"relation": "WATCHED", "source": "ann", "target": "s1", "properties": {"at": NOON}}
    assert graph.delete(event) == Written(deleted=1)
    assert graph.delete(event) == Written()
    assert [row["at"] for row in _edges(graph.store, WATCHED)] == [LATER]
    assert graph.delete([{"type": "Film", "id": "s1"}, {"type": "Film", "id": "nobody"}]) == Written(deleted=1)
    assert _edges(graph.store, HAS_GENRE) == []
    assert list(_films(graph.store)) == ["s2"]


def test_changes_come_to_what_they_say_one_after_the_other(graph: Graph) -> None:
    graph.upsert(FIRST)
    film = {"type": "Film", "id": "s1"}
    edge = {"relation": "HAS_GENRE", "source": "s1", "target": "Space"}
    graph.apply(
        [
            {"op": "upsert", **edge, "properties": {"strength": 0.75}},
            {"op": "delete", **film},  # its edges go, also the one just changed
            {"op": "upsert", **film, "properties": {"title": "Again"}},
            {"op": "upsert", **film, "properties": {"year": 2001}},
            {"op": "upsert", "type": "Genre", "id": "Love"},
            {"op": "upsert", **edge, "target": "Love", "properties": {"strength": 1}},
            {"op": "upsert", "type": "Film", "id": "gone", "properties": {"title": "x"}},
            {"op": "delete", "type": "Film", "id": "gone"},
        ]
    )
    again = {"id": "s1", "title": "Again", "year": 2001, "day": None, "tags": None, "look": None, "type": None}
    assert _films(graph.store)["s1"] == again
    assert _edges(graph.store, HAS_GENRE) == [{"source": "s1", "target": "Love", "strength": 1.0}]
    assert _edges(graph.store, WATCHED) == []
    assert sorted(_films(graph.store)) == ["s1", "s2"]


def test_a_stream_longer_than_a_batch(graph: Graph) -> None:
    films = ({"type": "Film", "id": f"n{number}", "properties": {"title": str(number)}} for number in range(10_500))
    assert graph.upsert(films) == Written(created=10_500)
    assert graph.delete({"type": "Film", "id": f"n{number}"} for number in range(0, 10_500, 2)) == Written(deleted=5250)
    assert graph.store.counts().nodes["Film"] == 5250


BAD: tuple[tuple[dict[str, Any], str, object, str], ...] = (
    ({"op": "merge", "type": "Genre", "id": "x"}, "op", "merge", "not upsert or delete"),
    ({"op": "upsert", "type": "Movie", "id": "x"}, "type", "Movie", "not a declared node type; there are Film, Genre"),
    ({"op": "upsert", "id": "x"}, "type", None, "name either"),
    ({"op": "upsert", "type": "Genre", "id": " "}, "id", None, "empty id"),
    ({"op": "upsert", "type": "Genre", "id": "x", "source": "y"}, "source", "y", "a change of a node has none"),
    ({"op": "upsert", "type": "Genre", "id": "x", "label": "y"}, "label", None, "not a key of a change"),
    ({"op": "upsert", "type": "Film", "id": "x", "properties": {"titel": "y"}}, "titel", "y", "did you mean 'title'?"),
    ({"op": "upsert", "type": "Film", "id": "x"}, "title", None, "missing value of a new Film"),
    ({"op": "upsert", "type": "Film", "id": "s1", "properties": {"title": None}}, "title", None, "missing value"),
    ({"op": "upsert", "type": "Film", "id": "s1", "properties": {"year": "x"}}, "year", "x", "not a whole number"),
    ({"op": "upsert", "type": "Film", "id": "s1", "properties": {"day": "soon"}}, "day", "soon", "not a date"),
    ({"op": "upsert", "type": "Film", "id": "s1", "properties": {"look": [1]}}, "look", "[1]", "not a vector of 2"),
    ({"op": "upsert", "relation": "LIKES", "source": "ann", "target": "s1"}, "relation", "LIKES", "User__LIKES__Film"),
    (
        {"op": "upsert", "relation": "HAS_GENRE", "source": "s1", "target": "Love", "properties": {"strength": 1}},
        "target",
        "Love",
        "no Genre has this id",
    ),
    ({"op": "upsert", "relation": "HAS_GENRE", "source": "s1", "target": "Space"}, "strength", None, "missing value"),
    ({"op": "delete", "relation": "WATCHED", "source": "ann", "target": "s1"}, "at", None, "missing value"),
)


def test_bad_records_are_named_and_nothing_is_written(graph: Graph) -> None:
    graph.upsert(FIRST)
    token = graph.store.state_token()
    for record, column, value, words in BAD:
        with pytest.raises(InputError) as caught:
            graph.apply([{"op": "upsert", "type": "Genre", "id": "good"}, record])
        assert "record 2: " in caught.value.message, record
        assert words in caught.value.message, record
        assert (caught.value.column, caught.value.value) == (column, value), record
    assert graph.store.state_token() == token


def _json_lines(folder: Path, records: list[dict[str, Any]]) -> Path:
    file = folder / "changes.jsonl.gz"
    lines = [json.dumps({"op": "upsert", **record}, default=str) for record in records]
    file.write_bytes(gzip.compress("\n".join([*lines[:2], "", *lines[2:]]).encode()))
    return file


def test_change_files_of_every_format(project: Project, graph: Graph, tmp_path: Path) -> None:
    lines = _json_lines(tmp_path, FIRST)
    table = tmp_path / "more.csv"
    table.write_text(
        "op,type,relation,id,source,target,title,year,strength,properties.type\n"
        "upsert,Film,,s3,,,Moon Base,1993,,short\n"
        "upsert,,Film__HAS_GENRE__Genre,,s3,Space,,,0.25,\n"
        "delete,Film,,s2,,,,,,\n"
    )
    parquet = tmp_path / "last.parquet"
    columns = {"op": ["upsert"], "type": ["Film"], "id": ["s1"], "year": [1991], "tags": [["x"]]}
    pq.write_table(pa.table(columns), parquet)
    report = change(project, graph.store, [lines, table, parquet])
    assert (report.rows, report.rejected) == (11, 0)
    assert report.written == {
        "Film": Written(created=2),
        "Genre": Written(created=1),
        "User": Written(created=1),
        str(HAS_GENRE): Written(created=2),
        str(WATCHED): Written(created=2),
    }
    films = _films(graph.store)
    assert sorted(films) == ["s1", "s3"]  # s2 came and went within one write
    assert (films["s1"]["year"], films["s1"]["tags"], films["s1"]["title"]) == (1991, ["x"], "Alien Dawn")
    assert (films["s3"]["year"], films["s3"]["type"]) == (1993, "short")
    token = graph.store.state_token()
    again = change(project, graph.store, [lines, table, parquet])
    assert again.total == Written(unchanged=8)
    assert graph.store.state_token() == token


def test_bad_rows_of_files_are_left_out_within_the_limit(project: Project, graph: Graph, tmp_path: Path) -> None:
    graph.upsert(FIRST)
    file = tmp_path / "changes.jsonl"
    good = {"op": "upsert", "type": "Genre", "id": "Love"}
    file.write_text("\n".join([json.dumps(good), "[1]", *(json.dumps(record) for record, *_ in BAD[:3])]))
    report = change(project, graph.store, [file])
    assert (report.rows, report.rejected, report.total) == (5, 4, Written(created=1))
    assert report.rejects[0].read_text().splitlines()[1:3] == [
        f"{file},2,,[1],not a JSON object,[1]",
        f'{file},3,op,merge,not upsert or delete,"{json.dumps(BAD[0][0]).replace(chr(34), chr(34) * 2)}"',
    ]
    token = graph.store.state_token()
    # Love is there by now: the edge to it is right.
    file.write_text("\n".join(json.dumps(record) for record, *_ in BAD))
    with pytest.raises(TooManyRejects, match="15 of 16 changes are bad, 10 are allowed") as caught:
        change(project, graph.store, [file])
    assert (caught.value.file, caught.value.line, caught.value.column) == (file, 1, "op")
    assert graph.store.state_token() == token


def test_a_file_that_cannot_be_read_says_so(project: Project, graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "changes.csv").write_text("type,id\nFilm,1\n")
    for name, words in (("none.jsonl", "no such file"), ("changes.csv", "no such column"), ("", "is a folder")):
        with pytest.raises(InputError, match=words):
            change(project, graph.store, [tmp_path / name])


def test_the_log_tells_what_was_written(graph: Graph) -> None:
    store = graph.store
    graph.upsert(FIRST)
    position = store.log_position()
    same = store.written_since(position)
    assert same is not None
    assert same.changes == ()
    graph.upsert({"type": "Film", "id": "s9", "properties": {"title": "x"}})
    graph.upsert({"relation": "HAS_GENRE", "source": "s9", "target": "Space", "properties": {"strength": 1}})
    graph.delete({"type": "Film", "id": "s1"})
    graph.delete({"relation": "HAS_GENRE", "source": "s9", "target": "Space"})
    told = store.written_since(position)
    assert told is not None
    assert told.changes == (
        Logged(what="Film", op="upsert", keys=(("s9",),)),
        Logged(what=HAS_GENRE.key, op="upsert", keys=(("s9", "Space"),)),
        Logged(what="Film", op="delete", keys=(("s1",),)),
        Logged(what=HAS_GENRE.key, op="delete", keys=(("s9", "Space"),)),
    )
    many = [{"type": "Genre", "id": f"g{number}"} for number in range(MOST_KEYS + 1)]
    graph.upsert(many)
    rest = store.written_since(told.watermark)
    assert rest is not None
    assert rest.changes == (Logged(what="Genre", op="upsert", keys=None),)


def test_the_log_never_hides_a_statement_of_cypher(graph: Graph) -> None:
    graph.upsert(FIRST)
    position = graph.store.log_position()
    graph.store.query("CREATE (:Genre {id: 'Love'})", write=True)
    told = graph.store.written_since(position)
    assert told is None or not told.complete
    graph.upsert({"type": "Genre", "id": "War"})
    told = graph.store.written_since(position)
    assert told is None or not told.complete


def test_the_comparison_finds_what_anybody_changed(graph: Graph) -> None:
    graph.upsert(FIRST)
    comparison = Comparison(graph.store, graph.project.schema)
    watermark = comparison.watermark()
    assert comparison.changes_since(watermark).empty
    for statement in (
        "CREATE (:Film {id: 'new', title: 'New', tags: ['a']})",
        "MATCH (f:Film {id: 's2'}) SET f.year = 2000",
        "MATCH (f:Film {id: 'new'}), (g:Genre {id: 'Space'}) CREATE (f)-[:HAS_GENRE {strength: 1.0}]->(g)",
        "MATCH (f:Film {id: 's1'})-[r:HAS_GENRE]->() DELETE r",
        "MATCH (:User)-[r:WATCHED]->(:Film {id: 's1'}) WHERE r.stars = 4 DELETE r",
    ):
        graph.store.query(statement, write=True)
    found = comparison.changes_since(watermark)
    assert found.upserted_nodes == {"Film": ["new", "s2"]}
    assert found.deleted_nodes == {}
    assert found.upserted_edges == {HAS_GENRE: [("new", "Space")], WATCHED: [("ann", "s1")]}
    assert found.deleted_edges == {HAS_GENRE: [("s1", "Space")]}
    graph.store.query("MATCH (f:Film {id: 's1'}) DETACH DELETE f", write=True)
    after = comparison.changes_since(found.watermark)
    assert (after.upserted_nodes, after.deleted_nodes) == ({}, {"Film": ["s1"]})
    assert (after.upserted_edges, after.deleted_edges) == ({}, {WATCHED: [("ann", "s1")]})
    assert comparison.changes_since(after.watermark).empty


def test_an_edge_made_twice_in_cypher_is_seen(graph: Graph) -> None:
    graph.upsert(FIRST)
    comparison = Comparison(graph.store, graph.project.schema)
    watermark = comparison.watermark()
    create = "MATCH (f:Film {id: 's1'}), (g:Genre {id: 'Space'}) CREATE (f)-[:HAS_GENRE {strength: 0.5}]->(g)"
    graph.store.query(create, write=True)
    graph.store.query(create, write=True)
    assert comparison.changes_since(watermark).upserted_edges == {HAS_GENRE: [("s1", "Space")]}


def test_a_reader_finds_what_another_opening_writes(project: Project, graph: Graph) -> None:
    graph.upsert(FIRST)
    opened: Callable[[], GraphStore] = lambda: open_store(project, read_only=True)  # noqa: E731
    with opened() as reader:
        comparison = Comparison(reader, project.schema)
        watermark, position = comparison.watermark(), reader.log_position()
        graph.upsert({"type": "Genre", "id": "War"})
        assert comparison.changes_since(watermark).upserted_nodes == {"Genre": ["War"]}
        told = reader.written_since(position)
        assert told is not None
        assert told.changes == (Logged(what="Genre", op="upsert", keys=(("War",),)),)
