"""From ten rows of CSV to answers over a real socket, on both stores."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kithkin import Client
from kithkin.errors import InvalidArgument, NotFound
from tests.conftest import Neo4jServer
from tests.e2e.conftest import kithkin, serving
from tests.toy import LOVE, SPACE, TITLES, WATCHED, write_toy

LOVE_FILMS = "MATCH (f:Film)-[:HAS_GENRE]->(g:Genre {id: 'Love'}) RETURN f.id, f.year ORDER BY f.id"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_toy(tmp_path_factory.mktemp("embedded"))
    kithkin("build", folder=folder)
    return folder


@pytest.fixture(scope="module")
def client(embedded: Path) -> Iterator[Client]:
    with serving(embedded) as address, Client(address, timeout=20) as opened:
        yield opened


def test_similar_films_share_the_theme(client: Client) -> None:
    for theme in (SPACE, LOVE):
        for film in theme:
            answer = client.similar(film, top_k=4)
            assert set(answer.ids) == set(theme) - {film}, film
            scores = [result.score for result in answer]
            assert scores == sorted(scores, reverse=True)


def test_a_film_nobody_watched_has_neighbours_with_the_reason(client: Client) -> None:
    (best, *_) = client.similar("s5", top_k=3, reasons=2)
    assert best.id in SPACE
    assert best.reasons[0].relations == ("HAS_GENRE", "HAS_GENRE")
    assert [node.id for node in best.reasons[0].path] == ["s5", "Space", best.id]
    assert sum(reason.contribution for reason in best.reasons) == pytest.approx(1, abs=1e-6)


def test_users_are_shown_what_their_kind_watches(client: Client) -> None:
    for user, seen in WATCHED.items():
        answer = client.recommend(user, top_k=10)
        assert set(answer.ids) == set(TITLES) - set(seen), "what was watched is left out, and only that"
    assert client.recommend("cem", top_k=1).ids == ["s4"]
    assert client.recommend("fay", top_k=1).ids == ["l4"]
    assert client.recommend(events=["l1", "l2"], top_k=3)[0].id in LOVE


def test_a_described_film_that_is_not_in_the_graph(client: Client) -> None:
    answer = client.similar(described={"properties": {"year": 1991}, "links": {"HAS_GENRE": ["Love"]}}, top_k=5)
    assert set(answer.ids) == set(LOVE)


def test_names_errors_and_status(client: Client) -> None:
    assert client.find("moon base")[0].id == "s3"
    assert client.get("s3").properties == {"title": "Moon Base", "year": 1992}
    with pytest.raises(NotFound) as not_found:
        client.similar("nothing")
    assert not_found.value.reason == "NODE_NOT_FOUND"
    with pytest.raises(InvalidArgument) as too_many:
        client.similar("s1", top_k=100_000)
    assert too_many.value.reason == "TOP_K_OUT_OF_RANGE"
    status = client.status()
    assert status.bundle is not None
    assert status.bundle.nodes == {"Film": 10, "Genre": 2, "User": 6}


def test_a_second_build_skips_every_step(embedded: Path) -> None:
    steps = kithkin("build", "--json", folder=embedded).json
    assert [step["skipped"] for step in steps.values()] == [True] * 4


def test_asking_without_a_server_uses_the_bundle(embedded: Path) -> None:
    by_name = kithkin("similar", "Moon Base", "-k", "4", "--json", folder=embedded)
    assert {row["id"] for row in by_name.json["results"]} == set(SPACE) - {"s3"}
    assert "in this process" in by_name.err
    reasons = kithkin("explain", "Moon Base", "New Orbit", "--json", folder=embedded).json
    assert reasons["reasons"][0]["path"][1] == {"type": "Genre", "id": "Space"}
    shown = kithkin("recommend", "cem", "-k", "1", folder=embedded).out
    assert "The Void" in shown
    described = kithkin("similar", "--link", "HAS_GENRE=Love", "-k", "5", "--json", folder=embedded).json
    assert {row["id"] for row in described["results"]} == set(LOVE)


def test_a_change_in_the_files_reaches_the_answers(tmp_path: Path) -> None:
    folder = write_toy(tmp_path / "toy")
    kithkin("build", folder=folder)
    with (folder / "films.csv").open("a") as films:
        films.write("s6,Far Comet,1999,Space\n")
    steps = kithkin("build", "--json", folder=folder).json
    assert not any(step["skipped"] for step in steps.values())
    answer = kithkin("similar", "Far Comet", "-k", "3", "--json", folder=folder).json
    assert {row["id"] for row in answer["results"]} <= set(SPACE)


@pytest.mark.neo4j
def test_neo4j_gives_the_same_snapshot_and_the_same_cypher_rows(
    embedded: Path, clean_neo4j: Neo4jServer, tmp_path: Path
) -> None:
    folder = write_toy(tmp_path / "toy")
    built = kithkin("build", "--store", clean_neo4j.uri, "--json", folder=folder).json
    here = kithkin("export", "--json", folder=embedded).json
    assert built["export"]["content_hash"] == here["export"]["content_hash"]
    on_neo4j = kithkin("cypher", LOVE_FILMS, "--store", clean_neo4j.uri, folder=folder).out
    assert on_neo4j == kithkin("cypher", LOVE_FILMS, folder=embedded).out
    assert "l5" in on_neo4j


def test_a_client_that_knows_nothing_but_reflection(embedded: Path) -> None:
    """A process that imports no module of ours asks the server for its descriptors, then makes a call."""
    with serving(embedded) as address:
        code = Path(__file__).with_name("reflection_client.py")
        ended = subprocess.run([sys.executable, str(code), address], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert set(ended.stdout.split()) == set(SPACE) - {"s1"}
