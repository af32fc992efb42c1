"""``kithkin evaluate clicks`` from files: the declaration, the table and the JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from graph_store.errors import ConfigError
from tests.toy import write_toy

USERS, FILMS, VIEWS = 20, 16, 12
TOML = """
[nodes.Film]
role = "entity"

[nodes.Film.properties]
year = { type = "int", feature = "number" }

[nodes.User]
role = "user"

[[relations]]
triple = ["User", "SAW", "Film"]
role = "engagement"
time = "at"
kind = "how"
properties = { at = { type = "timestamp" }, how = { type = "string" } }

[[sources]]
file = "films.csv"
node = "Film"
id = "film"
properties = { year = "year" }

[[sources]]
file = "saw.csv"
relation = ["User", "SAW", "Film"]
source = "user"
target = "film"
create_source = true
properties = { at = { column = "at", format = "unix" }, how = "how" }

[evaluation]
bootstrap = 100
click_network = { layers = 1, hidden = 8, dimension = 4, epochs = 2, windows = 2 }

[[evaluation.clicks]]
name = "shown"
relation = ["User", "SAW", "Film"]
kinds = ["clicked"]
splits = ["per_user"]
supervision = 0.25
test = 0.25
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Everybody is shown twelve films; what they click they are shown first, as a row of its own."""
    rng = np.random.default_rng(1)
    films = [f"f{number:02},{1990 + number}" for number in range(FILMS)]
    rows = []
    for user in range(USERS):
        for turn, film in enumerate(rng.permutation(FILMS)[:VIEWS]):
            rows.append(f"u{user:02},f{film:02},{1_000 + 10 * turn},viewed")
            if rng.random() < 0.5:
                rows.append(f"u{user:02},f{film:02},{1_001 + 10 * turn},clicked")
    (tmp_path / "films.csv").write_text("film,year\n" + "\n".join(films) + "\n")
    (tmp_path / "saw.csv").write_text("user,film,at,how\n" + "\n".join(rows) + "\n")
    (tmp_path / "kithkin.toml").write_text(TOML)
    return tmp_path


def test_the_command_measures_the_declared_protocol(project: Path) -> None:
    runner = CliRunner()
    for step in ("ingest", "export"):
        ran = runner.invoke(app, [step, "-p", str(project)])
        assert ran.exit_code == 0, ran.output
    ran = runner.invoke(app, ["evaluate", "clicks", "-p", str(project), "--json"])
    assert ran.exit_code == 0, ran.output
    (report,) = json.loads(ran.stdout)["clicks"]
    assert (report["name"], report["split"]) == ("shown", "per_user")
    # A view and its click are one row; of a pair that a cut in time falls between, the view alone is left.
    assert sum(report["rows"][part] for part in ("message", "supervision", "test")) == USERS * VIEWS
    assert [each["columns"] for each in report["scored"]] == ["without vectors"] * 2 + ["with vectors"] * 2 + [""]
    assert all(0 < each["auc"][0] < 1 for each in report["scored"])
    again = runner.invoke(app, ["evaluate", "clicks", "-p", str(project), "--json"])
    (repeated,) = json.loads(again.stdout)["clicks"]
    assert repeated["scored"] == report["scored"]


def test_without_a_declaration_it_says_what_to_write(tmp_path: Path) -> None:
    write_toy(tmp_path)
    ran = CliRunner().invoke(app, ["evaluate", "clicks", "-p", str(tmp_path)])
    assert isinstance(ran.exception, ConfigError)
    assert "evaluation.clicks" in str(ran.exception)
