"""The folder of an export under way, in which an interrupted one is taken up again.

::

    .exporting-<key>/export.lock       held while the export runs
                     snapshot/         what becomes the snapshot, by one rename; its manifest is written last
                     finished/<table>.json    count, column hashes and files of a table that is whole and on the disk
                     scratch/<table>/  sorted runs, and arrays that are too large for memory

The key stands for what the store is called and the state it is in: of another state nothing is taken.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from graph_store.embedded.locks import WriterLock
from model_store.durable import replace_text, sha256, sync_file, sync_folder
from training.errors import SnapshotError
from training.export.manifest import FORMAT, FileEntry, Manifest

CHANGING = "Something else may be writing to the store: export again once it has finished."

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Workspace:
    """One export under way; ``opened`` makes it."""

    def __init__(self, folder: Path, lock: WriterLock | None) -> None:
        self.folder = folder
        self.snapshot = folder / "snapshot"
        self._lock = lock
        self._finished = folder / "finished"

    @classmethod
    @contextmanager
    def opened(cls, root: Path, known_as: str | None) -> Iterator[Workspace]:
        """The folder for an export; what it leaves when it fails depends on ``known_as``.

        None: nothing. Else the tables that are finished, for the next export that is known as the same; leftovers of
        others are removed, and where another process is at the same one, this one works on its own.
        """
        root.mkdir(parents=True, exist_ok=True)
        workspace = cls._resumed(root, known_as) if known_as is not None else None
        if workspace is None:
            workspace = cls(root / f".writing-{os.getpid()}-{secrets.token_hex(4)}", None)
        keep = False
        try:
            for name in ("nodes", "edges", "csr"):
                (workspace.snapshot / name).mkdir(parents=True, exist_ok=True)
            yield workspace
        except SnapshotError:
            raise  # what the store holds is at fault: it has to change before the next export
        except BaseException as error:
            keep = workspace.resumable
            if isinstance(error, OSError) and error.errno in _FULL:
                raise _full(root, workspace.resumable) from error
            raise
        finally:
            if keep:
                workspace._drop_unfinished()
            else:
                shutil.rmtree(workspace.folder, ignore_errors=True)
            if workspace._lock is not None:
                workspace._lock.release()

    @classmethod
    def _resumed(cls, root: Path, known_as: str) -> Workspace | None:
        key = hashlib.sha256(f"{FORMAT} {known_as}".encode()).hexdigest()[:16]
        folder = root / f".exporting-{key}"
        for other in root.glob(".exporting-*"):
            lock = WriterLock(other / "export")
            if other != folder and lock.acquire() is None:
                shutil.rmtree(other, ignore_errors=True)
                lock.release()
        folder.mkdir(exist_ok=True)
        lock = WriterLock(folder / "export")
        if lock.acquire() is not None:
            return None
        workspace = cls(folder, lock)
        workspace._finished.mkdir(exist_ok=True)
        return workspace

    @property
    def resumable(self) -> bool:
        """Whether another export can take this one up."""
        return self._lock is not None

    def scratch(self, table: str) -> Path:
        """Folder for a table's files that are not kept; whoever uses it makes it."""
        return self.folder / "scratch" / table

    def finished(self, table: str) -> tuple[dict[str, Any], dict[str, FileEntry]] | None:
        """Counts and hashes of a table, and its files, where an earlier export finished it."""
        try:
            document = json.loads((self._finished / f"{table}.json").read_text(encoding="utf-8"))
            files = {name: FileEntry(**entry) for name, entry in document["files"].items()}
            if any((self.snapshot / name).stat().st_size != entry.size for name, entry in files.items()):
                return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return document["entry"], files

    def finish(self, table: str, entry: dict[str, Any], names: Iterable[str]) -> dict[str, FileEntry]:
        """Bring the files of a table to the disk and remember that it is whole; returns them with their checksums."""
        files = {}
        for name in names:
            path = self.snapshot / name
            sync_file(path)
            files[name] = FileEntry(size=path.stat().st_size, sha256=sha256(path))
        if self.resumable:
            for inner in ("nodes", "edges", "csr"):
                sync_folder(self.snapshot / inner)
            document = {"entry": entry, "files": {name: asdict(each) for name, each in files.items()}}
            replace_text(self._finished / f"{table}.json", json.dumps(document, ensure_ascii=False))
        shutil.rmtree(self.scratch(table), ignore_errors=True)
        return files

    def settle(self, manifest: Manifest, place: Path) -> None:
        """Write the manifest, last, and put the snapshot in its place."""
        sync_file(manifest.write(self.snapshot))
        for inner in (*(self.snapshot / name for name in ("nodes", "edges", "csr")), self.snapshot):
            sync_folder(inner)
        try:
            self.snapshot.rename(place)
        except OSError:
            # Another export of the same content was quicker: theirs is as good.
            if not place.exists():
                raise
        sync_folder(place.parent)

    def _drop_unfinished(self) -> None:
        """Sorted runs that are whole stay, as finished tables do."""
        for folder in self.folder.glob("scratch/*"):
            if not (folder / "runs.json").exists():
                shutil.rmtree(folder, ignore_errors=True)


def _full(root: Path, resumable: bool) -> SnapshotError:
    try:
        free = f"{shutil.disk_usage(root).free / 2**20:,.0f} MiB are free"
    except OSError:
        free = "what is free cannot be told"
    again = "tables that are finished are not read again" if resumable else "nothing was left behind"
    return SnapshotError(
        f"{root}: the disk is full, or a limit of this user's files is reached ({free})",
        hint=f"Make room, or set `work` to a folder on a larger disk, and run the command again: {again}.",
    )
