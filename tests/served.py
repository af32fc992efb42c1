"""``serve`` in a process of its own, for tests and benchmarks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from graph_store.settings import ServingSettings

_SCRIPT = """
import json, sys
from pathlib import Path
from graph_store.settings import ServingSettings
from server.processes.supervisor import serve
root, port_file = map(Path, sys.argv[1:3])
settings = ServingSettings.model_validate(json.loads(sys.argv[3]))
sys.exit(serve(root, settings, port_file=port_file, json_log=True))
"""


class Server:
    """A supervisor with its workers while the block lasts; it must stop well."""

    def __init__(self, root: Path, settings: ServingSettings, port_file: Path) -> None:
        self._log = port_file.with_name("log").open("a+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SCRIPT, str(root), str(port_file), json.dumps(settings.model_dump(mode="json"))],
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )
        end = time.monotonic() + 60
        while not port_file.exists():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.05)
        self.port = int(port_file.read_text())

    def log(self) -> str:
        """What it has logged."""
        return Path(self._log.name).read_text()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            ended = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self._log.close()
        assert ended == 0
