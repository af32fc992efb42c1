"""What the supervisor does when processes tell, refuse and die; the processes here are made up."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from graph_store.settings import ServingSettings
from model_store.bundle_store import BundleStore
from server.errors import StartError
from server.processes import supervisor as module
from server.processes.supervisor import Supervisor
from server.processes.worker import Message, Order
from tests.bundles import write_toy_bundle


class Made:
    """A worker or a trial that does what the test says."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.version = order.version
        self.started = 0.0
        self.exit_code: int | None = None
        self.loading = True
        self.told = False
        self.orders: list[Any] = []
        self.fleets: list[dict[str, Any]] = []
        self.hangs = False
        self.pid = id(self)
        self._messages: list[Message] = []

    def says(self, kind: Any, version: str | None, reason: str = "", *, ends: bool = False) -> None:
        self._messages.append(Message(kind=kind, version=version, reason=reason))
        if ends:
            self.exit_code = 0

    def read(self) -> list[Message]:
        said, self._messages = self._messages, []
        self.told = self.told or bool(said)
        return said

    def load(self, version: str) -> None:
        self.orders.append(("load", version))

    def refuse(self, reason: str) -> None:
        self.orders.append(("refuse", reason))

    def load_beside(self, version: str) -> None:
        self.orders.append(("beside", version))

    def tell_fleet(self, fleet: dict[str, Any]) -> None:
        self.fleets.append(fleet)

    def ping(self) -> None:
        if not self.hangs:
            self.says("pong", None)

    def kill(self) -> None:
        self.exit_code = -signal.SIGKILL

    def close(self) -> None:
        assert self.exit_code is not None


class Stage:
    """A supervisor with made-up processes and a clock that the test moves."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.store = BundleStore(root)
        self.started: list[Made] = []
        self.lines: list[str] = []
        self.now = 1000.0
        monkeypatch.setattr(module, "WorkerProcess", self._start)
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        self.supervisor = Supervisor(root, ServingSettings(**settings), announce=self.lines.append)

    def _start(self, order: Order) -> Made:
        process = Made(order)
        process.started = self.now
        self.started.append(process)
        return process

    def turn(self) -> None:
        self.supervisor._listen()
        self.supervisor._look()

    def bundle(self) -> str:
        version = write_toy_bundle(self.store, encoders=False)
        self.store.activate(version)
        return version

    def serving(self) -> tuple[Made, str]:
        """A worker that serves a first bundle."""
        version = self.bundle()
        self.turn()
        worker = self.started[-1]
        worker.says("serving", version)
        self.turn()
        return worker, version


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path / "models", monkeypatch)


def test_without_a_bundle_a_worker_waits_and_takes_up_the_first(stage: Stage) -> None:
    stage.turn()
    (worker,) = stage.started
    assert (worker.order.version, worker.order.trial) == (None, False)
    worker.says("serving", None)
    stage.turn()
    version = stage.bundle()
    stage.turn()
    trial = stage.started[1]
    assert (trial.order.version, trial.order.trial) == (version, True)
    trial.says("tested", version, ends=True)
    stage.turn()
    assert worker.orders == [("load", version)]
    worker.says("serving", version)
    stage.turn()
    stage.turn()
    assert len(stage.started) == 2, "nothing more to do"
    assert [line.split(" on ")[0] for line in stage.lines] == ["waiting for a bundle", f"serving {version}"]


def test_a_refused_bundle_changes_nothing_and_is_not_tried_again(stage: Stage) -> None:
    worker, first = stage.serving()
    bad = stage.bundle()
    stage.turn()
    stage.started[-1].says("refused", bad, "a byte", ends=True)
    stage.turn()
    stage.turn()
    assert worker.orders == [("refuse", "a byte")]
    assert len(stage.started) == 2
    # Activated again, it is looked at again; mended, it serves and the refusal is over.
    stage.store.activate(bad)
    stage.turn()
    stage.started[-1].says("tested", bad, ends=True)
    stage.turn()
    worker.says("serving", bad)
    stage.turn()
    assert worker.orders[1:] == [("load", bad), ("refuse", "")]
    assert stage.lines[-1].startswith(f"serving {bad}")
    assert first != bad


def test_a_bundle_that_kills_its_trial_is_refused(stage: Stage) -> None:
    worker, _ = stage.serving()
    bad = stage.bundle()
    stage.turn()
    stage.started[-1].exit_code = -signal.SIGSEGV
    stage.turn()
    assert worker.orders == [("refuse", f"{bad}: loading it ended a process by SIGSEGV")]
    assert worker.exit_code is None


def test_a_bundle_that_kills_the_worker_is_refused_and_the_one_before_serves(stage: Stage) -> None:
    worker, first = stage.serving()
    bad = stage.bundle()
    stage.turn()
    stage.started[-1].says("tested", bad, ends=True)
    stage.turn()
    worker.exit_code = -signal.SIGKILL
    stage.turn()
    again = stage.started[-1]
    assert (again.order.version, again.order.trial) == (first, False)
    assert again.order.refused_bundle == f"{bad}: loading it ended a process by SIGKILL"
    again.says("serving", first)
    stage.turn()
    stage.turn()
    assert stage.started[-1] is again, "the bad one is not tried again"
    assert again.orders == [], "and is still told of"


def test_a_first_bundle_that_kills_the_worker_leaves_one_that_waits(stage: Stage) -> None:
    bad = stage.bundle()
    stage.turn()
    stage.started[-1].exit_code = -signal.SIGSEGV
    stage.turn()
    assert stage.started[-1].order.version is None
    assert bad in stage.started[-1].order.refused_bundle


def test_a_worker_that_keeps_dying_is_started_after_pauses_that_double(stage: Stage) -> None:
    worker, first = stage.serving()
    waits: list[float] = []
    for _ in range(9):
        worker.exit_code = -signal.SIGKILL
        count, died = len(stage.started), stage.now
        while len(stage.started) == count:
            stage.turn()
            stage.now += 0.25
        waits.append(stage.now - 0.25 - died)
        worker = stage.started[-1]
        assert worker.order.version == first
        worker.says("serving", first)
        stage.turn()
    assert waits == [0, 1, 2, 4, 8, 16, 30, 30, 30]
    # One that ran for long enough starts from the beginning.
    stage.now += 61
    worker.exit_code = 1
    stage.turn()
    assert stage.started[-1] is not worker


def test_a_trial_that_hangs_is_ended_and_its_bundle_refused(stage: Stage) -> None:
    worker, _ = stage.serving()
    hanging = stage.bundle()
    stage.turn()
    trial = stage.started[-1]
    stage.now += 890
    stage.turn()
    assert trial.exit_code is None
    stage.now += 20
    stage.turn()
    stage.turn()
    assert trial.exit_code == -signal.SIGKILL
    assert worker.orders == [("refuse", f"{hanging}: loading it ended a process by SIGKILL")]


def test_an_active_file_that_cannot_be_read_for_a_moment_changes_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, version = stage.serving()

    def broken(store: BundleStore) -> str:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(BundleStore, "active", broken)
        stage.turn()
    stage.turn()
    assert stage.started == [worker]
    newer = stage.bundle()
    stage.turn()
    trial = stage.started[-1]
    assert (trial.order.trial, trial.version) == (True, newer)
    assert newer > version


def test_a_worker_that_cannot_listen_ends_it(stage: Stage) -> None:
    stage.turn()
    stage.started[-1].says("failed", None, "the port", ends=True)
    with pytest.raises(StartError, match="the port"):
        stage.turn()
