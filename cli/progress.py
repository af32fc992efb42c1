"""Progress bars on standard error, so that standard output stays clean for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as Bar
from rich.text import Text

from graph_store.progress import Task


class RateColumn(ProgressColumn):
    """How many units a second, over the last half minute; nothing until it is known."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Bar) -> Text:
        """The text of one bar."""
        speed = task.finished_speed or task.speed
        return Text(f"{_rate(speed)} {self._unit}/s" if speed else "", style="progress.data.speed")


class _RichTask:
    def __init__(self, progress: Progress, task_id: TaskID) -> None:
        self._progress, self._task_id = progress, task_id

    def advance(self, steps: int = 1, **fields: object) -> None:
        figures = "  ".join(f"{name} {_short(value)}" for name, value in fields.items())
        self._progress.update(self._task_id, advance=steps, **({"figures": figures} if figures else {}))  # type: ignore[arg-type]


class RichProgress:
    """Draws a bar per task while it runs, with throughput and time left; nothing where no terminal would show it."""

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
            RateColumn(unit),
            # Where the end is not known there is no time left to tell, but the time spent is.
            TimeElapsedColumn() if total is None else TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        with Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        ) as progress:
            yield _RichTask(progress, progress.add_task(description, total=total, figures=""))


def _rate(speed: float) -> str:
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
