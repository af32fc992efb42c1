"""Large loads and scans of Neo4jStore: in parts, by Neo4j's own numbers of nodes, whatever others write meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator

import neo4j
import numpy as np
import pyarrow as pa
import pytest
from neo4j import exceptions

from graph_store.errors import StoreConflict
from graph_store.neo4j.bulk import Writer
from graph_store.neo4j.driver import Neo4jConnection
from graph_store.neo4j.numbers import ABSENT, Numbers
from graph_store.neo4j.store import Neo4jStore
from graph_store.schema import GraphSchema, NodeType, Relation, Triple
from graph_store.settings import StoreSettings
from graph_store.store import Written
from tests.conftest import Neo4jServer

pytestmark = pytest.mark.neo4j

KNOWS = Triple("Person", "KNOWS", "Person")
SCHEMA = GraphSchema(
    node_types=(NodeType.model_validate({"name": "Person", "role": "entity"}),),
    relations=(
        Relation.model_validate(
            {
                "triple": KNOWS,
                "role": "semantic",
                "properties": {"since": {"type": "int"}, "seen": {"type": "timestamp"}},
            }
        ),
    ),
)
PEOPLE = [f"p{number}" for number in range(60)]


@pytest.fixture
def driver(clean_neo4j: Neo4jServer) -> Iterator[neo4j.Driver]:
    """A connection that is not ours."""
    with neo4j.GraphDatabase.driver(clean_neo4j.uri, auth=(clean_neo4j.user, clean_neo4j.password)) as driver:
        yield driver


@pytest.fixture
def settings(clean_neo4j: Neo4jServer) -> StoreSettings:
    return StoreSettings(uri=clean_neo4j.uri, timeout_s=20)


@pytest.fixture
def store(settings: StoreSettings) -> Iterator[Neo4jStore]:
    """People, and nobody knows anybody."""
    with Neo4jStore.open(SCHEMA, settings, read_only=False) as store:
        store.apply_schema()
        store.upsert_nodes("Person", pa.table({"id": PEOPLE}))
        yield store


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is large: a part has ten rows, a page about ten."""
    monkeypatch.setattr("graph_store.neo4j.bulk.ROWS_PER_TRANSACTION", 20)
    monkeypatch.setattr("graph_store.neo4j.bulk.ROWS_AT_ONCE", 10)
    monkeypatch.setattr("graph_store.neo4j.statements.ROWS_AT_ONCE", 10)
    monkeypatch.setattr("graph_store.neo4j.scans.MOST_OF_ONE_SOURCE", 7)


def _edges() -> pa.Table:
    """p0 knows everybody, the others two or none; some values are missing."""
    pairs = [("p0", other) for other in PEOPLE] + [
        (f"p{n}", f"p{(n * 7 + k) % 60}") for n in range(5, 40) for k in (1, 2)
    ]
    numbers = np.arange(len(pairs))
    return pa.table(
        {
            "source": [source for source, _ in pairs],
            "target": [target for _, target in pairs],
            "since": pa.array(numbers, pa.int64(), mask=numbers % 3 == 0),
            "seen": pa.array((numbers - 20) * 1_000_001, pa.timestamp("us", "UTC"), mask=numbers % 4 == 0),
        }
    )


def _scanned(store: Neo4jStore) -> list[tuple[object, ...]]:
    return sorted(
        (tuple(row.values()) for batch in store.scan_edges(KNOWS) for row in batch.to_pylist()), key=lambda row: row[:2]
    )


def _expected(edges: pa.Table) -> list[tuple[object, ...]]:
    return sorted((tuple(row.values()) for row in edges.to_pylist()), key=lambda row: row[:2])


@pytest.mark.usefixtures("in_parts")
def test_a_load_in_parts_is_the_same_graph_and_so_is_it_twice(store: Neo4jStore) -> None:
    edges = _edges()
    assert store.upsert_edges(KNOWS, edges) == Written(created=130)
    assert _scanned(store) == _expected(edges)
    token = store.state_token()
    assert store.upsert_edges(KNOWS, edges) == Written(unchanged=130)
    assert store.state_token() == token
    later = edges.set_column(2, "since", pa.array([year or 7 for year in edges["since"].to_pylist()], pa.int64()))
    assert store.upsert_edges(KNOWS, later) == Written(changed=44, unchanged=86)
    assert _scanned(store) == _expected(later)
    assert store.replace_edges(KNOWS, edges.slice(3)) == Written(changed=43, unchanged=84, deleted=3)
    assert _scanned(store) == _expected(edges.slice(3))
    assert store.delete_edges(KNOWS, edges) == Written(deleted=127)
    assert _scanned(store) == []


@pytest.mark.usefixtures("in_parts")
def test_a_page_reads_a_well_connected_node_alone_and_in_parts(
    store: Neo4jStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.upsert_edges(KNOWS, _edges())
    sizes = [batch.num_rows for batch in store.scan_edges(KNOWS)]
    assert sum(sizes) == 130
    assert max(sizes) <= 30  # a page of ten may end with a node of up to seven, a part of p0 is an uneven one of nine
    monkeypatch.setattr("graph_store.neo4j.scans.MOST_OF_ONE_SOURCE", 100)
    monkeypatch.setattr("graph_store.neo4j.statements.ROWS_AT_ONCE", 1000)
    assert [batch.num_rows for batch in store.scan_edges(KNOWS)] == [130]


@pytest.mark.usefixtures("in_parts")
def test_a_scan_that_others_write_beside_names_every_end(store: Neo4jStore, driver: neo4j.Driver) -> None:
    edges = _edges()
    store.upsert_edges(KNOWS, edges)
    batches = store.scan_edges(KNOWS)
    first = next(batches)
    # A node made since the ids were read, one without an id, and one that is gone, whose number is free then.
    driver.execute_query("MATCH (p:Person {id: 'p59'}) DETACH DELETE p")
    last_two = "MATCH (p:Person) WHERE p.id IN ['p38', 'p39']"
    driver.execute_query(f"{last_two} MERGE (n:Person {{id: 'new'}}) CREATE (p)-[:KNOWS]->(n), (p)-[:KNOWS]->(:Person)")
    seen = [row for batch in (first, *batches) for row in batch.to_pylist()]
    pairs = {(row["source"], row["target"]) for row in seen}
    assert len(pairs) == len(seen)
    known = {(row["source"], row["target"]) for row in edges.to_pylist()}
    assert pairs <= known | {("p38", "new"), ("p39", "new")}
    assert pairs >= {pair for pair in known if "p59" not in pair}


def test_a_number_is_nobody_elses_while_a_transaction_is_open(store: Neo4jStore, driver: neo4j.Driver) -> None:
    # What reading and writing by number rest upon.
    with driver.session() as session, session.begin_transaction() as transaction:
        numbers = set(Numbers(transaction, "Person").read_all().tolist())
        assert len(numbers) == len(PEOPLE)
        driver.execute_query("MATCH (p:Person) DELETE p")
        for wait_s in (0, 1.5):
            time.sleep(wait_s)
            made = driver.execute_query("UNWIND range(1, 500) AS n CREATE (p:Person {id: 'q' + n}) RETURN id(p) AS n")
            assert numbers.isdisjoint(record["n"] for record in made.records)
            driver.execute_query("MATCH (p:Person) DELETE p")


def test_numbers_and_ids_tell_what_is_not_there(store: Neo4jStore, driver: neo4j.Driver) -> None:
    driver.execute_query("CREATE (:Stranger {id: 'p3'})")
    driver.execute_query("UNWIND range(100, 200) AS n CREATE (:Person {id: 'p' + n})")  # so that three are few
    stranger = driver.execute_query("MATCH (n:Stranger) RETURN id(n) AS n").records[0]["n"]
    with driver.session() as session, session.begin_transaction() as transaction:
        numbers = Numbers(transaction, "Person")
        some = numbers.of(pa.array(["p3", "nobody", "p4", "p3"]))
        assert (some == ABSENT).tolist() == [False, True, False, False]
        assert some[0] == some[3] != some[2]
        asked = np.array([some[2], stranger, some[0]])
        assert numbers.ids(asked).to_pylist() == ["p4", None, "p3"]
        everybody = numbers.read_all()
        assert len(everybody) == len(np.unique(everybody)) == len(PEOPLE) + 101
        assert stranger not in everybody
        assert numbers.ids(asked).to_pylist() == ["p4", None, "p3"]
        assert (numbers.of(pa.array(["nobody", "p4"])) == np.array([ABSENT, some[2]])).all()


@pytest.mark.parametrize("large", [False, True])
def test_a_node_that_goes_while_edges_are_written_to_it_is_told(
    store: Neo4jStore, driver: neo4j.Driver, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr("graph_store.neo4j.bulk.ROWS_PER_TRANSACTION", 20)
        monkeypatch.setattr("graph_store.neo4j.bulk.ROWS_AT_ONCE", 10)
    edges = _edges()
    run = Writer.run

    def deletes_first(writer: Writer, statement: str, rows: pa.Table) -> int:
        if "CREATE" in statement:
            driver.execute_query("MATCH (p:Person {id: 'p59'}) DELETE p")
        return run(writer, statement, rows)

    with monkeypatch.context() as patched:
        patched.setattr(Writer, "run", deletes_first)
        with pytest.raises(StoreConflict, match="deleted nodes while 2 edges were written") as caught:
            store.upsert_edges(KNOWS, edges)
    assert "again" in caught.value.hint
    rest = [row for row in edges.to_pylist() if "p59" not in (row["source"], row["target"])]
    assert len(_scanned(store)) == (len(rest) if large else 0)  # all or nothing, where it is one transaction
    store.upsert_edges(KNOWS, pa.Table.from_pylist(rest, edges.schema))
    assert _scanned(store) == _expected(pa.Table.from_pylist(rest))


@pytest.mark.usefixtures("in_parts")
def test_a_part_whose_commit_is_in_doubt_is_found_and_not_written_twice(
    store: Neo4jStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    edges, commit, commits = _edges(), neo4j.Transaction.commit, []

    def breaks(transaction: neo4j.Transaction) -> None:
        commit(transaction)
        commits.append(transaction)
        if len(commits) == 4:
            raise exceptions.IncompleteCommit("the connection broke")

    monkeypatch.setattr(neo4j.Transaction, "commit", breaks)
    assert store.upsert_edges(KNOWS, edges) == Written(created=130)
    assert len(commits) < 13 + 4  # what was there when it began anew is not written again
    assert _scanned(store) == _expected(edges)


@pytest.mark.usefixtures("in_parts")
def test_a_part_in_a_deadlock_is_written_again_alone(store: Neo4jStore, monkeypatch: pytest.MonkeyPatch) -> None:
    edges, commit, locks, commits = _edges(), neo4j.Transaction.commit, [], []

    def loses(transaction: neo4j.Transaction) -> None:
        commits.append(transaction)
        if len(commits) == 4:
            transaction.rollback()
            raise exceptions.Neo4jError._hydrate_neo4j(  # type: ignore[attr-defined]
                code="Neo.TransientError.Transaction.DeadlockDetected", message="another one holds it"
            )
        commit(transaction)

    write = Neo4jConnection.write

    def counted(connection: Neo4jConnection, work: object) -> object:
        locks.append(work)
        return write(connection, work)  # type: ignore[arg-type]

    monkeypatch.setattr(neo4j.Transaction, "commit", loses)
    monkeypatch.setattr(Neo4jConnection, "write", counted)
    assert store.upsert_edges(KNOWS, edges) == Written(created=130)
    assert len(locks) == 1
    assert len(commits) == 14
    assert _scanned(store) == _expected(edges)
