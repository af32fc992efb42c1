"""What the workers of a space are told, and what they tell: ``plan.json`` and ``steps.jsonl`` in the space's folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graph_store.progress import Task
from graph_store.settings import TrainingSettings
from training.errors import DistributedError
from training.model import describe_shape, shape_of
from training.space_model import SpaceShape

PLAN = "plan.json"
STEPS = "steps.jsonl"
INITIAL = "initial.pt"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The training of one space by several workers."""

    folder: Path
    """Of the space: initial weights, checkpoint, steps."""
    parts: Path
    """Folder of the parts; worker r reads ``<parts>/<r>``."""
    parent: str
    """Content hash of the whole snapshot."""
    start: str
    """Fingerprint of what the training starts from; checkpoints of another one are not resumed."""
    shape: SpaceShape
    """Of the whole graph: the same model everywhere."""
    edges: int
    """What ``resolved_steps`` is asked with, the same for every worker."""
    max_neighbours: int
    settings: TrainingSettings

    def write(self) -> Path:
        """Write ``plan.json``; returns its path."""
        document = {
            "folder": str(self.folder.resolve()),
            "parts": str(self.parts.resolve()),
            "parent": self.parent,
            "start": self.start,
            "shape": describe_shape(self.shape),
            "edges": self.edges,
            "max_neighbours": self.max_neighbours,
            "settings": self.settings.model_dump(mode="json"),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / PLAN
        # Another machine may be waiting for it.
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(document, indent=1), encoding="utf-8")
        unfinished.replace(path)
        return path

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read what ``write`` wrote. Raises DistributedError."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                **{
                    **document,
                    "folder": Path(document["folder"]),
                    "parts": Path(document["parts"]),
                    "shape": shape_of(document["shape"]),
                    "settings": TrainingSettings(**document["settings"]),
                }
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DistributedError(
                f"{path} is no plan of a training: {error}", hint="Start the workers by `kithkin train`."
            ) from None


class StepsFile:
    """Progress of the first worker as JSON lines; an object with ``event`` says that workers began or ended."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        """See ``Progress``."""
        yield _StepsTask(self)

    def say(self, **entry: Any) -> None:
        """Append one line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


class _StepsTask:
    def __init__(self, file: StepsFile) -> None:
        self._file, self._done = file, 0

    def advance(self, steps: int = 1, **fields: object) -> None:
        self._done += steps
        self._file.say(done=self._done, **fields)
