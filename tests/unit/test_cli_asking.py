"""The asking commands over a toy bundle: how they find a service, what scripts read, and how wrong usage ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from cli.console import say
from cli.main import main
from model_store.bundle_store import BundleStore
from tests.bundles import write_toy_bundle
from tests.toy import write_toy


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = write_toy(tmp_path / "toy")
    store = BundleStore(folder / ".kithkin" / "models")
    store.activate(write_toy_bundle(store))
    return folder


def run(patch: pytest.MonkeyPatch, *arguments: str) -> int:
    patch.setattr(sys, "argv", ["kithkin", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code is None or isinstance(ended.value.code, int)
    return ended.value.code or 0


@pytest.mark.parametrize("where", ["port = 0", 'host = "::1"\nport = 1', "port = 1"])
def test_where_no_server_can_be_the_bundle_answers_here(
    project: Path, where: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project / "kithkin.toml"
    file.write_text(f"{file.read_text()}\n[serving]\n{where}\n")
    assert run(monkeypatch, "similar", "-p", str(project), "Slowdive", "-k", "2", "--json") == 0
    printed = capsys.readouterr()
    assert [row["id"] for row in json.loads(printed.out)["results"]] == ["10", "5"]
    assert "in this process" in printed.err


def test_scripts_are_told_of_a_fallback_and_a_shortfall(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("recommend", "-p", str(project), "nobody", "--or-popular", "--type", "Artist", "-k", "9", "--json")
    assert run(monkeypatch, *arguments) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["fallback"] == "popular"
    assert answer["shortfall_reason"] == "only 7 of this type are not left out (asked for 9)"


def test_a_user_and_an_entity_are_explained(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("explain", "-p", str(project), "u1", "2", "--type", "User", "--target-type", "Artist", "--json")
    assert run(monkeypatch, *arguments) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["source"], answer["target"]) == ({"type": "User", "id": "u1"}, {"type": "Artist", "id": "2"})
    assert answer["reasons"][0]["path"][0] in ({"type": "Artist", "id": "1"}, {"type": "Artist", "id": "10"})


def test_bundles_are_listed_activated_and_rolled_back_without_a_server(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project / "kithkin.toml"
    file.write_text(f"{file.read_text()}\n[serving]\nport = 0\n")
    store = BundleStore(project / ".kithkin" / "models")
    (first,) = store.versions()
    second = write_toy_bundle(store, encoders=False)
    assert run(monkeypatch, "activate", second, "-p", str(project)) == 0
    assert f"{second} is active" in capsys.readouterr().err
    assert run(monkeypatch, "bundles", "-p", str(project), "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(each["version"], each["active"], each["serving"]) for each in listed] == [
        (second, True, False), (first, False, False),
    ]  # fmt: skip
    assert run(monkeypatch, "bundles", "-p", str(project)) == 0
    assert "7 Artist" in capsys.readouterr().out
    assert run(monkeypatch, "rollback", "-p", str(project)) == 0
    assert store.active() == first
    assert run(monkeypatch, "rollback", "-p", str(project)) == 6
    assert run(monkeypatch, "activate", "20200101T000000.000000Z", "-p", str(project)) == 6
    # Damaged, it is not even named.
    (store.root / second / "manifest.json").write_text("{")
    assert run(monkeypatch, "activate", second, "-p", str(project)) == 6
    assert store.active() == first


@pytest.mark.parametrize(
    ("arguments", "exit_code", "told"),
    [
        (("similar",), 2, "name an entity"),
        (("similar", "1", "--link", "HAS_TAG=t1"), 2, "not both"),
        (("similar", "--property", "year"), 2, "NAME=VALUE"),
        (("recommend",), 2, "name a user"),
        (("recommend", "nobody"), 2, "no User has the id 'nobody'"),
        (("similar", "1", "--server", "nowhere"), 3, "target must be host:port"),
        (("similar", "1", "--server", "127.0.0.1:1"), 7, "UNAVAILABLE"),
    ],
)
def test_wrong_usage_ends_with_a_message(
    project: Path,
    arguments: tuple[str, ...],
    exit_code: int,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, *arguments, "-p", str(project)) == exit_code
    printed = capsys.readouterr()
    assert told in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_names_with_brackets_are_said_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say("took Film 7 '[REC]'; other matches: '[/b]'")
    assert capsys.readouterr().err == "took Film 7 '[REC]'; other matches: '[/b]'\n"
