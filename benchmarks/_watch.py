"""What a piece of a benchmark costs: its time, the most memory of this process, and the most that a folder held."""

from __future__ import annotations

import resource
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

Figures = dict[str, Any]


class Clock:
    """Time since it was made: of the clock on the wall, and of the processor in all threads, which does not depend on
    what else the machine does.
    """

    def __init__(self) -> None:
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def figures(self, **done: int) -> Figures:
        """Seconds of both; of what was done how much, and how much a processor second."""
        wall, processor = time.perf_counter() - self.wall, time.process_time() - self.processor
        rates = {f"{name}_per_processor_second": count / processor for name, count in done.items()}
        return {"seconds": wall, "processor_seconds": processor, **done, **rates}


class _Peak(ABC):
    """Looks again and again, from a thread, while the block runs."""

    every_s = 0.5

    def __enter__(self) -> Self:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @abstractmethod
    def look(self) -> None:
        """See how much there is now."""

    def _watch(self) -> None:
        while True:
            self.look()
            if self._ended.wait(self.every_s):
                return


class PeakMemory(_Peak):
    """Watches this process: all that is resident, and what is its own (not pages of files)."""

    every_s = 0.02

    def __init__(self) -> None:
        self._own = 0
        self._status = Path("/proc/self/status")

    def look(self) -> None:
        fields = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
        self._own = max(self._own, int(fields["RssAnon"].split()[0]))

    def figures(self) -> dict[str, int]:
        """Both in MiB."""
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        return {"peak_resident_mib": resident, "peak_own_mib": self._own // 1024}


class PeakDisk(_Peak):
    """Watches how much a folder holds."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.bytes = folder, 0

    def look(self) -> None:
        self.bytes = max(self.bytes, size(self._folder))


def size(folder: Path) -> int:
    """Bytes on the disk of all files; those that go meanwhile are left out."""
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.stat().st_blocks * 512
        except OSError:
            continue
    return found
