"""The delta where something goes wrong: a full disk, a file that is gone, a record that does not merge, two takers."""

from __future__ import annotations

import asyncio
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from graph_store.settings import ServingSettings
from model_store.bundle_store import BundleStore
from server.fresh import delta_watch
from server.fresh.bundle import FreshBundle
from server.fresh.delta import Delta
from server.fresh.delta_file import DeltaReader, DeltaWriter, Record, delta_path
from server.fresh.delta_watch import DeltaWatch
from server.fresh.follower import Follower
from server.fresh.model import with_delta
from server.model.served_model import ServedModel
from server.processes.state import State
from server.wire.application import Application
from tests.bundles import write_toy_bundle


def gone(*ids: str) -> Record:
    return Record(kind="delete", node_type="Artist", nodes=pa.table({"id": pa.array(ids, pa.string())}))


def told(reader: DeltaReader) -> tuple[bool, list[list[str]]]:
    anew, records = reader.poll()
    return anew, [each.nodes.column("id").to_pylist() for each in records]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BundleStore:
    return BundleStore(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def base(store: BundleStore) -> ServedModel:
    return ServedModel.load(store.open(write_toy_bundle(store, encoders=False)))


def test_a_full_disk_leaves_no_half_of_a_record(tmp_path: Path) -> None:
    path = tmp_path / "x.delta"
    writer, reader = DeltaWriter(path), DeltaReader(path)
    writer.add(gone("a"))
    writer.looked(80.0)
    whole = path.read_bytes()
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Half of the record fits.
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + len(whole) // 2, most[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            writer.add(gone("b"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert path.read_bytes() == whole
    writer.add(gone("c"))
    assert told(reader) == (False, [["a"], ["c"]])


def test_a_reader_notices_each_file_that_took_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "x.delta"
    reader = DeltaReader(path)
    for number in range(5):
        # Removed first: the disk may give the number of the file that is gone to the next.
        path.unlink(missing_ok=True)
        if number == 3:
            assert told(reader) == (False, [])
        writer = DeltaWriter(path)
        writer.add(gone(str(number)))
        writer.looked(80.0)
        assert told(reader) == (number > 0, [[str(number)]])
        assert told(reader) == (False, [])


class Looks(Follower):
    """A follower whose looks are made up."""

    def __init__(self, root: Path, look: Callable[[Looks], None]) -> None:
        self._version, self._store, self._trouble = "v", None, ""
        self._nodes = self._watermark = self._position = None
        self._writer = None
        self._made_up = look
        self.path = delta_path(root, "v")

    def look(self, version: str) -> None:
        self._made_up(self)


def test_a_follower_whose_file_is_gone_begins_another(tmp_path: Path) -> None:
    begun = []

    def look(self: Looks) -> None:
        if self._watermark is None:
            begun.append(1)
            self._writer = DeltaWriter(self.path)
            self._watermark, self._position = "then", "1"  # type: ignore[assignment]
        assert self._writer is not None
        self._writer.add(gone("a"))
        self._writer.looked(80.0)

    follower = Looks(tmp_path, look)
    follower._try_to_look()
    follower._try_to_look()
    assert len(begun) == 1
    reader = DeltaReader(follower.path)
    assert told(reader) == (False, [["a"], ["a"]])
    follower.path.unlink()
    follower._try_to_look()
    assert not follower.path.exists(), "what it would add alone is not all that differs"
    follower._try_to_look()
    assert (len(begun), told(reader)) == (2, (True, [["a"]]))


async def test_a_record_that_did_not_merge_is_read_again(
    store: BundleStore, base: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(settings=ServingSettings())
    state.take(base)
    watch = DeltaWatch(store.root, state, Application(state).take)
    writer = DeltaWriter(delta_path(store.root, base.version))
    writer.add(gone("2"))
    writer.looked(80.0)
    assert await watch.look()

    def fails(*_: Any) -> Any:
        raise MemoryError

    for broken in ("plus", "made"):
        writer.add(gone("3" if broken == "plus" else "4"))
        with monkeypatch.context() as patch:
            if broken == "plus":
                patch.setattr(Delta, "plus", fails)
            else:
                patch.setattr(delta_watch, "_made", fails)
            with pytest.raises(MemoryError):
                await watch.look()
    assert await watch.look()
    assert state.retrieval is not None
    assert list(state.retrieval.model.bundle.ids("Artist")) == ["1", "10", "5", "6"]
    assert not await watch.look()


async def test_a_delta_of_the_bundle_before_does_not_take_the_place_of_another(
    store: BundleStore, base: ServedModel
) -> None:
    other = ServedModel.load(store.open(write_toy_bundle(store, encoders=False)))
    state = State(settings=ServingSettings(metrics_port=0, audit_share=0))
    state.take(base)
    application = Application(state)
    assert application._audit is not None
    fresh = with_delta(base, Delta().plus([gone("2")]))
    watching, go_on = threading.Event(), threading.Event()
    watch = application._audit.watch

    def slowly(model: ServedModel) -> None:
        if isinstance(model.bundle, FreshBundle):
            watching.set()
            assert go_on.wait(30)
        watch(model)

    application._audit.watch = slowly  # type: ignore[method-assign]
    late = asyncio.create_task(application.take(fresh, instead_of=base))
    await asyncio.to_thread(watching.wait)
    taking = asyncio.create_task(application.take(other))
    for _ in range(10):
        # A take that waits for nobody has gone to its thread and come back by then.
        await asyncio.sleep(0.01)
    go_on.set()
    assert await late
    assert await taking
    assert state.retrieval is not None
    assert state.retrieval.model is other
    assert not await application.take(fresh, instead_of=base)
    assert state.retrieval.model is other
    await application.drain(notice=0)
