"""The worker's side of the delta: reads what the follower adds, and has calls answered with it."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from server.fresh.bundle import FreshBundle
from server.fresh.compaction import Compaction, due
from server.fresh.delta import Delta
from server.fresh.delta_file import DeltaReader, delta_path
from server.fresh.index import Compacted
from server.fresh.model import Place, with_delta
from server.model.served_model import ServedModel
from server.observe import log
from server.processes.state import DeltaCounts, State

_POLL_S = 0.25
_AFTER_FAILURE_S = 5.0
_AFTER_FAILED_COMPACTION_S = 60.0
_SHARE = 1.5
"""After a model was made, it rests this many times as long: many changes take two fifths of a processor at most."""
_COMPACTION_SHARE = 9.0
"""The same after an index was built."""


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
        self._compacted: dict[Place, Compacted] = {}
        self._compaction: Compaction | None = None
        self._compact_after = 0.0

    async def run(self) -> None:
        """Until cancelled; what goes wrong is told in the log, and tried again."""
        while True:
            started, worked = time.monotonic(), time.process_time()
            try:
                made = await self.look()
            except Exception as error:
                # What serves serves on.
                log.event(logging.ERROR, "delta cannot be taken up", trace=True, error=str(error))
                await asyncio.sleep(_AFTER_FAILURE_S)
                continue
            # Where others have the processors, what it took of them counts, and not how long it was waited for.
            took = min(time.monotonic() - started, time.process_time() - worked)
            await asyncio.sleep(max(_POLL_S, _SHARE * took if made else 0.0))

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
            self._compacted, self._compaction = {}, None
        assert self._reader is not None
        try:
            made = await self._take_up(retrieval.model, self._reader)
        except Exception:
            # Records that were read and are in no model are read again, with all before them.
            self._reader = DeltaReader(delta_path(self._root, retrieval.model.version))
            self._delta, self._behind = Delta(), True
            self._compacted, self._compaction = {}, None
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
        base = self._base
        anew, records = await asyncio.to_thread(reader.poll)
        if anew:
            # The numbers of the records begin again.
            self._compacted, self._compaction = {}, None
        self._look_after_compaction()
        if anew or records:
            self._behind = True
            before = Delta() if anew else self._delta
            self._delta = await asyncio.to_thread(lambda: before.plus(records).since(base.bundle))
        if not self._behind:
            return False
        started = time.monotonic()
        model, counts = await asyncio.to_thread(_made, base, self._delta, dict(self._compacted))
        # Another bundle may have been taken up meanwhile.
        if await self._take(model, instead_of=served):
            self._served, self._counts = model, counts
            seconds = round(time.monotonic() - started, 3)
            fresh, changed, deleted = counts
            log.event(logging.INFO, "delta taken up", fresh=fresh, changed=changed, deleted=deleted, seconds=seconds)
            self._begin_compaction(base, model)
        self._behind = False
        return True

    def _begin_compaction(self, base: ServedModel, model: ServedModel) -> None:
        """Where much lies beside an index, build another; one at a time."""
        if self._compaction is None and time.monotonic() >= self._compact_after:
            place = due(model)
            if place is not None:
                self._compaction = Compaction(base, model, self._delta, place)

    def _look_after_compaction(self) -> None:
        """Have what was built answered with from the next model on."""
        each = self._compaction
        if each is None or each.running:
            return
        self._compaction = None
        self._compact_after = time.monotonic() + _COMPACTION_SHARE * each.seconds
        place = "/".join(each.place)
        if each.done is not None:
            self._compacted[each.place] = each.done
            self._behind = True
            seconds = round(each.seconds, 1)
            log.event(logging.INFO, "index compacted", index=place, vectors=len(each.done.ids), seconds=seconds)
        elif each.failure is not None:
            # Slower, and right all the same.
            self._compact_after = time.monotonic() + _AFTER_FAILED_COMPACTION_S
            log.event(logging.ERROR, "index cannot be compacted", index=place, error=repr(each.failure))


def _made(
    base: ServedModel, delta: Delta, compacted: Mapping[Place, Compacted]
) -> tuple[ServedModel, tuple[int, int, int]]:
    """The model, and how many nodes of the delta are fresh, changed and deleted."""
    model = with_delta(base, delta, compacted)
    assert isinstance(model.bundle, FreshBundle)
    fresh = changed = deleted = 0
    for rows in model.bundle.rows.values():
        fresh += int((rows.base_of < 0).sum())
        changed += int(((rows.base_of >= 0) & (rows.delta_of >= 0)).sum())
        deleted += int((rows.new_of < 0).sum())
    return model, (fresh, changed, deleted)
