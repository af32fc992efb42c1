"""What happens in a training, step by step: JSON lines always, TensorBoard's event files where they are asked for.

A line of ``log.jsonl``::

    {"space": "similar", "step": 12, "loss": 3.1, "learning_rate": 0.002, "examples_per_second": 4100.0, "seconds": 9.8}

``space`` and ``step`` (from 1) say where the training stood; every other key is a figure of that step.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

LOG = "log.jsonl"
EVENTS = "tensorboard"


class _Writer(Protocol):
    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class RunLog:
    """The log of one training in its folder; a context manager.

    A training that goes on from a checkpoint goes on in the same file: call ``resume`` with the steps it has behind it,
    and what was written of later ones is dropped. A kill of the process loses no line of a step that was logged.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = False) -> None:
        """``folder``: where ``log.jsonl`` and ``tensorboard/<space>/`` go."""
        self.folder = folder
        self._tensorboard = tensorboard
        self._writers: dict[str, _Writer] = {}
        self._begun: set[str] = set()
        self._file: IO[str] | None = None

    def resume(self, space: str, done: int) -> None:
        """The training of a space begins with ``done`` steps behind it: lines of later steps are dropped."""
        self._begun.add(space)
        self._close_file()
        path = self.folder / LOG
        lines = read_lines(path)
        kept = [line for line in lines if line["space"] != space or line["step"] <= done]
        if path.is_file():
            unfinished = path.with_suffix(".part")
            unfinished.write_text("".join(_line(each) for each in kept), encoding="utf-8")
            unfinished.replace(path)
        if self._tensorboard:
            self._writers[space] = _event_writer(self.folder / EVENTS / space, done)

    def step(self, space: str, step: int, **figures: float | None) -> None:
        """Figures of one step (from 1). A space that was not resumed before its first step begins anew.

        None is left out; NaN and infinity stand as null, since JSON has neither.
        """
        if space not in self._begun:
            self.resume(space, step - 1)
        known = {name: float(value) for name, value in figures.items() if value is not None}
        if self._file is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = (self.folder / LOG).open("a", encoding="utf-8", buffering=1)
        self._file.write(_line({"space": space, "step": step, **known}))
        if space in self._writers:
            for name, value in known.items():
                self._writers[space].add_scalar(name, value, step)

    def close(self) -> None:
        """Close the files; nothing can be logged after."""
        self._close_file()
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log, in order; none where there is no log. A line that a kill cut short is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    found = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and {"space", "step"} <= set(entry):
            found.append(entry)
    return found


def _line(entry: dict[str, Any]) -> str:
    plain = {name: _plain(value) for name, value in entry.items()}
    return json.dumps(plain, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _event_writer(folder: Path, done: int) -> _Writer:
    from torch.utils.tensorboard import SummaryWriter

    # purge_step hides from TensorBoard what an earlier run wrote of the steps that come again.
    writer: _Writer = SummaryWriter(str(folder), purge_step=done + 1)
    return writer
