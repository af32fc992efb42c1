"""What a follower reads of a store: some nodes and edges by id, its log, and the graph compared; the same on both."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from graph_store.changes import Comparison, Noted
from graph_store.changes.lookup import Lookup
from graph_store.errors import StoreUnavailable
from graph_store.graph import Graph, open_graph
from graph_store.project import load_project
from graph_store.schema import Triple

WATCHED, HAS_GENRE = Triple("User", "WATCHED", "Film"), Triple("Film", "HAS_GENRE", "Genre")
TOML = """
[nodes.Film]
role = "entity"
[nodes.Film.properties]
title = { type = "string" }
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
[[relations]]
triple = ["User", "WATCHED", "Film"]
role = "engagement"
time = "at"
weight = "stars"
properties = { at = { type = "timestamp" }, stars = { type = "float" } }
"""


@pytest.fixture(params=["embedded", pytest.param("neo4j", marks=pytest.mark.neo4j)])
def graph(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
    """Three films, two genres, and a user who saw one of them twice."""
    (tmp_path / "kithkin.toml").write_text(TOML)
    if request.param == "neo4j":
        monkeypatch.setenv("KITHKIN_STORE__URI", request.getfixturevalue("clean_neo4j").uri)
    with open_graph(load_project(tmp_path)) as opened:
        opened.upsert(
            [
                {
                    "type": "Film",
                    "id": "a",
                    "properties": {
                        "title": "A",
                        "year": 1990,
                        "day": date(1990, 2, 3),
                        "tags": ["x", "y"],
                        "look": [1.0, 0.5],
                    },
                },
                {"type": "Film", "id": "b", "properties": {"type": "short"}},
                {"type": "Film", "id": "c"},
                {"type": "Genre", "id": "g"},
                {"type": "Genre", "id": "h"},
                {"type": "User", "id": "u"},
                *({"relation": "HAS_GENRE", "source": each, "target": "g"} for each in "abc"),
                {"relation": "HAS_GENRE", "source": "a", "target": "h"},
                {"relation": "WATCHED", "source": "u", "target": "a", "properties": {"stars": 2.5, "at": _at(1)}},
                {"relation": "WATCHED", "source": "u", "target": "a", "properties": {"stars": 1.0, "at": _at(2)}},
            ]
        )
        yield opened


def _at(hour: int) -> datetime:
    return datetime(1969, 12, 31, hour, 0, 0, 250_000, tzinfo=UTC)


def test_asked_for_or_scanned_the_rows_are_the_same(graph: Graph) -> None:
    found = []
    for scan_s in (1000.0, 0.0):
        lookup = Lookup(graph.project.schema)
        lookup.scan_s |= dict.fromkeys(["Film", WATCHED, HAS_GENRE], scan_s)
        films = lookup.nodes(graph.store, "Film", pa.array(["c", "a", "nobody"])).sort_by("id")
        seen = lookup.edges(
            graph.store, WATCHED, ["stars", "at"], sources=pa.array(["u"]), targets=pa.array(["a", "b"])
        )
        genres = lookup.edges(graph.store, HAS_GENRE, [], sources=pa.array(["a"]), targets=pa.array(["g", "nothing"]))
        tables = [films, *(each.sort_by([("at", "ascending")]) for each in seen)]
        tables += [each.sort_by([("source", "ascending"), ("target", "ascending")]) for each in genres]
        found.append([(each.schema, each.to_pylist()) for each in tables])
    asked, scanned = found
    assert asked == scanned
    films, from_user, to_films, from_film, to_genres = (rows for _, rows in asked)
    assert [row["id"] for row in films] == ["a", "c"]
    assert films[0]["look"] == [1.0, 0.5]
    assert [row["at"] for row in from_user] == [_at(1), _at(2)] == [row["at"] for row in to_films]
    assert [row["target"] for row in from_film] == ["g", "h"]
    assert [row["source"] for row in to_genres] == ["a", "b", "c"]


def test_where_a_scan_is_disturbed_it_is_asked(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    lookup = Lookup(graph.project.schema)
    lookup.scan_s |= dict.fromkeys(["Film", HAS_GENRE], 0.0)

    def disturbed(*_: object) -> Iterator[pa.RecordBatch]:
        raise StoreUnavailable("it was written to while it was read", hint="")
        yield

    with monkeypatch.context() as patch:
        patch.setattr(graph.store, "scan_nodes", disturbed)
        patch.setattr(graph.store, "scan_edges", disturbed)
        films = lookup.nodes(graph.store, "Film", pa.array(["a", "nobody"]))
        _, genres = lookup.edges(graph.store, HAS_GENRE, [], sources=pa.array([], pa.string()), targets=pa.array(["g"]))
    assert films.column("title").to_pylist() == ["A"]
    assert sorted(genres.column("source").to_pylist()) == ["a", "b", "c"]
    assert min(lookup.scan_s["Film"], lookup.scan_s[HAS_GENRE]) > 1, "not tried again soon"


def test_what_was_noted_is_not_found_again_unless_it_changed_again(graph: Graph) -> None:
    schema, store = graph.project.schema, graph.store
    comparison, lookup, noted = Comparison(store, schema), Lookup(schema), Noted()
    watermark = comparison.watermark()

    def note(films: list[str], genres: list[tuple[str, str]]) -> None:
        ids = pa.array(films, pa.string())
        noted.note(
            schema.node_type("Film").arrow_schema, "Film", pa.table({"id": ids}), lookup.nodes(store, "Film", ids)
        )
        sources = pa.array([source for source, _ in genres], pa.string())
        rows, _ = lookup.edges(store, HAS_GENRE, [], sources=sources, targets=pa.array([], pa.string()))
        pairs = pa.table({"source": sources, "target": pa.array([target for _, target in genres], pa.string())})
        noted.note(schema.relation(HAS_GENRE).arrow_schema, HAS_GENRE, pairs, rows)

    graph.upsert({"type": "Film", "id": "a", "properties": {"year": 1991}})
    graph.upsert({"type": "Film", "id": "d", "properties": {"year": 2000}})
    graph.upsert({"relation": "HAS_GENRE", "source": "d", "target": "g"})
    graph.delete([{"type": "Film", "id": "b"}, {"relation": "HAS_GENRE", "source": "a", "target": "h"}])
    note(["a", "b", "d"], [("d", "g"), ("a", "h"), ("b", "g")])
    assert comparison.changes_since(watermark, noted).empty
    told = comparison.changes_since(watermark)
    assert (told.upserted_nodes, told.deleted_nodes) == ({"Film": ["a", "d"]}, {"Film": ["b"]})
    store.query("MATCH (f:Film {id: 'a'}) SET f.year = 1992", write=True)
    store.query("MATCH (f:Film {id: 'd'})-[r:HAS_GENRE]->(:Genre) DELETE r", write=True)
    store.query("MATCH (f:Film {id: 'c'}) SET f.year = 1993", write=True)
    told = comparison.changes_since(watermark, noted)
    assert (told.upserted_nodes, told.deleted_nodes) == ({"Film": ["a", "c"]}, {})
    assert (told.upserted_edges, told.deleted_edges) == ({}, {HAS_GENRE: [("d", "g")]})
    note(["a"], [("d", "g")])
    assert comparison.changes_since(watermark, noted).upserted_nodes == {"Film": ["c"]}, "of each row the last word"


def test_the_log_tells_what_it_can_where_a_line_is_not_there_yet(tmp_path: Path) -> None:
    from graph_store.embedded.change_log import ChangeLog
    from graph_store.written import Logged

    log = ChangeLog(tmp_path / "graph.lbug")
    first, second = (Logged(what="Film", op="upsert", keys=((each,),)) for each in "ab")
    log.append("s0", "s1", [first])
    log.append("s1", "s2", [second])

    def told(watermark: str, now: str) -> tuple[list[str], str, bool] | None:
        found = log.since(watermark, now)
        if found is None:
            return None
        return [key[0] for each in found.changes for key in each.keys or ()], found.watermark, found.complete

    assert told("s0", "s2") == (["a", "b"], "s2", True)
    assert told("s0", "s3") == (["a", "b"], "s2", False), "committed, and not noted yet"
    assert told("s2", "s3") == ([], "s2", False)
    assert told("s2", "s2") == ([], "s2", True)
    assert told("before", "s2") is None
    log.append("of another program", "s5", [first])
    assert told("s0", "s5") is None
    assert told("s2", "s5") is None
    assert told("of another program", "s5") == (["a"], "s5", True)
