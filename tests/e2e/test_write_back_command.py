"""Results in the graph by the command line: they are what the service answers, and stay out of the rest's way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import kithkin
from tests.toy import write_toy

EDGES = "MATCH (a:Film {id: $id})-[s:SIMILAR_TO]->(b:Film) RETURN b.id, s.score, s.reason, s.bundle ORDER BY s.rank"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy, published and written back, hardly trained: what is near what is not asked here."""
    folder = write_toy(tmp_path_factory.mktemp("write-back"))
    with (folder / "kithkin.toml").open("a") as file:
        file.write("\n[training]\nsimilar = { steps = 2 }\nuser = { steps = 2 }\n")
        file.write("\n[publish]\nwrite_back = true\nwrite_back_neighbours = 4\n")
    kithkin("build", folder=folder)
    return folder


def _written(folder: Path, film: str) -> list[list[object]]:
    found = kithkin("cypher", EDGES, "--param", f"id={film}", "--json", folder=folder).json
    return [list(row.values()) for row in found]


def test_the_edges_are_what_the_service_answers(folder: Path) -> None:
    for film in ("s1", "l5"):
        found = kithkin("similar", film, "-k", "4", "--reasons", "1", "--json", folder=folder).json
        rows = _written(folder, film)
        assert [row[0] for row in rows] == [each["id"] for each in found["results"]]
        assert [row[1] for row in rows] == pytest.approx([each["score"] for each in found["results"]], abs=1e-6)
        said = [each["reasons"][0]["text"] if each["reasons"] else None for each in found["results"]]
        assert [row[2] for row in rows] == said
        assert len({row[3] for row in rows}) == 1


def test_nothing_is_done_twice_and_nothing_else_anew(folder: Path) -> None:
    told = kithkin("build", "--json", folder=folder).json
    assert {name: step["skipped"] for name, step in told.items()} == dict.fromkeys(
        ("ingest", "export", "train", "publish", "write-back"), True
    )
    before = told["export"]["content_hash"]
    assert kithkin("export", "--force", "--json", folder=folder).json["export"]["content_hash"] == before
    told = kithkin("build", "--json", "--set", "publish.write_back_neighbours=2", folder=folder).json
    assert {name for name, step in told.items() if not step["skipped"]} == {"write-back"}
    assert told["write-back"]["edges"] == {"Film": 20}
    assert len(_written(folder, "s1")) == 2
    told = kithkin("publish", "--write-back", "--json", folder=folder).json
    assert (told["publish"]["skipped"], told["write-back"]["edges"]) == (True, {"Film": 40})


def test_stats_tell_it_apart(folder: Path) -> None:
    told = kithkin("stats", "--json", folder=folder).json
    assert told["undeclared"] == {"node_types": [], "relations": [], "edges": {}, "properties": []}
    (whole,) = told["written_back"]
    assert whole["complete"] is True
    assert whole["publishing"]["bundle"] == _written(folder, "s1")[0][3]
    assert {each["triple"][1] for each in told["relations"]} == {"HAS_GENRE", "WATCHED", "CO_WATCHED"}


def test_a_declared_name_is_refused(folder: Path) -> None:
    done = kithkin("write-back", "--set", "publish.write_back_relation=CO_WATCHED", folder=folder, code=3)
    assert "publish.write_back_relation" in done.err


def test_who_is_forgotten_is_counted_in_no_reason(folder: Path) -> None:
    before, whose = _written(folder, "s1"), _users(folder)
    told = kithkin("forget", "ann", "--dry-run", "--json", folder=folder).json
    assert {"where": "store", "what": f"what was written back of {before[0][3]} made anew", "left": False} in told
    assert _written(folder, "s1") == before
    told = kithkin("forget", "ann", "--json", folder=folder).json
    assert any("written back" in each["what"] for each in told)
    after = _written(folder, "s1")
    assert after[0][3] != before[0][3]
    assert json.dumps(before).count("3 users") > json.dumps(after).count("3 users")
    assert _users(folder) == whose - 1
    assert kithkin("stats", "--json", folder=folder).json["written_back"][0]["publishing"]["bundle"] == after[0][3]


def _users(folder: Path) -> int:
    (row,) = kithkin("cypher", "MATCH (u:User) RETURN count(u) AS users", "--json", folder=folder).json
    return int(row["users"])


def test_removed_it_is_gone(folder: Path) -> None:
    kithkin("write-back", "--remove", folder=folder)
    assert kithkin("stats", "--json", folder=folder).json["written_back"] == []
    told = kithkin("write-back", "--json", folder=folder).json
    assert told["write-back"]["edges"] == {"Film": 40}
