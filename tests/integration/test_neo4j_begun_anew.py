"""A large write to Neo4j whose connection breaks between its parts begins anew, and tells what it did as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from neo4j import exceptions

from graph_store.neo4j.driver import Neo4jConnection
from graph_store.neo4j.store import Neo4jStore
from graph_store.schema import GraphSchema, NodeType, Relation, Triple
from graph_store.settings import StoreSettings
from graph_store.store import Written
from graph_store.written import Logged
from tests.conftest import Neo4jServer

pytestmark = pytest.mark.neo4j

KNOWS = Triple("Person", "KNOWS", "Person")
SCHEMA = GraphSchema(
    node_types=(
        NodeType.model_validate({"name": "Person", "role": "entity", "properties": {"name": {"type": "string"}}}),
    ),
    relations=(Relation.model_validate({"triple": KNOWS, "role": "semantic"}),),
)
IDS = [f"p{number}" for number in range(45)]
PAIRS = pa.table({"source": IDS, "target": [*IDS[1:], IDS[0]]})


@pytest.fixture
def store(clean_neo4j: Neo4jServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Neo4jStore]:
    """More than 20 rows are a large write, in parts of ten, one after the other."""
    monkeypatch.setattr("graph_store.neo4j.bulk.ROWS_PER_TRANSACTION", 20)
    monkeypatch.setattr("graph_store.neo4j.bulk.ROWS_AT_ONCE", 10)
    monkeypatch.setattr("graph_store.neo4j.bulk.SESSIONS", 1)
    with Neo4jStore.open(SCHEMA, StoreSettings(uri=clean_neo4j.uri, timeout_s=20), read_only=False) as store:
        store.apply_schema()
        yield store


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Breaks the connection behind so many parts more, again and again."""
    run_apart = Neo4jConnection.run_apart
    left: list[int] = []

    def breaking(self: Neo4jConnection, *arguments: Any) -> Any:
        done = run_apart(self, *arguments)
        if left:
            left[0] -= 1
            if not left[0]:
                left.pop(0)
                raise exceptions.SessionExpired("broken for the test")
        return done

    monkeypatch.setattr(Neo4jConnection, "run_apart", breaking)
    return lambda *after: left.extend(after)


def test_nodes_and_edges_are_told_as_a_whole(store: Neo4jStore, broken: Callable[..., None]) -> None:
    people = pa.table({"id": IDS, "name": ["x"] * len(IDS)})
    broken(2)
    assert store.upsert_nodes("Person", people) == Written(created=45)
    position = store.log_position()
    broken(1, 2)
    assert store.upsert_edges(KNOWS, PAIRS.slice(5)) == Written(created=40)
    assert store.upsert_edges(KNOWS, PAIRS.slice(5)) == Written(unchanged=40)
    told = store.written_since(position)
    assert told is not None
    # Of the rows that an earlier beginning wrote nobody knows the keys: none are named, rather than some.
    assert told.changes == (Logged(what=KNOWS.key, op="upsert", keys=None),)
    broken(1)
    assert store.replace_edges(KNOWS, PAIRS.slice(0, 10)) == Written(created=5, unchanged=5, deleted=35)
    broken(1)
    renamed = pa.table({"id": IDS[:30], "name": ["y"] * 30})
    assert store.upsert_nodes("Person", renamed) == Written(changed=30)


def test_what_broke_behind_its_last_part_is_told_and_logged(store: Neo4jStore, broken: Callable[..., None]) -> None:
    store.upsert_nodes("Person", pa.table({"id": IDS}))
    store.upsert_edges(KNOWS, PAIRS)
    position = store.log_position()
    broken(5)
    assert store.delete_edges(KNOWS, PAIRS) == Written(deleted=45)
    told = store.written_since(position)
    assert told is not None
    assert told.changes == (Logged(what=KNOWS.key, op="delete", keys=None),)
    position = store.log_position()
    broken(5)
    assert store.delete_nodes("Person", IDS) == Written(deleted=45)
    told = store.written_since(position)
    assert told is not None
    assert told.changes == (Logged(what="Person", op="delete", keys=None),)
    assert store.counts().nodes == {"Person": 0}
