"""The one place that knows Ladybug: opening, locks, transactions, statements, its errors.

One process writes; readers beside it see one committed state per statement, the newest (they open the file again when
it changed). Where a program that does not know our gate writes, openings can fail with talk of a corrupted log while
it checkpoints; that is a race, so they are tried again, and only what still fails when nobody writes is called damage.

A small commit is on the disk in Ladybug's log (``.wal``), which every opening reads, also one for reading only. A large
one, and what lies in the log once that is long, is folded into the file (Ladybug's checkpoint, which rewrites pages).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ladybug
import pyarrow as pa

from graph_store.embedded.change_log import ChangeLog, Token
from graph_store.embedded.failures import (
    UNFINISHED,
    failed,
    is_torn,
    no_room,
    opening_failed,
    query_failed,
    wants_room,
)
from graph_store.embedded.locks import FIRST_PAUSE_S, LONGEST_PAUSE_S, CommitGate, WriterLock, somebody_writes
from graph_store.embedded.mending import cut_torn_log, is_cut_short
from graph_store.embedded.refusals import refuse
from graph_store.errors import (
    ConfigError,
    StoreConflict,
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreUnavailable,
)
from graph_store.written import Logged, WrittenSince

_BATCH_ROWS, _FEW_ROWS = 65_536, 1_024
"""Of a batch of results, whose memory is taken for as many however few there are."""
_FOLD_BYTES = 1 << 20
"""A log so long is folded into the file: each opening for reading takes 40 ms a MiB to read it (measured)."""
_FOLD_WAIT_S = 0.2
_LEFT_MIB, _COPY_LEFT_MIB = 0.5, 13.0
"""What a statement that writes rows, and a COPY, leaves in the buffer pool until the file is closed (measured)."""
_LEFT_SHARE = 4
"""The file is opened again when they left this part of the buffer pool."""
_NEVER = 1 << 40


class _NothingWritten(Exception):  # not an error: rolls a transaction back that is to leave no trace
    """Raised where a transaction around others has none."""


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
        self.log = ChangeLog(path)
        self._gate = CommitGate(path)
        self._unfolded = self._copied = False
        self._fold_from = _FOLD_BYTES
        self._writing, self._left_mib = False, 0.0
        self._parts: list[Sequence[Logged] | None] | None = None
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
                self._lock.wait(deadline)
            with self._shut() if not read_only else self._open_gate():
                self._open(deadline)
            self._unfolded = not read_only and bool(Token.of(path).log)
        except BaseException:
            self._lock.release()
            raise

    @contextmanager
    def _shut(self, *, to_openers: bool = False) -> Iterator[None]:
        try:
            with self._gate.shut(time.monotonic() + self._timeout_s, to_openers=to_openers):
                yield
        except TimeoutError:
            hint = "Wait until the reader is done, or raise store.timeout_s."
            raise StoreLocked(f"a reader has not let go of {self.path}, nothing was written", hint=hint) from None

    @contextmanager
    def _open_gate(self) -> Iterator[CommitGate]:
        try:
            with self._gate.open(time.monotonic() + self._timeout_s):
                yield self._gate
        except TimeoutError:
            hint = "Try again, or raise store.timeout_s."
            raise StoreLocked(f"the writer of {self.path} is still committing", hint=hint) from None

    @contextmanager
    def _settled(self, generation: int | None = None) -> Iterator[None]:
        """While the block lasts nobody changes the file, and a reader's view is what was committed last.

        With a ``generation`` it is that one's, unless the file was changed since.
        """
        if self._closed:
            raise StoreUnavailable("the store is closed", hint="Open it again.")
        if not self.read_only:
            yield
            return
        with self._open_gate() as gate:
            now = Token.of(self.path)
            goes_on = generation == self.generation and now.file == self._seen.file
            if now != self._seen and not goes_on:
                self._connection.close()
                self._database.close()
                self._open(time.monotonic() + self._timeout_s)
            # Commits into the log go on while this one reads.
            gate.let_openers()
            yield

    def settle(self) -> int:
        """The generation that the next statement will see."""
        with self._settled():
            return self.generation

    def _open(self, deadline: float) -> None:
        pause, mended = FIRST_PAUSE_S, False
        while True:
            try:
                self._seen = Token.of(self.path)
                self._database = ladybug.Database(
                    self.path,
                    read_only=self.read_only,
                    buffer_pool_size=self.memory_mib * 1024 * 1024,
                    # When it is folded is decided here, but for what COPY wrote, which is in no log.
                    checkpoint_threshold=_NEVER,
                )
                self._connection = ladybug.Connection(self._database)
                # Closing would write the file once more, and `token` would move with nothing committed.
                self._connection.execute("CALL force_checkpoint_on_close=false").close()
                self.generation += 1
                return
            except RuntimeError as error:
                if not (self.read_only or mended) and is_torn(str(error)) and cut_torn_log(self.path, self.log):
                    mended = True
                    continue
                failure = opening_failed(self.path, str(error))
                if self.read_only and is_torn(str(error)) and is_cut_short(self.path, self.log):
                    failure = opening_failed(self.path, UNFINISHED)
                if isinstance(failure, ConfigError | StoreConflict) or time.monotonic() >= deadline:
                    raise failure from None
                # Where nobody writes, waiting does not mend it (a moment's grace: the writer may just have gone).
                hopeless = isinstance(failure, StoreCorrupt) or UNFINISHED in str(error) or is_torn(str(error))
                if hopeless and not (self.read_only and somebody_writes(self.path)):
                    deadline = min(deadline, time.monotonic() + 0.5)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def close(self) -> None:
        """Fold the log into the file, close the connection and give the lock back; twice does no harm."""
        if self._closed:
            return
        try:
            self._fold()
        finally:
            self._close()

    def _close(self) -> None:
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

    def table(
        self, statement: str, parameters: Mapping[str, Any] | None = None, *, generation: int | None = None
    ) -> pa.Table:
        """Run one of our own statements; its result as Arrow.

        With the ``generation`` of a statement before it sees what that one saw, or is of another one.
        """
        with self._settled(generation):
            return self._table(statement, parameters)

    def tables(self, statement: str, each: Iterable[Mapping[str, Any]]) -> list[pa.Table]:
        """One of our own statements with each of these parameters, all of one state."""
        with self._settled():
            return [self._table(statement, parameters, _FEW_ROWS) for parameters in each]

    def _table(self, statement: str, parameters: Mapping[str, Any] | None, batch_rows: int = _BATCH_ROWS) -> pa.Table:
        result = self._run(statement, parameters)
        try:
            return result.get_as_arrow(batch_rows)
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
        copies = statement.startswith("COPY")
        self._copied |= copies
        if self._writing:
            self._left_mib += _COPY_LEFT_MIB if copies else _LEFT_MIB
        return self.table(statement)

    def _run(self, statement: Any, parameters: Mapping[str, Any] | None = None) -> Any:
        try:
            return self._connection.execute(statement, dict(parameters or {}))
        except RuntimeError as error:
            text = str(error)
            # The same words come where the buffer pool is too small.
            full = wants_room(text) and "Buffer manager" not in text
            raise no_room(self.path) if full else failed(text) from None

    @contextmanager
    def transaction(self, changes: Sequence[Logged] | None = None, *, folded: bool = True) -> Iterator[None]:
        """All or nothing, and on the disk once it has ended; ``changes`` are noted in the log of writes.

        ``folded``: in the file. Else it may be in Ladybug's log, which costs a tenth: for few rows, without COPY (whose
        rows are in no log) and without changes of tables.
        """
        if self.read_only:
            raise StoreError("the store is open read-only", hint="Open it without read_only.")
        if self._parts is not None:
            # Of the one around it.
            yield
            self._copied |= folded
            self._parts.append(changes)
            return
        if self._unfolded and Token.of(self.path).logged >= self._fold_from:
            self._fold()
        self._renew()
        self._copied, self._writing = folded, True
        before = self.state()
        self.rows("BEGIN TRANSACTION")
        try:
            yield
            # Who reads meanwhile has read the log already, and minds only what happens to the file.
            with self._shut(to_openers=not self._copied):
                self._unfolded = True
                self.rows("COMMIT")
                if self._copied:
                    self.rows("CHECKPOINT")
                    self._unfolded = False
                if changes is not None:
                    self.log.append(before, self.token(), changes)
        except BaseException:
            with suppress(StoreError):  # a failed statement has ended the transaction already
                self.rows("ROLLBACK")
            raise
        finally:
            self._writing = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """What small transactions within the block do is one; nothing where there are none."""
        parts: list[Sequence[Logged] | None] = []
        changes: list[Logged] = []
        with suppress(_NothingWritten), self.transaction(changes, folded=False):
            self._parts = parts
            try:
                yield
            finally:
                self._parts = None
            if not parts:
                raise _NothingWritten
            changes += [each for part in parts for each in part or ()]

    def _renew(self) -> None:
        """Open the file again where much memory was left behind; 25 ms."""
        if self._left_mib * _LEFT_SHARE < self.memory_mib or self._closed:
            return
        self._connection.close()
        self._database.close()
        self._left_mib = 0.0
        self._open(time.monotonic() + self._timeout_s)
        # What is being scanned goes on: nobody else has written.
        self.generation -= 1

    def _fold(self) -> None:
        """Fold Ladybug's log into the file, where it can be done: it may lie there for as long as need be."""
        if not self._unfolded or self._closed:
            return
        self._fold_from += _FOLD_BYTES
        with suppress(TimeoutError, OSError, StoreError), self._gate.shut(time.monotonic() + _FOLD_WAIT_S):
            before = self.state()
            self.rows("CHECKPOINT")
            self._unfolded, self._fold_from = False, _FOLD_BYTES
            self.log.folded(before, self.token())

    def query(
        self, statement: str, parameters: Mapping[str, Any], *, limit: int, write: bool
    ) -> tuple[list[str], list[list[Any]], bool]:
        """Run someone's statement: column names, at most ``limit`` rows, and whether there were more.

        Raises QueryError where Ladybug refuses it, where it is not one statement, or writes and may not.
        """
        refuse(statement, write=write, read_only=self.read_only)
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
                raise query_failed(prepared.get_error_message())
            result = self._connection.execute(prepared, dict(parameters))
        except RuntimeError as error:
            raise query_failed(str(error)) from None
        try:
            rows = result.get_n(limit + 1)
            return list(result.get_column_names()), list(rows[:limit]), len(rows) > limit
        finally:
            result.close()

    def token(self) -> str:
        """Size and time of the file and of its log: moves with every commit, and where the log is folded."""
        return str(Token.of(self.path))

    def state(self) -> str:
        """The token as the last commit left it: folding the log leaves it as it is."""
        if not self.read_only or self._closed:
            return self.log.state(self.token())
        # Between a commit and its line a writer keeps openers out.
        with suppress(TimeoutError), self._gate.open(time.monotonic() + self._timeout_s):
            return self.log.state(self.token())
        return self.log.state(self.token())

    def written_since(self, position: str) -> WrittenSince | None:
        """What the log of writes tells; see ``GraphStore``."""
        if self.read_only and not self._closed:
            with suppress(TimeoutError), self._gate.open(time.monotonic() + self._timeout_s):
                return self.log.since(position, self.log.state(self.token()))
        return self.log.since(position, self.log.state(self.token()))


def quoted(name: str) -> str:
    """A name as Ladybug's Cypher takes it, whatever it is."""
    return "`" + name.replace("`", "``") + "`"
