"""Several workers led from bundle to bundle, and what a start finds; the processes here are made up."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from graph_store.settings import ShadowSettings
from model_store.bundle_store import BundleStore
from tests.bundles import write_toy_bundle
from tests.unit.test_server_supervisor import Made, Stage


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path / "models", monkeypatch, workers=3)


def all_serving(stage: Stage) -> tuple[list[Made], str]:
    """Three workers that serve a first bundle."""
    first, version = stage.serving()
    workers = stage.started[1:]
    assert [each.order.version for each in workers] == [version, version]
    for worker in workers:
        worker.says("serving", version)
    stage.turn()
    return [first, *workers], version


def tried(stage: Stage) -> str:
    """Another bundle is activated, and its trial goes well; returns its version."""
    version = stage.bundle()
    stage.turn()
    trial = stage.started[-1]
    assert (trial.order.trial, trial.version) == (True, version)
    trial.says("tested", version, ends=True)
    stage.turn()
    return version


def test_one_worker_finds_out_whether_the_bundle_is_good_before_the_others_start(stage: Stage) -> None:
    version = stage.bundle()
    stage.turn()
    stage.turn()
    assert len(stage.started) == 1
    stage.started[0].says("serving", version)
    stage.turn()
    assert len(stage.started) == 3
    assert stage.lines[-1].endswith("(1 of 3 workers)")


def test_workers_take_up_a_bundle_one_after_the_other(stage: Stage) -> None:
    workers, first = all_serving(stage)
    assert [each.fleets[-1]["everywhere"] for each in workers] == [first] * 3
    second = tried(stage)
    for number, worker in enumerate(workers):
        assert [each.orders for each in workers] == [[("load", second)]] * (number + 1) + [[]] * (2 - number)
        stage.turn()
        assert [each.fleets[-1]["everywhere"] for each in workers] == [None] * 3, "not before all of them serve it"
        worker.says("serving", second)
        stage.turn()
    told = {"workers": 3, "serving": {second: 3}, "everywhere": second, "written": stage.store.written()}
    assert [each.fleets[-1] for each in workers] == [told] * 3
    assert stage.lines[-1].startswith(f"serving {second}")


def test_who_starts_while_others_take_up_begins_with_what_they_took_up(stage: Stage) -> None:
    workers, first = all_serving(stage)
    second = tried(stage)
    # Before anybody serves the new one, who is replaced begins with the old one and takes its turn.
    workers[2].exit_code = -signal.SIGKILL
    stage.turn()
    again = stage.started[-1]
    assert again.order.version == first
    workers[0].says("serving", second)
    stage.turn()
    workers[1].exit_code = -signal.SIGKILL
    stage.turn()
    other = stage.started[-1]
    assert other.order.version == second, "its bundle is not to blame: another worker serves it"
    again.says("serving", first)
    stage.turn()
    assert again.orders == [("load", second)]
    again.says("serving", second)
    stage.turn()
    assert workers[0].fleets[-1]["everywhere"] == second, "who is still starting starts with it"
    assert workers[0].fleets[-1]["serving"] == {second: 2}
    other.says("serving", second)
    stage.turn()
    assert (other.orders, workers[0].fleets[-1]["serving"]) == ([], {second: 3})


def test_a_bundle_that_one_worker_refuses_is_taken_back_by_all(stage: Stage) -> None:
    workers, first = all_serving(stage)
    bad = tried(stage)
    workers[0].says("serving", bad)
    stage.turn()
    workers[1].says("refused", bad, f"{bad}: no room")
    stage.turn()
    assert ("refuse", f"{bad}: no room") in workers[2].orders
    for worker in workers:
        assert worker.orders[-1] == ("load", first)
        worker.says("serving", first)
        stage.turn()
    assert workers[0].fleets[-1]["everywhere"] == first
    assert len(stage.started) == 4, "and is not tried again"


def test_a_worker_that_does_not_answer_is_killed_and_replaced(stage: Stage) -> None:
    workers, first = all_serving(stage)
    workers[1].hangs = True
    for _ in range(8):
        stage.now += 5
        stage.turn()
    stage.turn()
    assert [each.exit_code for each in workers] == [None, -signal.SIGKILL, None]
    again = stage.started[-1]
    assert (len(stage.started), again.order.version) == (4, first)


def test_a_worker_that_does_not_end_loading_is_killed_and_the_bundle_refused(stage: Stage) -> None:
    workers, first = all_serving(stage)
    bad = tried(stage)
    for _ in range(91):
        stage.now += 10
        stage.turn()
    stage.turn()
    assert [each.exit_code for each in workers] == [-signal.SIGKILL, None, None]
    assert workers[1].orders == [("refuse", f"{bad}: loading it ended a process by SIGKILL")]
    assert stage.started[-1].order.version == first


def test_a_worker_that_dies_while_starting_is_not_the_fault_of_what_others_serve(stage: Stage) -> None:
    workers, first = all_serving(stage)
    workers[1].exit_code = 1
    stage.turn()
    for ending in range(1, 6):
        stage.started[-1].exit_code = ending
        stage.turn()
        stage.now += 31
        stage.turn()
    last = stage.started[-1]
    assert (last.order.version, last.order.refused_bundle) == (first, "")
    # Nor where it refuses a bundle that others have open.
    last.says("refused", first, f"{first}: a byte", ends=True)
    stage.turn()
    assert workers[0].fleets[-1]["everywhere"] == first
    assert workers[0].orders == []


def test_a_served_bundle_survives_a_worker_killed_while_it_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path / "models", monkeypatch)
    worker, version = stage.serving()
    worker.exit_code = -signal.SIGKILL
    stage.turn()
    stage.started[-1].exit_code = -signal.SIGKILL
    stage.turn()
    stage.now += 2
    stage.turn()
    assert [each.order.version for each in stage.started] == [version] * 3
    assert stage.started[-1].order.refused_bundle == ""


def three_bundles(stage: Stage) -> list[str]:
    versions = [write_toy_bundle(stage.store, encoders=False) for _ in range(3)]
    stage.store.activate(versions[1])
    return versions


def test_a_start_with_a_damaged_bundle_serves_the_newest_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path / "models", monkeypatch)
    oldest, active, newest = three_bundles(stage)
    stage.turn()
    assert stage.started[-1].order.version == active
    stage.started[-1].says("refused", active, f"{active}: a byte", ends=True)
    stage.turn()
    assert stage.started[-1].order.version == newest
    stage.started[-1].exit_code = -signal.SIGSEGV
    stage.turn()
    stage.now += 2
    stage.turn()
    worker = stage.started[-1]
    assert (worker.order.version, stage.store.active()) == (oldest, active)
    assert worker.order.refused_bundle.startswith(f"{newest}: loading it ended a process")
    worker.says("serving", oldest)
    stage.turn()
    stage.turn()
    assert len(stage.started) == 3, "what was refused is not tried again"
    assert stage.lines[-1].startswith(f"serving {oldest}")

    # Nor by the next server, which says why at once.
    again = Stage(tmp_path / "models", monkeypatch)
    again.turn()
    assert again.started[-1].order.version == oldest
    assert again.started[-1].order.refused_bundle == f"{active}: a byte"
    again.started[-1].says("serving", oldest)
    again.turn()
    # Until ACTIVE is written again.
    again.store.activate(active)
    again.turn()
    assert (again.started[-1].order.version, again.started[-1].order.trial) == (active, True)
    final = Stage(tmp_path / "models", monkeypatch)
    final.turn()
    assert final.started[-1].order.version == active


def test_a_process_that_cannot_even_start_is_no_fault_of_its_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path / "models", monkeypatch)
    version = stage.bundle()
    for _ in range(5):
        stage.turn()
        started = stage.started[-1]
        assert (started.order.version, started.order.refused_bundle) == (version, "")
        started.loading, started.exit_code = False, 1
        stage.turn()
        stage.now += 31
    stage.turn()
    stage.started[-1].says("serving", version)
    newer = stage.bundle()
    stage.turn()
    stage.turn()
    trial = stage.started[-1]
    assert (trial.version, trial.order.trial) == (newer, True)
    trial.loading, trial.exit_code = False, 1
    stage.turn()
    assert stage.started[-2].orders == [("refuse", f"{newer}: its trial could not start, ended by exit code 1")]
    # The next server tries it.
    again = Stage(tmp_path / "models", monkeypatch)
    again.turn()
    assert again.started[-1].order.version == newer


def test_what_is_served_is_not_pruned(stage: Stage) -> None:
    workers, first = all_serving(stage)
    second = tried(stage)
    stage.store.prune(keep=0)
    assert stage.store.versions() == (first, second), "the old one serves on as long as a worker answers from it"
    for worker in workers:
        worker.says("serving", second)
        stage.turn()
    stage.store.prune(keep=0)
    assert stage.store.versions() == (second,)


def test_further_bundles_are_tried_one_by_one_and_loaded_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BundleStore(tmp_path / "models")
    good, bad, shadow = (write_toy_bundle(store, encoders=False) for _ in range(3))
    stage = Stage(
        store.root, monkeypatch, workers=2, beside=(good, bad), shadow=ShadowSettings(version=shadow, share=1)
    )
    worker, _ = stage.serving()
    for version in (good, bad, shadow):
        trial = next(each for each in stage.started if each.order.trial and each.version == version)
        kind = "refused" if version == bad else "tested"
        trial.says(kind, version, ends=True)
        stage.turn()
    assert worker.orders == [("beside", good), ("beside", shadow)]
    other = next(each for each in stage.started[1:] if not each.order.trial)
    assert other.orders == worker.orders, "told also where it is still starting"
    worker.exit_code = -signal.SIGKILL
    stage.turn()
    assert stage.started[-1].order.beside == (good, shadow)
    store.prune(keep=0)
    assert {good, shadow} <= set(store.versions())
    assert bad not in store.versions()
