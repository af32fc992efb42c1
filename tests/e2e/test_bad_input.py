"""What a person sees who gives the command line something wrong: exit status, message, and nothing lost."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

import pytest

from cli.main import main
from tests.conftest import Neo4jServer
from tests.toy import write_toy


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_toy(tmp_path_factory.mktemp("ingested"))
    with pytest.MonkeyPatch.context() as patch:
        assert _run(patch, "ingest", "-p", str(folder)) == 0
    return folder


@pytest.fixture
def toy(ingested: Path, tmp_path: Path) -> Path:
    """The toy catalogue, already ingested, to spoil."""
    return Path(shutil.copytree(ingested, tmp_path / "toy"))


def _run(patch: pytest.MonkeyPatch, *arguments: str) -> int:
    patch.setattr(sys, "argv", ["kithkin", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code is None or isinstance(ended.value.code, int)
    return ended.value.code or 0


def _count(patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> str:
    capsys.readouterr()
    assert _run(patch, "cypher", "-p", str(folder), "--json", "MATCH (a)-[r]->(b) RETURN count(r) AS edges") == 0
    return capsys.readouterr().out


def _spoil(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


SPOILED = {
    "missing file": (4, "films.csv", lambda toy: (toy / "films.csv").unlink()),
    "missing column": (4, "genres", lambda toy: _spoil(toy / "films.csv", "year,genres", "year,kinds")),
    "empty file": (4, "films.csv", lambda toy: (toy / "films.csv").write_text("")),
    "not UTF-8": (
        4,
        "films.csv",
        lambda toy: (toy / "films.csv").write_bytes(b"id,title,year,genres\ns1,\xff\xfe,1,Space\n"),
    ),
    "too many bad rows": (
        4,
        "year",
        lambda toy: (toy / "films.csv").write_text(
            "id,title,year,genres\n" + "".join(f"x{n},Title {n},soon,Space\n" for n in range(30))
        ),
    ),
    "relation not declared": (
        3,
        "SEEN",
        lambda toy: _spoil(toy / "kithkin.toml", 'relation = ["User", "WATCHED"', 'relation = ["User", "SEEN"'),
    ),
    "unknown key": (3, "colour", lambda toy: _spoil(toy / "kithkin.toml", 'name = "toy"', 'name = "toy"\ncolour = 1')),
    "not TOML": (3, "kithkin.toml", lambda toy: _spoil(toy / "kithkin.toml", 'name = "toy"', "name = toy")),
}


@pytest.mark.parametrize("case", SPOILED)
def test_bad_files_are_told_and_the_graph_stays(
    case: str, toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, told, spoil = SPOILED[case]
    before = _count(monkeypatch, capsys, toy)
    whole = (toy / "kithkin.toml").read_text()
    spoil(toy)
    assert _run(monkeypatch, "ingest", "-p", str(toy)) == code
    message = capsys.readouterr().err
    assert "error:" in message
    assert told in message
    assert "Traceback" not in message
    (toy / "kithkin.toml").write_text(whole)
    assert _count(monkeypatch, capsys, toy) == before


def test_a_few_bad_rows_are_set_aside_with_line_and_reason(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (toy / "watched.csv").open("a") as file:
        file.write("ann,no-such-film,5,1700000000\n")
    lines = len((toy / "watched.csv").read_text().splitlines())
    assert _run(monkeypatch, "ingest", "-p", str(toy)) == 0
    assert "1 of 23 rows rejected" in capsys.readouterr().err
    (rejects,) = (toy / ".kithkin" / "rejects").glob("*.csv")
    assert f"{lines}," in rejects.read_text()
    assert "no-such-film" in rejects.read_text()


def test_cypher_refuses_writes_and_says_what_is_wrong(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _count(monkeypatch, capsys, toy)
    assert _run(monkeypatch, "cypher", "-p", str(toy), "MATCH (f:Film) DETACH DELETE f") == 2
    assert "--write" in capsys.readouterr().err
    assert _run(monkeypatch, "cypher", "-p", str(toy), "MATCH (f:Film RETURN f") == 2
    assert _count(monkeypatch, capsys, toy) == before


def test_no_project_no_bundle_no_neo4j(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "build", "-p", str(tmp_path / "nowhere")) == 3
    assert _run(monkeypatch, "similar", "s1", "-p", str(toy)) == 6
    assert "kithkin build" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setenv("KITHKIN_STORE_PASSWORD", "irrelevant")
    assert _run(monkeypatch, "ingest", "-p", str(toy), "--store", f"bolt://127.0.0.1:{port}") == 5
    assert str(port) in capsys.readouterr().err


@pytest.mark.neo4j
def test_a_wrong_neo4j_password(
    toy: Path, clean_neo4j: Neo4jServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KITHKIN_STORE_PASSWORD", "wrong-one")
    assert _run(monkeypatch, "ingest", "-p", str(toy), "--store", clean_neo4j.uri) == 5
    message = capsys.readouterr().err
    assert "KITHKIN_STORE_PASSWORD" in message
    assert "wrong-one" not in message
