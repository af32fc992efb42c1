"""All workers of one server, led from one bundle to the next: one after the other, and all of them or none."""

from __future__ import annotations

import logging
from collections.abc import Callable

from server.observe import log
from server.processes.slot import Slot
from server.processes.worker_process import WorkerProcess

_MOST_FAILED_STARTS = 3
"""A bundle that has served is not to blame before so many starts in a row have failed."""


class Fleet:
    """Slots for workers, the bundle that serves, and the change-over that is under way.

    ``start`` starts a worker with a bundle (None: without one). ``candidate`` names the bundle to try where none is
    known to be good. ``refused`` is told of a bundle that turned out bad, ``settled`` whenever every worker that runs
    answers from the bundle it should.
    """

    def __init__(
        self,
        size: int,
        *,
        start: Callable[[str | None], WorkerProcess],
        candidate: Callable[[], str | None],
        refused: Callable[[str, str], None],
        settled: Callable[[], None],
    ) -> None:
        self.slots = [Slot() for _ in range(size)]
        self.good: str | None = None
        """The bundle that serves: workers are started with it."""
        self.target: str | None = None
        """The bundle that workers are taking up, one after the other; None: no change-over is under way."""
        self._turn = 0
        self._start, self._candidate = start, candidate
        self._refused, self._settled = refused, settled

    @property
    def serving(self) -> list[Slot]:
        """Workers that answer calls."""
        return [slot for slot in self.slots if slot.serving]

    @property
    def everywhere(self) -> str | None:
        """The bundle that all workers which run answer from, or will as soon as they have started."""
        running = {slot.version for slot in self.slots if slot.process is not None}
        return self.good if self.target is None and self.serving and running == {self.good} else None

    def count(self) -> dict[str, int]:
        """Workers by the bundle that they answer from."""
        versions = [slot.version for slot in self.serving if slot.version is not None]
        return {version: versions.count(version) for version in sorted(set(versions))}

    def fill(self) -> None:
        """Start the workers that are missing."""
        for slot in self.slots:
            if not slot.to_fill:
                continue
            try:
                self._fill(slot)
            except OSError as error:
                # No memory or no descriptors just now: the others serve on.
                slot.not_started(str(error))

    def _fill(self, slot: Slot) -> None:
        if self.target is not None and self._taken(self.target):
            slot.fill(self._start(self.target), self._turn)
        elif self.good is not None or self.target is not None:
            slot.fill(self._start(self.good), self._turn - (self.target is not None))
        elif slot is self.slots[0]:
            # Nothing is known to be good: one worker finds out.
            slot.fill(self._start(self._candidate()), self._turn)
        elif self.slots[0].serving:
            slot.fill(self._start(None), self._turn)

    def change_over(self, version: str) -> None:
        """Have all workers take up a bundle whose trial went well."""
        self.target, self._turn = version, self._turn + 1
        self._advance()

    def served(self, slot: Slot, version: str | None) -> None:
        """A worker told what it answers from."""
        # Who was started before the change-over began has not made it yet.
        slot.serves(version, self._turn if slot.taking_up is not None else slot.turn)
        if self.target is None and self.good is None and version is not None:
            # Found to be good just now; the others wait without a bundle.
            self.target, self._turn = version, self._turn + 1
            slot.turn = self._turn
        if self.target is None:
            self._settled()
        else:
            self._advance()

    def refused(self, slot: Slot, version: str, reason: str) -> None:
        """A worker found a bundle at fault, while it started with it or was to take it up."""
        slot.taking_up = None
        if not slot.serving and self._taken(version):
            # Others answer from it: the bundle that they opened was whole. Its process ends by itself.
            log.event(logging.ERROR, "a worker cannot load what others serve", reason=reason)
            return
        self._blame(version, reason)

    def failed(self, slot: Slot, reason: str) -> None:
        """A worker cannot serve any bundle (a file of keys that cannot be read, say), and ends; others serve."""
        slot.failed = True
        log.event(logging.ERROR, "a worker cannot serve", reason=reason)

    def died(self, slot: Slot, why: str) -> None:
        """A worker's process has ended."""
        assert slot.process is not None
        process, version, served, taking_up = slot.process, slot.version, slot.serving, slot.taking_up
        if slot.failed:
            # By no fault of its bundle.
            slot.empty(why)
            self._advance()
            return
        if not served and process.told and not (version is not None and self._taken(version)):
            # It refused its bundle and ended, as it should.
            slot.vacate()
            return
        slot.empty(why)
        loading = taking_up if served else version if process.loading else None
        if loading is None or self._taken(loading):
            # Nothing was being loaded, or others answer from it: a bundle that brought down its process would have
            # brought down the trial, and theirs.
            self._advance()
        elif served or loading != self.good or slot.failed_starts >= _MOST_FAILED_STARTS:
            self._blame(loading, f"{loading}: loading it ended a process by {why}")

    def tell(self, written: int) -> None:
        """Let every worker know what all of them serve, as the outcome of the ACTIVE written then."""
        fleet = {
            "workers": len(self.slots),
            "serving": self.count(),
            "everywhere": self.everywhere,
            "written": written,
        }
        for slot in self.serving:
            assert slot.process is not None
            slot.process.tell_fleet(fleet)

    def _taken(self, version: str) -> bool:
        """Whether a worker answers from this bundle."""
        return any(slot.version == version for slot in self.serving)

    def _advance(self) -> None:
        """Go on with the change-over: the next worker, or its end."""
        if self.target is None or any(slot.taking_up is not None for slot in self.slots):
            return
        behind = [slot for slot in self.slots if slot.process is not None and slot.turn != self._turn]
        for slot in behind:
            if slot.serving:
                slot.load(self.target)
                return
        if not behind and self._taken(self.target):
            self.good, self.target = self.target, None
            self._settled()

    def _blame(self, version: str, reason: str) -> None:
        """What is refused changes nothing: who took it up already goes back."""
        aborted = version == self.target
        if aborted:
            self.target = None
        if version == self.good and not aborted:
            # What served is damaged by now: better to say so than to try for ever.
            self.good = None
        self._refused(version, reason)
        if aborted and self._taken(version) and version != self.good:
            self._go_back(version)

    def _go_back(self, version: str) -> None:
        if self.good is not None:
            self.change_over(self.good)
            return
        # There is nothing to go back to but no bundle at all, with which only a new process begins.
        for slot in self.serving:
            if slot.version == version:
                assert slot.process is not None
                slot.process.kill()
