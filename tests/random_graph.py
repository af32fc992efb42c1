"""Graphs drawn at random, with all that makes an order hard: ties, missing values, skew, ids of any letters."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from graph_store.schema import GraphSchema, Triple
from graph_store.store import Counts

LIKED, NEAR = Triple("User", "LIKED", "Film"), Triple("Film", "NEAR", "Film")
HAS_TAG, SAW = Triple("Film", "HAS_TAG", "Tag"), Triple("User", "SAW", "Film")

SCHEMA = GraphSchema.model_validate(
    {
        "node_types": [
            {
                "name": "Film",
                "role": "entity",
                "properties": {
                    "name": {"type": "string"},
                    "score": {"type": "float"},
                    "old": {"type": "bool"},
                    "out": {"type": "date"},
                    "words": {"type": "strings"},
                    "look": {"type": "vector", "dimension": 2},
                },
            },
            {"name": "User", "role": "user"},
            {"name": "Tag", "role": "concept"},
        ],
        "relations": [
            {
                "triple": list(LIKED),
                "role": "engagement",
                "weight": "much",
                "time": "at",
                "kind": "how",
                "properties": {
                    "how": {"type": "string"},
                    "much": {"type": "float"},
                    "at": {"type": "timestamp"},
                    "note": {"type": "strings"},
                },
            },
            {"triple": list(NEAR), "role": "semantic", "weight": "much", "properties": {"much": {"type": "int"}}},
            {"triple": list(HAS_TAG), "role": "semantic"},
            {"triple": list(SAW), "role": "engagement", "time": "day", "properties": {"day": {"type": "date"}}},
        ],
    }
)


class TableStore:
    """What an export asks of a store, from Arrow tables; ``scanned`` are the tables that were read, in their order."""

    def __init__(self, nodes: dict[str, pa.Table], edges: dict[Triple, pa.Table], *, batch: int = 1000) -> None:
        self.nodes, self.edges, self.batch, self.state = nodes, edges, batch, "one"
        self.scanned: list[str] = []

    def scan_nodes(self, node_type: str) -> Iterator[pa.RecordBatch]:
        self.scanned.append(node_type)
        yield from self.nodes[node_type].to_batches(max_chunksize=self.batch)

    def scan_edges(self, triple: Triple) -> Iterator[pa.RecordBatch]:
        self.scanned.append(Triple(*triple).key)
        yield from self.edges[Triple(*triple)].to_batches(max_chunksize=self.batch)

    def counts(self) -> Counts:
        return Counts()

    def state_token(self) -> str:
        return self.state


def random_graph(seed: int, nodes: tuple[int, int, int], edges: int, *, batch: int = 1000) -> Any:
    """A store of so many films, users and tags, and so many edges of each relation that has nodes at both ends."""
    draw = random.Random(seed)
    film, user, tag = (_ids(draw, count) for count in nodes)

    def maybe(value: Any) -> Any:
        return None if draw.random() < 0.2 else value

    def one_of(values: list[Any]) -> Any:
        return values[int(draw.random() * len(values))]

    def pairs(sources: list[str], targets: list[str]) -> Iterator[dict[str, Any]]:
        for _ in range(edges if sources and targets else 0):
            yield {
                "source": sources[int(len(sources) * draw.random() ** 3)],
                "target": targets[int(len(targets) * draw.random() ** 2)],
            }

    films = [
        {
            "id": each,
            "name": maybe(each[::-1]),
            "score": maybe(one_of([0.0, -0.0, float("nan"), 1.5])),
            "old": maybe(draw.random() < 0.5),
            "out": maybe(date(2020, 1, 1) + timedelta(days=int(99 * draw.random()))),
            "words": maybe(list(each)),
            "look": maybe([one_of([0.5, float("nan"), -0.0]), 1.0]),
        }
        for each in film
    ]
    liked = [
        {
            **pair,
            "how": maybe(one_of(["view", "click", ""])),
            "much": maybe(one_of([0.0, -0.0, float("nan"), 2.0, 1e300])),
            "at": maybe(datetime(2020, 1, 1 + int(4 * draw.random()), tzinfo=UTC)),
            "note": maybe(["a"] * int(3 * draw.random())),
        }
        for pair in pairs(user, film)
    ]
    near = [{**pair, "much": maybe(int(5 * draw.random()) - 2)} for pair in pairs(film, film)]
    saw = [{**pair, "day": maybe(date(1970, 1, 3 - int(2 * draw.random())))} for pair in pairs(user, film)]
    rows = {"Film": films, "User": [{"id": each} for each in user], "Tag": [{"id": each} for each in tag]}
    of = {LIKED: liked, NEAR: near, HAS_TAG: list(pairs(film, tag)), SAW: saw}
    return TableStore(
        {name: pa.Table.from_pylist(found, SCHEMA.node_type(name).arrow_schema) for name, found in rows.items()},
        {triple: pa.Table.from_pylist(found, SCHEMA.relation(triple).arrow_schema) for triple, found in of.items()},
        batch=batch,
    )


def _ids(draw: random.Random, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join("abcdé𝄞z0 "[int(9 * draw.random())] for _ in range(int(7 * draw.random())))] = None
    return list(found)
