"""``ingest --replace``: afterwards the graph holds exactly the nodes and edges that the files bring, and not before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from graph_store.errors import InputError
from graph_store.ingest import check, ingest
from graph_store.project import Project, load_project
from graph_store.store import GraphStore
from graph_store.stores import open_store
from tests.conftest import Neo4jServer
from tests.toy import write_toy

ROOT = Path(__file__).resolve().parents[2]
HAS_GENRE, WATCHED, CO_WATCHED = (
    "(Film)-[HAS_GENRE]->(Genre)",
    "(User)-[WATCHED]->(Film)",
    "(Film)-[CO_WATCHED]->(Film)",
)
GONE = {"Film": 1, "Genre": 1, "User": 1, HAS_GENRE: 5, WATCHED: 13}

# An ingest that ends itself with SIGKILL before the deletes that are told.
KILLED = """
import os, signal, sys
from pathlib import Path
from cli.steps import Pipeline
from graph_store.embedded.store import EmbeddedStore
from graph_store.ingest import leftovers
from graph_store.neo4j.store import Neo4jStore
from graph_store.progress import NoProgress
from graph_store.project import load_project

leftovers._DELETED_AT_ONCE = 5
place, time = sys.argv[2], int(sys.argv[3])
passed = 0
kind = EmbeddedStore if sys.argv[4] == "embedded" else Neo4jStore
delete = getattr(kind, place)

def dying(*arguments):
    global passed
    passed += 1
    if passed == time:
        os.kill(os.getpid(), signal.SIGKILL)
    return delete(*arguments)

setattr(kind, place, dying)
Pipeline(load_project(Path(sys.argv[1])), NoProgress()).ingest(replace=True)
"""


@pytest.fixture(params=["embedded", pytest.param("neo4j", marks=pytest.mark.neo4j)])
def store_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path, store_name: str, request: pytest.FixtureRequest) -> Path:
    """The toy, which was ingested, and whose files have lost rows since."""
    folder = write_toy(tmp_path / "toy")
    if store_name == "neo4j":
        server: Neo4jServer = request.getfixturevalue("clean_neo4j")
        with (folder / "kithkin.toml").open("a") as file:
            file.write(f'\n[store]\nuri = "{server.uri}"\nlabel_prefix = "Kith_"\n')
    run(folder, "ingest")
    # A film, all that is said of love films' genre, a user, an event, and another's time.
    films = (folder / "films.csv").read_text().splitlines()
    kept = [line for line in films if not line.startswith("l5")]
    (folder / "films.csv").write_text("\n".join(line.replace(",Love", ",") for line in kept) + "\n")
    events = (folder / "watched.csv").read_text().splitlines()
    kept = [line for line in events if not line.startswith("fay") and not line.startswith("ann,s4")]
    kept = [line.replace("1700003600", "1700003601") for line in kept]
    kept = [line for line in kept if not line.startswith(("dan,l4", "eve,l4", "cem,s3", "bob,s4"))]
    (folder / "watched.csv").write_text("\n".join(kept) + "\n")
    return folder


def run(folder: Path, *arguments: str, code: int = 0) -> None:
    before = sys.argv
    sys.argv = ["kithkin", *arguments, "-p", str(folder)]
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    assert ended.value.code == code


def project_of(folder: Path) -> Project:
    return load_project(folder, environment={})


def graph(store: GraphStore, project: Project) -> dict[str, list[str]]:
    """Every node and edge with all of its properties."""
    held: dict[str, list[str]] = {}
    for declared in project.schema.node_types:
        rows = [row for batch in store.scan_nodes(declared.name) for row in batch.to_pylist()]
        held[declared.name] = sorted(map(repr, rows))
    for relation in project.schema.relations:
        rows = [row for batch in store.scan_edges(relation.triple) for row in batch.to_pylist()]
        held[str(relation.triple)] = sorted(map(repr, rows))
    return held


def stored(folder: Path) -> dict[str, list[str]]:
    project = project_of(folder)
    with open_store(project, read_only=True) as store:
        return graph(store, project)


def fresh(folder: Path, beside: Path) -> dict[str, list[str]]:
    """What a new embedded store has of the same files."""
    text = (folder / "kithkin.toml").read_text().partition("\n[store]")[0]
    beside.mkdir()
    (beside / "kithkin.toml").write_text(f"data = {str(folder)!r}\n{text}")
    run(beside, "ingest")
    return stored(beside)


def test_it_holds_exactly_what_the_files_hold(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, wanted = stored(folder), fresh(folder, tmp_path / "fresh")
    capsys.readouterr()
    run(folder, "ingest", "--replace", "--dry-run", "--json")
    told = json.loads(capsys.readouterr().out)
    assert (told["passed"], told["deleted"]) == (True, GONE)
    assert stored(folder) == before, "a dry run changes nothing"
    run(folder, "ingest")
    assert len(stored(folder)["Film"]) == len(before["Film"]), "and nothing goes by itself"

    capsys.readouterr()
    run(folder, "ingest", "--replace", "--json")
    outcome = json.loads(capsys.readouterr().out)["ingest"]
    assert outcome["deleted"] == GONE
    assert (outcome["nodes"]["Film"], outcome["edges"][HAS_GENRE]) == (9, 5)
    held = stored(folder)
    assert held == wanted
    assert len(held[CO_WATCHED]) < len(before[CO_WATCHED]), "what is derived follows"
    with open_store(project_of(folder)) as store:
        token = store.state_token()
        assert ingest(project_of(folder), store, replace=True).deleted == {}
        assert store.state_token() == token
    run(folder, "ingest", "--replace", "--dry-run")
    assert "nothing would be deleted: the files bring all that is there" in " ".join(capsys.readouterr().err.split())


def test_what_somebody_else_wrote_goes_too(folder: Path, store_name: str) -> None:
    prefix = "Kith_" if store_name == "neo4j" else ""
    with open_store(project_of(folder)) as store:
        store.query(f"CREATE (:{prefix}Film {{id: 'mine', title: 'Mine'}})", write=True)
        ends = f"(f:{prefix}Film {{id: 's5'}}), (g:{prefix}Genre {{id: 'Space'}})"
        store.query(f"MATCH {ends} CREATE (f)-[:{prefix}HAS_GENRE]->(g)", write=True)
        report = ingest(project_of(folder), store, replace=True)
        assert report.deleted == {**GONE, "Film": 2}
        # The edge that is there twice is brought by a file.
        assert store.counts().nodes["Film"] == 9


def test_bad_rows_delete_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stored(folder)
    with (folder / "films.csv").open("a") as file:
        file.write("s9,Bad,no year,Space\n")  # no node, and so no edge of it
    run(folder, "ingest", "--replace", code=4)
    said = " ".join(capsys.readouterr().err.split())
    assert "2 rows are bad, and what they brought before would be deleted" in said
    assert "or ingest without --replace" in said
    assert stored(folder) == before
    run(folder, "ingest")
    # An end that only the store has, which is about to go, is none.
    with (folder / "films.csv").open("w") as file:
        file.write("id,title,year,genres\ns1,Alien Dawn,1990,Space\n")
    with open_store(project_of(folder), read_only=True) as store:
        refused = check(project_of(folder), store, replace=True)
        assert isinstance(refused.failure, InputError)
        assert refused.deleted == {}
        assert check(project_of(folder), store).failure is None


def test_a_file_without_rows_deletes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = stored(folder)
    events = folder / "watched.csv"
    events.write_text(events.read_text().splitlines()[0] + "\n")
    run(folder, "ingest", "--replace", code=4)
    assert "there are no rows in" in " ".join(capsys.readouterr().err.split())
    assert stored(folder) == before


@pytest.mark.parametrize(("place", "time"), [("delete_edges", 1), ("delete_edges", 3), ("delete_nodes", 1)])
def test_killed_in_the_middle_the_same_command_ends_it(
    folder: Path, tmp_path: Path, store_name: str, place: str, time: int
) -> None:
    command = [sys.executable, "-c", KILLED, str(folder), place, str(time), store_name]
    killed = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    held = stored(folder)
    left = GONE[HAS_GENRE] + GONE[WATCHED] - 5 * (time - 1) if place == "delete_edges" else 0
    wanted = fresh(folder, tmp_path / "fresh")
    assert sum(len(held[name]) - len(wanted[name]) for name in (HAS_GENRE, WATCHED)) == left
    assert len(held["Film"]) == len(wanted["Film"]) + 1
    run(folder, "ingest", "--replace")
    assert stored(folder) == wanted


@pytest.mark.parametrize(
    "arguments", [["--dry-run"], ["--replace", "--changes", "changes.jsonl"]], ids=["a dry run alone", "with changes"]
)
def test_options_that_do_not_go_together(tmp_path: Path, arguments: list[str], capsys: Any) -> None:
    run(write_toy(tmp_path), "ingest", *arguments, code=3)
    assert "--dry-run: is for --replace" in capsys.readouterr().err or "--replace" in arguments
