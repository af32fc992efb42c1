"""Locks between the processes that use one embedded store.

Ladybug locks out a second writing process, and no more. Measured with 0.22: the same process may open a store for
writing twice; the lock is lost when that process closes a read-only opening (a POSIX record lock); and a reader beside
a writer can see half of a commit, because a checkpoint rewrites pages in place while the reader still reads them.
So there are files beside the store: ``.lock``, held by the writer, and ``.commit``, the gate that the writer shuts
while it changes the file and that a reader keeps open while it reads (with ``.turn``, its turnstile).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from graph_store.embedded.failures import locked
from graph_store.errors import StoreUnavailable

if sys.platform != "win32":
    import fcntl

FIRST_PAUSE_S = 0.002
LONGEST_PAUSE_S = 0.1
_GATE_PAUSE_S = 0.005
_FLAGS = os.O_CREAT | getattr(os, "O_CLOEXEC", 0)


class WriterLock:
    """Held by the one writer of a store, in a file that holds the process id."""

    def __init__(self, path: Path) -> None:
        self._store = path
        self._path = path.with_name(path.name + ".lock")
        self._file: int | None = None

    def acquire(self) -> int | None:
        """Take the lock: None where that worked, else the process id of who holds it (0: not known)."""
        if sys.platform == "win32":  # Ladybug's own lock between processes is all there is
            return None
        file = os.open(self._path, os.O_RDWR | _FLAGS, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(file, 32).decode("ascii", "replace").strip()
            os.close(file)
            return int(text) if text.isdigit() else 0
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        self._file = file
        return None

    def wait(self, deadline: float) -> None:
        """Take it, and wait for who holds it. Raises StoreLocked at ``deadline``, StoreUnavailable."""
        pause = FIRST_PAUSE_S
        try:
            while (holder := self.acquire()) is not None:
                if time.monotonic() >= deadline:
                    raise locked(self._store, holder)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        except OSError as error:
            raise StoreUnavailable(
                f"cannot write beside {self._store}: {error.strerror}", hint="Check the folder's permissions."
            ) from None

    def release(self) -> None:
        """Give it back; twice does no harm. The file stays: removing it would race with the next writer."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = None


def somebody_writes(path: Path) -> bool:
    """Whether a writer holds a store; for who does not."""
    lock = WriterLock(path)
    try:
        return lock.acquire() is not None
    except OSError:  # a read-only folder: cannot know
        return True
    finally:
        lock.release()


class CommitGate:
    """Open to many readers, or shut by the writer that changes the file.

    Before the gate is a turnstile, which a waiting writer shuts first: else readers that come and go without a pause
    would keep it waiting for ever. A commit that adds to Ladybug's log and leaves the file as it is shuts the turnstile
    alone, for who opens the file reads the log, and who has opened it does not.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".commit")
        self._turnstile = path.with_name(path.name + ".turn")
        self._passing = ExitStack()

    @contextmanager
    def shut(self, deadline: float, *, to_openers: bool = False) -> Iterator[None]:
        """For the writer: no reader reads meanwhile, or none opens (``to_openers``).

        Raises TimeoutError where one still does at ``deadline``.
        """
        with _locked(self._turnstile, deadline, shared=False):
            if to_openers:
                yield
                return
            with _locked(self._path, deadline, shared=False):
                yield

    @contextmanager
    def open(self, deadline: float) -> Iterator[None]:
        """For a reader: no commit happens meanwhile. Raises TimeoutError where one still does at ``deadline``."""
        with ExitStack() as stack, ExitStack() as self._passing:
            self._passing.enter_context(_locked(self._turnstile, deadline, shared=True))
            stack.enter_context(_locked(self._path, deadline, shared=True))
            yield

    def let_openers(self) -> None:
        """For a reader within ``open``: it has opened the file, commits that do not change it may happen again."""
        self._passing.close()


@contextmanager
def _locked(path: Path, deadline: float, *, shared: bool) -> Iterator[None]:
    if sys.platform == "win32":
        yield
        return
    try:
        file = os.open(path, os.O_RDWR | _FLAGS, 0o644)
    except OSError:
        if not shared:
            raise
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError:  # a medium that nobody writes
            yield
            return
    try:
        _wait(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, deadline)
        yield
    finally:
        os.close(file)


def _wait(file: int, kind: int, deadline: float) -> None:
    if sys.platform != "win32":
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError from None
                # Always as short: between the commits of a busy writer the gate is open for a few hundredths.
                time.sleep(_GATE_PAUSE_S)
            else:
                return
