"""The worker's side of the delta: reads what the follower adds, and has calls answered with it."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from pathlib import Path
from typing import Protocol

from server.fresh.delta import Delta
from server.fresh.delta_file import DeltaReader, delta_path
from server.fresh.model import with_delta
from server.model.served_model import ServedModel
from server.observe import log
from server.processes.state import DeltaCounts, State

_POLL_S = 0.25
_AFTER_FAILURE_S = 5.0
_SHARE = 4.0
"""After a model was made, it rests this many times as long: many changes take a fifth of a processor at most."""


class Take(Protocol):
    """Has calls answered by a model, where the one that it is to replace still serves; whether it does."""

    async def __call__(self, model: ServedModel, *, instead_of: ServedModel) -> bool: ...


class DeltaWatch:
    """Makes models with the delta of the bundle that serves, one at a time, and hands them over."""

    def __init__(self, root: Path, state: State, take: Take) -> None:
        self._root, self._state, self._take = root, state, take
        self._base: ServedModel | None = None
        self._served: ServedModel | None = None
        self._reader: DeltaReader | None = None
        self._delta = Delta()
        self._counts = (0, 0, 0)
        self._behind = False
        """Whether there is more in the delta than is answered with."""

    async def run(self) -> None:
        """Until cancelled; what goes wrong is told in the log, and tried again."""
        while True:
            started = time.monotonic()
            try:
                made = await self.look()
            except Exception as error:
                # What serves serves on.
                log.event(logging.ERROR, "delta cannot be taken up", trace=True, error=str(error))
                await asyncio.sleep(_AFTER_FAILURE_S)
                continue
            await asyncio.sleep(max(_POLL_S, _SHARE * (time.monotonic() - started) if made else 0.0))

    async def look(self) -> bool:
        """Read on, and where there is something new have it answered with; whether there was."""
        retrieval = self._state.retrieval
        if retrieval is None:
            return False
        if retrieval.model is not self._served:
            # Another bundle serves, without a delta yet.
            self._base = self._served = retrieval.model
            self._reader = DeltaReader(delta_path(self._root, retrieval.model.version))
            self._delta, self._counts, self._behind = Delta(), (0, 0, 0), False
        assert self._reader is not None
        try:
            made = await self._take_up(retrieval.model, self._reader)
        except Exception:
            # Records that were read and are in no model are read again, with all before them.
            self._reader = DeltaReader(delta_path(self._root, retrieval.model.version))
            self._delta, self._behind = Delta(), True
            raise
        # The model before goes by its caches in a circle.
        del retrieval
        if made:
            await asyncio.to_thread(gc.collect)
        fresh, changed, deleted = self._counts
        lag = self._reader.lag(time.time())
        self._state.delta = DeltaCounts(fresh=fresh, changed=changed, deleted=deleted, lag_s=lag)
        return made

    async def _take_up(self, served: ServedModel, reader: DeltaReader) -> bool:
        """Read on, and have what is there answered with instead of ``served``; whether there was something."""
        assert self._base is not None
        anew, records = await asyncio.to_thread(reader.poll)
        if anew or records:
            self._behind = True
            self._delta = (Delta() if anew else self._delta).plus(records)
        if not self._behind:
            return False
        started = time.monotonic()
        model, counts = await asyncio.to_thread(_made, self._base, self._delta)
        # Another bundle may have been taken up meanwhile.
        if await self._take(model, instead_of=served):
            self._served, self._counts = model, counts
            seconds = round(time.monotonic() - started, 3)
            fresh, changed, deleted = counts
            log.event(logging.INFO, "delta taken up", fresh=fresh, changed=changed, deleted=deleted, seconds=seconds)
        self._behind = False
        return True


def _made(base: ServedModel, delta: Delta) -> tuple[ServedModel, tuple[int, int, int]]:
    """The model, and how many nodes of the delta are fresh, changed and deleted."""
    fresh = changed = deleted = 0
    for node_type, each in delta.types.items():
        known = base.bundle.ids(node_type)
        at = known.rows(each.nodes.column("id").to_pylist())
        fresh += int((at < 0).sum())
        changed += int((at >= 0).sum())
        deleted += int((known.rows(each.deleted) >= 0).sum())
    return with_delta(base, delta), (fresh, changed, deleted)
