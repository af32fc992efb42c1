"""Figures of a benchmark, kept as JSON beside it: what is there already is not measured again."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


class Results:
    """The rows of one benchmark, ``results/<name>.json``; a row is found again by its settings.

    A row is ``{"settings": ..., "figures": ..., "commit": ..., "machine": ...}``. The file is written after each row,
    so an interrupted run goes on where it stopped. With ``again`` rows are measured anew and replace the old ones.
    """

    def __init__(self, name: str, *, again: bool = False, folder: Path = FOLDER) -> None:
        self.path = folder / f"{name}.json"
        self.again = again
        # Asked at the start: the tree may go on while a long benchmark runs.
        self.commit = _commit()
        self.rows: list[dict[str, Any]] = json.loads(self.path.read_text()) if self.path.exists() else []

    def row(self, settings: Mapping[str, Any], measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The figures for these settings (JSON values): those kept, else what ``measure`` returns, kept from now on."""
        wanted = json.loads(json.dumps(settings))
        kept = next((each for each in self.rows if each["settings"] == wanted), None)
        if kept is not None and not self.again:
            return dict(kept["figures"])
        figures = json.loads(json.dumps(measure()))
        row = {"settings": wanted, "figures": figures, "commit": self.commit, "machine": _machine()}
        self.rows = [each for each in self.rows if each["settings"] != wanted] + [row]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text(json.dumps(self.rows, indent=1, sort_keys=True) + "\n")
        unfinished.replace(self.path)
        return dict(figures)


def _commit() -> str:
    """The commit the tree stands on; a plus where files differ from it, other than these figures."""
    folder = Path(__file__).parent
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=folder
    )
    changed = subprocess.run(
        ["git", "diff", "--quiet", "HEAD", "--", "..", ":!results"], check=False, cwd=folder
    ).returncode
    return head.stdout.strip() + ("+" if changed else "")


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores"
