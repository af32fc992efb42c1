"""The log of writes in Neo4j says whether anybody else has committed, against a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from graph_store.neo4j.store import Neo4jStore
from graph_store.schema import GraphSchema, NodeType
from graph_store.settings import StoreSettings
from graph_store.written import WrittenSince
from tests.conftest import Neo4jServer

pytestmark = pytest.mark.neo4j

SCHEMA = GraphSchema(node_types=(NodeType.model_validate({"name": "Film", "role": "entity"}),), relations=())


@pytest.fixture
def stores(clean_neo4j: Neo4jServer) -> Iterator[tuple[Neo4jStore, Neo4jStore]]:
    """One that writes, and one that follows."""
    settings = StoreSettings.model_validate({"uri": clean_neo4j.uri, "timeout_s": 10})
    with (
        Neo4jStore.open(SCHEMA, settings, read_only=False) as writer,
        Neo4jStore.open(SCHEMA, settings, read_only=True) as reader,
    ):
        writer.apply_schema()
        # The first node of a label, and the first entry, make names that Neo4j commits for themselves.
        writer.upsert_nodes("Film", pa.table({"id": ["first"]}))
        yield writer, reader


def _told(store: Neo4jStore, position: str) -> WrittenSince:
    told = store.written_since(position)
    assert told is not None
    return told


def test_only_ours_is_complete(stores: tuple[Neo4jStore, Neo4jStore]) -> None:
    writer, reader = stores
    position = reader.log_position()
    assert _told(reader, position) == WrittenSince(changes=(), watermark=position, complete=True)
    for number in range(5):
        writer.upsert_nodes("Film", pa.table({"id": [f"f{number}"]}))
    writer.upsert_nodes("Film", pa.table({"id": ["f0"]}))  # nothing to write: rolled back
    writer.delete_nodes("Film", ["f4"])
    told = _told(reader, position)
    assert (told.complete, told.others, len(told.changes)) == (True, False, 6)
    assert _told(reader, told.watermark).complete


def test_what_others_commit_is_told_once(stores: tuple[Neo4jStore, Neo4jStore]) -> None:
    writer, reader = stores
    position = reader.log_position()
    writer.query("MATCH (f:Film {id: 'first'}) DETACH DELETE f", write=True)
    writer.upsert_nodes("Film", pa.table({"id": ["f1"]}))
    told = _told(reader, position)
    assert (told.complete, told.others, len(told.changes)) == (False, True, 1)
    writer.upsert_nodes("Film", pa.table({"id": ["f2"]}))
    after = _told(reader, told.watermark)
    assert (after.complete, after.others, len(after.changes)) == (True, False, 1)
    assert not _told(reader, position).complete


def test_who_has_not_seen_a_position_cannot_tell(stores: tuple[Neo4jStore, Neo4jStore]) -> None:
    writer, reader = stores
    told = _told(reader, writer.log_position())
    assert (told.complete, told.others) == (False, False)
