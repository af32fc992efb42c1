"""Every query of docs/cypher.md on both stores: the same rows in the same order, and some of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from graph_store.store import GraphStore
from graph_store.synthetic import generate
from tests.conftest import Neo4jServer
from tests.cypher_page import STORES, Question, check_order, check_same_rows, filled, questions_of

PAGE = Path(__file__).parents[2] / "docs" / "cypher.md"
QUESTIONS = questions_of(PAGE, "##")


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue of the page."""
    folder = tmp_path_factory.mktemp("films")
    generate(folder, entities=120, users=60, seed=1)
    return folder


@pytest.fixture(scope="module")
def embedded(catalogue: Path) -> Iterator[GraphStore]:
    """The catalogue in an embedded store."""
    with filled(catalogue, ".kithkin/graph.lbug") as store:
        yield store


def test_there_are_twenty_questions_and_each_is_for_both_stores() -> None:
    numbers = [int(question.title.split(".")[0]) for question in QUESTIONS]
    assert numbers == list(range(1, 21))
    for question in QUESTIONS:
        assert set(question.texts) == set(STORES), question.title
    blocks = re.findall(r"^```cypher\b(.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(blocks) == sum(len(set(question.texts.values())) for question in QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.title)
def test_a_question_has_an_answer_whose_order_is_certain(embedded: GraphStore, question: Question) -> None:
    assert question.texts["embedded"].count("ORDER BY") == 1
    check_order(embedded, question.texts["embedded"])


@pytest.mark.neo4j
def test_both_stores_give_the_same_rows(catalogue: Path, embedded: GraphStore, clean_neo4j: Neo4jServer) -> None:
    with filled(catalogue, clean_neo4j.uri) as neo4j:
        assert neo4j.counts() == embedded.counts()
        for question in QUESTIONS:
            check_same_rows(question, embedded, neo4j)


def test_the_first_question_counts_people_not_events(catalogue: Path, embedded: GraphStore) -> None:
    events = [line.replace('"', "").split(",") for line in (catalogue / "events.csv").read_text().splitlines()[1:]]
    people: dict[str, set[str]] = {}
    for user, film, *_ in events:
        people.setdefault(film, set()).add(user)
    most = max(len(users) for users in people.values())
    film, _, counted, seen = embedded.query(QUESTIONS[0].texts["embedded"]).rows[0]
    assert counted == most == len(people[film])
    assert seen == sum(event[1] == film for event in events)
