"""The one place that knows Ladybug: opening, locks, transactions, statements, its errors.

One process writes; readers beside it see one committed state per statement, the newest (they open the file again when
it changed). Where a program that does not know our gate writes, openings can fail with talk of a corrupted log while
it checkpoints; that is a race, so they are tried again, and only what still fails when nobody writes is called damage.
"""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ladybug
import pyarrow as pa

from graph_store.embedded.locks import FIRST_PAUSE_S, LONGEST_PAUSE_S, CommitGate, WriterLock
from graph_store.errors import (
    ConfigError,
    QueryError,
    StoreConflict,
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreUnavailable,
)

_BATCH_ROWS = 65_536
_HELD = re.compile(r"Lock is held by PID (\d+)")
# Texts and comments, which may hold semicolons and keywords that mean nothing.
_OPAQUE = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`[^`]*`|//[^\n]*|/\*.*?\*/", re.DOTALL)
_TRANSACTION = frozenset({"BEGIN", "COMMIT", "ROLLBACK", "CHECKPOINT"})
_UNFINISHED = "checkpoint recovery is pending"
# After a write that failed Ladybug may trip over what it could not write, when it folds the commit into the file.
_NO_ROOM = re.compile("Cannot write to file|post-commit checkpoint failed")
# These write outside the graph (files, settings of the process), which a read-only transaction lets pass.
_WRITES_OUTSIDE = frozenset({"COPY", "EXPORT", "IMPORT", "INSTALL", "UNINSTALL", "LOAD EXTENSION", "ATTACH", "DETACH"})


class EmbeddedDatabase:
    """One opening of a Ladybug file; use it from one thread at a time."""

    def __init__(self, path: Path, *, read_only: bool, memory_mib: int, timeout_s: float) -> None:
        """Open, and create where it is not there (unless ``read_only``).

        Raises StoreUnavailable, StoreLocked or StoreCorrupt; waits at most ``timeout_s`` seconds for a lock.
        """
        self.path = path
        self.read_only = read_only
        self.generation = 0
        """How often the file was opened: a reader opens it again when someone committed."""
        self.memory_mib = memory_mib
        self._timeout_s = timeout_s
        self._gate = CommitGate(path)
        self._lock = WriterLock(path)
        self._closed = False
        self._database: Any
        self._connection: Any  # Ladybug's own types promise lists that only other calls give
        if read_only and not path.is_file():
            raise StoreUnavailable(f"there is no graph at {path}", hint="Run `kithkin ingest` first.")
        if not read_only:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                reason = f"cannot make the folder: {error.strerror}"
                raise ConfigError(reason, key="store.uri", value=str(path)) from None
        deadline = time.monotonic() + timeout_s
        try:
            if not read_only:
                self._wait_for_lock(deadline)
            with self._shut() if not read_only else self._open_gate():
                self._open(deadline)
        except BaseException:
            self._lock.release()
            raise

    def _wait_for_lock(self, deadline: float) -> None:
        pause = FIRST_PAUSE_S
        try:
            while (holder := self._lock.acquire()) is not None:
                if time.monotonic() >= deadline:
                    raise _locked(self.path, holder)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        except OSError as error:
            raise StoreUnavailable(
                f"cannot write beside {self.path}: {error.strerror}", hint="Check the folder's permissions."
            ) from None

    @contextmanager
    def _shut(self) -> Iterator[None]:
        try:
            with self._gate.shut(time.monotonic() + self._timeout_s):
                yield
        except TimeoutError:
            hint = "Wait until the reader is done, or raise store.timeout_s."
            raise StoreLocked(f"a reader has not let go of {self.path}, nothing was written", hint=hint) from None

    @contextmanager
    def _open_gate(self) -> Iterator[None]:
        try:
            with self._gate.open(time.monotonic() + self._timeout_s):
                yield
        except TimeoutError:
            hint = "Try again, or raise store.timeout_s."
            raise StoreLocked(f"the writer of {self.path} is still committing", hint=hint) from None

    @contextmanager
    def _settled(self) -> Iterator[None]:
        """While the block lasts nobody commits, and a reader's view is what was committed last."""
        if self._closed:
            raise StoreUnavailable("the store is closed", hint="Open it again.")
        if not self.read_only:
            yield
            return
        with self._open_gate():
            if self.token() != self._seen:
                self._connection.close()
                self._database.close()
                self._open(time.monotonic() + self._timeout_s)
            yield

    def settle(self) -> int:
        """The generation that the next statement will see."""
        with self._settled():
            return self.generation

    def _open(self, deadline: float) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                self._seen = self.token()
                self._database = ladybug.Database(
                    self.path, read_only=self.read_only, buffer_pool_size=self.memory_mib * 1024 * 1024
                )
                self._connection = ladybug.Connection(self._database)
                # Closing would write the file once more, and `token` would move with nothing committed.
                self._connection.execute("CALL force_checkpoint_on_close=false").close()
                self.generation += 1
                return
            except RuntimeError as error:
                failure = self._opening_failed(str(error))
                if isinstance(failure, ConfigError | StoreConflict) or time.monotonic() >= deadline:
                    raise failure from None
                # Where nobody writes, waiting does not mend it (a moment's grace: the writer may just have gone).
                hopeless = isinstance(failure, StoreCorrupt) or _UNFINISHED in str(error)
                if hopeless and not self._somebody_writes():
                    deadline = min(deadline, time.monotonic() + 0.5)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def _somebody_writes(self) -> bool:
        if not self.read_only:
            return False
        lock = WriterLock(self.path)
        try:
            return lock.acquire() is not None
        except OSError:  # a read-only folder: cannot know
            return True
        finally:
            lock.release()

    def _opening_failed(self, message: str) -> StoreError | ConfigError:
        held = _HELD.search(message)
        if held or "Could not set lock" in message:
            return _locked(self.path, int(held.group(1)) if held else 0)
        if "empty database under READ ONLY" in message:
            return StoreUnavailable(f"there is no graph at {self.path} any more", hint="Run `kithkin ingest` first.")
        if "cannot be a directory" in message:
            return ConfigError("is a folder, not a store", key="store.uri", value=str(self.path))
        if "Cannot open file" in message or "Permission denied" in message:
            return StoreUnavailable(f"cannot open {self.path}: {_short(message)}", hint="Check the permissions.")
        if "storage version" in message.lower():
            hint = "Ingest again into a new file, or install the Kithkin version that made it."
            return StoreConflict(f"{self.path} was made by another version: {_short(message)}", hint=hint)
        if "Buffer manager" in message:
            return _out_of_memory()
        if _UNFINISHED in message:
            hint = "Nothing is lost. Open it for writing once, which ends it: run `kithkin ingest` again."
            return StoreUnavailable(f"the last write to {self.path} was cut short", hint=hint)
        if _NO_ROOM.search(message):
            return _no_room(self.path)
        hint = "Restore it from a copy, or remove it and run `kithkin ingest` again."
        return StoreCorrupt(f"{self.path} is damaged or not a graph store: {_short(message)}", hint=hint)

    def close(self) -> None:
        """Close the connection and give the lock back; twice does no harm."""
        if self._closed:
            return
        self._closed = True
        try:
            self._connection.close()
            self._database.close()
        finally:
            self._lock.release()

    def forget_plans(self) -> None:
        """Connect anew: Ladybug 0.22 keeps plans that name tables of a transaction that was rolled back."""
        self._connection.close()
        self._connection = ladybug.Connection(self._database)

    def table(self, statement: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Run one of our own statements; its result as Arrow."""
        with self._settled():
            result = self._run(statement, parameters)
            try:
                return result.get_as_arrow(_BATCH_ROWS)
            finally:
                result.close()

    def rows(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[list[Any]]:
        """Run one of our own statements; its result as Python rows."""
        with self._settled():
            result = self._run(statement, parameters)
            try:
                return list(result.get_all())
            finally:
                result.close()

    def with_rows(self, statement: str, arrow_rows: pa.Table) -> pa.Table:
        """Run a statement that reads ``FROM arrow_rows``; Ladybug finds the table by that name in this frame."""
        # Never COPY a node whose key is there already: Ladybug 0.22 ends the process (measured).
        return self.table(statement)

    def _run(self, statement: Any, parameters: Mapping[str, Any] | None = None) -> Any:
        try:
            return self._connection.execute(statement, dict(parameters or {}))
        except RuntimeError as error:
            text = str(error)
            # The same words come where the buffer pool is too small.
            full = _NO_ROOM.search(text) and "Buffer manager" not in text
            raise _no_room(self.path) if full else _failed(text) from None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; what was committed is folded into the file at once, so that ``token`` moves once."""
        if self.read_only:
            raise StoreError("the store is open read-only", hint="Open it without read_only.")
        self.rows("BEGIN TRANSACTION")
        try:
            yield
            with self._shut():
                self.rows("COMMIT")
                self.rows("CHECKPOINT")
        except BaseException:
            with suppress(StoreError):  # a failed statement has ended the transaction already
                self.rows("ROLLBACK")
            raise

    def query(
        self, statement: str, parameters: Mapping[str, Any], *, limit: int, write: bool
    ) -> tuple[list[str], list[list[Any]], bool]:
        """Run someone's statement: column names, at most ``limit`` rows, and whether there were more.

        Raises QueryError where Ladybug refuses it, where it is not one statement, or writes and may not.
        """
        bare = _OPAQUE.sub(" ", statement).strip().rstrip("; \n\t\r")
        words = bare.upper().split()
        start = {" ".join(words[:length]) for length in (1, 2)}
        if not words:
            raise QueryError("the query is empty")
        if start & _TRANSACTION:
            raise QueryError(f"{words[0]} is not for queries", hint="Each query is a transaction of its own.")
        if ";" in bare:
            raise QueryError("more than one statement", hint="Run them one by one.")
        if not write and start & _WRITES_OUTSIDE:
            raise QueryError(f"{words[0]} writes, and the query is read-only", hint="Allow it with --write.")
        if write and self.read_only:
            raise QueryError("the store is open read-only", hint="Open it without read_only.")
        if write:
            with self.transaction():
                return self._answer(statement, parameters, limit)
        with self._settled():
            self._run("BEGIN TRANSACTION READ ONLY").close()
            try:
                return self._answer(statement, parameters, limit)
            finally:
                with suppress(StoreError):  # a failed statement has ended the transaction already
                    self._run("ROLLBACK").close()

    def _answer(
        self, statement: str, parameters: Mapping[str, Any], limit: int
    ) -> tuple[list[str], list[list[Any]], bool]:
        try:
            with warnings.catch_warnings():
                # Only preparing refuses several statements at once; the pinned version has it.
                warnings.simplefilter("ignore", DeprecationWarning)
                prepared = self._connection.prepare(statement, dict(parameters))
            if not prepared.is_success():
                raise _query_failed(prepared.get_error_message())
            result = self._connection.execute(prepared, dict(parameters))
        except RuntimeError as error:
            raise _query_failed(str(error)) from None
        try:
            rows = result.get_n(limit + 1)
            return list(result.get_column_names()), list(rows[:limit]), len(rows) > limit
        finally:
            result.close()

    def token(self) -> str:
        """Size and time of the file and of its log: moves with every commit."""
        parts = []
        for path in (self.path, self.path.with_name(self.path.name + ".wal")):
            with suppress(FileNotFoundError):
                stat = path.stat()
                if path == self.path or stat.st_size:
                    parts.append(f"{stat.st_size:x}-{stat.st_mtime_ns:x}")
        return "+".join(parts)


def quoted(name: str) -> str:
    """A name as Ladybug's Cypher takes it, whatever it is."""
    return "`" + name.replace("`", "``") + "`"


def _short(message: str) -> str:
    return message.split("\nSee the docs")[0].strip()


def _locked(path: Path, holder: int) -> StoreLocked:
    who = "another process" if not holder else "this process" if holder == os.getpid() else f"process {holder}"
    return StoreLocked(
        f"{path} is being written by {who}" + (f" ({holder})" if holder == os.getpid() else ""),
        hint="Wait until it is done, or stop it; readers may open the store read-only meanwhile.",
    )


def _out_of_memory() -> StoreError:
    return StoreError("the embedded store ran out of memory", hint="Raise store.memory_mib and open the store again.")


def _no_room(path: Path) -> StoreError:
    return StoreError(
        f"{path} cannot be written to its end: its disk is full, or files may not be as large",
        hint="Make room and run the same command again: what was committed stays, and the rest is written.",
    )


def _failed(message: str) -> StoreError:
    if "Buffer manager" in message:
        return _out_of_memory()
    return StoreError(f"the embedded store failed: {_short(message)}")


def _query_failed(message: str) -> QueryError | StoreError:
    if "Buffer manager" in message:
        return _out_of_memory()
    if "write query inside a read-only" in message or "write operations in a read-only" in message:
        return QueryError("the query writes, and queries are read-only", hint="Allow it with --write.")
    return QueryError(_short(message))
