"""``kithkin forget`` of who is not there, and without the right to: nothing is removed that need not be."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cli.main import main
from cli.traces import holds_field, holds_node
from graph_store.settings import ServingSettings
from model_store.bundle_store import BundleStore
from model_store.errors import BundleNotFound
from server.wire.keys import Role, new_key
from tests.bundles import write_toy_bundle
from tests.served import Server
from tests.toy import write_toy

READER, READER_LINE = new_key(Role.READ, "reader")
LEARNED = ("checkpoints", "retraining")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a filled store, an active bundle with the users u1 to u4, and two trainings."""
    monkeypatch.delenv("KITHKIN_API_KEY", raising=False)
    folder = write_toy(tmp_path / "toy")
    with (folder / "kithkin.toml").open("a") as file:
        file.write("\n[serving]\nport = 0\n")
    assert run(monkeypatch, "ingest", "-p", str(folder)) == 0
    store = BundleStore(folder / ".kithkin" / "models")
    store.activate(write_toy_bundle(store, encoders=False))
    for name in LEARNED:
        (folder / ".kithkin" / name).mkdir()
        # As a model may by chance.
        (folder / ".kithkin" / name / "weights").write_text("s1 ann-x nobody-0815")
    return folder


def run(patch: pytest.MonkeyPatch, *arguments: str) -> int:
    patch.setattr(sys, "argv", ["kithkin", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code is None or isinstance(ended.value.code, int)
    return ended.value.code or 0


def content(folder: Path) -> dict[str, bytes]:
    """Every file of the work folder; locks and their owners aside."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in (folder / ".kithkin").rglob("*")
        if path.is_file() and path.suffix not in (".lock", ".turn", ".commit") and path.name != "holds"
    }


# The beginning of users' ids, and letters that only a model has.
@pytest.mark.parametrize("user", ["u", "an", "ann-x", "nobody-0815"])
def test_who_is_unknown_costs_nothing(
    folder: Path, user: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(folder)
    assert run(monkeypatch, "forget", user, "-p", str(folder)) == 2
    assert content(folder) == before
    told = capsys.readouterr().err
    assert f"no User has the id or name '{user}'" in told
    assert "Closest: User" in told
    assert "ingest` run" not in told


def test_an_empty_id_is_wrong_usage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(folder)
    assert run(monkeypatch, "forget", "", "-p", str(folder)) == 2
    assert content(folder) == before


# Part of a film's title, and a film's id, which the log of changes names.
@pytest.mark.parametrize("user", ["Harbour", "s1"])
def test_letters_in_the_store_lead_to_its_rewrite_and_to_nothing_else(
    folder: Path, user: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(folder)
    assert run(monkeypatch, "forget", user, "-p", str(folder), "--json") == 2
    told = [each["where"] for each in json.loads(capsys.readouterr().out) if not each["left"]]
    assert told == ["store"]
    changed = {name.split("/")[1] for name in before if content(folder).get(name) != before[name]}
    assert changed <= {"graph.lbug", "graph.lbug.wal", "graph.lbug.changes"}


def test_all_that_was_learned_with_the_person_goes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "forget", "u1", "-p", str(folder)) == 0
    assert not any((folder / ".kithkin" / name).exists() for name in LEARNED)
    told = capsys.readouterr().out
    assert all(f"done: {name}: removed" in told for name in LEARNED)
    store = BundleStore(folder / ".kithkin" / "models")
    assert store.open().row("User", "u1") is None
    assert len(store.versions()) == 1


def test_a_key_that_may_not_activate_does_nothing_by_half(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(READER_LINE)
    monkeypatch.setenv("KITHKIN_API_KEY", READER)
    settings = ServingSettings(port=0, workers=1, drain_s=1, keys_file=keys)
    with Server(folder / ".kithkin" / "models", settings, tmp_path / "port") as server:
        at = ("--set", f"serving.port={server.port}")
        before = content(folder)
        assert run(monkeypatch, "forget", "u1", "-p", str(folder), *at) == 7
        assert content(folder) == before
        told = capsys.readouterr()
        assert "kithkin keys new --role admin" in told.err
        assert told.out == ""


def test_what_was_done_is_told_and_a_bundle_that_was_not_activated_goes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(store: BundleStore, version: str) -> None:
        raise BundleNotFound(f"{version} was taken away")

    store = BundleStore(folder / ".kithkin" / "models")
    before = store.versions()
    monkeypatch.setattr(BundleStore, "activate", refuse)
    assert run(monkeypatch, "forget", "u1", "-p", str(folder), "--json") == 6
    told = capsys.readouterr()
    assert [each["where"] for each in json.loads(told.out)] == list(LEARNED)
    assert "was taken away" in told.err
    assert store.versions() == before


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("user,film\nann,s1\n", True),
        ("ann", True),
        ('{"user": "ann", "film": 1}', True),
        ("1::ann::5", True),
        ("user,film\nhanna,s1\nann-x,s2\nann x,s3\n", False),
        ("", False),
    ],
)
def test_a_source_is_one_where_a_whole_field_is_the_id(tmp_path: Path, text: str, field: bool) -> None:
    file = tmp_path / "file"
    file.write_text(text)
    assert holds_field(file, "ann") is field


def test_letters_of_other_scripts_and_a_damaged_table(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(json.dumps({"user": "zoë"}))
    assert holds_field(file, "zoë")
    assert holds_node(tmp_path, "User", "zoë") is False
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / "User.arrow").write_bytes("zoë".encode())
    assert holds_node(tmp_path, "User", "zoë") is None
