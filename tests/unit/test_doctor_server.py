"""``kithkin doctor`` of a server: what this caller shows and trusts, what ``serve`` would read, a host of none."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.doctor import Finding, examine
from cli.main import main
from graph_store.settings import ServingSettings
from model_store.bundle_store import BundleStore
from server.wire.keys import Role, new_key
from tests.bundles import write_toy_bundle
from tests.certificates import needs_openssl, write_certificate
from tests.served import Server
from tests.toy import write_toy

KEY, LINE = new_key(Role.READ, "reader")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KITHKIN_API_KEY", "KITHKIN_API_KEYS", "KITHKIN_CA"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project on a port that nobody has."""
    folder = write_toy(tmp_path / "toy")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "kithkin.toml").open("a") as file:
        file.write(f"\n[serving]\nport = {port}\n")
    return folder


@pytest.fixture
def served(folder: Path, tmp_path: Path) -> Iterator[list[str]]:
    """A server of the project that knows one key; yields the settings that lead to it."""
    keys = tmp_path / "keys"
    keys.write_text(LINE)
    store = BundleStore(folder / ".kithkin" / "models")
    store.activate(write_toy_bundle(store, encoders=False))
    settings = ServingSettings(port=0, workers=1, drain_s=1, keys_file=keys)
    with Server(store.root, settings, tmp_path / "port") as server:
        yield [f"serving.port={server.port}", f"serving.keys_file={keys}"]


def found(folder: Path, *settings: str) -> dict[str, Finding]:
    return {each.what: each for each in examine(folder, list(settings))}


def run(patch: pytest.MonkeyPatch, *arguments: str) -> int:
    patch.setattr(sys, "argv", ["kithkin", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code is None or isinstance(ended.value.code, int)
    return ended.value.code or 0


def test_a_server_that_wants_a_key_is_a_server(
    folder: Path, served: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finding = found(folder, *served)["server"]
    assert finding.state == "note"
    assert "KITHKIN_API_KEY" in finding.do
    # The commands do not take it for none.
    text = (folder / "kithkin.toml").read_text().rpartition("[serving]")[0]
    (folder / "kithkin.toml").write_text(f"{text}[serving]\n{served[0].removeprefix('serving.')}\n")
    for command in (["similar", "1"], ["status"], ["rollback"]):
        assert run(monkeypatch, *command, "-p", str(folder)) == 7
        told = capsys.readouterr()
        assert "KITHKIN_API_KEY" in told.err
        assert "Client(" not in told.err
        assert told.out == ""
    monkeypatch.setenv("KITHKIN_API_KEY", KEY)
    assert found(folder, *served)["server"].state == "ok"
    assert run(monkeypatch, "rollback", "-p", str(folder)) == 7
    assert "kithkin keys new" in capsys.readouterr().err


@needs_openssl
def test_a_certificate_that_is_not_trusted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_certificate(tmp_path, "server")
    store = BundleStore(folder / ".kithkin" / "models")
    store.activate(write_toy_bundle(store, encoders=False))
    files = {name: str(tmp_path / f"server.{ending}") for name, ending in (("certificate", "pem"), ("key", "key"))}
    given = ServingSettings.model_validate(
        {"host": "localhost", "port": 0, "workers": 1, "drain_s": 1, "tls": files}, strict=False
    )
    with Server(store.root, given, tmp_path / "port") as server:
        settings = [f"serving.port={server.port}", "serving.host=localhost"]
        settings += [f"serving.tls.{name}={file}" for name, file in files.items()]
        findings = found(folder, *settings)
        assert findings["certificates"].state == "ok"
        assert findings["server"].state == "note"
        assert "KITHKIN_CA" in findings["server"].do
        monkeypatch.setenv("KITHKIN_CA", str(tmp_path / "server.pem"))
        assert found(folder, *settings)["server"].state == "ok"


@pytest.mark.parametrize("variable", ["KITHKIN_API_KEY", "KITHKIN_CA"])
def test_a_variable_that_is_no_key_or_file(
    folder: Path, variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "/nowhere/ä")
    tls = ["--set", "serving.tls.certificate=a.pem", "--set", "serving.tls.key=a.key"]
    assert run(monkeypatch, "doctor", "-p", str(folder), *tls, "--json") == 1
    told = {each["what"]: each for each in json.loads(capsys.readouterr().out)}
    assert told["server"]["state"] == "wrong"
    assert told["server"]["says"].startswith(variable)


def test_what_serve_would_refuse_is_wrong(folder: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("read too few")
    settings = [f"serving.keys_file={keys}", "serving.tls.certificate=absent.pem", "serving.tls.key=absent.key"]
    findings = found(folder, *settings)
    assert findings["keys"].state == "wrong"
    assert "line 1" in findings["keys"].says
    assert findings["certificates"].state == "wrong"
    assert "absent.pem" in findings["certificates"].says
    keys.write_text(LINE)
    assert found(folder, settings[0])["keys"].state == "ok"


def test_a_work_folder_that_is_a_file(folder: Path) -> None:
    (folder / ".kithkin").write_text("")
    finding = found(folder)["work folder"]
    assert finding.state == "wrong"
    assert ".kithkin is a file" in finding.says


def test_a_host_of_no_address(folder: Path) -> None:
    finding = found(folder, "serving.host=a b.invalid")["server"]
    assert finding.state == "wrong"
    assert "does not resolve" in finding.says
    assert "port" not in finding.do
