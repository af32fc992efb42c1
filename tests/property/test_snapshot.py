"""The content hash and the arrays of a snapshot depend on the content alone."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_store.schema import GraphSchema, NodeType, Relation, Triple
from graph_store.store import Counts
from model_store.csr import EdgeType
from training.export import Snapshot, export_snapshot, workspace

LIKED = Triple("User", "LIKED", "Film")
NEAR = Triple("Film", "NEAR", "Film")

SCHEMA = GraphSchema(
    node_types=(
        NodeType.model_validate(
            {
                "name": "Film",
                "role": "entity",
                "properties": {
                    "name": {"type": "string"},
                    "score": {"type": "float"},
                    "old": {"type": "bool"},
                    "out": {"type": "date"},
                    "words": {"type": "strings"},
                },
            }
        ),
        NodeType.model_validate({"name": "User", "role": "user"}),
    ),
    relations=(
        Relation.model_validate(
            {
                "triple": list(LIKED),
                "role": "engagement",
                "weight": "much",
                "time": "at",
                "kind": "how",
                "properties": {"how": {"type": "string"}, "much": {"type": "float"}, "at": {"type": "timestamp"}},
            }
        ),
        Relation.model_validate(
            {
                "triple": list(NEAR),
                "role": "semantic",
                "weight": "much",
                "properties": {"much": {"type": "int"}, "why": {"type": "strings"}},
            }
        ),
    ),
)

texts = st.text(st.characters(codec="utf-8"), max_size=4)
numbers = st.one_of(st.none(), st.sampled_from([0.0, -0.0, float("nan"), 1.0]), st.floats())
times = st.one_of(st.none(), st.integers(0, 3).map(lambda day: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=day)))
words = st.one_of(st.none(), st.lists(texts, max_size=2))
films = st.dictionaries(
    texts,
    st.fixed_dictionaries(
        {
            "name": st.one_of(st.none(), texts),
            "score": numbers,
            "old": st.one_of(st.none(), st.booleans()),
            "out": st.one_of(st.none(), st.dates()),
            "words": words,
        }
    ),
    max_size=6,
)
users = st.sets(texts, max_size=4)


class Rows:
    """A store whose rows come in a given order, in batches of given sizes, in the types a store may choose."""

    def __init__(self, nodes: dict[str, list[Any]], edges: dict[Triple, list[Any]], order: random.Random) -> None:
        self.nodes = {name: order.sample(rows, len(rows)) for name, rows in nodes.items()}
        self.edges = {triple: order.sample(rows, len(rows)) for triple, rows in edges.items()}
        self.order = order

    def _batches(self, rows: list[Any], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        if self.order.random() < 0.5:  # another order of columns, wider types
            fields = list(schema)
            self.order.shuffle(fields)
            widths = {pa.string(): pa.large_string(), pa.date32(): pa.date64()}
            schema = pa.schema([pa.field(field.name, widths.get(field.type, field.type)) for field in fields])
        while rows:
            size = self.order.randint(1, 5)
            yield pa.RecordBatch.from_pylist(rows[:size], schema)
            rows = rows[size:]

    def scan_nodes(self, node_type: str) -> Iterator[pa.RecordBatch]:
        return self._batches(self.nodes[node_type], SCHEMA.node_type(node_type).arrow_schema)

    def scan_edges(self, triple: Triple) -> Iterator[pa.RecordBatch]:
        return self._batches(self.edges[triple], SCHEMA.relation(triple).arrow_schema)

    def counts(self) -> Counts:
        return Counts()

    def state_token(self) -> str:
        return "unmoved"


def _edges(draw: st.DrawFn, sources: list[str], targets: list[str], values: dict[str, Any]) -> list[dict[str, Any]]:
    if not sources or not targets:
        return []
    ends = {"source": st.sampled_from(sources), "target": st.sampled_from(targets)}
    return draw(st.lists(st.fixed_dictionaries(ends | values), max_size=12))


@st.composite
def graphs(draw: st.DrawFn) -> tuple[dict[str, list[Any]], dict[Triple, list[Any]]]:
    """Any small graph, with edges there twice, missing values of every kind, and ids of any letters."""
    film = [{"id": key, **values} for key, values in draw(films).items()]
    user = [{"id": key} for key in sorted(draw(users))]
    film_ids, user_ids = [row["id"] for row in film], [row["id"] for row in user]
    kinds = st.one_of(st.none(), st.sampled_from(["view", "click"]))
    liked = _edges(draw, user_ids, film_ids, {"much": numbers, "at": times, "how": kinds})
    near = _edges(draw, film_ids, film_ids, {"much": st.one_of(st.none(), st.integers(-2, 2)), "why": words})
    return {"Film": film, "User": user}, {LIKED: liked, NEAR: near}


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace, "sync_file", lambda path: None)
        yield


def _export(graph: tuple[Any, Any], seed: int, root: str) -> Snapshot:
    store: Any = Rows(*graph, random.Random(seed))
    return export_snapshot(store, SCHEMA, Path(root) / str(seed))


@settings(max_examples=60, deadline=None)
@given(graphs(), st.integers(0, 99))
def test_order_chunks_and_types_do_not_show(graph: tuple[Any, Any], seed: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        first, second = _export(graph, seed, root), _export(graph, seed + 1, root)
        assert first.content_hash == second.content_hash
        files = sorted(path.relative_to(first.folder) for path in first.folder.rglob("*") if path.is_file())
        assert files == sorted(path.relative_to(second.folder) for path in second.folder.rglob("*") if path.is_file())
        for path in files:
            assert (first.folder / path).read_bytes() == (second.folder / path).read_bytes(), path


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_every_edge_is_there_from_both_ends(graph: tuple[Any, Any]) -> None:
    with tempfile.TemporaryDirectory() as root:
        snapshot = _export(graph, 0, root)
        nodes, edges = graph
        for name, rows in nodes.items():
            ids = snapshot.ids(name).to_pylist()
            assert ids == sorted((row["id"] for row in rows), key=str.encode)
            assert snapshot.rows(name, ids).tolist() == list(range(len(ids)))
        for triple, rows in edges.items():
            expected = sorted((row["source"].encode(), row["target"].encode()) for row in rows)
            sources, targets = snapshot.ids(triple.source), snapshot.ids(triple.target)
            for backward in (False, True):
                csr = snapshot.csr(EdgeType(triple, backward))
                assert csr.num_rows == snapshot.num_nodes(triple.target if backward else triple.source)
                row = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
                source, target = (csr.indices, row) if backward else (row, csr.indices)
                found = [
                    (str(sources[s]).encode(), str(targets[t]).encode()) for s, t in zip(source, target, strict=True)
                ]
                assert sorted(found) == expected
                if csr.time is not None:
                    keys = list(zip(row.tolist(), csr.indices.tolist(), csr.time.tolist(), strict=True))
                    assert keys == sorted(keys)
