"""Ladybug's errors in our words."""

from __future__ import annotations

import os
import re
from pathlib import Path

from graph_store.errors import (
    ConfigError,
    QueryError,
    StoreConflict,
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreUnavailable,
)

UNFINISHED = "checkpoint recovery is pending"
_HELD = re.compile(r"Lock is held by PID (\d+)")
# After a write that failed Ladybug may trip over what it could not write, when it folds the commit into the file.
_NO_ROOM = re.compile("Cannot write to file|post-commit checkpoint failed")
_TORN = re.compile(r"WAL file is corrupted|Corrupted wal file|Reading past the end of the file .*\.wal\b")


def is_torn(message: str) -> bool:
    """Whether the file could not be opened because its log ends in the middle of a record."""
    return _TORN.search(message) is not None


def wants_room(message: str) -> bool:
    """Whether a write failed because the disk is full; the same words come where the buffer pool is too small."""
    return _NO_ROOM.search(message) is not None


def opening_failed(path: Path, message: str) -> StoreError | ConfigError:
    """What an opening failed of."""
    held = _HELD.search(message)
    if held or "Could not set lock" in message:
        return locked(path, int(held.group(1)) if held else 0)
    if "empty database under READ ONLY" in message:
        return StoreUnavailable(f"there is no graph at {path} any more", hint="Run `kithkin ingest` first.")
    if "cannot be a directory" in message:
        return ConfigError("is a folder, not a store", key="store.uri", value=str(path))
    if "Cannot open file" in message or "Permission denied" in message:
        return StoreUnavailable(f"cannot open {path}: {_short(message)}", hint="Check the permissions.")
    if "storage version" in message.lower():
        hint = "Ingest again into a new file, or install the Kithkin version that made it."
        return StoreConflict(f"{path} was made by another version: {_short(message)}", hint=hint)
    if "Buffer manager" in message:
        return out_of_memory()
    if UNFINISHED in message:
        hint = "Nothing is lost. Open it for writing once, which ends it: run `kithkin ingest` again."
        return StoreUnavailable(f"the last write to {path} was cut short", hint=hint)
    if wants_room(message):
        return no_room(path)
    hint = "Restore it from a copy, or remove it and run `kithkin ingest` again."
    return StoreCorrupt(f"{path} is damaged or not a graph store: {_short(message)}", hint=hint)


def _short(message: str) -> str:
    return message.split("\nSee the docs")[0].strip()


def locked(path: Path, holder: int) -> StoreLocked:
    """Another writer (process ``holder``, 0: not known) has the store."""
    who = "another process" if not holder else "this process" if holder == os.getpid() else f"process {holder}"
    return StoreLocked(
        f"{path} is being written by {who}" + (f" ({holder})" if holder == os.getpid() else ""),
        hint="Wait until it is done, or stop it; readers may open the store read-only meanwhile.",
    )


def out_of_memory() -> StoreError:
    """The buffer pool is too small."""
    return StoreError("the embedded store ran out of memory", hint="Raise store.memory_mib and open the store again.")


def no_room(path: Path) -> StoreError:
    """The disk is full."""
    return StoreError(
        f"{path} cannot be written to its end: its disk is full, or files may not be as large",
        hint="Make room and run the same command again: what was committed stays, and the rest is written.",
    )


def failed(message: str) -> StoreError:
    """A statement of ours failed."""
    if "Buffer manager" in message:
        return out_of_memory()
    return StoreError(f"the embedded store failed: {_short(message)}")


def query_failed(message: str) -> QueryError | StoreError:
    """Somebody's statement failed."""
    if "Buffer manager" in message:
        return out_of_memory()
    if "write query inside a read-only" in message or "write operations in a read-only" in message:
        return QueryError("the query writes, and queries are read-only", hint="Allow it with --write.")
    return QueryError(_short(message))
