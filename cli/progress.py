"""Progress bars on standard error, so that standard output stays clean for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from graph_store.progress import Task


class _RichTask:
    def __init__(self, progress: Progress, task_id: TaskID) -> None:
        self._progress, self._task_id = progress, task_id

    def advance(self, steps: int = 1, **fields: object) -> None:
        figures = "  ".join(f"{name} {_short(value)}" for name, value in fields.items())
        self._progress.update(self._task_id, advance=steps, **({"figures": figures} if figures else {}))  # type: ignore[arg-type]


class RichProgress:
    """Draws a bar per task while it runs; nothing where standard error is not a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        """Context manager of one piece of work; ``total`` None: unknown."""
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        with Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        ) as progress:
            yield _RichTask(progress, progress.add_task(description, total=total, figures=""))


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
