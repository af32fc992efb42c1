"""What passes is tried again within a bound, what does not is told at once: deadlocks, lost connections, time-outs."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import neo4j
import pyarrow as pa
import pytest
from neo4j import exceptions

from graph_store.errors import QueryError, StoreAuthError, StoreConflict, StoreError, StoreUnavailable
from graph_store.neo4j.driver import Neo4jConnection
from graph_store.neo4j.failures import said
from graph_store.neo4j.store import Neo4jStore
from graph_store.schema import GraphSchema, NodeType
from graph_store.settings import StoreSettings
from graph_store.store import Written
from tests.conftest import Neo4jServer
from tests.neo4j.proxy import Door, door

pytestmark = pytest.mark.neo4j

SCHEMA = GraphSchema(node_types=(NodeType.model_validate({"name": "Movie", "role": "entity"}),), relations=())


def _settings(server: Neo4jServer, **changes: object) -> StoreSettings:
    return StoreSettings.model_validate({"uri": server.uri, "timeout_s": 20, **changes})


def _says(code: str) -> exceptions.Neo4jError:
    """The driver's error for what a server says; there is no public way to make one."""
    make = exceptions.Neo4jError._hydrate_neo4j  # type: ignore[attr-defined]
    made = make(code=code, message="as a server says it")
    assert isinstance(made, exceptions.Neo4jError)
    return made


@pytest.fixture
def connection(clean_neo4j: Neo4jServer) -> Iterator[Neo4jConnection]:
    connection = Neo4jConnection(_settings(clean_neo4j), read_only=False)
    yield connection
    connection.close()


@pytest.fixture
def doored(clean_neo4j: Neo4jServer) -> Iterator[tuple[Neo4jConnection, Door]]:
    """A connection that goes through a door, which can be shut."""
    with door(int(clean_neo4j.uri.rsplit(":", 1)[1])) as made:
        settings = _settings(clean_neo4j, uri=f"bolt://127.0.0.1:{made.port}", retry_s=2)
        connection = Neo4jConnection(settings, read_only=False)
        yield connection, made
        connection.close()


def test_a_deadlock_is_tried_again_and_both_writes_are_there(
    connection: Neo4jConnection, clean_neo4j: Neo4jServer
) -> None:
    connection.write(lambda transaction: transaction.run("CREATE (:X {n: 1, by: 0}), (:X {n: 2, by: 0})").consume())
    both_hold_one = threading.Barrier(2)
    attempts: list[int] = []

    def add(first: int, second: int) -> None:
        mine = Neo4jConnection(_settings(clean_neo4j), read_only=False)
        tried = 0

        def work(transaction: neo4j.ManagedTransaction) -> None:
            nonlocal tried
            tried += 1
            attempts.append(first)
            transaction.run("MATCH (x:X {n: $n}) SET x.by = x.by + 1", n=first).consume()
            if tried == 1:
                both_hold_one.wait(20)
            transaction.run("MATCH (x:X {n: $n}) SET x.by = x.by + 1", n=second).consume()

        mine.write(work)
        mine.close()

    threads = [threading.Thread(target=add, args=order) for order in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(attempts) in ([1, 1, 2], [1, 2, 2]), "one of the two was ended, and began again"
    counts = connection.read(lambda transaction: transaction.run("MATCH (x:X) RETURN x.by AS by").value())
    assert counts == [2, 2]


@pytest.mark.parametrize(
    "code", ["Neo.ClientError.Cluster.NotALeader", "Neo.TransientError.General.DatabaseUnavailable"]
)
def test_another_leader_and_a_database_that_starts_are_tried_again(connection: Neo4jConnection, code: str) -> None:
    calls: list[int] = []

    def work(transaction: neo4j.ManagedTransaction) -> int:
        calls.append(transaction.run("CREATE (x:X) RETURN 1 AS one").single(strict=True)["one"])
        if len(calls) == 1:
            raise _says(code)
        return len(calls)

    assert connection.write(work) == 2
    assert connection.read(lambda transaction: transaction.run("MATCH (x:X) RETURN count(x) AS n").value()) == [1]


def test_it_ends_after_retry_s(clean_neo4j: Neo4jServer) -> None:
    calls: list[int] = []

    def work(_: neo4j.ManagedTransaction) -> None:
        calls.append(1)
        raise _says("Neo.TransientError.Transaction.DeadlockDetected")

    connection = Neo4jConnection(_settings(clean_neo4j, retry_s=0.1), read_only=False)
    with pytest.raises(
        StoreUnavailable, match=r"ended the transaction for 0\.1 s on end: as a server says it"
    ) as caught:
        connection.write(work)
    connection.close()
    assert len(calls) == 2, "the driver waits a second, which is over the bound"
    assert "store.retry_s" in caught.value.hint


def test_what_does_not_pass_is_told_at_once(connection: Neo4jConnection) -> None:
    calls: list[int] = []

    def work(transaction: neo4j.ManagedTransaction) -> None:
        calls.append(1)
        transaction.run("CREATE (:X {list: [[1]]})").consume()

    with pytest.raises(StoreConflict):
        connection.write(work)
    assert len(calls) == 1


def test_a_connection_that_breaks_before_the_commit_is_made_again(doored: tuple[Neo4jConnection, Door]) -> None:
    connection, made = doored
    calls: list[int] = []

    def work(transaction: neo4j.ManagedTransaction) -> int:
        calls.append(1)
        transaction.run("CREATE (:X)").consume()
        if len(calls) == 1:
            made.cut()
        transaction.run("CREATE (:X)").consume()
        return len(calls)

    before = made.accepted
    assert connection.write(work) == 2
    assert made.accepted > before
    count = connection.read(lambda transaction: transaction.run("MATCH (x:X) RETURN count(x) AS n").value())
    assert count == [2], "the first attempt left nothing"


def test_pooled_connections_that_went_meanwhile_do_no_harm(doored: tuple[Neo4jConnection, Door]) -> None:
    connection, made = doored
    made.cut()
    assert connection.query("RETURN 1 AS one", {}, limit=1, write=False)[1] == [[1]]
    made.cut()
    assert connection.token()
    made.cut()
    connection.command("CREATE INDEX once IF NOT EXISTS FOR (x:X) ON (x.n)")


def test_a_server_that_went_is_told_within_the_bound(doored: tuple[Neo4jConnection, Door]) -> None:
    connection, made = doored
    made.close()
    with pytest.raises(StoreUnavailable, match="cannot reach Neo4j"):
        connection.query("RETURN 1", {}, limit=1, write=False)


def test_a_store_reads_and_writes_after_its_connections_broke(clean_neo4j: Neo4jServer) -> None:
    with door(int(clean_neo4j.uri.rsplit(":", 1)[1])) as made:
        settings = _settings(clean_neo4j, uri=f"bolt://127.0.0.1:{made.port}")
        with Neo4jStore.open(SCHEMA, settings, read_only=False) as store:
            store.apply_schema()
            made.cut()
            assert store.upsert_nodes("Movie", pa.table({"id": ["m1"]})) == Written(created=1)
            made.cut()
            assert store.counts().nodes == {"Movie": 1}
            made.cut()
            assert store.upsert_nodes("Movie", pa.table({"id": ["m1", "m2"]})) == Written(created=1, unchanged=1)
            made.cut()
            assert [batch.to_pydict() for batch in store.scan_nodes("Movie")] == [{"id": ["m1", "m2"]}]


def test_a_scan_whose_connection_breaks_in_it_says_so(doored: tuple[Neo4jConnection, Door]) -> None:
    connection, made = doored

    def scan() -> None:
        with connection.reading() as transaction:
            assert transaction.run("RETURN 1 AS one").value() == [1]
            made.cut()
            transaction.run("RETURN 1").consume()

    with pytest.raises(StoreUnavailable, match="cannot reach Neo4j"):
        scan()


def test_a_statement_that_commits_in_parts_still_runs(connection: Neo4jConnection) -> None:
    statement = "UNWIND range(1, 5) AS n CALL (n) { CREATE (:X {n: n}) } IN TRANSACTIONS OF 2 ROWS RETURN count(*) AS n"
    assert connection.query(statement, {}, limit=1, write=True) == (["n"], [[5]], False)
    with pytest.raises(QueryError):
        connection.query(statement, {}, limit=1, write=False)
    assert connection.query("MATCH (x:X) RETURN count(x)", {}, limit=1, write=False)[1] == [[5]]


def test_a_transaction_over_its_time_is_ended_and_the_setting_named(clean_neo4j: Neo4jServer) -> None:
    connection = Neo4jConnection(_settings(clean_neo4j, transaction_timeout_s=0.2), read_only=False)
    endless = "UNWIND range(1, 1000000000) AS n WITH n WHERE n < 0 RETURN n"
    for run in (
        lambda: connection.query(endless, {}, limit=1, write=False),
        lambda: connection.read(lambda transaction: transaction.run(endless).consume()),
        lambda: connection.write(lambda transaction: transaction.run(endless).consume()),
    ):
        with pytest.raises(StoreError, match=r"longer than store\.transaction_timeout_s allows"):
            run()
    connection.close()


def test_a_pool_that_is_used_up_is_told(clean_neo4j: Neo4jServer) -> None:
    settings = _settings(clean_neo4j, pool_size=1, acquisition_timeout_s=0.2, timeout_s=5, retry_s=0.1)
    connection = Neo4jConnection(settings, read_only=True)
    with connection.reading(), pytest.raises(StoreUnavailable, match=r"no connection .* was free in time") as caught:
        connection.query("RETURN 1", {}, limit=1, write=False)
    connection.close()
    assert "store.pool_size" in caught.value.hint


def test_what_a_server_may_say_has_words(clean_neo4j: Neo4jServer) -> None:
    """Of servers that are no single Community one: their errors, as the driver makes them of the codes."""
    settings = _settings(clean_neo4j)
    forbidden = said(_says("Neo.ClientError.Security.Forbidden"), settings)
    assert isinstance(forbidden, StoreAuthError)
    assert "may not do this" in str(forbidden)
    assert "docs/neo4j.md" in forbidden.hint
    broken = said(exceptions.IncompleteCommit("gone"), settings)
    assert isinstance(broken, StoreUnavailable)
    assert "may or may not be there" in str(broken)
    theirs = said(_says("Neo.ClientError.Transaction.TransactionTimedOut"), settings)
    assert "db.transaction.timeout" in str(theirs)
    assert isinstance(said(_says("Neo.TransientError.General.MemoryPoolOutOfMemoryError"), settings), StoreError)
