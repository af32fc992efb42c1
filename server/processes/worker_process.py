"""A worker process as the supervisor sees it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace

from server.processes.worker import Message, Order

ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
"""What a worker's process is given beside its own environment, which wins: each worker has a core, and NumPy's matrix
products must not have threads that spin on those of the others after each of them."""


class WorkerProcess:
    """One started worker: its process, the messages it sends, and the orders it takes."""

    def __init__(self, order: Order) -> None:
        self.version = order.version
        """The bundle it serves, or tries."""
        self.started = time.monotonic()
        self.messages, write_end = os.pipe()
        os.set_blocking(self.messages, False)
        try:
            told = json.dumps(asdict(replace(order, messages_to=write_end)))
            self.process = subprocess.Popen(
                # -P: a folder of the user's called `server` is not ours.
                [sys.executable, "-P", "-m", "server.processes.worker", told],
                stdin=subprocess.PIPE,
                pass_fds=(write_end,),
                env=ENVIRONMENT | os.environ,
            )
        except BaseException:
            os.close(self.messages)
            raise
        finally:
            os.close(write_end)
        self._received = b""
        self.loading = False
        """Whether it came so far as to load its bundle."""
        self.told = False
        """Whether it has told what came of that."""

    def read(self) -> list[Message]:
        """Messages that have come since the last time."""
        try:
            while part := os.read(self.messages, 65536):
                self._received += part
        except BlockingIOError:
            pass
        *lines, self._received = self._received.split(b"\n")
        messages = [Message(**json.loads(line)) for line in lines]
        self.loading = self.loading or any(each.kind == "loading" for each in messages)
        told = [each for each in messages if each.kind != "loading"]
        self.told = self.told or bool(told)
        return told

    def load(self, version: str) -> None:
        """Take up another bundle; it tells when it serves it."""
        self._tell({"load": version})

    def refuse(self, reason: str) -> None:
        """Let GetStatus tell why a newer bundle was refused (empty: none is)."""
        self._tell({"refused_bundle": reason})

    def load_beside(self, version: str) -> None:
        """Load a further bundle beside the one that serves."""
        self._tell({"beside": version})

    def tell_fleet(self, fleet: dict[str, object]) -> None:
        """Let it know what the other workers serve (the fields of ``server.processes.state.Fleet``)."""
        self._tell({"fleet": fleet})

    def ping(self) -> None:
        """Ask its event loop for a pong."""
        self._tell({"ping": True})

    def drain(self) -> None:
        """Tell it to stop well."""
        self._tell({"drain": True})

    def kill(self) -> None:
        """Stop it at once."""
        self.process.kill()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self.process.poll()

    def close(self) -> None:
        """Release its pipes; it must have ended."""
        self.process.wait()
        os.close(self.messages)
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def _tell(self, order: dict[str, object]) -> None:
        assert self.process.stdin is not None
        # A broken pipe: it is ending already; the supervisor sees that by its exit code.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write((json.dumps(order) + "\n").encode())
            self.process.stdin.flush()
