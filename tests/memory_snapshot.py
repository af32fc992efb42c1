"""A snapshot in memory, for tests of training that need no store and no files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from graph_store.project import Project, parse_project
from graph_store.schema import GraphSchema, Triple
from model_store.csr import Csr, EdgeType

Edge = tuple[Any, ...]
"""Source and target id, then weight, then time (microseconds), as far as the relation has them."""


class MemorySnapshot:
    """What training reads of ``training.export.Snapshot``, from plain values."""

    def __init__(
        self,
        schema: GraphSchema,
        nodes: Mapping[str, Sequence[Mapping[str, Any]]],
        edges: Mapping[Triple, Sequence[Edge]],
    ) -> None:
        self.schema = schema
        self._nodes: dict[str, pa.Table] = {}
        for node_type in schema.node_types:
            rows = sorted(nodes.get(node_type.name, ()), key=lambda row: row["id"].encode())
            self._nodes[node_type.name] = pa.Table.from_pylist(list(rows), schema=node_type.arrow_schema)
        self._rows = {name: {each: row for row, each in enumerate(self._ids(name))} for name in self._nodes}
        self._csr: dict[EdgeType, Csr] = {}
        for relation in schema.relations:
            found = list(edges.get(relation.triple, ()))
            for reverse in (False, True):
                self._csr[EdgeType(relation.triple, reverse)] = self._adjacency(
                    relation.triple, found, reverse, bool(relation.weight), bool(relation.time)
                )
        self.content_hash = hashlib.sha256(json.dumps([repr(nodes), repr(edges)]).encode()).hexdigest()

    @property
    def edge_types(self) -> tuple[EdgeType, ...]:
        return tuple(self._csr)

    def num_nodes(self, node_type: str) -> int:
        return self._nodes[node_type].num_rows

    def ids(self, node_type: str) -> pa.StringArray:
        return self._nodes[node_type].column("id").combine_chunks()

    def nodes(self, node_type: str) -> pa.Table:
        return self._nodes[node_type]

    def row(self, node_type: str, node_id: str) -> int:
        return self._rows[node_type][node_id]

    def csr(self, edge_type: EdgeType) -> Csr:
        return self._csr[edge_type]

    def _ids(self, node_type: str) -> list[str]:
        ids: list[str] = self._nodes[node_type].column("id").to_pylist()
        return ids

    def _adjacency(self, triple: Triple, edges: list[Edge], reverse: bool, weight: bool, time: bool) -> Csr:
        seen_from, other = (triple.target, triple.source) if reverse else (triple.source, triple.target)
        ends = [
            (self._rows[seen_from][edge[1 if reverse else 0]], self._rows[other][edge[0 if reverse else 1]], edge)
            for edge in edges
        ]
        ends.sort(key=lambda end: end[:2])
        count = np.bincount(np.array([end[0] for end in ends], np.int64), minlength=self.num_nodes(seen_from))
        return Csr(
            indptr=np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
            indices=np.array([end[1] for end in ends], np.int32),
            weight=np.array([end[2][2] for end in ends], np.float32) if weight else None,
            time=np.array([end[2][2 + weight] for end in ends], np.int64) if time else None,
        )


def project_of(document: Mapping[str, Any], folder: Path, settings: Mapping[str, Any] | None = None) -> Project:
    """A project declared by a document, without a file."""
    return parse_project(document, file=folder / "kithkin.toml", overrides=settings, environment={})


THEMES = 4


def themes_document() -> dict[str, Any]:
    """Films with a genre and keywords, people, and what they watched: see ``themes_snapshot``."""
    return {
        "nodes": {
            "Film": {
                "role": "entity",
                "properties": {
                    "title": {"type": "string", "feature": "text"},
                    "year": {"type": "int", "feature": "number"},
                },
            },
            "Genre": {"role": "concept"},
            "Keyword": {"role": "concept"},
            "Person": {"role": "user"},
        },
        "relations": [
            {
                "triple": ["Person", "WATCHED", "Film"],
                "role": "engagement",
                "weight": "stars",
                "time": "at",
                "properties": {"stars": {"type": "float"}, "at": {"type": "timestamp"}},
            },
            {"triple": ["Film", "CO_WATCHED", "Film"], "role": "co_engagement", "derive": {"via": "WATCHED"}},
            {"triple": ["Film", "HAS_GENRE", "Genre"], "role": "semantic"},
            {
                "triple": ["Film", "HAS_KEYWORD", "Keyword"],
                "role": "semantic",
                "weight": "count",
                "properties": {"count": {"type": "int"}},
            },
            {"triple": ["Film", "SEQUEL_OF", "Film"], "role": "semantic"},
        ],
    }


def themes_snapshot(films: int = 80, people: int = 60, seed: int = 0) -> MemorySnapshot:
    """Films of four themes: film i is of theme i % 4, and so are its genre, its keywords and who watches it.

    Film i is named ``f000i``. The last four films are cold: nobody watched them. Person j watches films of theme j % 4,
    four in five times.
    """
    rng = np.random.default_rng(seed)
    schema = project_of(themes_document(), Path("themes")).schema
    names = [f"f{number:04}" for number in range(films)]
    nodes: dict[str, list[dict[str, Any]]] = {
        "Film": [
            {"id": name, "title": f"theme {number % THEMES} story", "year": 1980 + int(rng.integers(40))}
            for number, name in enumerate(names)
        ],
        "Genre": [{"id": f"g{theme}"} for theme in range(THEMES)],
        "Keyword": [{"id": f"k{theme}-{number}"} for theme in range(THEMES) for number in range(5)],
        "Person": [{"id": f"p{number:03}"} for number in range(people)],
    }
    watched: list[Edge] = []
    for person in range(people):
        seen: set[int] = set()
        for turn in range(12):
            own = rng.random() < 0.8
            film = int(rng.integers(films - 4))
            if own:
                film = film - film % THEMES + person % THEMES
            if film < films - 4 and film not in seen:
                seen.add(film)
                watched.append((f"p{person:03}", names[film], float(rng.integers(3, 6)), 1_000_000 * turn))
    keywords: dict[tuple[str, str], int] = {}
    for number, name in enumerate(names):
        for _ in range(3):
            theme = number % THEMES if rng.random() < 0.85 else int(rng.integers(THEMES))
            key = (name, f"k{theme}-{int(rng.integers(5))}")
            keywords[key] = keywords.get(key, 0) + 1
    together: dict[tuple[str, str], float] = {}
    by_person: dict[str, list[str]] = {}
    for person, film, *_ in watched:
        by_person.setdefault(person, []).append(film)
    for seen_films in by_person.values():
        for a in seen_films:
            for b in seen_films:
                if a != b:
                    together[a, b] = together.get((a, b), 0.0) + 1.0
    edges: dict[Triple, list[Edge]] = {
        Triple("Person", "WATCHED", "Film"): watched,
        Triple("Film", "CO_WATCHED", "Film"): [(a, b, w) for (a, b), w in sorted(together.items()) if w >= 2],
        Triple("Film", "HAS_GENRE", "Genre"): [(name, f"g{i % THEMES}") for i, name in enumerate(names) if i % 3],
        Triple("Film", "HAS_KEYWORD", "Keyword"): [(a, b, c) for (a, b), c in sorted(keywords.items())],
        Triple("Film", "SEQUEL_OF", "Film"): [(names[i], names[i - THEMES]) for i in range(THEMES, films, 9)],
    }
    return MemorySnapshot(schema, nodes, edges)
