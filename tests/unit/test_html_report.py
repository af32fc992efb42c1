"""The HTML report: one file, nothing from outside, everything in it that was measured."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.memory_snapshot import themes_snapshot
from tests.unit.test_evaluation import judged, theme_vectors, write_judgements
from training.evaluation.html_report import render_html, write_html
from training.evaluation.judged import evaluate_judged
from training.evaluation.metrics import Interval
from training.evaluation.report import OURS, EvaluationReport, Protocol, Table
from training.graph import Graph
from training.run_log import LOG, RunLog

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Outline(HTMLParser):
    """Open tags, so that one left open is found, and all attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.count: dict[str, int] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> EvaluationReport:
    folder, snapshot = tmp_path_factory.mktemp("report"), themes_snapshot()
    write_judgements(folder, snapshot)
    found = evaluate_judged(judged(name="a < b"), folder, Graph(snapshot), theme_vectors(), resamplings=100)
    return EvaluationReport(protocols=(found,), notes=("users: <nothing> held out",))


@pytest.fixture(scope="module")
def page(report: EvaluationReport, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    with RunLog(folder) as log:
        for step in range(1, 41):
            log.step("similar", step, loss=3.0 / step, learning_rate=0.001, edges_per_second=9e5, seconds=1.0 * step)
        log.step("user", 1, loss=1.0)
    file = folder / "deep" / "report.html"
    write_html(report, file, title="Films & more", facts={"bundle": "v1"}, log=folder / LOG)
    assert [each.name for each in file.parent.iterdir()] == ["report.html"]
    return file.read_text(encoding="utf-8")


def test_the_page_is_whole_and_needs_nothing_from_outside(page: str) -> None:
    outline = Outline(page)
    assert outline.open == []
    links = [value for name, value in outline.attributes if name in {"src", "href", "xlink:href"} and value]
    assert all(link.startswith("#") for link in links)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert "<script" not in page


def test_all_figures_are_in_the_page(page: str, report: EvaluationReport) -> None:
    (protocol,) = report.protocols
    for name, found in protocol.scores.items():
        assert f"<td>{name}</td>" in page
        for interval in found.values():
            assert f"{interval.mean:.4f}" in page
    for group in protocol.groups:
        assert f"<td>{group.name}</td><td>{group.queries}</td>" in page
    assert "Films &amp; more" in page
    assert "<dt>bundle</dt><dd>v1</dd>" in page
    assert "users: &lt;nothing&gt; held out" in page
    assert "a &lt; b" in page
    assert "<nothing>" not in page


def test_plots_of_scorers_groups_and_losses(page: str) -> None:
    outline = Outline(page)
    # Scorers, popularity, relations, and the one loss that has more than one point.
    assert outline.count["figure"] == outline.count["svg"] == 4
    assert "Space similar: loss" in page
    assert "Space user" not in page
    assert "per_second" not in page


def test_plots_take_their_colours_from_the_page(page: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    used = set(re.findall(r"var\((--\w+)\)", "".join(plots)))
    light, dark = page.split("prefers-color-scheme: dark", 1)
    for name in used - {"--font"}:
        assert f"{name}: #" in light
        assert f"{name}: #" in dark.split("}", 1)[0] + dark.split("}", 2)[1]
    assert {"--ours", "--other", "--quiet", "--grid"} <= used
    # No colour of matplotlib's own is left, and nothing is painted behind the plot.
    assert not re.findall(r"(?:fill|stroke): ?#(?!ffffff)\w+", "".join(plots))
    assert "#ffffff" not in "".join(plots)


def test_a_protocol_without_queries_and_no_log_are_told_without_plots(tmp_path: Path) -> None:
    nothing = Protocol(
        name="none",
        kind="cold",
        queries=0,
        note="Nobody.",
        headline="MAP",
        scores={OURS: {"MAP": Interval.alone()}},
    )
    page = render_html(EvaluationReport(protocols=(nothing,)), title="t", facts={}, log=[])
    assert Outline(page).open == []
    assert "<svg" not in page
    write_html(EvaluationReport(), tmp_path / "empty.html", title="t", log=tmp_path / "none.jsonl")
    assert "Learning curves" not in (tmp_path / "empty.html").read_text()


def test_other_tables_stand_in_it_too() -> None:
    clicks = Table(title="clicks & views", columns=("model", "ROC-AUC"), rows=(("trees", "0.7 [0.6, 0.8]"),))
    page = render_html(EvaluationReport(), title="t", facts={}, log=[], tables=(clicks,))
    assert "<h2>clicks &amp; views</h2>" in page
    assert "<td>trees</td><td>0.7 [0.6, 0.8]</td>" in page
    assert Outline(page).open == []


def test_the_same_report_is_the_same_page(report: EvaluationReport) -> None:
    pages = {render_html(report, title="t", facts={}, log=[]) for _ in range(2)}
    assert len(pages) == 1
