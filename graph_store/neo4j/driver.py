"""The one place that knows the Neo4j driver: connection, sessions, its errors, its values."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import neo4j
from neo4j import exceptions as failures
from neo4j import graph, time

from graph_store.errors import (
    ConfigError,
    GraphStoreError,
    QueryError,
    StoreAuthError,
    StoreConflict,
    StoreError,
    StoreUnavailable,
)
from graph_store.settings import StoreSettings

PASSWORD_VARIABLE = "KITHKIN_STORE_PASSWORD"
_SECURITY = "Neo.ClientError.Security."
_MEMORY = ("MemoryPoolOutOfMemory", "TransactionMemoryLimit", "OutOfMemory")
Result = TypeVar("Result")


class NothingToWrite(Exception):  # not an error: carries the answer out of a transaction that is to leave no trace
    """Raised inside a write to roll it back."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer


class Neo4jConnection:
    """A driver for one database."""

    def __init__(self, settings: StoreSettings, *, read_only: bool) -> None:
        """Connect and check it, within ``settings.timeout_s``.

        Raises StoreUnavailable, StoreAuthError or ConfigError. The password comes from the environment.
        """
        self.read_only = read_only
        self._settings = settings
        self._closed = False
        if "@" in settings.uri:  # a password may stand before it: nothing of the address goes into the message
            raise ConfigError(
                "holds a user or a password before @",
                key="store.uri",
                hint=f"Set the user as store.user and the password as {PASSWORD_VARIABLE}, and leave both out here.",
            )
        if not re.match(r"(neo4j|bolt)(\+s|\+ssc)?://", settings.uri):
            reason = "not an address of a Neo4j (neo4j://, bolt://, with +s or +ssc for TLS)"
            raise ConfigError(reason, key="store.uri", value=settings.uri)
        password = os.environ.get(PASSWORD_VARIABLE, "")
        try:
            self._driver = neo4j.GraphDatabase.driver(
                settings.uri,
                auth=(settings.user, password) if password else None,
                connection_timeout=settings.timeout_s,
                connection_acquisition_timeout=settings.timeout_s,
                max_transaction_retry_time=settings.timeout_s,
                notifications_min_severity="OFF",
            )
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
            return session.execute_read(work)

    def write(self, work: Callable[[neo4j.ManagedTransaction], Result]) -> Result:
        """Run ``work`` in one write transaction; ``NothingToWrite`` inside rolls it back and gives its answer."""
        if self.read_only:
            raise StoreError("the store is open read-only", hint="Open it without read_only.")

        def once_where_memory_lacks(transaction: neo4j.ManagedTransaction) -> Result:
            try:
                return work(transaction)
            except failures.Neo4jError as error:
                if any(word in (error.code or "") for word in _MEMORY):  # called transient, and fails again
                    raise _failed(error) from None
                raise

        try:
            with self._failures(), self._session(neo4j.WRITE_ACCESS) as session:
                return session.execute_write(once_where_memory_lacks)
        except NothingToWrite as nothing:
            answer: Result = nothing.answer
            return answer

    def run_apart(self, statement: str, parameters: Mapping[str, Any]) -> None:
        """Run one statement in a write transaction of its own."""
        with self._failures(), self._session(neo4j.WRITE_ACCESS) as session:
            session.execute_write(lambda transaction: transaction.run(statement, dict(parameters)).consume())

    @contextmanager
    def reading(self) -> Iterator[neo4j.Transaction]:
        """One read transaction for as long as the block lasts (scans)."""
        with (
            self._failures(),
            self._session(neo4j.READ_ACCESS) as session,
            session.begin_transaction() as transaction,
        ):
            yield transaction

    def command(self, statement: str) -> None:
        """Run a schema command, which Neo4j wants outside of transactions that also write data."""
        with self._failures(), self._session(neo4j.WRITE_ACCESS) as session:
            session.run(statement).consume()

    def query(
        self, statement: str, parameters: Mapping[str, Any], *, limit: int, write: bool
    ) -> tuple[list[str], list[list[Any]], bool]:
        """Run someone's statement: column names, at most ``limit`` rows, and whether there were more.

        Raises QueryError where Neo4j refuses it. Without ``write`` the server itself refuses every write.
        """
        if not statement.strip():
            raise QueryError("the query is empty")
        if write and self.read_only:
            raise QueryError("the store is open read-only", hint="Open it without read_only.")
        mode = neo4j.WRITE_ACCESS if write else neo4j.READ_ACCESS
        with self._failures(_query_failed), self._session(mode, fetch_size=min(limit + 1, 1000)) as session:
            result = session.run(statement, dict(parameters))
            columns = list(result.keys())
            rows = [list(record.values()) for record in result.fetch(limit + 1)]
            result.consume()
        return columns, rows[:limit], len(rows) > limit

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

    @contextmanager
    def _failures(self, other: Callable[[Exception], GraphStoreError] | None = None) -> Iterator[None]:
        """Say the driver's errors in our words; ``other`` for those that say nothing about the store itself."""
        try:
            yield
        except (failures.Neo4jError, failures.DriverError, OSError) as error:
            raise self._said(error, other or _failed) from None

    def _said(self, error: Exception, other: Callable[[Exception], GraphStoreError]) -> GraphStoreError:
        uri, code = self._settings.uri, getattr(error, "code", None) or ""
        if "AccessMode" in code:
            return QueryError("the query writes, and queries are read-only", hint="Allow it with --write.")
        if code.startswith(_SECURITY + "Forbidden"):
            return other(error)
        if isinstance(error, failures.AuthError) or code.startswith(_SECURITY):
            if "RateLimit" in code:
                hint = "Too many wrong passwords; wait a few seconds."
            elif os.environ.get(PASSWORD_VARIABLE):
                hint = f"Check store.user in kithkin.toml and the password in {PASSWORD_VARIABLE}."
            else:
                hint = f"Set the password in the environment variable {PASSWORD_VARIABLE}."
            return StoreAuthError(f"{uri} refused the user {self._settings.user!r} or the password", hint=hint)
        if code.endswith("DatabaseNotFound"):
            hint = "Set store.database to one that is there (`SHOW DATABASES`)."
            return StoreUnavailable(f"{uri} has no database {self._settings.database!r}", hint=hint)
        unreachable = (failures.ServiceUnavailable, failures.SessionExpired, failures.ConnectionAcquisitionTimeoutError)
        if isinstance(error, (*unreachable, OSError)) or code.endswith("DatabaseUnavailable"):
            hint = "Check that Neo4j runs there and that store.uri is right (neo4j://, bolt://, neo4j+s://...)."
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return StoreUnavailable(f"cannot reach Neo4j at {uri}: {reason}", hint=hint)
        return other(error)


def _failed(error: Exception) -> StoreError:
    code, message = getattr(error, "code", None) or "", getattr(error, "message", None) or str(error)
    if any(word in code for word in _MEMORY):
        hint = (
            "Give Neo4j more (server.memory.heap.max_size, dbms.memory.transaction.total.max), or write less at once."
        )
        return StoreError("Neo4j has not the memory for one transaction of this size", hint=hint)
    if "Constraint" in code or "TypeError" in code or "IndexAlreadyExists" in code:
        hint = "Make it fit, or use another database (store.database)."
        return StoreConflict(f"what is in Neo4j does not fit the declared schema: {message}", hint=hint)
    return StoreError(f"Neo4j failed: {message}")


def _query_failed(error: Exception) -> GraphStoreError:
    code = getattr(error, "code", None) or ""
    if any(word in code for word in _MEMORY):
        return _failed(error)
    return QueryError(getattr(error, "message", None) or str(error))


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
