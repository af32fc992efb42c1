"""The folder of bundles: versions, the active one, pruning."""

from __future__ import annotations

import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

from model_store import layout
from model_store.bundle import Bundle
from model_store.durable import UNWRITABLE, append_line, replace_text
from model_store.errors import BundleNotFound, NothingBefore
from model_store.holds import Hold, alone, unheld
from model_store.writer import BundleWriter

_REMOVED = ".removed-"
_BESIDE = re.compile(rf"^\.{layout.ACTIVE}\.(\d+)$")
"""What ``replace_text`` writes before it has the name."""
_ACTIVATED, _ROLLED_BACK = "activated", "rolled-back-to"


class BundleStore:
    """Bundles under one root, ``<root>/<version>/``, and the file ``ACTIVE`` that names the one that serves.

    Beside it lies ``HISTORY``: which versions were activated and rolled back to, only ever added to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def writer(self, project: str) -> BundleWriter:
        """A new bundle in the making, newer than every other; use it as a context manager.

        What a killed writer left is removed first: it may be what fills the disk.
        """
        self.root.mkdir(parents=True, exist_ok=True)
        # Between its folder's making and its holding it, another writer would be taken for a killed one.
        with alone(self.root):
            left, versions = self._left(), self.versions()
            writer = BundleWriter(self.root, project, newest=versions[-1] if versions else None)
        _remove_all(left)
        return writer

    def versions(self) -> tuple[str, ...]:
        """Versions there are, oldest first (whole or damaged: ``open`` tells)."""
        if not self.root.is_dir():
            return ()
        return tuple(
            sorted(path.name for path in self.root.iterdir() if path.is_dir() and layout.is_version(path.name))
        )

    def open(self, version: str | None = None, *, verify: bool = True) -> Bundle:
        """Open a bundle, by default the active one, and check it (``Bundle.load``). Raises BundleNotFound too."""
        if version is None:
            version = self.active()
            if version is None:
                raise BundleNotFound(f"no active bundle in {self.root}", hint="Run `kithkin build` first.")
        return Bundle.load(self._folder(version), verify=verify)

    def active(self) -> str | None:
        """Version that ACTIVE names; None where nothing was activated yet."""
        try:
            return (self.root / layout.ACTIVE).read_text(encoding="utf-8", errors="replace").strip() or None
        except FileNotFoundError:
            return None

    def written(self) -> int:
        """When ACTIVE was last written (``st_mtime_ns``); 0 where there is none."""
        try:
            return (self.root / layout.ACTIVE).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def activate(self, version: str) -> None:
        """Make a version the active one; a reader of ACTIVE sees the old or the new. Raises BundleNotFound."""
        self._move(_ACTIVATED, version)

    def previous(self) -> str | None:
        """Version that ``roll_back`` goes to; None where no bundle that is still there was active before."""
        return next((version for version in reversed(self._stack()[:-1]) if (self.root / version).is_dir()), None)

    def roll_back(self) -> str:
        """Activate the bundle that was active before, and return its version; called again it goes further back.

        Raises NothingBefore.
        """
        version = self.previous()
        if version is None:
            raise NothingBefore(
                f"no bundle in {self.root} was active before",
                hint="`kithkin bundles` lists those there are, `kithkin activate` takes any of them.",
            )
        self._move(_ROLLED_BACK, version)
        return version

    def hold(self, version: str) -> Hold:
        """Keep a bundle from being removed, by whoever, while this process lives or until it is released.

        Raises BundleNotFound.
        """
        return Hold(self.root / version)

    def remove(self, version: str) -> bool:
        """Remove a bundle that is not active; False where somebody holds it. Raises BundleNotFound."""
        with alone(self.root):
            if version == self.active():
                return False
            removed = self._put_aside(self._folder(version))
        if removed is not None:
            shutil.rmtree(removed, ignore_errors=True)
        return removed is not None

    def prune(self, keep: int) -> None:
        """Remove bundles but the newest ``keep``, the active one and those that are held, and what crashes left.

        Two prunings at once take turns. A process that has a removed bundle open, and does not hold it, keeps reading
        it: its files are mapped.
        """
        if not self.root.is_dir():
            return
        with alone(self.root):
            active = self.active()
            others = [version for version in self.versions() if version != active]
            for version in others[: max(len(others) - keep, 0)]:
                self._put_aside(self.root / version)
            left = self._left()
        # Outside the lock: large folders take their time.
        _remove_all(left)

    def _left(self) -> list[Path]:
        return [path for path in self.root.glob(".*") if _is_left(path)]

    def _put_aside(self, folder: Path) -> Path | None:
        """Rename a bundle so that it is none any more; None where somebody holds it."""
        with unheld(folder) as free:
            return None if free is False else folder.rename(self.root / f"{_REMOVED}{folder.name}")

    def _move(self, how: str, version: str) -> None:
        self._folder(version)
        # Or it could be pruned between being found and being named.
        with alone(self.root):
            self._name(how, version)

    def _name(self, how: str, version: str) -> None:
        self._folder(version)
        before = self.active()
        # What ACTIVE names and the history does not was put there by other hands: from now on the history knows.
        if before is not None and layout.is_version(before) and self._recorded()[-1:] != [before]:
            self._record(_ACTIVATED, before)
        replace_text(self.root / layout.ACTIVE, version + "\n")
        if version != before:
            try:
                self._record(how, version)
            except OSError as error:
                # It is active all the same, and the next move adds the line.
                if error.errno not in UNWRITABLE:
                    raise

    def _record(self, how: str, version: str) -> None:
        append_line(self.root / layout.HISTORY, f"{how} {version} {layout.version_of(datetime.now(UTC))}")

    def _stack(self) -> list[str]:
        """Versions one below the other as they were activated, the active one last."""
        stack, active = self._recorded(), self.active()
        return stack if active is None or stack[-1:] == [active] else [*stack, active]

    def was_active(self, version: str) -> bool:
        """Whether the history names a bundle as one that was made the active one."""
        return any(named == version for _, named in self._history())

    def _history(self) -> list[tuple[str, str]]:
        try:
            lines = (self.root / layout.HISTORY).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        told = ([*line.split(), "", ""] for line in lines)
        return [(how, version) for how, version, *_ in told]

    def _recorded(self) -> list[str]:
        stack: list[str] = []
        for how, version in self._history():
            # A line that a crash cut short is none.
            if not layout.is_version(version):
                continue
            if how == _ROLLED_BACK and version in stack:
                while stack[-1] != version:
                    stack.pop()
            elif how in (_ACTIVATED, _ROLLED_BACK) and stack[-1:] != [version]:
                stack.append(version)
        return stack

    def _folder(self, version: str) -> Path:
        folder = self.root / version
        if not layout.is_version(version) or not folder.is_dir():
            known = ", ".join(self.versions()[-5:]) or "none"
            raise BundleNotFound(
                f"no bundle {version!r} in {self.root}", hint=f"Bundles there are (newest last): {known}."
            )
        return folder


def _remove_all(paths: list[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_left(path: Path) -> bool:
    """Whether a crashed writer, activation or pruning left this."""
    if path.name.startswith(_REMOVED):
        return True
    owner = layout.unfinished_owner(path.name)
    if owner is None:
        beside = _BESIDE.match(path.name)
        return beside is not None and not _alive(int(beside.group(1)))
    try:
        with unheld(path) as free:
            # Who writes holds it. In a container every run may have the same number: with this process's own another
            # left it, unless there are no locks to tell that by.
            return free is not False and (not _alive(owner) or (free is True and owner == os.getpid()))
    except FileNotFoundError:
        return False


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
