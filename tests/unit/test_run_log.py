"""The log of a training: what it holds, and that a resumed run repeats no step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.run_log import EVENTS, LOG, RunLog, read_lines


def steps(folder: Path, space: str = "similar") -> list[int]:
    return [line["step"] for line in read_lines(folder / LOG) if line["space"] == space]


def test_each_step_is_one_line_that_is_there_at_once(tmp_path: Path) -> None:
    with RunLog(tmp_path / "run") as log:
        log.step("similar", 1, loss=2.5, learning_rate=0.001, validation=None)
        line = json.loads((tmp_path / "run" / LOG).read_text())
        assert line == {"space": "similar", "step": 1, "loss": 2.5, "learning_rate": 0.001}
        log.step("similar", 2, loss=float("nan"))
    text = (tmp_path / "run" / LOG).read_text()
    assert "NaN" not in text
    assert read_lines(tmp_path / "run" / LOG)[1]["loss"] is None
    assert not (tmp_path / "run" / EVENTS).exists()


def test_a_resumed_run_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        for step in range(1, 8):
            log.step("similar", step, loss=float(step))
        log.step("user", 1, loss=9.0)
    # A kill left half a line.
    with (tmp_path / LOG).open("a") as file:
        file.write('{"space": "user", "st')
    with RunLog(tmp_path) as log:
        log.resume("similar", 5)
        for step in range(6, 9):
            log.step("similar", step, loss=-float(step))
    assert steps(tmp_path) == list(range(1, 9))
    assert [line["loss"] for line in read_lines(tmp_path / LOG) if line["space"] == "similar"][4:] == [5, -6, -7, -8]
    assert steps(tmp_path, "user") == [1]


def test_a_new_run_begins_anew_in_its_space_alone(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLog(tmp_path) as log:
            for space in ("similar", "user"):
                for step in (1, 2, 3):
                    log.step(space, step, loss=1.0)
    assert steps(tmp_path) == steps(tmp_path, "user") == [1, 2, 3]
    with RunLog(tmp_path) as log:
        log.resume("similar", 0)
    assert (steps(tmp_path), steps(tmp_path, "user")) == ([], [1, 2, 3])


def test_no_log_has_no_lines(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "nothing.jsonl") == []


def test_tensorboard_reads_the_same_figures(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with RunLog(tmp_path, tensorboard=True) as log:
        for step in range(1, 5):
            log.step("user", step, loss=step / 2)
    with RunLog(tmp_path, tensorboard=True) as log:
        log.resume("user", 2)
        for step in range(3, 6):
            log.step("user", step, loss=step * 10.0)
    events = accumulator.EventAccumulator(str(tmp_path / EVENTS / "user"))
    events.Reload()
    found = {event.step: event.value for event in events.Scalars("loss")}
    assert found == {1: 0.5, 2: 1.0, 3: 30.0, 4: 40.0, 5: 50.0}
    assert steps(tmp_path, "user") == [1, 2, 3, 4, 5]
