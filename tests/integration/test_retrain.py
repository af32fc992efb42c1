"""The daily job on the ten films: a new bundle where the gate holds, the old one and its weights where it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.retrain import FOLDER, retrain
from cli.steps import Pipeline
from graph_store.progress import NoProgress
from graph_store.project import load_project
from model_store.bundle_store import BundleStore
from tests.toy import write_toy


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """The ten films with a short training and a gate that everything passes."""
    write_toy(tmp_path)
    with (tmp_path / "kithkin.toml").open("a", encoding="utf-8") as file:
        file.write(
            "\n[training]\nthreads = 1\ninput_dimension = 8\nholdout = 0.3\n"
            + "".join(f"\n[training.{space}]\nsteps = 2\nhidden = 8\ndimension = 8\n" for space in ("similar", "user"))
            + '\n[retrain]\ngate = { metric = "Recall@20", at_least = 0.0 }\n'
        )
    return tmp_path


def pipeline(folder: Path, **settings: object) -> Pipeline:
    overrides = {f"retrain.{name}": value for name, value in settings.items()}
    return Pipeline(load_project(folder, overrides=overrides, environment={}), NoProgress())


def see(folder: Path, line: str) -> None:
    with (folder / "watched.csv").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def test_the_gate_holds_and_a_new_bundle_serves_or_it_does_not_and_the_old_one_stays(toy: Path) -> None:
    first = retrain(pipeline(toy))
    bundles = BundleStore(pipeline(toy).models)
    assert first.published == bundles.active() == first.active
    assert first.decision is not None
    assert first.decision.metric == "Recall@20"
    again = retrain(pipeline(toy))
    assert (again.unchanged, again.published, again.active) == (True, None, first.published)
    assert pipeline(toy).train().skipped  # a build finds everything done
    assert pipeline(toy).publish().skipped

    see(toy, "cem,s4,5,1700100000")
    second = retrain(pipeline(toy))
    assert second.published not in (None, first.published)
    assert bundles.active() == second.published
    assert second.metrics["user"]["warm_tensors"] > 0
    weights = (pipeline(toy).checkpoints / "user" / "weights.pt").read_bytes()

    see(toy, "fay,l4,5,1700100000")
    refused = retrain(pipeline(toy, gate={"metric": "Recall@20", "at_least": 1.1}))
    assert (refused.refused, refused.published, refused.active) == (True, None, second.published)
    assert "1.1" in refused.reason
    assert bundles.active() == second.published
    assert bundles.versions()[-1] == second.published
    assert (pipeline(toy).checkpoints / "user" / "weights.pt").read_bytes() == weights
    assert not (toy / ".kithkin" / FOLDER).exists()
    assert retrain(pipeline(toy)).published not in (None, second.published)  # with the old gate, the next day


def test_the_command_ends_with_three_and_says_why_where_the_gate_refuses(toy: Path) -> None:
    runner = CliRunner()
    ran = runner.invoke(app, ["retrain", "-p", str(toy), "--set", "retrain.gate.at_least=1.5", "--json"])
    assert ran.exit_code == 3, ran.output
    printed = json.loads(ran.stdout)
    assert printed["published"] is None
    assert printed["active"] is None
    assert printed["gate"]["promoted"] is False
    assert "1.5" in printed["reason"]
    ran = runner.invoke(app, ["retrain", "-p", str(toy), "--set", "retrain.window_days=0.1"])
    assert ran.exit_code == 0, ran.output
    assert BundleStore(pipeline(toy).models).active() in ran.stderr
