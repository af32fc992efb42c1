"""Scans of the embedded store in parts bring every row once."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from graph_store.embedded import scan
from graph_store.embedded.store import EmbeddedStore
from graph_store.errors import StoreUnavailable
from graph_store.schema import Triple
from graph_store.settings import StoreSettings
from tests.random_graph import HAS_TAG, LIKED, NEAR, SCHEMA, random_graph


def opened(folder: Path, *, read_only: bool) -> EmbeddedStore:
    settings = StoreSettings(uri="graph.lbug", memory_mib=64)
    return EmbeddedStore.open(SCHEMA, settings, folder, read_only=read_only)


@pytest.fixture
def edges(tmp_path: Path) -> dict[Triple, set[tuple[str, str]]]:
    """A store of two writes with deletions between, and the pairs that are left of three relations."""
    rows = random_graph(2, (300, 200, 5), 1500)
    pairs = {
        triple: set(zip(*(rows.edges[triple][end].to_pylist() for end in ("source", "target")), strict=True))
        for triple in (LIKED, NEAR, HAS_TAG)
    }
    gone = rows.nodes["Film"]["id"].to_pylist()[100:160]
    with opened(tmp_path, read_only=False) as store:
        store.apply_schema()
        for name, table in rows.nodes.items():
            for part in (table.slice(0, 150), table.slice(150)):
                store.upsert_nodes(name, part.select(["id"]))
        for triple, found in pairs.items():
            source, target = zip(*sorted(found), strict=True)
            columns = {"source": source, "target": target} | ({"much": range(len(source))} if triple == NEAR else {})
            declared = SCHEMA.relation(triple).arrow_schema
            wanted = [*columns, *(name for name in SCHEMA.relation(triple).key_columns[2:])]
            schema = pa.schema([declared.field(name) for name in wanted])
            nulls = dict.fromkeys(wanted[len(columns) :], [None] * len(source))
            store.upsert_edges(triple, pa.table({name: list(each) for name, each in (columns | nulls).items()}, schema))
        store.delete_nodes("Film", gone)
    return {
        triple: {pair for pair in found if not {*pair} & set(gone) or (triple == LIKED and pair[1] not in gone)}
        for triple, found in pairs.items()
    }


def test_all_edges_in_parts(
    tmp_path: Path, edges: dict[Triple, set[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, read_only=True) as store:
        whole = {triple: pa.Table.from_batches(store.scan_edges(triple)) for triple in edges}
        films = sorted(row["id"] for batch in store.scan_nodes("Film") for row in batch.to_pylist())
        monkeypatch.setattr(scan, "_EDGES_AT_ONCE", 100)
        monkeypatch.setattr(scan, "_NODES_COUNTED_AS_ONE", 4)
        monkeypatch.setattr(scan, "_NODES_AT_ONCE", 37)
        for triple, pairs in edges.items():
            batches = list(store.scan_edges(triple))
            assert len(batches) > 4
            assert batches[0].schema == SCHEMA.relation(triple).arrow_schema
            rows = [tuple(row.values()) for batch in batches for row in batch.to_pylist()]
            assert {row[:2] for row in rows} == pairs
            assert sorted(rows, key=repr) == sorted(
                (tuple(row.values()) for row in whole[triple].to_pylist()), key=repr
            )
        parts = list(store.scan_nodes("Film"))
        assert len(parts) > 4
        assert sorted(row["id"] for batch in parts for row in batch.to_pylist()) == films
        assert len(films) == 240


def test_a_commit_between_two_parts_is_told(
    tmp_path: Path, edges: dict[Triple, set[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_EDGES_AT_ONCE", 100)
    monkeypatch.setattr(scan, "_NODES_COUNTED_AS_ONE", 4)
    with opened(tmp_path, read_only=True) as store:
        batches = store.scan_edges(NEAR)
        next(batches)
        with opened(tmp_path, read_only=False) as writer:
            writer.upsert_nodes("User", pa.table({"id": ["somebody new"]}))
        with pytest.raises(StoreUnavailable, match="written to while it was read"):
            list(batches)
        assert sum(batch.num_rows for batch in store.scan_edges(NEAR)) == len(edges[NEAR])


def test_relations_and_types_of_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_NODES_AT_ONCE", 0)
    with opened(tmp_path, read_only=False) as store:
        store.apply_schema()
        assert sum(batch.num_rows for batch in store.scan_nodes("Film")) == 0
        assert sum(batch.num_rows for batch in store.scan_edges(NEAR)) == 0
