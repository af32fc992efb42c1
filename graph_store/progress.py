"""Progress of long work, told to whoever asked for it (the command line draws bars)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work under way."""

    def advance(self, steps: int = 1, **fields: object) -> None:
        """So many steps done; ``fields`` are figures to show beside (loss=0.3)."""
        ...


class Progress(Protocol):
    """Where progress is told."""

    def task(self, description: str, total: int | None = None, unit: str = "rows") -> AbstractContextManager[Task]:
        """Context manager of one piece of work; ``total`` None: unknown."""
        ...


class _SilentTask:
    def advance(self, steps: int = 1, **fields: object) -> None:
        pass


class NoProgress:
    """Tells nobody."""

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        yield _SilentTask()
