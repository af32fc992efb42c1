"""What differs between two snapshots: against plain dictionaries, however small the blocks are."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from graph_store.schema import GraphSchema, Triple
from graph_store.store import Counts
from training.export import Comparison, Snapshot, compare, export_snapshot

SAW = Triple("User", "SAW", "Film")
LIKE = Triple("Film", "LIKE", "Film")
Rows = list[dict[str, Any]]


class RowStore:
    """The part of a GraphStore that an export reads."""

    def __init__(self, schema: GraphSchema, nodes: dict[str, Rows], edges: dict[Triple, Rows]) -> None:
        self.schema, self.nodes, self.edges = schema, nodes, edges

    def scan_nodes(self, node_type: str) -> Iterator[pa.RecordBatch]:
        schema = self.schema.node_type(node_type).arrow_schema
        yield from pa.Table.from_pylist(self.nodes.get(node_type, []), schema).to_batches()

    def scan_edges(self, triple: Triple) -> Iterator[pa.RecordBatch]:
        schema = self.schema.relation(triple).arrow_schema
        yield from pa.Table.from_pylist(self.edges.get(triple, []), schema).to_batches()

    def counts(self) -> Counts:
        return Counts()

    def state_token(self) -> str:
        return ""


FILM: dict[str, Any] = {
    "name": "Film",
    "role": "entity",
    "properties": {
        "title": {"type": "string"},
        "year": {"type": "int"},
        "score": {"type": "float"},
        "tags": {"type": "strings"},
        "look": {"type": "vector", "dimension": 2},
    },
}
USER = {"name": "User", "role": "user"}
SAW_DECLARED: dict[str, Any] = {
    "triple": list(SAW),
    "role": "engagement",
    "weight": "stars",
    "time": "at",
    "kind": "how",
    "properties": {
        "stars": {"type": "float"},
        "at": {"type": "timestamp"},
        "how": {"type": "string"},
        "where": {"type": "string"},
    },
}
LIKE_DECLARED: dict[str, Any] = {"triple": list(LIKE), "role": "semantic"}


def schema_of(nodes: list[Any], relations: list[Any]) -> GraphSchema:
    return GraphSchema.model_validate({"node_types": nodes, "relations": relations})


SCHEMA = schema_of([FILM, USER], [SAW_DECLARED, LIKE_DECLARED])


def snapshot_of(
    folder: Path, nodes: dict[str, Rows], edges: dict[Triple, Rows], schema: GraphSchema = SCHEMA
) -> Snapshot:
    store: Any = RowStore(schema, nodes, edges)
    return export_snapshot(store, schema, folder)


def at(day: int) -> datetime:
    return datetime(2020, 1, day, tzinfo=UTC)


def film(name: str, **changed: Any) -> dict[str, Any]:
    plain = {"title": name, "year": 1990, "score": 0.5, "tags": ["a", "b"], "look": [1.0, float("nan")]}
    return {"id": name, **plain, **changed}


def saw(user: str, name: str, day: int | None = 1, how: str = "view", **changed: Any) -> dict[str, Any]:
    when = None if day is None else at(day)
    return {"source": user, "target": name, "at": when, "how": how, "stars": 3.0, "where": "tv", **changed}


def test_each_kind_of_change_is_counted_and_named(tmp_path: Path) -> None:
    users = [{"id": "ann"}, {"id": "bob"}]
    before = snapshot_of(
        tmp_path,
        {"Film": [film("a"), film("b"), film("c"), film("é")], "User": users},
        {
            SAW: [saw("ann", "a"), saw("ann", "a", 2), saw("bob", "c"), saw("bob", "é", None), saw("ann", "b")],
            LIKE: [{"source": "a", "target": "b"}, {"source": "c", "target": "b"}],
        },
    )
    after = snapshot_of(
        tmp_path,
        {
            "Film": [film("0"), film("a", tags=["a", "c"], year=None), film("b"), film("é", look=[1.5, float("nan")])],
            "User": users,
        },
        {
            SAW: [
                saw("ann", "a", stars=4.0),
                saw("ann", "a", 2, where="pc"),
                saw("ann", "a", 2, "click"),
                saw("bob", "é", None),
                saw("ann", "b"),
            ],
            LIKE: [{"source": "a", "target": "b"}, {"source": "0", "target": "b"}],
        },
    )
    found = compare(before, after)
    films, people = found.nodes
    assert (films.added, films.removed, films.changed) == (1, 1, 2)
    assert (films.first_added, films.first_removed) == ([{"id": "0"}], [{"id": "c"}])
    assert [(each["id"], list(each["properties"])) for each in films.first_changed] == [
        ("a", ["year", "tags"]),
        ("é", ["look"]),
    ]
    assert films.first_changed[0]["properties"]["year"] == [1990, None]
    assert not people.differs
    seen, liked = found.edges
    assert (seen.name, seen.added, seen.removed, seen.changed, seen.reweighted) == ("(User)-[SAW]->(Film)", 1, 1, 2, 1)
    assert seen.first_added == [{"source": "ann", "target": "a", "at": at(2), "how": "click"}]
    assert seen.first_removed == [{"source": "bob", "target": "c", "at": at(1), "how": "view"}]
    assert seen.first_changed[0] == {
        "source": "ann",
        "target": "a",
        "at": at(1),
        "how": "view",
        "properties": {"stars": [3.0, 4.0]},
    }
    assert seen.first_changed[1]["properties"] == {"where": ["tv", "pc"]}
    assert liked.first_added == [{"source": "0", "target": "b"}]
    assert liked.first_removed == [{"source": "c", "target": "b"}]
    assert not found.same
    assert compare(before, before).same


def test_types_relations_and_properties_that_come_and_go(tmp_path: Path) -> None:
    old = snapshot_of(tmp_path, {"Film": [film("a")], "User": [{"id": "ann"}]}, {SAW: [saw("ann", "a")]})
    changed = {**FILM, "properties": {"year": {"type": "float"}, "title": {"type": "string"}, "rank": {"type": "int"}}}
    schema = schema_of([changed, {"name": "Genre", "role": "concept"}], [LIKE_DECLARED])
    rows = {"Film": [{"id": "a", "year": 1.0, "title": "A"}], "Genre": [{"id": "x"}, {"id": "y"}]}
    new = snapshot_of(tmp_path, rows, {LIKE: [{"source": "a", "target": "a"}]}, schema)
    found = compare(old, new)
    assert (found.node_types_added, found.node_types_removed) == ({"Genre": 2}, {"User": 1})
    assert (found.relations_added, found.relations_removed) == ({}, {"(User)-[SAW]->(Film)": 1})
    (films,) = found.nodes
    assert (films.properties_added, films.properties_retyped) == (("rank",), ("year",))
    assert films.properties_removed == ("score", "tags", "look")
    assert films.first_changed == [{"id": "a", "properties": {"title": ["a", "A"]}}]
    assert found.edges[0].added == 1


def counted(rows: Rows, keys: tuple[str, ...]) -> dict[tuple[Any, ...], Rows]:
    found: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def expected(before: Rows, after: Rows, keys: tuple[str, ...]) -> tuple[int, int, int]:
    """Added, removed and changed; where keys repeat, their rows are of one content in these tests."""
    old, new = counted(before, keys), counted(after, keys)
    added = removed = changed = 0
    for key in old.keys() | new.keys():
        mine, theirs = old.get(key, []), new.get(key, [])
        both = min(len(mine), len(theirs))
        added, removed = added + len(theirs) - both, removed + len(mine) - both
        changed += both if both and mine[0] != theirs[0] else 0
    return added, removed, changed


def random_graph(draw: random.Random) -> tuple[dict[str, Rows], dict[Triple, Rows]]:
    films = [film(chr(97 + each), look=None, year=draw.choice([1, 2])) for each in range(26) if draw.random() < 0.7]
    users = [{"id": f"u{each}"} for each in range(20) if draw.random() < 0.8]
    events: Rows = []
    for _ in range(draw.randrange(1, 120)):
        one = saw(draw.choice(users)["id"], draw.choice(films)["id"], draw.choice([None, 1, 2]), draw.choice("xy"))
        key = tuple(one[name] for name in ("source", "target", "at", "how"))
        same = [each for each in events if tuple(each[name] for name in ("source", "target", "at", "how")) == key]
        events.append(same[0] if same else one | {"stars": draw.choice([1.0, 2.0, None])})
    likes = [{"source": draw.choice(films)["id"], "target": draw.choice(films)["id"]} for _ in range(30)]
    return {"Film": films, "User": users}, {SAW: events, LIKE: likes}


@pytest.mark.parametrize("block", [2, 7, 1 << 18])
@pytest.mark.parametrize("seed", range(6))
def test_random_graphs_against_dictionaries(tmp_path: Path, seed: int, block: int) -> None:
    draw = random.Random(seed)
    (old_nodes, old_edges), (new_nodes, new_edges) = random_graph(draw), random_graph(draw)
    before, after = snapshot_of(tmp_path, old_nodes, old_edges), snapshot_of(tmp_path, new_nodes, new_edges)
    found = compare(before, after, shown=1000, block=block)
    for changes, name in zip(found.nodes, ("Film", "User"), strict=True):
        wanted = expected(old_nodes[name], new_nodes[name], ("id",))
        assert (changes.added, changes.removed, changes.changed) == wanted
        ids = {row["id"] for row in new_nodes[name]} - {row["id"] for row in old_nodes[name]}
        assert [each["id"] for each in changes.first_added] == sorted(ids)
    for changes, triple, keys in zip(found.edges, (SAW, LIKE), (("at", "how"), ()), strict=True):
        names = ("source", "target", *keys)
        wanted = expected(old_edges[triple], new_edges[triple], names)
        assert (changes.added, changes.removed, changes.changed) == wanted
        gone = Counter(tuple(row[each] for each in names) for row in old_edges[triple])
        gone -= Counter(tuple(row[each] for each in names) for row in new_edges[triple])
        assert Counter(tuple(each.values()) for each in changes.first_removed) == gone
    assert found.edges[0].reweighted == found.edges[0].changed
    turned = compare(after, before, shown=0, block=block)
    assert [(each.added, each.removed) for each in turned.edges] == [(each.removed, each.added) for each in found.edges]


def test_only_the_first_few_are_named(tmp_path: Path) -> None:
    before = snapshot_of(tmp_path, {"Film": [film("a")], "User": []}, {})
    after = snapshot_of(tmp_path, {"Film": [film(f"f{each:02}") for each in range(20)], "User": []}, {})
    found: Comparison = compare(before, after, shown=3, block=4)
    assert found.nodes[0].added == 20
    assert [each["id"] for each in found.nodes[0].first_added] == ["f00", "f01", "f02"]
