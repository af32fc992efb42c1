"""What the server lives through: workers that cannot serve beside others that do, a system that has no more to give."""

from __future__ import annotations

import errno
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from graph_store.settings import ServingSettings
from server.errors import StartError
from server.fresh import follower_process
from server.fresh.follower import FollowOrder
from server.fresh.follower_process import FollowerProcess
from server.processes import supervisor as module
from server.processes.supervisor import Supervisor, _ending
from tests.unit.test_server_fleet import all_serving
from tests.unit.test_server_supervisor import Made, Stage


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path / "models", monkeypatch, workers=3)


class Refusing:
    """A system without descriptors until it is told otherwise."""

    def __init__(self, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused = 0
        self.refuses = True
        self._stage = stage
        monkeypatch.setattr(module, "WorkerProcess", self._start)

    def _start(self, order: Any) -> Made:
        if self.refuses:
            self.refused += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._stage._start(order)


def test_a_restarted_worker_that_cannot_serve_ends_nobody_else(stage: Stage) -> None:
    workers, first = all_serving(stage)
    workers[1].exit_code = -signal.SIGKILL
    stage.turn()
    waits = []
    for _ in range(4):
        again = stage.started[-1]
        again.says("failed", first, "a line of the file of keys", ends=True)
        count, failed = len(stage.started), stage.now
        stage.turn()
        while len(stage.started) == count:
            stage.now += 0.25
            stage.turn()
        waits.append(stage.now - failed)
    assert waits == [1, 2, 4, 8]
    assert [workers[0].exit_code, workers[2].exit_code] == [None, None]
    stage.started[-1].says("serving", first)
    stage.turn()
    assert stage.lines[-1].endswith("(3 of 3 workers)"), "and serves when the file is mended"


def test_without_a_bundle_too_it_is_started_after_pauses(stage: Stage) -> None:
    stage.turn()
    stage.started[0].says("serving", None)
    stage.turn()
    assert len(stage.started) == 3
    for _ in range(3):
        stage.started[1].says("failed", None, "keys", ends=True)
        stage.turn()
        stage.started[1] = stage.started[-1]
    assert len(stage.started) == 4, "the second pause has not ended"


def test_a_worker_that_the_system_cannot_start_is_started_later(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    workers, _ = all_serving(stage)
    system = Refusing(stage, monkeypatch)
    workers[0].exit_code = -signal.SIGKILL
    for _ in range(40):
        stage.turn()
        stage.now += 0.25
    assert 3 <= system.refused <= 7, "with pauses"
    assert [each.exit_code for each in workers[1:]] == [None, None]
    system.refuses = False
    stage.now += 30
    stage.turn()
    assert len(stage.started) == 4


def test_a_trial_that_the_system_cannot_start_is_started_later(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    all_serving(stage)
    system = Refusing(stage, monkeypatch)
    newer = stage.bundle()
    for _ in range(8):
        stage.turn()
        stage.now += 0.5
    assert system.refused == 1
    system.refuses = False
    stage.now += 5
    stage.turn()
    assert (stage.started[-1].order.trial, stage.started[-1].version) == (True, newer)


def test_a_follower_that_the_system_cannot_start_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    now = 1000.0

    def refuse(*_: Any, **__: Any) -> None:
        asked.append(now)
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(follower_process.subprocess, "Popen", refuse)
    monkeypatch.setattr(follower_process.time, "monotonic", lambda: now)
    follower = FollowerProcess(FollowOrder(root=str(tmp_path), project="kithkin.toml", overrides={}, every_s=1.0))
    for _ in range(16):
        follower.look_after("v")
        now += 0.5
    assert asked == [1000, 1001, 1003, 1007]
    follower.stop()


def test_every_ending_has_a_name() -> None:
    assert _ending(-signal.SIGKILL) == "SIGKILL"
    assert _ending(-(signal.SIGRTMIN + 1)) == f"signal {signal.SIGRTMIN + 1}"
    assert _ending(3) == "exit code 3"


def test_the_admin_port_is_held_and_nobody_elses(tmp_path: Path) -> None:
    def supervisor(admin_port: int) -> Supervisor:
        return Supervisor(tmp_path, ServingSettings(port=0, admin_port=admin_port), announce=print)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    held = supervisor(port)._reserve()
    try:
        assert port in [each.getsockname()[1] for each in held[1:]]
        assert held[0].getsockname()[1] != port
        with pytest.raises(StartError, match=str(port)) as raised:
            supervisor(port)._reserve()
        assert "serving.admin_port" in raised.value.hint
    finally:
        for each in held:
            each.close()


def test_two_services_cannot_have_one_port() -> None:
    with pytest.raises(ValidationError, match="admin_port and port are both 50051"):
        ServingSettings(port=50051, admin_port=50051)
