"""Running the command line and a server as people do: as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("kithkin")


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, read as JSON."""
        return json.loads(self.out)


def kithkin(*arguments: str, folder: Path, environment: dict[str, str] | None = None, code: int = 0) -> Ended:
    """Run one command in a folder; fails unless it ends with ``code``."""
    ended = subprocess.run(
        [str(PROGRAM), *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == code, (
        f"kithkin {' '.join(arguments)}: {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@contextmanager
def serving(folder: Path, *arguments: str) -> Iterator[str]:
    """A server of the project in ``folder``, stopped at the end; yields its address."""
    port_file = folder / "port"
    port_file.unlink(missing_ok=True)
    log = folder / "server.observe.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [str(PROGRAM), "serve", "--port", "0", "--port-file", str(port_file), *arguments],
            cwd=folder,
            stdout=stream,
            stderr=stream,
        )
        try:
            for _ in range(600):
                if port_file.exists() and port_file.read_text().strip():
                    break
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            else:
                raise AssertionError(f"no port after a minute\n{log.read_text()}")
            yield f"127.0.0.1:{port_file.read_text().strip()}"
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=30)
    assert process.returncode == 0, log.read_text()
