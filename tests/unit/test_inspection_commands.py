"""The commands that look at the graph: what scripts read, what people see, and how a wrong name ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from cli import console
from cli.main import main
from graph_store.project import load_project
from graph_store.stores import open_store
from tests.inspected import HAS_TAG, TOML, add_edges, add_nodes, write_inspected


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspected")
    write_inspected(folder)
    return folder


def run(folder: Path, patch: pytest.MonkeyPatch, *arguments: str) -> int:
    patch.setattr(sys, "argv", ["kithkin", *arguments, "--project", str(folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code is None or isinstance(ended.value.code, int)
    return ended.value.code or 0


def answer(folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(folder, patch, *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_stats_as_json(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(folder, monkeypatch, capsys, "stats")
    assert found["nodes"][0] == {
        "name": "Film",
        "role": "entity",
        "count": 7,
        "isolated": 1,
        "cold": 5,
        "null_share": {"title": 1 / 7, "year": 2 / 7},
    }
    watched = found["relations"][0]
    assert (watched["triple"], watched["count"]) == (["User", "WATCHED", "Film"], 4)
    assert watched["source"] | {"hubs": None} == {
        "node_type": "User", "distinct": 2, "median": 1, "p99": 3, "max": 3, "hub_count": 0, "hubs": None
    }  # fmt: skip
    assert found["undeclared"] == {"node_types": [], "relations": [], "edges": {}, "properties": []}


def test_stats_as_tables(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console.out, "width", 160)
    assert run(folder, monkeypatch, "stats") == 0
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert ["Film", "entity", "7", "1 (14.3%)", "5 (71.4%)", "title 14.3%, year 28.6%"] in lines
    assert ["WATCHED", "4", "from User", "2", "1", "3", "3", "share 25.0%, time 25.0%"] in lines
    assert ["", "", "to Film", "2", "1", "3", "3", ""] in lines


def test_what_is_not_declared_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_inspected(tmp_path)
    (tmp_path / "kithkin.toml").write_text(
        TOML.replace(', year = { type = "int" }', "").split('[[relations]]\ntriple = ["Film", "SEQUEL_OF')[0]
    )
    assert run(tmp_path, monkeypatch, "stats") == 0
    printed = capsys.readouterr().out
    assert "! relations in the store that are not declared: SEQUEL_OF\n" in printed
    assert "! properties in the store that are not declared: Film.year\n" in printed


def test_a_hub_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = write_inspected(tmp_path)
    films = [f"x{number}" for number in range(1100)]
    with open_store(load_project(tmp_path)) as store:
        add_nodes(store, schema, "Film", films)
        add_edges(store, schema, HAS_TAG, [(film, "wide") for film in films])
    assert run(tmp_path, monkeypatch, "stats") == 0
    assert "! suspicious hubs (1) among Tag of (Film)-[HAS_TAG]->(Tag): wide (1,104)\n" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["f1", "Alien Dawn", "alien"])
def test_show_as_json(
    folder: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = answer(folder, monkeypatch, capsys, "show", text, "--limit", "2")
    assert (seen["type"], seen["id"], seen["name"]) == ("Film", "f1", "Alien Dawn")
    assert seen["properties"] == {"title": "Alien Dawn", "year": 1999}
    told = [
        (r["triple"][1], r["direction"], r["count"], [(n["id"], n["name"], n["weight"]) for n in r["neighbours"]])
        for r in seen["relations"]
    ]
    assert told == [
        ("WATCHED", "in", 3, [("u1", "u1", 1.0), ("u1", "u1", 0.5)]),
        ("HAS_TAG", "out", 2, [("half", "half", None), ("wide", "wide", None)]),
        ("SEQUEL_OF", "in", 2, [("f2", "Moon Base", None), ("f3", "Moon [Base] II", None)]),
    ]
    assert seen["relations"][0]["neighbours"][1]["properties"] == {"share": 0.5, "time": "2024-05-01T12:00:00+00:00"}


def test_show_as_a_tree(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, monkeypatch, "show", "f3") == 0
    assert capsys.readouterr().out.splitlines() == [
        "Moon [Base] II  Film f3",
        "├── title Moon [Base] II",
        "├── year missing",
        "├── HAS_TAG -> Tag  1",
        "│   └── wide",
        "└── SEQUEL_OF -> Film  1",
        "    └── Alien Dawn  f1",
    ]
    assert run(folder, monkeypatch, "show", "f1", "--limit", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3:6] == ["├── WATCHED <- User  3", "│   ├── u1  share 1", "│   └── ... and 2 more"]


def test_the_likeliest_of_several_is_taken_and_the_others_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(folder, monkeypatch, "show", "moon", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["id"] == "f2"
    assert "took Film f2 'Moon Base'; other matches: Film f3 'Moon [Base] II'" in printed.err


@pytest.mark.parametrize(
    ("arguments", "exit_code", "told"),
    [
        (("Alein Dwan",), 2, "no node has the id or name 'Alein Dwan'\n  Closest: Film f1 'Alien Dawn', "),
        (("wied", "--type", "Tag"), 2, "no Tag has the id or name 'wied'\n  Closest: Tag wide, "),
        (("f1", "--type", "Tag"), 2, "no Tag has the id or name 'f1'"),
        (("f1", "--type", "Movie"), 3, "declared are Film, User, Tag (got 'Movie')"),
    ],
)
def test_a_wrong_name_ends_with_the_closest(
    folder: Path,
    arguments: tuple[str, ...],
    exit_code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(folder, monkeypatch, "show", *arguments) == exit_code
    assert told in capsys.readouterr().err
