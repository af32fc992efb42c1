"""kithkin evaluate as people run it: all protocols, one of them, JSON, the HTML report, and wrong usage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import kithkin
from tests.toy import LOVE, SPACE, write_toy

JUDGED = """
[training]
similar.steps = 5
user.steps = 5

[evaluation]
bootstrap = 100

[[evaluation.judged]]
name = "themes"
node = "Film"
file = "judged.csv"
query = "query"
similar = "similar"
cold_modulo = 2
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_toy(tmp_path_factory.mktemp("evaluated"))
    pairs = [f"{film},{other}" for theme in (SPACE, LOVE) for film in theme for other in theme if film != other]
    (folder / "judged.csv").write_text("\n".join(["query,similar", *pairs]) + "\n", encoding="utf-8")
    with (folder / "kithkin.toml").open("a", encoding="utf-8") as file:
        file.write(JUDGED)
    kithkin("build", folder=folder)
    return folder


def kinds(report: dict[str, list[dict[str, str]]]) -> list[str]:
    return [protocol["kind"] for protocol in report["protocols"]]


def test_all_protocols_or_one(built: Path) -> None:
    everything = kithkin("evaluate", "--json", folder=built).json
    assert kinds(everything) == ["judged", "users", "next"]
    one = kithkin("evaluate", "next", "--json", folder=built).json
    assert one["protocols"] == everything["protocols"][2:]
    tables = kithkin("evaluate", "users", folder=built).out
    assert "(User)-[WATCHED]->(Film): 6 queries" in tables
    assert "next entity" not in tables


def test_the_report_is_beside_the_model_and_where_it_is_asked_for(built: Path) -> None:
    assert "<svg" in (built / ".kithkin" / "checkpoints" / "evaluation.html").read_text(encoding="utf-8")
    ended = kithkin("evaluate", "similar", "--html", "out/report.html", folder=built)
    assert "themes: 10 queries" in ended.out
    assert "report: out/report.html" in ended.err
    page = (built / "out" / "report.html").read_text(encoding="utf-8")
    assert "<h2>themes</h2>" in page
    assert "next entity" not in page


def test_cold_entities_are_trained_for_once(built: Path) -> None:
    first = kithkin("evaluate", "cold", "--json", folder=built).json
    assert kinds(first) == ["cold"]
    assert 0 < first["protocols"][0]["queries"] < 10
    (model,) = (built / ".kithkin" / "cold").glob("*/model.json")
    written = model.stat().st_mtime_ns
    assert kithkin("evaluate", "cold", "--json", folder=built).json == first
    assert model.stat().st_mtime_ns == written


def test_wrong_usage_says_what_is_wrong(built: Path, tmp_path: Path) -> None:
    assert "options go behind the protocol" in kithkin("evaluate", "--json", "similar", folder=built, code=2).err
    plain = write_toy(tmp_path / "plain")
    assert "cold_modulo" in kithkin("evaluate", "cold", folder=plain, code=3).err
