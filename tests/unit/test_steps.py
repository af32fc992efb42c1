"""The steps of a build: what is skipped, what runs again, and what a failure or another build leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.step_log import StepLog
from cli.steps import Pipeline
from graph_store.errors import ConfigError, StoreLocked, TooManyRejects
from graph_store.progress import NoProgress
from graph_store.project import load_project
from graph_store.stores import open_store
from model_store.bundle_store import BundleStore
from tests.bundles import write_toy_bundle
from tests.toy import write_toy

TITLES = "MATCH (f:Film {id: 's1'}) RETURN f.title"


def pipeline(folder: Path) -> Pipeline:
    return Pipeline(load_project(folder, environment={}), NoProgress())


def ask(folder: Path, cypher: str, *, write: bool = False) -> list[object]:
    with open_store(load_project(folder, environment={}), read_only=not write) as store:
        return [row[0] for row in store.query(cypher, write=write).rows]


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    write_toy(tmp_path)
    return tmp_path


def change(folder: Path, name: str, old: str, new: str) -> None:
    file = folder / name
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_what_has_not_changed_is_skipped_and_what_others_wrote_is_exported(toy: Path) -> None:
    first = pipeline(toy).ingest()
    assert (first.skipped, first.outcome["nodes"]["Film"]) == (False, 10)
    before = pipeline(toy).export()
    assert [pipeline(toy).ingest().skipped, pipeline(toy).export().skipped] == [True, True]

    ask(toy, "MATCH (f:Film {id: 's1'}) SET f.title = 'Mine'", write=True)
    assert not pipeline(toy).ingest().skipped
    assert ask(toy, TITLES) == ["Mine"]  # the files are as they were: what somebody wrote stays
    after = pipeline(toy).export()
    assert not after.skipped
    assert after.outcome["content_hash"] != before.outcome["content_hash"]
    assert pipeline(toy).snapshot().content_hash == after.outcome["content_hash"]
    assert pipeline(toy).snapshot(before.outcome["content_hash"]).content_hash == before.outcome["content_hash"]
    assert [pipeline(toy).ingest().skipped, pipeline(toy).export().skipped] == [True, True]

    change(toy, "films.csv", "Alien Dawn", "Alien Dusk")
    assert not pipeline(toy).ingest().skipped
    assert ask(toy, TITLES) == ["Alien Dusk"]


def test_an_ingest_that_ended_half_way_is_not_taken_for_done(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline(toy).ingest()
    change(toy, "films.csv", "Alien Dawn", "Alien Dusk")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("graph_store.co_engagement.derive", killed)
        with pytest.raises(KeyboardInterrupt):
            pipeline(toy).ingest()
    assert ask(toy, TITLES) == ["Alien Dusk"]
    change(toy, "films.csv", "Alien Dusk", "Alien Dawn")
    assert not pipeline(toy).ingest().skipped
    assert ask(toy, TITLES) == ["Alien Dawn"]


def test_a_property_declared_later_arrives(toy: Path) -> None:
    pipeline(toy).ingest()
    change(toy, "kithkin.toml", "year = {", 'original = { type = "string" }\nyear = {')
    change(toy, "kithkin.toml", 'title = "title"', 'title = "title", original = "title"')
    assert not pipeline(toy).ingest().skipped
    assert ask(toy, "MATCH (f:Film {id: 's1'}) RETURN f.original") == ["Alien Dawn"]


def test_too_many_bad_rows_leave_no_step_behind(toy: Path) -> None:
    films = (toy / "films.csv").read_text(encoding="utf-8")
    (toy / "films.csv").write_text(films + ",,\n" + "".join(f"x{i},,no\n" for i in range(20)), encoding="utf-8")
    with pytest.raises(TooManyRejects):
        pipeline(toy).ingest()
    with pytest.raises(ConfigError, match="`kithkin export` has not run"):
        pipeline(toy).snapshot()
    assert not (toy / ".kithkin" / "steps.json").exists()


def test_one_build_at_a_time_and_leftovers_go(toy: Path) -> None:
    left = [toy / ".kithkin" / name for name in ("staging", "co_engagement-x", "snapshots/.writing-1-ab")]
    for folder in left:
        folder.mkdir(parents=True)
    kept = toy / ".kithkin" / "snapshots" / "abc"
    kept.mkdir()
    with pipeline(toy).alone():
        assert not any(folder.exists() for folder in left)
        assert kept.is_dir()
        with pytest.raises(StoreLocked, match=r"process \d+ is building in"), pipeline(toy).alone():
            pass
    with pipeline(toy).alone():
        pass


def test_a_work_folder_that_cannot_be_written_is_an_error_of_the_configuration(toy: Path) -> None:
    (toy / ".kithkin").write_text("a file")
    with pytest.raises(ConfigError, match=r"work: cannot be written: .*\.kithkin"), pipeline(toy).alone():
        pass


def test_snapshots_that_nothing_came_from_are_removed(toy: Path) -> None:
    build = pipeline(toy)
    build.ingest()
    last = build.export().outcome["content_hash"]
    snapshots = toy / ".kithkin" / "snapshots"
    trained, old = "a" * 64, "b" * 64
    for name in (trained, old):
        (snapshots / name).mkdir()
    StepLog(toy / ".kithkin" / "steps.json").record("train", "inputs", {"content_hash": trained})
    build.prune_snapshots()
    assert {folder.name for folder in snapshots.iterdir()} == {last, trained}


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"export": 3}', '{"export": {"inputs": "x"}}', "\x00\xff"])
def test_a_damaged_log_means_that_steps_run_again(tmp_path: Path, content: str) -> None:
    file = tmp_path / "steps.json"
    file.write_text(content, encoding="latin-1")
    log = StepLog(file)
    assert log.last("export") is None
    log.record("export", "inputs", {"content_hash": "1"})
    assert (log.outcome("export", "inputs"), log.outcome("export", "others")) == ({"content_hash": "1"}, None)
    log.forget("export")
    assert json.loads(file.read_text(encoding="utf-8")) == {}


def test_after_an_upgrade_every_step_runs_again(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline(toy).ingest()
    assert pipeline(toy).ingest().skipped
    monkeypatch.setattr("cli.steps.version", lambda _: "99.0")
    assert not pipeline(toy).ingest().skipped


def test_a_roll_back_is_not_undone_by_the_next_build(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.steps._digest", lambda *_: "unchanged")
    steps = pipeline(toy)
    bundles = BundleStore(steps.models)
    older, newer = write_toy_bundle(bundles), write_toy_bundle(bundles)
    log = StepLog(toy / ".kithkin" / "steps.json")
    log.record("train", "unchanged", {"inputs": "unchanged", "content_hash": ""})
    log.record("publish", "unchanged", {"version": newer})
    bundles.activate(older)
    assert steps.publish().skipped
    assert bundles.active() == older
