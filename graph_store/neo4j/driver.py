"""The one place that knows the Neo4j driver's sessions and values; ``address`` and ``failures`` know the rest of it.

Every transaction is one that the driver begins again where Neo4j says that this may help: a deadlock, another leader,
a connection that broke before the commit; for ``store.retry_s`` seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import neo4j
from neo4j import exceptions as failures
from neo4j import graph, time

from graph_store.errors import ConfigError, GraphStoreError, QueryError, StoreError, StoreUnavailable
from graph_store.neo4j.address import driver_options
from graph_store.neo4j.bookmarks import last_transaction
from graph_store.neo4j.failures import code_of, lacks_memory, query_failed, said, wants_no_transaction
from graph_store.settings import StoreSettings

_DEADLOCKS = 10
"""Attempts at a part of a large write."""
Result = TypeVar("Result")
Rows = tuple[list[str], list[list[Any]], bool]


class NothingToWrite(Exception):  # not an error: carries the answer out of a transaction that is to leave no trace
    """Raised inside a write to roll it back."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer


class Neo4jConnection:
    """A driver for one database."""

    def __init__(self, settings: StoreSettings, *, read_only: bool) -> None:
        """Connect and check it, within ``settings.timeout_s``.

        Raises StoreUnavailable, StoreAuthError or ConfigError. The password comes from the environment or a file.
        """
        self.read_only = read_only
        self.label_prefix = settings.label_prefix
        self.create_constraints = settings.create_constraints
        self._settings = settings
        self._closed = False
        uri, options = driver_options(settings)
        try:
            self._driver = neo4j.GraphDatabase.driver(uri, **options)
        except (failures.ConfigurationError, ValueError) as error:
            raise ConfigError(f"not an address of a Neo4j: {error}", key="store.uri", value=settings.uri) from None
        # A later session sees what an earlier one wrote, on a cluster too.
        self._bookmarks = neo4j.GraphDatabase.bookmark_manager()
        try:
            with self._failures(), self._session(neo4j.READ_ACCESS) as session:
                session.run("RETURN 1").consume()  # says too whether the database is there
        except BaseException:
            self._driver.close()
            raise

    def close(self) -> None:
        """Close all connections; twice does no harm."""
        if not self._closed:
            self._closed = True
            self._driver.close()

    def read(self, work: Callable[[neo4j.ManagedTransaction], Result]) -> Result:
        """Run ``work`` in one read transaction, again where Neo4j says that this may help."""
        with self._failures(), self._session(neo4j.READ_ACCESS) as session:
            return session.execute_read(self._bounded(work))

    def read_at(self, work: Callable[[neo4j.ManagedTransaction], Result]) -> tuple[Result, int | None]:
        """The same, and the number of the last transaction that was committed before its end; None: not known."""
        with self._failures(), self._session(neo4j.READ_ACCESS) as session:
            result = session.execute_read(self._bounded(work))
            return result, last_transaction(session.last_bookmarks().raw_values)

    def write(self, work: Callable[[neo4j.ManagedTransaction], Result]) -> Result:
        """Run ``work`` in one write transaction, again where Neo4j says that this may help.

        ``NothingToWrite`` inside rolls it back and gives its answer.
        """
        if self.read_only:
            raise StoreError("the store is open read-only", hint="Open it without read_only.")

        def once_where_memory_lacks(transaction: neo4j.ManagedTransaction) -> Result:
            try:
                return work(transaction)
            except failures.Neo4jError as error:
                if lacks_memory(error):
                    raise said(error, self._settings) from None
                raise

        try:
            with self._failures(), self._session(neo4j.WRITE_ACCESS) as session:
                return session.execute_write(self._bounded(once_where_memory_lacks))
        except NothingToWrite as nothing:
            answer: Result = nothing.answer
            return answer

    def run_apart(self, statement: str, parameters: Mapping[str, Any]) -> neo4j.SummaryCounters:
        """Run one statement in a transaction of its own, beside that of ``write``, which holds the lock.

        Begun again after a deadlock only. Where the connection breaks the lock is gone too: the error goes out as it
        is, and ``write`` begins anew.
        """
        timeout = self._settings.transaction_timeout_s
        with self._session(neo4j.WRITE_ACCESS) as session:
            for attempt in range(1, _DEADLOCKS + 1):
                try:
                    with session.begin_transaction(timeout=timeout) as transaction:
                        counters = transaction.run(statement, dict(parameters)).consume().counters
                        transaction.commit()
                except failures.IncompleteCommit as error:  # whether it is there, write finds out
                    raise failures.SessionExpired(str(error)) from error
                except failures.TransientError as error:
                    if attempt == _DEADLOCKS or "DeadlockDetected" not in code_of(error):
                        raise
                else:
                    return counters
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def reading(self) -> Iterator[neo4j.Transaction]:
        """One read transaction for as long as the block lasts (scans); where it breaks, the block fails."""
        with self._failures(), self._session(neo4j.READ_ACCESS) as session:
            # Idle connections may be broken, and here that is found and mended: the block cannot be begun again.
            session.execute_read(lambda transaction: transaction.run("RETURN 1").consume())
            with session.begin_transaction(timeout=self._settings.transaction_timeout_s) as transaction:
                yield transaction

    def command(self, statement: str) -> None:
        """Run a schema command, which Neo4j wants apart from data; however long an index over what is there takes."""
        with self._failures(), self._session(neo4j.WRITE_ACCESS) as session:
            session.execute_write(lambda transaction: transaction.run(statement).consume())

    def query(self, statement: str, parameters: Mapping[str, Any], *, limit: int, write: bool) -> Rows:
        """Run someone's statement: column names, at most ``limit`` rows, and whether there were more.

        Raises QueryError where Neo4j refuses it. Without ``write`` the server itself refuses every write. A statement
        that commits by itself in parts is run once, and never again by itself.
        """
        if not statement.strip():
            raise QueryError("the query is empty")
        if write and self.read_only:
            raise QueryError("the store is open read-only", hint="Open it without read_only.")
        mode = neo4j.WRITE_ACCESS if write else neo4j.READ_ACCESS

        def rows_of(result: neo4j.Result) -> Rows:
            columns = list(result.keys())
            rows = [list(record.values()) for record in result.fetch(limit + 1)]
            result.consume()
            return columns, rows[:limit], len(rows) > limit

        work = self._bounded(lambda transaction: rows_of(transaction.run(statement, dict(parameters))))
        with self._failures(query_failed), self._session(mode, fetch_size=min(limit + 1, 1000)) as session:
            try:
                return session.execute_write(work) if write else session.execute_read(work)
            except failures.Neo4jError as error:
                if not wants_no_transaction(error):
                    raise
            timed = neo4j.Query(statement, timeout=self._settings.transaction_timeout_s)
            return rows_of(session.run(timed, dict(parameters)))

    def token(self) -> str:
        """The bookmark of an empty read transaction: moves exactly when something commits (measured)."""
        with (
            self._failures(),
            self._driver.session(database=self._settings.database, default_access_mode=neo4j.READ_ACCESS) as session,
        ):
            session.execute_read(lambda transaction: transaction.run("RETURN 1").consume())
            return "+".join(sorted(session.last_bookmarks().raw_values))

    def _session(self, mode: str, fetch_size: int = 1000) -> neo4j.Session:
        if self._closed:
            raise StoreUnavailable("the store is closed", hint="Open it again.")
        return self._driver.session(
            database=self._settings.database,
            default_access_mode=mode,
            bookmark_manager=self._bookmarks,
            fetch_size=fetch_size,
        )

    def _bounded(
        self, work: Callable[[neo4j.ManagedTransaction], Result]
    ) -> Callable[[neo4j.ManagedTransaction], Result]:
        """``work`` in a transaction that Neo4j ends after ``store.transaction_timeout_s``."""
        timeout = self._settings.transaction_timeout_s
        return work if timeout is None else neo4j.unit_of_work(timeout=timeout)(work)

    @contextmanager
    def _failures(self, other: Callable[[Exception], GraphStoreError] | None = None) -> Iterator[None]:
        """Say the driver's errors in our words; ``other`` for those that say nothing about the store itself."""
        try:
            yield
        except (failures.Neo4jError, failures.DriverError, OSError) as error:
            raise said(error, self._settings, other) from None


def plain_value(value: Any, node: Callable[[Any], Any], relationship: Callable[[Any], Any]) -> Any:
    """A driver's value as plain Python; ``node`` and ``relationship`` shape theirs."""
    if isinstance(value, graph.Node):
        return node(value)
    if isinstance(value, graph.Relationship):
        return relationship(value)
    if isinstance(value, graph.Path):
        return {
            "_nodes": [node(item) for item in value.nodes],
            "_relationships": [relationship(item) for item in value.relationships],
        }
    if isinstance(value, dict):
        return {key: plain_value(item, node, relationship) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and not isinstance(value, time.Duration):
        return [plain_value(item, node, relationship) for item in value]
    if isinstance(value, (time.DateTime, time.Date, time.Time)):
        return value.to_native()
    if isinstance(value, time.Duration):
        return str(value)
    return value
