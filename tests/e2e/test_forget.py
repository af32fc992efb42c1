"""A person asks to be forgotten: their id is nowhere under the work folder afterwards, and the service goes on."""

from __future__ import annotations

import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kithkin import Client
from kithkin.errors import NotFound
from tests.e2e.conftest import kithkin, serving
from tests.toy import write_toy

PERSON = "ann-4711"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_toy(tmp_path_factory.mktemp("forget"))
    watched = folder / "watched.csv"
    watched.write_text(watched.read_text().replace("ann", PERSON))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "kithkin.toml").open("a") as file:
        file.write(f'\n[serving]\nport = {port}\nimpressions = {{ folder = ".kithkin/impressions" }}\n')
    kithkin("build", folder=folder)
    kithkin("export", "--where", "MATCH (u:User) RETURN u", "--hops", "1", folder=folder)
    impressions = folder / ".kithkin" / "impressions"
    impressions.mkdir()
    pq.write_table(pa.table({"user": [PERSON, "bob"], "entity": ["s1", "s2"]}), impressions / "a.parquet")
    pq.write_table(pa.table({"user": [PERSON], "entity": ["s1"]}), impressions / "b.parquet")
    return folder


def holding(folder: Path) -> list[str]:
    """Files under the work folder with the person's id in them."""
    work = folder / ".kithkin"
    return sorted(
        str(path.relative_to(work))
        for path in work.rglob("*")
        if path.is_file() and PERSON.encode() in path.read_bytes()
    )


def test_a_person_is_forgotten_under_a_running_server(folder: Path) -> None:
    before = holding(folder)
    assert {name.split("/")[0] for name in before} >= {"graph.lbug", "snapshots", "subgraphs", "models", "impressions"}
    told = kithkin("forget", PERSON, "--dry-run", "--json", folder=folder).json
    assert any(each["where"] == "store" for each in told)
    assert holding(folder) == before, "a dry run changes nothing"

    with serving(folder, "--port", port_of(folder)) as address, Client(address, timeout=30) as client:
        old = client.status().bundle
        assert old is not None
        assert client.recommend(PERSON, top_k=3).ids
        told = kithkin("forget", PERSON, "--json", folder=folder).json
        new = client.status().bundle
        assert new is not None
        assert new.version > old.version
        assert new.nodes["User"] == old.nodes["User"] - 1
        with pytest.raises(NotFound):
            client.recommend(PERSON, top_k=3)
        assert client.recommend("cem", top_k=1).ids == ["s4"], "the service goes on"
    source, impressions = str(folder / "watched.csv"), f"impressions {folder / '.kithkin/impressions'}"
    assert [each["where"] for each in told if each["left"]] == [impressions, source]
    # What the server still held of its record it wrote when it ended.
    told = kithkin("forget", PERSON, "--json", folder=folder).json
    assert holding(folder) == []
    assert [each["where"] for each in told if each["left"]] == [source]
    assert pq.read_table(folder / ".kithkin/impressions/a.parquet").column("user").to_pylist() == ["bob"]
    assert not (folder / ".kithkin/impressions/b.parquet").exists()
    counts = kithkin("cypher", "MATCH (u:User) RETURN u.id ORDER BY u.id", "--json", folder=folder).out
    assert PERSON not in counts
    assert "bob" in counts


def port_of(folder: Path) -> str:
    """The port of ``kithkin.toml``, by which ``forget`` finds the server."""
    return (folder / "kithkin.toml").read_text().split("\nport = ")[1].split("\n")[0]


def test_who_is_nowhere_is_told(folder: Path) -> None:
    ended = kithkin("forget", "nobody-0815", folder=folder, code=2)
    assert "nobody-0815" in ended.err
    assert "'Film'" in kithkin("forget", "s1", "--type", "Film", folder=folder, code=3).err
