"""What each step of a build last did, so that unchanged ones are skipped."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model_store.durable import naming


class StepLog:
    """``steps.json``: per step the hash of its inputs and its outcome, written atomically."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def outcome(self, step: str, inputs: str) -> dict[str, Any] | None:
        """Outcome of the step's last run, where that had the same inputs."""
        entry = self._read().get(step)
        return entry["outcome"] if entry and entry["inputs"] == inputs else None

    def last(self, step: str) -> dict[str, Any] | None:
        """Outcome of the step's last run, whatever its inputs were."""
        entry = self.entry(step)
        return entry["outcome"] if entry else None

    def entry(self, step: str) -> dict[str, Any] | None:
        """``inputs`` and ``outcome`` of the step's last run."""
        return self._read().get(step)

    def record(self, step: str, inputs: str, outcome: Mapping[str, Any], *, instead_of: str = "") -> None:
        """Remember a finished step, and forget the one whose place it takes."""
        entries = {name: entry for name, entry in self._read().items() if name != instead_of}
        self._write({**entries, step: {"inputs": inputs, "outcome": dict(outcome)}})

    def forget(self, step: str) -> None:
        """A step is about to change what its last run left: should it fail half-way, nothing may pass for done."""
        entries = self._read()
        if entries.pop(step, None) is not None:
            self._write(entries)

    def _write(self, entries: dict[str, Any]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_suffix(".tmp")
        with naming(self._file):
            beside.write_text(json.dumps(entries, indent=2, sort_keys=True), encoding="utf-8")
        os.replace(beside, self._file)  # noqa: PTH105 - Path.replace says the same, this names the atomic call

    def _read(self) -> dict[str, Any]:
        try:
            entries = json.loads(self._file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}  # a lost log only means that steps run again
        if not isinstance(entries, dict):
            return {}
        whole = {"inputs", "outcome"}
        return {step: entry for step, entry in entries.items() if isinstance(entry, dict) and set(entry) == whole}
