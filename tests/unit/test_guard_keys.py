"""API keys: their lines, who is let in, and a file that changes."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from kithkin.v1 import model_service_pb2, retrieval_service_pb2
from server.errors import RoleNeeded, StartError, UnauthenticatedCaller
from server.wire import keys as module
from server.wire.keys import ENVIRONMENT, Keys, Role, new_key, parse_keys, role_needed


def line(key: str, role: str = "read", name: str = "somebody") -> str:
    return f"{role} {name} {hashlib.sha256(key.encode()).hexdigest()}"


def test_a_new_key_is_known_by_its_line() -> None:
    key, written = new_key(Role.READ, "web")
    assert key not in written
    assert len(key) > 40
    keys = Keys(None, written)
    assert keys.admit(f"Bearer {key}", Role.READ).name == "web"
    assert new_key(Role.READ, "web")[0] != key


def test_who_is_let_in() -> None:
    keys = Keys(None, f"{line('reader')},{line('master', 'admin', 'boss')}")
    assert keys.admit("Bearer reader", Role.READ).role is Role.READ
    assert keys.admit("bearer reader", Role.READ).name == "somebody", "the scheme's case means nothing (RFC 9110)"
    assert keys.admit("Bearer master", Role.READ).name == keys.admit("Bearer master", Role.ADMIN).name == "boss"
    with pytest.raises(RoleNeeded, match="somebody has the role read"):
        keys.admit("Bearer reader", Role.ADMIN)
    for sent in ("Bearer wrong", "Bearer ", "Bearer", "reader", "Basic reader", "", "Bearer reader2"):
        with pytest.raises(UnauthenticatedCaller, match="not known"):
            keys.admit(sent, Role.READ)
    with pytest.raises(UnauthenticatedCaller, match="no API key"):
        keys.admit(None, Role.READ)


def test_lines_with_comments() -> None:
    found = parse_keys(["# the team's", "", f"  {line('a')}  # since May", line("b", "admin", "boss")], "keys")
    assert [(key.role, key.name) for key in found] == [(Role.READ, "somebody"), (Role.ADMIN, "boss")]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("read web", "2 words"),
        (f"write web {'0' * 64}", "the role must be read or admin"),
        ("read web kk_a_key_in_place_of_its_hash", "not a SHA-256"),
        (f"read w/b {'0' * 64}", "a name is"),
        (f"{line('a')}\n{line('b')}", "line 2: two keys are called somebody"),
    ],
)
def test_a_wrong_line_is_named_and_not_shown(tmp_path: Path, wrong: str, said: str) -> None:
    file = tmp_path / "keys"
    file.write_text(wrong)
    with pytest.raises(StartError, match=said) as raised:
        Keys(file)
    assert "kk_a_key" not in str(raised.value)
    assert str(file) in str(raised.value)


def test_no_keys_anywhere_let_everybody_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert Keys.of(None) is None
    empty = tmp_path / "keys"
    empty.write_text("# none yet\n")
    keys = Keys.of(empty)
    assert keys is not None
    with pytest.raises(UnauthenticatedCaller):
        keys.admit("Bearer x", Role.READ)
    monkeypatch.setenv(ENVIRONMENT, line("from outside"))
    keys = Keys.of(None)
    assert keys is not None
    assert keys.admit("Bearer from outside", Role.READ)


def test_the_file_is_read_again_when_it_changes_and_a_broken_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.0)
    monkeypatch.setattr(logging.getLogger("kithkin.server"), "propagate", True)
    file = tmp_path / "keys"
    file.write_text(line("old"))
    keys = Keys(file)
    file.write_text(f"{line('new')}\n{line('third', name='other')}\n")
    assert keys.admit("Bearer new", Role.READ)
    with pytest.raises(UnauthenticatedCaller):
        keys.admit("Bearer old", Role.READ)
    file.write_text("this is no line of keys at all")
    for _ in range(3):
        assert keys.admit("Bearer new", Role.READ)
    file.unlink()
    assert keys.admit("Bearer new", Role.READ)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2, "one for each change, not one for each call"


def test_what_each_call_needs() -> None:
    model = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
    needs = {each.name: role_needed(f"/{model.full_name}/{each.name}") for each in model.methods}
    reading = {"GetStatus", "ListBundles"}
    assert {name for name, role in needs.items() if role is Role.READ} == reading
    assert {name for name, role in needs.items() if role is Role.ADMIN} >= {"ActivateBundle", "RollbackBundle"}
    retrieval = retrieval_service_pb2.DESCRIPTOR.services_by_name["RetrievalService"]
    for each in retrieval.methods:
        assert role_needed(f"/{retrieval.full_name}/{each.name}") is Role.READ
    assert role_needed("/grpc.health.v1.Health/Check") is None
    assert role_needed("/grpc.health.v1.Health/Check", health_needs_key=True) is Role.READ
    assert role_needed("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo") is Role.READ


def test_the_command_prints_a_key_and_its_line() -> None:
    result = CliRunner().invoke(app, ["keys", "new", "--role", "admin", "--name", "ops"])
    assert result.exit_code == 0
    key, written = result.stdout.split("\n")[:2]
    assert Keys(None, written).admit(f"Bearer {key}", Role.ADMIN).name == "ops"
    assert key not in result.stderr
