"""A person asks to be forgotten: their id is nowhere under the work folder afterwards, and the service goes on."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kithkin import Client
from kithkin.errors import NotFound
from tests.e2e.conftest import kithkin, serving
from tests.toy import write_toy

if TYPE_CHECKING:
    from tests.conftest import Neo4jServer

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


@pytest.mark.neo4j
def test_a_person_is_forgotten_in_neo4j_under_a_running_server(tmp_path: Path, clean_neo4j: Neo4jServer) -> None:
    folder = write_toy(tmp_path / "toy")
    watched = folder / "watched.csv"
    watched.write_text(watched.read_text().replace("ann", PERSON))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "kithkin.toml").open("a") as file:
        file.write(f'\n[store]\nuri = "{clean_neo4j.uri}"\n\n[serving]\nport = {port}\n')
    kithkin("build", folder=folder)
    # Who was seen since is noted in the store's log of writes, with the nodes they touched.
    with watched.open("a") as file:
        file.write(f"{PERSON},s5,5,1709251200\n")
    kithkin("ingest", folder=folder)
    assert all(values_with(clean_neo4j, PERSON).values()), "nodes and the log name the person"
    before = everybody(clean_neo4j)

    told = kithkin("forget", PERSON, "--dry-run", "--json", folder=folder).json
    assert {each["what"] for each in told if each["where"] == "store"} == {
        "the User and 5 edges removed",
        "its log of changes emptied",
    }
    assert everybody(clean_neo4j) == before, "a dry run changes nothing"
    assert all(values_with(clean_neo4j, PERSON).values())

    with serving(folder, "--port", str(port)) as address, Client(address, timeout=30) as client:
        assert client.recommend(PERSON, top_k=3).ids
        told = kithkin("forget", PERSON, "--json", folder=folder).json
        assert [each["where"] for each in told if each["left"]] == [str(watched)]
        with pytest.raises(NotFound):
            client.recommend(PERSON, top_k=3)
        assert client.recommend("cem", top_k=1).ids == ["s4"], "the service goes on"
    assert everybody(clean_neo4j) == [each for each in before if each != PERSON]
    assert not any(values_with(clean_neo4j, PERSON).values())
    assert holding(folder) == []
    # Without their lines in the files the next build does not bring them back, and finds all as it is.
    watched.write_text("".join(line for line in watched.read_text().splitlines(keepends=True) if PERSON not in line))
    kithkin("build", folder=folder)
    assert PERSON not in everybody(clean_neo4j)
    assert kithkin("forget", PERSON, folder=folder, code=2).err


def everybody(server: Neo4jServer) -> list[str]:
    """Ids of all users in Neo4j."""
    rows = _asked(server, "MATCH (u:User) RETURN u.id AS id ORDER BY id")
    return [row["id"] for row in rows]


def values_with(server: Neo4jServer, text: str) -> dict[str, bool]:
    """Whether any property of a node, of an edge, or an entry of the log has the text in it."""
    held = "any(key IN keys({0}) WHERE toString({0}[key]) CONTAINS $text)"
    nodes = _asked(server, f"MATCH (n) WHERE NOT n:KithkinSchema AND {held.format('n')} RETURN count(n) AS n", text)
    log = _asked(
        server, "MATCH (k:KithkinSchema) WHERE any(e IN k.log WHERE e CONTAINS $text) RETURN count(k) AS n", text
    )
    return {"nodes": nodes[0]["n"] > 0, "log": log[0]["n"] > 0}


def _asked(server: Neo4jServer, query: str, text: str = "") -> list[dict[str, Any]]:
    import neo4j

    with neo4j.GraphDatabase.driver(server.uri, auth=(server.user, server.password)) as driver:
        return [dict(record) for record in driver.execute_query(query, text=text).records]
