"""Pages of docs/ with numbered questions in Cypher, and the catalogue that they are asked of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from graph_store.co_engagement import derive
from graph_store.ingest import ingest
from graph_store.project import load_project
from graph_store.store import GraphStore
from graph_store.stores import open_store

STORES = ("embedded", "neo4j")


class Question(NamedTuple):
    """A question of a page and its text for each store."""

    title: str
    texts: dict[str, str]


def questions_of(page: Path, heading: str) -> list[Question]:
    """The questions of a page below headings such as ``## 1. Which films ...``; ``heading``: the number signs."""
    questions = []
    for section in re.split(rf"^{heading} (?=\d+\. )", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        section = re.split(rf"^{heading} ", section, flags=re.MULTILINE)[0]
        texts: dict[str, str] = {}
        for store, text in re.findall(r"^```cypher (\w+)\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL):
            for name in STORES if store == "both" else (store,):
                assert name in STORES, section
                assert name not in texts, section
                texts[name] = text
        questions.append(Question(section.splitlines()[0], texts))
    return questions


def filled(folder: Path, uri: str) -> GraphStore:
    """A store with the project of a folder."""
    project = load_project(folder, overrides={"store.uri": uri, "store.memory_mib": 256})
    store = open_store(project)
    ingest(project, store)
    derive(project, store)
    return store


def check_order(store: GraphStore, text: str) -> None:
    """There is an answer, and its last order leaves nothing open: what it names tells all rows apart."""
    result = store.query(text)
    assert result.rows
    *_, ordered = re.findall(r"ORDER BY (.*?)(?: LIMIT \d+)?$", text, flags=re.MULTILINE)
    terms = [term.removesuffix(" DESC") for term in ordered.split(", ")]
    # What is computed only for the order is a function of columns that are there: it decides nothing at the end.
    places = [result.columns.index(term) for term in terms if term in result.columns]
    assert terms[-1] in result.columns
    keys = {tuple(row[place] for place in places) for row in result.rows}
    assert len(keys) == len(result.rows), "rows that share all that they are ordered by"


def check_same_rows(question: Question, embedded: GraphStore, neo4j: GraphStore) -> None:
    """Both stores give the same columns and rows, with values of the same types."""
    ours, theirs = embedded.query(question.texts["embedded"]), neo4j.query(question.texts["neo4j"])
    assert theirs.columns == ours.columns, question.title
    assert theirs.rows == ours.rows, question.title
    types = [[type(value) for value in row] for row in ours.rows]
    assert [[type(value) for value in row] for row in theirs.rows] == types, question.title
