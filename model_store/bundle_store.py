"""The folder of bundles: versions, the active one, pruning."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from model_store import layout
from model_store.bundle import Bundle
from model_store.durable import replace_text
from model_store.errors import BundleNotFound
from model_store.writer import BundleWriter


class BundleStore:
    """Bundles under one root, ``<root>/<version>/``, and the file ``ACTIVE`` that names the one that serves."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def writer(self, project: str) -> BundleWriter:
        """A new bundle in the making, newer than every other; use it as a context manager."""
        self.root.mkdir(parents=True, exist_ok=True)
        versions = self.versions()
        return BundleWriter(self.root, project, newest=versions[-1] if versions else None)

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

    def activate(self, version: str) -> None:
        """Make a version the active one; a reader of ACTIVE sees the old or the new. Raises BundleNotFound."""
        self._folder(version)
        replace_text(self.root / layout.ACTIVE, version + "\n")

    def prune(self, keep: int) -> None:
        """Remove bundles but the newest ``keep`` and the active one, and what crashed writers left.

        A server that has a removed bundle open keeps reading it: its files are mapped.
        """
        active = self.active()
        others = [version for version in self.versions() if version != active]
        for version in others[: max(len(others) - keep, 0)]:
            removed = self.root / f".removed-{version}"
            (self.root / version).rename(removed)
            shutil.rmtree(removed)
        for path in self.root.glob(".*"):
            owner = layout.unfinished_owner(path.name)
            if (owner is not None and not _alive(owner)) or path.name.startswith(".removed-"):
                shutil.rmtree(path, ignore_errors=True)

    def _folder(self, version: str) -> Path:
        folder = self.root / version
        if not layout.is_version(version) or not folder.is_dir():
            known = ", ".join(self.versions()[-5:]) or "none"
            raise BundleNotFound(
                f"no bundle {version!r} in {self.root}", hint=f"Bundles there are (newest last): {known}."
            )
        return folder


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
