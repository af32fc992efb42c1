"""The process that follows the store: what changes there it writes as a delta beside the bundle that serves.

Started by the supervisor as ``python -m server.fresh.follower`` with a ``FollowOrder``, and told by lines of JSON on
standard input which bundle serves (``{"version": version}``); the end of that input stops it. It opens the store for
reading only, one look at a time: where the store is away, or a writer keeps it, it tries again, and what serves serves
on.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server.fresh.delta_file import DeltaWriter, delta_path
from server.observe import log

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from graph_store.changes import Noted, Watermark
    from graph_store.schema import Triple
    from graph_store.store import GraphStore
    from server.fresh.comparing import Comparing
    from server.fresh.nodes import FreshNodes


_LINE_S = 0.05
"""What the embedded store's log is waited for where a commit is in it not yet."""
_WAITED_S = 2.0
"""What a look waits for a comparison."""
_LONGEST_REST_S = 60.0
_REST = 2.0
"""Seconds of rest for each second of processor that a look took: writers and workers need it as well."""
_LONGEST_REST_AFTER_LOOK_S = 2.0
"""The first look, which compares all, takes seconds: they are no reason to be late with the next."""
_MOST_NOTED = 500_000
"""Rows that are remembered from the log for the next comparison; more are found by it again."""
_FOLDED_FROM, _FOLDED_AT = 64 << 20, 3
"""Bytes of a delta from which it is folded, and its growth since then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FollowOrder:
    """What the supervisor starts a follower with."""

    root: str
    """Folder of the bundles."""
    project: str
    """The kithkin.toml."""
    overrides: dict[str, Any]
    """Settings above it, by dotted key."""
    every_s: float
    """Seconds between two looks."""
    json_log: bool = False
    log_level: int = logging.INFO


def main() -> int:
    """Follow until the input ends; returns the process's exit code."""
    order = FollowOrder(**json.loads(sys.argv[1]))
    log.set_up(json_lines=order.json_log, level=order.log_level)
    # Ctrl-C reaches the whole process group; the supervisor hears it and ends our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Follower(order).run()
    return 0


class Follower:
    """Looks at the store again and again, for one bundle at a time."""

    def __init__(self, order: FollowOrder) -> None:
        from graph_store.project import load_project

        self._order = order
        self._project = load_project(Path(order.project), overrides=order.overrides)
        self._store: GraphStore | None = None
        self._version: str | None = None
        self._trouble = ""
        self._forget()

    def _forget(self) -> None:
        """Begin anew with the next look."""
        self._watermark: Watermark | None = None
        """The graph as it was compared last."""
        self._position: str | None = None
        """Up to where the store's log is known."""
        self._noted: Noted | None = None
        """What was read since the watermark by what the log told: the next comparison need not find it."""
        self._compared = False
        """Whether a comparison went on or ended in this look."""
        self._due = self._doubtful = False
        """Whether the log did not tell all; whether, at the last look, it had not told all yet."""
        self._comparing: Comparing | None = None
        self._compare_after = 0.0
        self._writer: DeltaWriter | None = None
        self._nodes: FreshNodes | None = None
        self._folded = 0

    def run(self) -> None:
        """Until standard input ends."""
        received, wait = b"", 0.0
        while True:
            readable, _, _ = select.select([sys.stdin], [], [], wait)
            if readable:
                part = os.read(sys.stdin.fileno(), 65_536)
                if not part:
                    return
                *lines, received = (received + part).split(b"\n")
                for line in lines:
                    self._turn_to(json.loads(line)["version"])
            started, self._compared = time.process_time(), False
            self._try_to_look()
            # A look costs much the same however much has changed: one that is late has more to read, and catches up.
            # After a comparison the next one waits, and the looks need not.
            took = 0.0 if self._compared else time.process_time() - started
            rest = min(_REST * took, _LONGEST_REST_AFTER_LOOK_S)
            wait = max(self._order.every_s, rest)

    def _turn_to(self, version: str | None) -> None:
        if version != self._version:
            self._version = version
            self._close()
            self._forget()

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = None

    def _try_to_look(self) -> None:
        from graph_store.errors import GraphStoreError
        from model_store.errors import ModelStoreError

        if self._version is None:
            return
        try:
            self.look(self._version)
        except (GraphStoreError, ModelStoreError, OSError) as error:
            trouble = getattr(error, "message", str(error))
            if trouble != self._trouble:
                log.event(logging.WARNING, "the store cannot be followed", bundle=self._version, reason=trouble)
            self._trouble = trouble
            # Opened anew the next time: it may be another file, or another server, by then.
            self._close()
            if isinstance(error, OSError):
                # The delta file may be torn or gone: it begins anew, with all that differs from the bundle.
                self._forget()
        else:
            if self._trouble:
                log.event(logging.INFO, "the store is followed again", bundle=self._version)
            self._trouble = ""

    def look(self, version: str) -> None:
        """Write what changed since the last look. Raises StoreError and ModelStoreError.

        What the store's log tells is written first. Where that may not be all the graph is compared, and waited for a
        moment; while it goes on, looks read the log.
        """
        from graph_store.stores import open_store

        at = time.time()
        if self._store is None:
            self._store = open_store(self._project, read_only=True)
        if self._watermark is None or self._position is None:
            position = self._store.log_position()
            self._watermark = self._begin(version, self._store)
            self._position = position
        else:
            self._read_log(self._store, self._position)
            self._compare(self._store, self._watermark)
        assert self._writer is not None
        if self._comparing is None and not self._due and not self._doubtful:
            self._writer.looked(at)
        self._fold(self._writer)

    def _read_log(self, store: GraphStore, position: str) -> None:
        """Write what the store's own log tells, and note whether that may not be all."""
        from graph_store.changes import Noted
        from server.fresh.nodes import logged_nodes

        told = store.written_since(position)
        if told is not None and not told.changes and not told.complete:
            # The line of a commit is written after it.
            time.sleep(_LINE_S)
            told = store.written_since(position)
        if told is None:
            # The comparison finds what was written up to here.
            self._position, self._due, self._doubtful = store.log_position(), True, False
            return
        nodes, pairs, whole = logged_nodes(self._project.schema, told.changes)
        if told.complete or self._noted is None or self._noted.count > _MOST_NOTED:
            self._noted = Noted()
        self._write(store, nodes, pairs, None if told.complete else self._noted)
        self._position = told.watermark
        self._due |= not whole or told.others
        self._due |= not told.complete and (self._doubtful or not told.changes)
        self._doubtful = not told.complete and not self._due

    def _compare(self, store: GraphStore, watermark: Watermark) -> None:
        """Begin a comparison where one is due, and write what it found once it has ended."""
        from graph_store.changes import Noted
        from server.fresh.comparing import Comparing
        from server.fresh.nodes import affected_nodes

        if self._comparing is None and self._due:
            if store.state_token() == watermark.token:
                self._due = False
            elif time.monotonic() >= self._compare_after:
                self._comparing = Comparing(self._project, watermark, self._noted or Noted())
                self._noted, self._due = Noted(), False
        each = self._comparing
        self._compared = each is not None
        if each is None or not each.wait(_WAITED_S):
            return
        self._comparing = None
        # What takes long and may find nothing leaves the processor to others for half as long.
        self._compare_after = time.monotonic() + min(each.seconds / 2, _LONGEST_REST_S)
        try:
            changes = each.changes()
            nodes = affected_nodes(changes.upserted_nodes, changes.upserted_edges)
            for gone in (changes.deleted_nodes, affected_nodes({}, changes.deleted_edges)):
                for node_type, ids in gone.items():
                    nodes.setdefault(node_type, set()).update(ids)
            self._write(store, nodes)
        except BaseException:
            # The next one finds the same, and finds again what was noted before.
            self._due = True
            raise
        self._watermark = changes.watermark
        if not self._due:
            assert self._writer is not None
            self._writer.looked(each.at)

    def _fold(self, writer: DeltaWriter) -> None:
        """Where the file grew long, keep the last word on each node."""
        from server.fresh.delta import Delta

        if self._nodes is None or writer.size < max(_FOLDED_FROM, _FOLDED_AT * self._folded):
            return
        bundle = self._nodes.bundle
        try:
            writer.fold(lambda records: Delta().plus(records).since(bundle).records())
        except OSError as error:
            # It is as it was, and serves; the next time is at three times the size.
            log.event(logging.WARNING, "delta cannot be folded", error=str(error))
        else:
            log.event(logging.INFO, "delta folded", bytes=writer.size)
        self._folded = writer.size

    def _begin(self, version: str, store: GraphStore) -> Watermark:
        """Everything that differs from the bundle, whose snapshot is older than the store is now."""
        from graph_store.changes import Comparison
        from model_store.bundle_store import BundleStore
        from server.fresh.catching_up import changed_nodes, changed_pairs
        from server.fresh.nodes import FreshNodes, affected_nodes

        bundle = BundleStore(Path(self._order.root)).open(version, verify=False)
        schema, limit = self._project.schema, self._project.settings.publish.max_neighbours
        comparison = Comparison(store, schema)
        watermark = comparison.watermark()
        pairs = changed_pairs(bundle, schema, store, limit)
        nodes = affected_nodes(changed_nodes(bundle, schema, store), pairs)
        self._nodes = FreshNodes(bundle, schema, limit)
        self._nodes.lookup.scan_s.update(comparison.scan_s)
        path = delta_path(Path(self._order.root), version)
        for old in path.parent.glob("*.delta*") if path.parent.is_dir() else ():
            if old != path:
                old.unlink(missing_ok=True)
        self._writer = DeltaWriter(path)
        self._write(store, nodes)
        log.event(logging.INFO, "following", bundle=version, changed=sum(map(len, nodes.values())))
        return watermark

    def _write(
        self,
        store: GraphStore,
        nodes: Mapping[str, Collection[str]],
        pairs: Mapping[Triple, Collection[tuple[str, str]]] | None = None,
        noted: Noted | None = None,
    ) -> None:
        assert self._nodes is not None
        assert self._writer is not None
        started, count = time.monotonic(), 0
        for record in self._nodes.records(store, nodes, pairs or {}, noted):
            self._writer.add(record)
            count += record.nodes.num_rows
        if count:
            log.event(logging.INFO, "changes", nodes=count, seconds=round(time.monotonic() - started, 3))


if __name__ == "__main__":
    sys.exit(main())
