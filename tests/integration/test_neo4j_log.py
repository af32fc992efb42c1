"""The log of writes in Neo4j is emptied for a person who is to be forgotten, against a real server."""

from __future__ import annotations

import pyarrow as pa
import pytest

from graph_store.neo4j.log import clear_log
from graph_store.neo4j.store import Neo4jStore
from graph_store.schema import GraphSchema, NodeType
from graph_store.settings import StoreSettings
from tests.conftest import Neo4jServer

pytestmark = pytest.mark.neo4j

SCHEMA = GraphSchema(
    node_types=(
        NodeType.model_validate({"name": "User", "role": "user", "properties": {"age": {"type": "int"}}}),
        NodeType.model_validate({"name": "Film", "role": "entity"}),
    ),
    relations=(),
)


def test_a_log_that_names_the_person_is_emptied(clean_neo4j: Neo4jServer) -> None:
    settings = StoreSettings.model_validate({"uri": clean_neo4j.uri, "timeout_s": 10})
    with Neo4jStore.open(SCHEMA, settings, read_only=False) as store:
        store.apply_schema()
        before = store.log_position()
        store.upsert_nodes("User", pa.table({"id": ["änn-4711", "bob"]}))
        store.delete_nodes("User", ["änn-4711"])
        assert not clear_log(settings, "nn-4711"), "no one's id, but a part of one"
        assert clear_log(settings, "änn-4711", dry_run=True)
        told = store.written_since(before)
        assert told is not None
        assert len(told.changes) == 2
        assert clear_log(settings, "änn-4711")
        assert store.query("MATCH (k:KithkinSchema) RETURN size(k.log) AS entries").rows == ((0,),)
        assert not clear_log(settings, "änn-4711")
        assert store.written_since(before) is None, "who follows compares"
        now = store.log_position()
        store.upsert_nodes("User", pa.table({"id": ["cem"]}))
        told = store.written_since(now)
        assert told is not None
        assert [each.keys for each in told.changes] == [(("cem",),)]
