"""``kithkin doctor``: what it finds in a project that is whole, and in one that is not."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest

from cli import doctor
from cli.doctor import Finding, examine
from cli.main import main
from model_store.bundle_store import BundleStore
from server.processes.quarantine import Quarantine
from tests.bundles import write_toy_bundle
from tests.inspected import TOML, write_inspected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with a store and a bundle, on a port that nobody has."""
    write_inspected(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "kithkin.toml").write_text(f"{TOML}\n[serving]\nport = {port}\n")
    store = BundleStore(tmp_path / ".kithkin" / "models")
    store.activate(write_toy_bundle(store, encoders=False))
    return tmp_path


def found(folder: Path, *settings: str) -> dict[str, Finding]:
    """The last finding of each name."""
    return {each.what: each for each in examine(folder, list(settings))}


def test_a_whole_project(folder: Path) -> None:
    findings = found(folder)
    assert {name for name, each in findings.items() if each.state == "wrong"} == set()
    assert findings["Python"].says.startswith("3.")
    assert "pyarrow" in findings["libraries"].says
    assert "14 nodes" in findings["store"].says
    assert "whole" in findings["bundle"].says
    assert findings["snapshot"] == Finding(what="snapshot", state="note", says="none yet", do="kithkin build")
    assert "is free" in findings["server"].says
    assert findings["disk"].state == "ok"


def test_a_damaged_bundle_ends_with_1(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = next((folder / ".kithkin/models").glob("2*"))
    vectors = bundle / "spaces/similar/Artist.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(sys, "argv", ["kithkin", "doctor", "--project", str(folder), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    findings = json.loads(capsys.readouterr().out)
    wrong = [each for each in findings if each["state"] == "wrong"]
    assert [each["what"] for each in wrong] == ["bundle"]
    assert "Artist.npy" in wrong[0]["says"]
    assert "kithkin publish" in wrong[0]["do"]


def test_a_bundle_that_a_server_refused(folder: Path) -> None:
    store = BundleStore(folder / ".kithkin" / "models")
    active = store.active() or ""
    Quarantine(store.root).add(active, "it does not answer", store.written())
    finding = found(folder)["bundle"]
    assert (finding.state, finding.says) == ("wrong", "a server refused it: it does not answer")
    assert f"kithkin activate {active}" in finding.do


def test_a_port_that_another_program_has(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        finding = found(folder, f"serving.port={port}")["server"]
    assert finding.state == "wrong"
    assert str(port) in finding.says
    assert "serving.port" in finding.do


def test_a_file_that_is_wrong_is_named_and_ends_the_look(folder: Path) -> None:
    (folder / "kithkin.toml").write_text(TOML + "\n[serving]\nprot = 1\n")
    findings = list(examine(folder))
    assert findings[-1].what == "kithkin.toml"
    assert findings[-1].state == "wrong"
    assert "prot" in findings[-1].says


def test_without_a_project_the_machine_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    findings = {each.what: each.state for each in examine()}
    assert findings["project"] == "note"
    assert findings["Python"] == "ok"


def test_a_store_that_cannot_be_reached(folder: Path) -> None:
    finding = found(folder, "store.uri=bolt://127.0.0.1:1", "store.timeout_s=1")["store"]
    assert finding.state == "wrong"
    assert finding.do


def test_what_stands_in_the_store_and_is_not_declared(folder: Path) -> None:
    text = (folder / "kithkin.toml").read_text()
    tag = '[[relations]]\ntriple = ["Film", "HAS_TAG", "Tag"]\nrole = "semantic"\n'
    assert tag in text
    (folder / "kithkin.toml").write_text(text.replace(tag, ""))
    assert found(folder)["schema"].says == "in the store, not declared: HAS_TAG"


def test_a_library_of_another_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    required = ["numpy>=99", "nothing-of-this-name>=1", "torch>=1; extra == 'train'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: required)
    finding = found(folder)["libraries"]
    assert finding.state == "wrong"
    assert "missing: nothing-of-this-name" in finding.says
    assert "numpy" in finding.says.split("required:")[1]


def test_a_clock_that_went_back(folder: Path) -> None:
    store = BundleStore(folder / ".kithkin" / "models")
    (store.root / "29990101T000000.000000Z").mkdir()
    finding = found(folder)["clock"]
    assert finding.state == "wrong"
    assert "time service" in finding.do


def test_no_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LEAST_FREE_MIB", 2**40)
    finding = found(folder)["disk"]
    assert (finding.state, "publish.keep" in finding.do) == ("wrong", True)
