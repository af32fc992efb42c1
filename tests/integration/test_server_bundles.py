"""Listing, activating and rolling back bundles over a socket; the test plays the supervisor that follows ACTIVE."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from kithkin.v1 import model_service_pb2 as pb
from model_store.bundle_store import BundleStore
from server.model.served_model import ServedModel
from server.processes.state import State
from server.wire.application import Application
from server.wire.local import serve_in_thread
from tests.bundles import write_toy_bundle
from tests.integration.test_server import SETTINGS, Asker, refused

NOWHERE = "20200101T000000.000000Z"


class Managed:
    """A worker over a folder of three bundles, and who makes it take up what is activated."""

    def __init__(self, root: Path) -> None:
        self.store = BundleStore(root)
        self.versions = [write_toy_bundle(self.store, encoders=False, snapshot=str(each)) for each in range(3)]
        self.state = State(settings=SETTINGS, store=self.store)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.application = self._run(self._start())
        self.asker = Asker(self._run(self.application.start("127.0.0.1", 0)))

    def take(self, version: str) -> None:
        """What the supervisor does where a trial went well."""
        self._run(self.application.take(ServedModel.load(self.store.open(version))))

    def refuse(self, reason: str) -> None:
        self._loop.call_soon_threadsafe(self.state.refuse, reason)

    def activate(self, version: str, timeout: float = 10) -> pb.ActivateBundleResponse:
        return self.asker.model.ActivateBundle(pb.ActivateBundleRequest(version=version), timeout=timeout)

    def rollback(self) -> pb.RollbackBundleResponse:
        return self.asker.model.RollbackBundle(pb.RollbackBundleRequest(), timeout=10)

    def list(self, **fields: Any) -> pb.ListBundlesResponse:
        return self.asker.model.ListBundles(pb.ListBundlesRequest(**fields), timeout=10)

    def while_calling(self, call: Callable[..., Any], *arguments: Any, then: Callable[[], None]) -> Any:
        """Make a call, and do something once it has moved ACTIVE; returns its answer, raises its error."""
        before = (self.store.root / "ACTIVE").stat().st_mtime_ns if self.store.active() else 0
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(call, *arguments)
            end = time.monotonic() + 10
            while not self.store.active() or (self.store.root / "ACTIVE").stat().st_mtime_ns == before:
                assert time.monotonic() < end
                assert not answer.done() or answer.result()
                time.sleep(0.01)
            assert not answer.done(), "it answers when the bundle serves, not before"
            then()
            return answer.result()

    def close(self) -> None:
        self.asker.channel.close()
        self._run(self.application.drain(notice=0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> Application:
        return Application(self.state)

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)


@pytest.fixture
def managed(tmp_path: Path) -> Iterator[Managed]:
    server = Managed(tmp_path)
    yield server
    server.close()


def test_bundles_come_newest_first_in_pages(managed: Managed) -> None:
    first, second, third = managed.versions
    managed.store.activate(second)
    managed.take(second)
    (managed.store.root / first / "manifest.json").write_text("{")
    page = managed.list(page_size=2)
    assert [(each.version, each.active, each.serving) for each in page.bundles] == [
        (third, False, False), (second, True, True),
    ]  # fmt: skip
    newest = page.bundles[0]
    assert (newest.snapshot_hash, dict(newest.nodes)) == ("2", {"Artist": 7, "User": 4, "Tag": 4})
    assert newest.published_at.ToDatetime().strftime("%Y%m%dT%H%M%S.%fZ") == third
    # One that is published between two pages does not move what is on the second.
    write_toy_bundle(managed.store, encoders=False)
    rest = managed.list(page_size=2, page_token=page.next_page_token)
    assert [each.version for each in rest.bundles] == [first]
    assert "manifest" in rest.bundles[0].problem
    assert rest.next_page_token == ""
    assert len(managed.list(page_size=1000).bundles) == 4


@pytest.mark.parametrize(
    ("fields", "field"), [({"page_size": -1}, "page_size"), ({"page_token": "x"}, "page_token"),
                          ({"page_token": "Li4vLi4="}, "page_token")],
)  # fmt: skip
def test_a_wrong_page_is_refused(managed: Managed, fields: Any, field: str) -> None:
    refusal = refused(managed.list, **fields)
    assert (refusal.reason, refusal.field) == ("INVALID_FIELD", field)


def test_activate_and_roll_back_answer_when_the_bundle_serves(managed: Managed) -> None:
    first, second, third = managed.versions
    answer = managed.while_calling(managed.activate, first, then=lambda: managed.take(first))
    assert (answer.version, answer.previous_version) == (first, "")
    for before, version in ((first, second), (second, third)):
        answer = managed.while_calling(managed.activate, version, then=lambda version=version: managed.take(version))
        assert (answer.version, answer.previous_version, managed.store.active()) == (version, before, version)
    # What serves already is answered at once, and is no step back to come.
    assert managed.activate(third).previous_version == third
    for before, version in ((third, second), (second, first)):
        answer = managed.while_calling(managed.rollback, then=lambda version=version: managed.take(version))
        assert (answer.version, answer.previous_version, managed.store.active()) == (version, before, version)
    refusal = refused(managed.rollback)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_PREVIOUS_BUNDLE")


def test_an_unknown_version_is_not_found(managed: Managed) -> None:
    for version in (NOWHERE, "../..", "x" * 5000):
        refusal = refused(managed.activate, version)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "BUNDLE_NOT_FOUND")
        assert refusal.resource[0] == "Bundle"
        assert refusal.resource[1].startswith(version[:100])
    refusal = refused(managed.activate, "")
    assert (refusal.reason, refusal.field) == ("INVALID_FIELD", "version")
    assert managed.store.active() is None


def test_a_damaged_bundle_is_never_activated(managed: Managed) -> None:
    first, second, _ = managed.versions
    managed.store.activate(second)
    managed.store.activate(first)
    vectors = managed.store.root / second / "spaces/similar/Artist.npy"
    # The size stays: only the checksum tells.
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"x")
    for call in (lambda: managed.activate(second), managed.rollback):
        refusal = refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_REFUSED")
        assert "Artist.npy" in refusal.status.message
        assert managed.store.active() == first


def test_a_bundle_that_fails_its_trial_is_taken_back(managed: Managed) -> None:
    first, second, _ = managed.versions
    managed.store.activate(first)
    managed.take(first)
    managed.refuse(f"{second}: of an earlier attempt")
    refusal = refused(
        managed.while_calling, managed.activate, second, then=lambda: managed.refuse(f"{second}: it does not answer")
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_REFUSED")
    assert "it does not answer" in refusal.status.message
    assert (managed.store.active(), managed.store.previous()) == (first, None)


def test_who_is_overtaken_is_told(managed: Managed) -> None:
    first, second, third = managed.versions
    managed.store.activate(first)
    managed.take(first)
    refusal = refused(managed.while_calling, managed.activate, second, then=lambda: managed.store.activate(third))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "ACTIVATION_OVERTAKEN")
    assert third in refusal.status.message
    assert managed.store.active() == third


def test_the_deadline_passes_while_the_bundle_is_loaded(managed: Managed) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        managed.activate(managed.versions[0], timeout=0.3)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    assert managed.store.active() == managed.versions[0], "it is active all the same"


def test_a_server_of_one_bundle_manages_none() -> None:
    with serve_in_thread(None, SETTINGS) as port:
        asker = Asker(port)
        with asker.channel:
            for call, request in (
                (asker.model.ListBundles, pb.ListBundlesRequest()),
                (asker.model.ActivateBundle, pb.ActivateBundleRequest(version=NOWHERE)),
                (asker.model.RollbackBundle, pb.RollbackBundleRequest()),
            ):
                refusal = refused(call, request, timeout=10)
                assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BUNDLES_NOT_MANAGED")
