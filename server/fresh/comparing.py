"""A comparison of the whole graph, in a thread beside the follower, which reads the log meanwhile."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from graph_store.changes import Changes, Comparison, Noted, Watermark
from graph_store.stores import open_store

if TYPE_CHECKING:
    from graph_store.project import Project


class Comparing:
    """One comparison; it opens the store for itself."""

    def __init__(self, project: Project, watermark: Watermark, noted: Noted) -> None:
        self.at = time.time()
        """All that was committed before is in it."""
        self.seconds = 0.0
        self._project, self._watermark, self._noted = project, watermark, noted
        self._changes: Changes | None = None
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="kithkin-comparison", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def changes(self) -> Changes:
        """What it found, once it has ended. Raises StoreError as every scan does."""
        if self._failure is not None:
            raise self._failure
        assert self._changes is not None
        return self._changes

    def _run(self) -> None:
        started = time.monotonic()
        try:
            with open_store(self._project, read_only=True) as store:
                comparison = Comparison(store, self._project.schema)
                self._changes = comparison.changes_since(self._watermark, self._noted)
        except Exception as error:
            self._failure = error
        self.seconds = time.monotonic() - started
