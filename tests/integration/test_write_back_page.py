"""Every query of docs/write_back.md on both stores, over results that were written back: the same rows, and some."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from graph_store.project import load_project
from graph_store.published import EDGES, VECTORS, Publishing
from graph_store.store import GraphStore
from graph_store.synthetic import generate
from tests.conftest import Neo4jServer
from tests.cypher_page import STORES, Question, check_order, check_same_rows, filled, questions_of

PAGE = Path(__file__).parents[2] / "docs" / "write_back.md"
NEIGHBOURS, DIMENSION = 6, 8


QUESTIONS = questions_of(PAGE, "###")


class Rows:
    """The nearest by vectors drawn at random: what they mean is not asked here."""

    def __init__(self, ids: list[str]) -> None:
        self._ids = ids
        drawn = np.random.default_rng(1).normal(size=(len(ids), DIMENSION))
        self._vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    def edges(self) -> Iterator[tuple[str, pa.Table]]:
        scores = self._vectors.astype(np.float64) @ self._vectors.T.astype(np.float64)
        np.fill_diagonal(scores, -2)
        order = np.argsort(-scores, axis=1)[:, :NEIGHBOURS]
        rows = [
            (self._ids[row], self._ids[other], scores[row, other], f"Reason {other % 5}", rank + 1)
            for row, others in enumerate(order.tolist())
            for rank, other in enumerate(others)
        ]
        yield "Film", pa.table([list(column) for column in zip(*rows, strict=True)], schema=EDGES)

    def vectors(self) -> Iterator[tuple[str, pa.Table]]:
        yield "Film", pa.table([self._ids, self._vectors.tolist()], schema=VECTORS)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue of the page."""
    folder = tmp_path_factory.mktemp("films")
    generate(folder, entities=120, users=60, seed=1)
    return folder


@pytest.fixture(scope="module")
def embedded(catalogue: Path) -> Iterator[GraphStore]:
    """The catalogue in an embedded store, with results."""
    with _filled(catalogue, ".kithkin/graph.lbug") as store:
        yield store


def _filled(folder: Path, uri: str) -> GraphStore:
    store = filled(folder, uri)
    settings = load_project(folder).settings.publish
    ids = sorted(id_ for batch in store.scan_nodes("Film", ()) for id_ in batch.column("id").to_pylist())
    publishing = Publishing(
        bundle="20261121T094412.906586Z",
        space="similar",
        relation=settings.write_back_relation,
        property=settings.write_back_property,
        dimension=DIMENSION,
        neighbours=NEIGHBOURS,
        node_types=("Film",),
    )
    store.write_back(publishing, Rows(ids))
    return store


def test_there_are_six_questions_for_both_stores() -> None:
    assert [int(question.title.split(".")[0]) for question in QUESTIONS] == [1, 2, 3, 4, 5, 6]
    assert all(set(question.texts) == set(STORES) for question in QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.title)
def test_a_question_has_an_answer_whose_order_is_certain(embedded: GraphStore, question: Question) -> None:
    check_order(embedded, question.texts["embedded"])


def test_the_first_question_tells_the_edges_as_they_were_written(embedded: GraphStore) -> None:
    rows = embedded.query(QUESTIONS[0].texts["embedded"]).rows
    assert [row[0] for row in rows] == list(range(1, NEIGHBOURS + 1))
    assert all(row[3].startswith("Reason ") for row in rows)


@pytest.mark.neo4j
def test_both_stores_give_the_same_rows(catalogue: Path, embedded: GraphStore, clean_neo4j: Neo4jServer) -> None:
    with _filled(catalogue, clean_neo4j.uri) as neo4j:
        for question in QUESTIONS:
            check_same_rows(question, embedded, neo4j)
