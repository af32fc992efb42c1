"""Every query of docs/cypher.md on both stores: the same rows in the same order, and some of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from graph_store.co_engagement import derive
from graph_store.ingest import ingest
from graph_store.project import load_project
from graph_store.store import GraphStore
from graph_store.stores import open_store
from graph_store.synthetic import generate
from tests.conftest import Neo4jServer

PAGE = Path(__file__).parents[2] / "docs" / "cypher.md"
STORES = ("embedded", "neo4j")


class Question(NamedTuple):
    """A question of the page and its text for each store."""

    title: str
    texts: dict[str, str]


def _questions() -> list[Question]:
    questions = []
    for section in re.split(r"^## (?=\d+\. )", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        section = re.split(r"^## ", section, flags=re.MULTILINE)[0]
        texts: dict[str, str] = {}
        for store, text in re.findall(r"^```cypher (\w+)\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL):
            for name in STORES if store == "both" else (store,):
                assert name in STORES, section
                assert name not in texts, section
                texts[name] = text
        questions.append(Question(section.splitlines()[0], texts))
    return questions


QUESTIONS = _questions()


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue of the page."""
    folder = tmp_path_factory.mktemp("films")
    generate(folder, entities=120, users=60, seed=1)
    return folder


@pytest.fixture(scope="module")
def embedded(catalogue: Path) -> Iterator[GraphStore]:
    """The catalogue in an embedded store."""
    with _filled(catalogue, ".kithkin/graph.lbug") as store:
        yield store


def _filled(folder: Path, uri: str) -> GraphStore:
    project = load_project(folder, overrides={"store.uri": uri, "store.memory_mib": 256})
    store = open_store(project)
    ingest(project, store)
    derive(project, store)
    return store


def test_there_are_twenty_questions_and_each_is_for_both_stores() -> None:
    numbers = [int(question.title.split(".")[0]) for question in QUESTIONS]
    assert numbers == list(range(1, 21))
    for question in QUESTIONS:
        assert set(question.texts) == set(STORES), question.title
    blocks = re.findall(r"^```cypher\b(.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(blocks) == sum(len(set(question.texts.values())) for question in QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.title)
def test_a_question_has_an_answer_whose_order_is_certain(embedded: GraphStore, question: Question) -> None:
    text = question.texts["embedded"]
    result = embedded.query(text)
    assert result.rows
    (ordered,) = re.findall(r"ORDER BY (.*?)(?: LIMIT \d+)?$", text, flags=re.MULTILINE)
    terms = [term.removesuffix(" DESC") for term in ordered.split(", ")]
    # What is computed only for the order is a function of columns that are there: it decides nothing at the end.
    places = [result.columns.index(term) for term in terms if term in result.columns]
    assert terms[-1] in result.columns
    keys = {tuple(row[place] for place in places) for row in result.rows}
    assert len(keys) == len(result.rows), "rows that share all that they are ordered by"


@pytest.mark.neo4j
def test_both_stores_give_the_same_rows(catalogue: Path, embedded: GraphStore, clean_neo4j: Neo4jServer) -> None:
    with _filled(catalogue, clean_neo4j.uri) as neo4j:
        assert neo4j.counts() == embedded.counts()
        for question in QUESTIONS:
            ours, theirs = embedded.query(question.texts["embedded"]), neo4j.query(question.texts["neo4j"])
            assert theirs.columns == ours.columns, question.title
            assert theirs.rows == ours.rows, question.title
            types = [[type(value) for value in row] for row in ours.rows]
            assert [[type(value) for value in row] for row in theirs.rows] == types, question.title


def test_the_first_question_counts_people_not_events(catalogue: Path, embedded: GraphStore) -> None:
    events = [line.replace('"', "").split(",") for line in (catalogue / "events.csv").read_text().splitlines()[1:]]
    people: dict[str, set[str]] = {}
    for user, film, *_ in events:
        people.setdefault(film, set()).add(user)
    most = max(len(users) for users in people.values())
    film, _, counted, seen = embedded.query(QUESTIONS[0].texts["embedded"]).rows[0]
    assert counted == most == len(people[film])
    assert seen == sum(event[1] == film for event in events)
