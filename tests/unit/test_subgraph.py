"""A part of a snapshot is what an export of a store with just these rows would be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from graph_store.errors import ConfigError, InputError
from graph_store.schema import GraphSchema, Triple
from graph_store.store import Counts
from tests.inspected import write_inspected
from training.errors import SnapshotError
from training.export import Snapshot, export_snapshot
from training.export.subgraph import Selection, write_subgraph

SAW, HAS_TAG, NEAR = Triple("User", "SAW", "Film"), Triple("Film", "HAS_TAG", "Tag"), Triple("Film", "NEAR", "Film")
SCHEMA = GraphSchema.model_validate(
    {
        "node_types": [
            {"name": "Film", "role": "entity", "properties": {"year": {"type": "int"}, "words": {"type": "strings"}}},
            {"name": "User", "role": "user"},
            {"name": "Tag", "role": "concept"},
        ],
        "relations": [
            {
                "triple": list(SAW),
                "role": "engagement",
                "weight": "stars",
                "time": "at",
                "properties": {"stars": {"type": "float"}, "at": {"type": "timestamp"}},
            },
            {"triple": list(HAS_TAG), "role": "semantic"},
            {"triple": list(NEAR), "role": "co_engagement", "derive": {"via": "SAW"}},
        ],
    }
)
# u1 --SAW--> a (day 1), b (day 2)    u2 --SAW--> b (day 3), c (no time)
# a, b: red; c: blue                  a --NEAR--> b                         d: alone
NODES = {
    "Film": [{"id": each, "year": number, "words": [each, "x"]} for number, each in enumerate("abcd")],
    "User": [{"id": "u1"}, {"id": "u2"}],
    "Tag": [{"id": "red"}, {"id": "blue"}],
}


def at(day: int) -> datetime:
    return datetime(2024, 1, day, tzinfo=UTC)


def pair(source: str, target: str, **more: Any) -> dict[str, Any]:
    return {"source": source, "target": target, **more}


EDGES = {
    SAW: [
        pair("u1", "a", at=at(1), stars=1.5),
        pair("u1", "b", at=at(2), stars=None),
        pair("u2", "b", at=at(3), stars=2.0),
        pair("u2", "c", at=None, stars=3.0),
    ],
    HAS_TAG: [pair("a", "red"), pair("b", "red"), pair("c", "blue")],
    NEAR: [pair("a", "b", weight=0.5, support=2)],
}


class RowStore:
    def __init__(self, schema: GraphSchema, nodes: dict[str, Any], edges: dict[Triple, Any]) -> None:
        self.schema, self.nodes, self.edges = schema, nodes, edges

    def scan_nodes(self, name: str) -> Iterator[pa.RecordBatch]:
        yield from pa.Table.from_pylist(self.nodes[name], self.schema.node_type(name).arrow_schema).to_batches()

    def scan_edges(self, triple: Triple) -> Iterator[pa.RecordBatch]:
        yield from pa.Table.from_pylist(self.edges[triple], self.schema.relation(triple).arrow_schema).to_batches()

    def counts(self) -> Counts:
        return Counts()

    def state_token(self) -> str:
        return ""


def exported(folder: Path, schema: GraphSchema, nodes: dict[str, Any], edges: dict[Triple, Any]) -> Snapshot:
    store: Any = RowStore(schema, nodes, edges)
    return export_snapshot(store, schema, folder)


@pytest.fixture
def whole(tmp_path: Path) -> Snapshot:
    return exported(tmp_path / "whole", SCHEMA, NODES, EDGES)


def narrowed(nodes: dict[str, str], edges: dict[Triple, list[int]]) -> tuple[dict[str, Any], dict[Triple, Any]]:
    """The nodes with these ids (words apart by blanks) and the edges at these places."""
    kept_nodes = {name: [row for row in NODES[name] if row["id"] in ids.split()] for name, ids in nodes.items()}
    return kept_nodes, {triple: [EDGES[triple][place] for place in places] for triple, places in edges.items()}


ALL = {"Film": "a b c d", "User": "u1 u2", "Tag": "red blue"}


@pytest.mark.parametrize(
    ("selection", "nodes", "edges"),
    [
        (Selection(), ALL, {SAW: [0, 1, 2, 3], HAS_TAG: [0, 1, 2], NEAR: [0]}),
        (Selection(since=at(2)), ALL, {SAW: [1, 2], HAS_TAG: [0, 1, 2], NEAR: [0]}),
        (Selection(until=at(3)), ALL, {SAW: [0, 1], HAS_TAG: [0, 1, 2], NEAR: [0]}),
        (
            Selection(since=datetime(2024, 1, 2, 1, tzinfo=timezone(timedelta(hours=1))), until=at(3)),
            ALL,
            {SAW: [1], HAS_TAG: [0, 1, 2], NEAR: [0]},
        ),
        (
            Selection(seeds={"Film": ["a", "b"]}),
            {"Film": "a b", "User": "", "Tag": ""},
            {SAW: [], HAS_TAG: [], NEAR: [0]},
        ),
        (
            Selection(seeds={"Film": ["a"]}, hops=1),
            {"Film": "a b", "User": "u1", "Tag": "red"},
            {SAW: [0, 1], HAS_TAG: [0, 1], NEAR: [0]},
        ),
        (
            Selection(seeds={"Tag": ["blue"]}, hops=2),
            {"Film": "c", "User": "u2", "Tag": "blue"},
            {SAW: [3], HAS_TAG: [2], NEAR: []},
        ),
        (
            Selection(seeds={"Film": ["a"]}, hops=99),
            {"Film": "a b c", "User": "u1 u2", "Tag": "red blue"},
            {SAW: [0, 1, 2, 3], HAS_TAG: [0, 1, 2], NEAR: [0]},
        ),
        (
            Selection(seeds={"User": ["u1"]}, hops=1, since=at(2)),
            {"Film": "b", "User": "u1", "Tag": ""},
            {SAW: [1], HAS_TAG: [], NEAR: []},
        ),
    ],
)
def test_a_part_is_what_an_export_of_its_rows_is(
    tmp_path: Path, whole: Snapshot, selection: Selection, nodes: dict[str, str], edges: dict[Triple, list[int]]
) -> None:
    made = write_subgraph(whole, selection, tmp_path / "part")
    assert made.content_hash == exported(tmp_path / "other", SCHEMA, *narrowed(nodes, edges)).content_hash
    assert made.folder.parent == tmp_path / "part"
    made.verify()


def test_types_and_relations_narrow_the_declaration(tmp_path: Path, whole: Snapshot) -> None:
    made = write_subgraph(whole, Selection(node_types=["Film", "Tag"], relations=["HAS_TAG", "SAW"]), tmp_path)
    assert [each.name for each in made.schema.node_types] == ["Film", "Tag"]
    assert [each.triple for each in made.schema.relations] == [HAS_TAG]
    assert made.num_edges(HAS_TAG) == 3
    by_key = write_subgraph(whole, Selection(relations=["Film__NEAR__Film"]), tmp_path)
    (near,) = by_key.schema.relations
    # Its engagements are not in the part: its edges are given.
    assert near.derive is None
    assert by_key.edges(NEAR).to_pylist() == [{"weight": 0.5, "support": 2}]
    assert write_subgraph(whole, Selection(relations=["NEAR", "SAW"]), tmp_path).schema.relation(NEAR).derive


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(node_types=["Film", "Fil"]), "no node type 'Fil' is declared"),
        (Selection(relations=["SA"]), "no relation 'SA' is declared"),
        (Selection(node_types=["User"]), "no entity type"),
        (Selection(seeds={"Film": ["a", "zz"]}), "1 seeds are no Film of the graph, such as 'zz'"),
        (Selection(node_types=["Film"], seeds={"User": ["u1"]}), "seeds of the type 'User'"),
    ],
)
def test_what_is_not_there_is_told(tmp_path: Path, whole: Snapshot, selection: Selection, message: str) -> None:
    with pytest.raises(SnapshotError, match=message):
        write_subgraph(whole, selection, tmp_path / "part")
    assert not list((tmp_path / "part").glob("*"))


# ------------------------------------------------------------------ the command


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "-p", str(folder)])


def test_the_command_writes_a_part_beside_the_whole(tmp_path: Path) -> None:
    write_inspected(tmp_path)
    statement = "MATCH (t:Tag {id: 'rare'}) RETURN t"
    made = json.loads(run(tmp_path, "export", "--where", statement, "--hops", "1", "--json").stdout)
    assert made["nodes"] == {"Film": 1, "User": 0, "Tag": 1}
    assert made["edges"]["(Film)-[HAS_TAG]->(Tag)"] == 1
    assert Path(made["folder"]).parent == tmp_path / ".kithkin" / "subgraphs"
    pairs = json.loads(
        run(
            tmp_path, "export", "--where", "MATCH (t:Tag {id: 'rare'}) RETURN 'Tag', t.id", "--hops", "1", "--json"
        ).stdout
    )
    assert pairs == made
    (tmp_path / "seeds.csv").write_text("id,type\nrare,Tag\n", encoding="utf-8")
    listed = json.loads(run(tmp_path, "export", "--seeds", str(tmp_path / "seeds.csv"), "--hops", "1", "--json").stdout)
    assert listed == made
    parts = {row["content_hash"]: row["part"] for row in json.loads(run(tmp_path, "snapshot", "list", "--json").stdout)}
    assert parts == {made["content_hash"]: True, made["of"]: False}
    difference = json.loads(run(tmp_path, "snapshot", "diff", made["of"], made["content_hash"], "--json").stdout)
    assert [(each["added"], each["removed"]) for each in difference["nodes"]] == [(0, 6), (0, 3), (0, 3)]
    # What training reads is still the whole.
    steps = json.loads((tmp_path / ".kithkin" / "steps.json").read_text(encoding="utf-8"))
    assert steps["export"]["outcome"]["content_hash"] == made["of"]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("--hops", "1"), ConfigError, "--hops: needs nodes to start from"),
        (("--since", "soon"), ConfigError, "--since: is no date or time (got 'soon')"),
        (("--where", "MATCH (t:Tag) RETURN t.id"), ConfigError, "--where: returns neither nodes nor types and ids"),
        (("--where", "MATCH (t:Tag) RETURN 'Tg', t.id"), ConfigError, "no such node type among the seeds (got 'Tg')"),
        (("--seeds", "nowhere.csv"), InputError, "nowhere.csv: cannot be read"),
        (("--types", "Fil"), SnapshotError, "no node type 'Fil' is declared"),
    ],
)
def test_options_that_cannot_be_are_told(
    tmp_path: Path, arguments: tuple[str, ...], kind: type[Exception], message: str
) -> None:
    write_inspected(tmp_path)
    found = run(tmp_path, "export", *arguments)
    assert isinstance(found.exception, kind)
    assert message in str(found.exception)
