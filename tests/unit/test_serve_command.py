"""What ``kithkin serve`` hands to the supervisor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from graph_store.settings import ServingSettings
from server.processes import supervisor
from tests.inspected import TOML


def test_flags_stand_above_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kithkin.toml").write_text(f"{TOML}\n[serving]\nworkers = 2\nport = 1\nhang_s = 7\n")
    given: list[Any] = []

    def serve(root: Path, settings: ServingSettings, **others: Any) -> int:
        given.append((root, settings))
        return 0

    monkeypatch.setattr(supervisor, "serve", serve)
    flags = ["--workers", "3", "--port", "0", "--host", "localhost"]
    for arguments in (flags, []):
        monkeypatch.setattr(sys, "argv", ["kithkin", "serve", "--project", str(tmp_path), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
    (root, flagged), (_, plain) = given
    assert root == tmp_path / ".kithkin" / "models"
    assert (flagged.workers, flagged.port, flagged.host, flagged.hang_s) == (3, 0, "localhost", 7)
    assert (plain.workers, plain.port) == (2, 1)
