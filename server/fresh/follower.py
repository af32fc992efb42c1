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
    from graph_store.changes import Comparison, Watermark
    from graph_store.store import GraphStore
    from server.fresh.nodes import FreshNodes


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
        self._writer: DeltaWriter | None = None
        self._nodes: FreshNodes | None = None
        self._watermark: Watermark | None = None
        """The graph as it was compared last; what the log told since then is found once more by the next comparison."""
        self._position: str | None = None
        """Up to where the store's log is known."""
        self._trouble = ""

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
            started = time.monotonic()
            self._try_to_look()
            # A look that takes long leaves the processor to others for as long.
            wait = max(self._order.every_s, min(time.monotonic() - started, 60.0))

    def _turn_to(self, version: str | None) -> None:
        if version != self._version:
            self._version = version
            self._close()
            self._writer = self._nodes = self._watermark = self._position = None

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
                self._writer = self._nodes = self._watermark = self._position = None
        else:
            if self._trouble:
                log.event(logging.INFO, "the store is followed again", bundle=self._version)
            self._trouble = ""

    def look(self, version: str) -> None:
        """Write what changed since the last look. Raises StoreError and ModelStoreError."""
        from graph_store.changes import Comparison
        from graph_store.stores import open_store
        from server.fresh.nodes import affected_nodes

        at = time.time()
        if self._store is None:
            self._store = open_store(self._project, read_only=True)
        comparison = Comparison(self._store, self._project.schema)
        if self._watermark is None or self._position is None:
            position = self._store.log_position()
            self._watermark = self._begin(version, self._store, comparison)
            self._position = position
        elif not self._logged(self._store, self._position):
            position = self._store.log_position()
            changes = comparison.changes_since(self._watermark)
            if not changes.empty:
                nodes = affected_nodes(changes.upserted_nodes, changes.upserted_edges)
                for gone in (changes.deleted_nodes, affected_nodes({}, changes.deleted_edges)):
                    for node_type, ids in gone.items():
                        nodes.setdefault(node_type, set()).update(ids)
                self._write(self._store, nodes)
            # Only now: where writing it failed, the same is found again.
            self._watermark, self._position = changes.watermark, position
        assert self._writer is not None
        self._writer.looked(at)

    def _logged(self, store: GraphStore, position: str) -> bool:
        """Write what the store's own log tells, which costs no comparison; whether that is all there is."""
        from server.fresh.nodes import logged_nodes

        told = store.written_since(position)
        nodes = None if told is None else logged_nodes(self._project.schema, told.changes)
        if told is None or nodes is None:
            return False
        self._write(store, nodes)
        self._position = told.watermark
        return told.complete

    def _begin(self, version: str, store: GraphStore, comparison: Comparison) -> Watermark:
        """Everything that differs from the bundle, whose snapshot is older than the store is now."""
        from model_store.bundle_store import BundleStore
        from server.fresh.catching_up import changed_nodes, changed_pairs
        from server.fresh.nodes import FreshNodes, affected_nodes

        bundle = BundleStore(Path(self._order.root)).open(version, verify=False)
        schema, limit = self._project.schema, self._project.settings.publish.max_neighbours
        watermark = comparison.watermark()
        pairs = changed_pairs(bundle, schema, store, limit)
        nodes = affected_nodes(changed_nodes(bundle, schema, store), pairs)
        self._nodes = FreshNodes(bundle, schema, limit)
        path = delta_path(Path(self._order.root), version)
        for old in path.parent.glob("*.delta*") if path.parent.is_dir() else ():
            if old != path:
                old.unlink(missing_ok=True)
        self._writer = DeltaWriter(path)
        self._write(store, nodes)
        log.event(logging.INFO, "following", bundle=version, changed=sum(map(len, nodes.values())))
        return watermark

    def _write(self, store: GraphStore, nodes: dict[str, set[str]]) -> None:
        assert self._nodes is not None
        assert self._writer is not None
        started, count = time.monotonic(), 0
        for record in self._nodes.records(store, nodes):
            self._writer.add(record)
            count += record.nodes.num_rows
        if count:
            log.event(logging.INFO, "changes", nodes=count, seconds=round(time.monotonic() - started, 3))


if __name__ == "__main__":
    sys.exit(main())
