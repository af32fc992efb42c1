"""Progress bars: throughput and time left where they are known, silence where nobody would see them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress, Task

from cli.progress import RateColumn, RichProgress, _rate


@pytest.mark.parametrize(
    ("speed", "text"), [(0.01234, "0.0123"), (3.14159, "3.14"), (99.94, "99.9"), (1234567.8, "1,234,568")]
)
def test_a_rate_has_the_digits_that_matter(speed: float, text: str) -> None:
    assert _rate(speed) == text


def bar(*times: float, steps: int, total: int) -> Task:
    """A bar that advanced by so many steps at each of these times."""
    now = [0.0]
    progress = Progress(disable=True, get_time=lambda: now[0])
    task_id = progress.add_task("work", total=total)
    for each in times:
        now[0] = each
        progress.advance(task_id, steps)
    return progress.tasks[0]


def test_the_rate_is_steps_by_time() -> None:
    column = RateColumn("steps")
    assert column.render(bar(1.0, steps=5, total=100)).plain == ""
    assert column.render(bar(1.0, 2.0, 3.0, steps=5, total=100)).plain == "5 steps/s"
    done = bar(1.0, 2.0, 3.0, steps=400, total=1200)
    assert done.finished
    assert column.render(done).plain == "400 steps/s"


def test_a_terminal_sees_rate_and_time_left() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=160)
    with RichProgress(console).task("train similar", 3, "steps") as task:
        for _ in range(3):
            task.advance(1, loss=0.25)
    assert "train similar" in shown.getvalue()
    assert "3/3" in shown.getvalue()
    assert "loss 0.25" in shown.getvalue()
    assert "0:00:00" in shown.getvalue()


def test_a_file_sees_nothing() -> None:
    shown = io.StringIO()
    with RichProgress(Console(file=shown, width=160)).task("train", None, "rows") as task:
        task.advance(5)
    assert shown.getvalue().strip() == ""
