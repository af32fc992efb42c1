"""What was written back, when the embedded store is written anew (``kithkin forget``): all of it, in small parts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from graph_store.embedded import published, scan
from graph_store.embedded.database import EmbeddedDatabase
from graph_store.embedded.rewrite import rewrite
from graph_store.embedded.store import EmbeddedStore
from graph_store.published import EDGES, VECTORS, Publishing
from graph_store.schema import GraphSchema, NodeType
from graph_store.settings import StoreSettings

# One name begins with the other, and ids have slashes and letters of several bytes.
IDS = {"Film": [f"é/{number}" for number in range(300)], "Film2": [f"{number}" for number in range(70)]}
SCHEMA = GraphSchema(
    node_types=tuple(NodeType.model_validate({"name": name, "role": "entity"}) for name in IDS), relations=()
)
SETTINGS = StoreSettings(uri="graph.lbug", timeout_s=10, memory_mib=64)
PUBLISHING = Publishing(
    bundle="v1",
    space="similar",
    relation="SIMILAR_TO",
    property="kithkin_vector",
    dimension=2,
    neighbours=3,
    node_types=tuple(IDS),
)
EVERYTHING = (
    "MATCH (a)-[r:SIMILAR_TO]->(b) RETURN label(a), a.id, label(b), b.id, r.score, r.reason, r.bundle, r.rank",
    "MATCH (a)-[:KITHKIN_VECTOR]->(v:KithkinVector) RETURN label(a), a.id, v.key, v.vector",
    "MATCH (p:KithkinPublished) RETURN p.bundle, p.complete, p.relation, p.dimension, p.node_types",
)


class Rows:
    """Each to the three after it, all of a type in one table."""

    def edges(self) -> Iterator[tuple[str, pa.Table]]:
        for name, ids in IDS.items():
            pairs = [(at, (at + step) % len(ids), step) for at in range(len(ids)) for step in (1, 2, 3)]
            sources, targets = [ids[at] for at, _, _ in pairs], [ids[to] for _, to, _ in pairs]
            ranks = [rank for _, _, rank in pairs]
            reasons = ["Both" if rank == 1 else None for rank in ranks]
            yield name, pa.table([sources, targets, [1 / rank for rank in ranks], reasons, ranks], schema=EDGES)

    def vectors(self) -> Iterator[tuple[str, pa.Table]]:
        for name, ids in IDS.items():
            yield name, pa.table([ids, [[float(at), 1.0] for at in range(len(ids))]], schema=VECTORS)


def _held(store: EmbeddedStore) -> list[list[str]]:
    return [sorted(map(repr, store.query(statement, limit=10_000).rows)) for statement in EVERYTHING]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with EmbeddedStore.open(SCHEMA, SETTINGS, tmp_path, read_only=False) as store:
        store.apply_schema()
        for name, ids in IDS.items():
            store.upsert_nodes(name, pa.table({"id": ids}))
        store.write_back(PUBLISHING, Rows())
    return tmp_path


def test_it_is_carried_over_in_transactions_that_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedStore.open(SCHEMA, SETTINGS, folder, read_only=True) as store:
        before = _held(store)
    assert [len(each) for each in before] == [3 * 370, 370, 1]
    monkeypatch.setattr(published, "_EDGES_A_MIB", 1)
    monkeypatch.setattr(published, "_VECTORS_A_MIB", 1)
    monkeypatch.setattr(scan, "_NODES_COUNTED_AS_ONE", 8)
    copied, read = [], []
    with_rows, table = EmbeddedDatabase.with_rows, EmbeddedDatabase.table

    def noted_rows(self: EmbeddedDatabase, statement: str, arrow_rows: pa.Table) -> pa.Table:
        if "KITHKIN_NEXT" in statement or "KithkinNextVector" in statement:
            copied.append(arrow_rows.num_rows)
        return with_rows(self, statement, arrow_rows)

    def noted_table(self: EmbeddedDatabase, statement: str, *given: object, **named: object) -> pa.Table:
        found = table(self, statement, *given, **named)  # type: ignore[arg-type]
        if "SIMILAR_TO" in statement or "n.vector" in statement:
            read.append(found.num_rows)
        return found

    monkeypatch.setattr(EmbeddedDatabase, "with_rows", noted_rows)
    monkeypatch.setattr(EmbeddedDatabase, "table", noted_table)
    rewrite(SCHEMA, SETTINGS, folder)
    # The edges once, and vectors twice: the nodes, and the edges that lead to them.
    assert sum(copied) == 3 * 370 + 2 * 370
    assert max(copied) == 64
    assert sum(read) == 3 * 370 + 370
    assert max(read) <= 64
    with EmbeddedStore.open(SCHEMA, SETTINGS, folder, read_only=True) as store:
        assert _held(store) == before


def test_a_vector_that_nobody_leads_to_is_not_carried_over(folder: Path) -> None:
    with EmbeddedStore.open(SCHEMA, SETTINGS, folder, read_only=False) as store:
        store.query("MATCH (f:Film {id: 'é/7'}) DETACH DELETE f", write=True)
        assert store.query("MATCH (v:KithkinVector) RETURN count(v)").rows == ((370,),)
        before = _held(store)
    rewrite(SCHEMA, SETTINGS, folder)
    with EmbeddedStore.open(SCHEMA, SETTINGS, folder, read_only=True) as store:
        assert _held(store) == before
        assert store.query("MATCH (v:KithkinVector) RETURN count(v)").rows == ((369,),)
