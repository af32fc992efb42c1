"""What docs/operations.md says of settings, metrics and alerts is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from graph_store.settings import ServingSettings
from server.observe.metrics import Metrics

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def collectors() -> list[Any]:
    """Metrics; what only adds them up before they are read has no name."""
    return [each for each in Metrics().registry._collector_to_names if hasattr(each, "_name")]


def test_the_settings_are_valid() -> None:
    block = re.findall(r"```toml\n(\[serving\][^`]*)```", PAGE)[0]
    settings = ServingSettings.model_validate(tomllib.loads(block)["serving"])
    assert settings.tls.certificate is not None
    assert settings.impressions.folder == Path("impressions")


def test_the_table_has_every_metric_with_its_labels() -> None:
    rows = re.findall(r"^\| ((?:`kithkin_\w+`(?:, )?)+) \| ([\w, ]*) ?\|", PAGE, re.MULTILINE)
    documented: dict[str, set[str]] = {}
    for names, labels in rows:
        for name in re.findall(r"\w+", names):
            documented[name.removesuffix("_total")] = set(re.findall(r"\w+", labels))
    there = {str(collector._name): set(collector._labelnames) for collector in collectors()}
    there["kithkin_index_recall"] |= {"kind"}
    assert documented == there, "the two of an index share a row, and only its size has the kind"


def test_every_alert_asks_for_metrics_that_there_are_and_has_a_runbook() -> None:
    rows = re.findall(r"^\| \[([\w ]+)\]\(#([\w-]+)\) \| (.*) \| (?:page|ticket) \|$", PAGE, re.MULTILINE)
    assert len(rows) >= 10
    there = {str(collector._name) for collector in collectors()}
    for name, anchor, condition in rows:
        assert anchor == name.lower().replace(" ", "-")
        assert f"\n### {name}\n" in PAGE
        for asked in re.findall(r"kithkin_\w+", condition):
            assert re.sub(r"_(total|bucket|sum|count)$", "", asked) in there, asked
