"""``kithkin ingest --changes`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from graph_store.errors import TooManyRejects
from tests.toy import write_toy

FILM = {"op": "upsert", "type": "Film", "id": "n1", "properties": {"title": "Nova", "year": 1995}}
EVENTS = [
    {
        "op": "upsert",
        "relation": "WATCHED",
        "source": user,
        "target": "n1",
        "properties": {"stars": 5, "at": "2026-01-02T03:04:05Z"},
    }
    for user in ("ann", "bob")
]
NOTHING = {"created": 0, "changed": 0, "unchanged": 0, "deleted": 0}


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    folder = write_toy(tmp_path / "toy")
    assert CliRunner().invoke(app, ["ingest", "-p", str(folder)]).exit_code == 0
    return folder


def lines(folder: Path, *rows: object) -> str:
    file = folder / "changes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_changes_are_written_and_what_follows_from_them_is_derived(toy: Path) -> None:
    runner = CliRunner()
    first = ["ingest", "-p", str(toy), "--changes", lines(toy, FILM), "--json"]
    told = json.loads(runner.invoke(app, first).stdout)
    assert (told["rows"], told["rejected"], told["rejects"]) == (1, 0, [])
    assert told["written"] == {"Film": NOTHING | {"created": 1}}
    assert told["derived"] == {}, "no engagement was touched"
    more = ["ingest", "-p", str(toy), "--changes", lines(toy, *EVENTS), "--json"]
    told = json.loads(runner.invoke(app, more).stdout)
    assert told["written"] == {"(User)-[WATCHED]->(Film)": NOTHING | {"created": 2}}
    # Ann and Bob watched s1 to s4: each of these and n1, both ways.
    assert told["derived"]["(Film)-[CO_WATCHED]->(Film)"]["created"] == 8
    again = runner.invoke(app, more[:-1])
    assert again.exit_code == 0
    assert "2 changes: 0 created, 0 changed, 0 deleted, 2 as they were, 0 rejected" in again.stderr


def test_a_deleted_film_takes_what_was_derived_with_it(toy: Path) -> None:
    delete = ["ingest", "-p", str(toy), "--changes", lines(toy, {"op": "delete", "type": "Film", "id": "s1"}), "--json"]
    told = json.loads(CliRunner().invoke(app, delete).stdout)
    assert told["written"] == {"Film": NOTHING | {"deleted": 1}}
    assert told["derived"]["(Film)-[CO_WATCHED]->(Film)"]["created"] == 0
    asked = CliRunner().invoke(app, ["cypher", "MATCH (f:Film) RETURN count(f) AS n", "-p", str(toy), "--json"])
    assert json.loads(asked.stdout) == [{"n": 9}]


def test_too_many_bad_rows_end_it_with_the_first_of_them(toy: Path) -> None:
    bad = [{**FILM, "properties": {"year": "soon"}}] * 11
    ended = CliRunner().invoke(app, ["ingest", "-p", str(toy), "--changes", lines(toy, *bad)])
    assert isinstance(ended.exception, TooManyRejects)
    assert "11 of 11 changes are bad, 10 are allowed; nothing was written" in str(ended.exception)
    assert ended.exception.exit_code == 4
    assert (toy / ".kithkin" / "rejects" / "changes.changes.csv").is_file()
