"""``kithkin snapshot``: which snapshots there are, and what differs between two."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app
from graph_store.errors import ConfigError
from graph_store.project import load_project
from tests.memory_snapshot import MemorySnapshot
from tests.stored_snapshot import stored

DECLARATION = """
name = "t"
[nodes.Film]
role = "entity"
properties = { title = { type = "string" } }
[nodes.User]
role = "user"
[[relations]]
triple = ["User", "RATED", "Film"]
role = "engagement"
weight = "stars"
properties = { stars = { type = "float" } }
"""


@pytest.fixture
def hashes(tmp_path: Path) -> list[str]:
    (tmp_path / "kithkin.toml").write_text(DECLARATION, encoding="utf-8")
    schema = load_project(tmp_path, environment={}).schema
    rated = schema.relations[0].triple
    made = []
    for number, (films, edges) in enumerate(
        (
            ([{"id": "a", "title": "Alien"}, {"id": "b", "title": "Brazil"}], [("ann", "a", 3.0)]),
            ([{"id": "a", "title": "Aliens"}, {"id": "c", "title": None}], [("ann", "a", 4.0), ("ann", "c", 1.0)]),
        )
    ):
        nodes: dict[str, Any] = {"Film": films, "User": [{"id": "ann"}]}
        snapshot = stored(MemorySnapshot(schema, nodes, {rated: edges}), tmp_path / ".kithkin" / "snapshots")
        os.utime(snapshot.folder, (1_600_000_000 + number, 1_600_000_000 + number))
        made.append(snapshot.content_hash)
    steps = {"export": {"inputs": "", "outcome": {"content_hash": made[1]}}}
    (tmp_path / ".kithkin" / "steps.json").write_text(json.dumps(steps), encoding="utf-8")
    return made


def run(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["snapshot", *arguments, "-p", str(folder)])


def test_list_shows_the_newest_first_and_its_use(tmp_path: Path, hashes: list[str]) -> None:
    rows = json.loads(run(tmp_path, "list", "--json").stdout)
    assert [row["content_hash"] for row in rows] == hashes[::-1]
    assert [row["used_by"] for row in rows] == [["last export"], []]
    assert [row["nodes"] for row in rows] == [{"Film": 2, "User": 1}] * 2
    assert [row["edges"] for row in rows] == [{"(User)-[RATED]->(Film)": 2}, {"(User)-[RATED]->(Film)": 1}]
    assert rows[0]["written"] == "2020-09-13T12:26:41+00:00"
    (tmp_path / ".kithkin" / "snapshots" / hashes[0] / "nodes" / "Film.arrow").unlink()
    shown = run(tmp_path, "list").output
    assert hashes[1][:12] in shown
    assert "Film.arrow is missing" in shown


def test_diff_by_hash_and_by_folder(tmp_path: Path, hashes: list[str]) -> None:
    by_hash = run(tmp_path, "diff", hashes[0][:10], hashes[1], "--json")
    document = json.loads(by_hash.stdout)
    assert (document["before"], document["after"], document["same"]) == (*hashes, False)
    (films, _), (rated,) = document["nodes"], document["edges"]
    assert films["first_added"] == [{"id": "c"}]
    assert films["first_changed"] == [{"id": "a", "properties": {"title": ["Alien", "Aliens"]}}]
    assert (rated["added"], rated["changed"], rated["reweighted"]) == (1, 1, 1)
    folders = [str(tmp_path / ".kithkin" / "snapshots" / each) for each in hashes]
    assert json.loads(run(tmp_path, "diff", *folders, "--json").stdout) == document


def test_diff_as_a_table(tmp_path: Path, hashes: list[str]) -> None:
    shown = run(tmp_path, "diff", *hashes).stdout
    assert "title: Alien -> Aliens" in shown
    assert "ann -> c" in shown
    assert "stars: 3 -> 4" in shown
    assert "nothing differs" in run(tmp_path, "diff", hashes[0], hashes[0]).output


def test_a_snapshot_that_is_not_there_names_those_that_are(tmp_path: Path, hashes: list[str]) -> None:
    found = run(tmp_path, "diff", "zz", hashes[0])
    assert isinstance(found.exception, ConfigError)
    assert all(each[:16] in found.exception.hint for each in hashes)
    found = run(tmp_path, "diff", "", hashes[0])
    assert isinstance(found.exception, ConfigError)
    assert "2 snapshots" in str(found.exception)
