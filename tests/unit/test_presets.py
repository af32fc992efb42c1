"""Presets: each is a valid training, and stands below everything that is set."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from graph_store.errors import ConfigError
from graph_store.presets import FOLDER, below, load_preset, preset_names
from graph_store.project import Project, load_project
from graph_store.settings import TrainingSettings

FILM = '[nodes.Film]\nrole = "entity"\n'


def project(folder: Path, text: str, **settings: Any) -> Project:
    (folder / "kithkin.toml").write_text(FILM + text)
    return load_project(folder, **{"environment": {}, **settings})


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_training(name: str) -> None:
    document = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    assert set(document) == {"training"}
    TrainingSettings.model_validate(document["training"])


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_has_a_page_that_names_it(name: str) -> None:
    pages = [page.read_text(encoding="utf-8") for page in (FOLDER.parent.parent / "docs" / "methods").glob("*.md")]
    assert any(f'"{name}"' in page or f"`{name}`" in page for page in pages)


def test_the_methods_have_presets() -> None:
    assert {"semantic_gnn", "pinsage", "gat", "r_gcn"} <= set(preset_names())


def test_a_preset_stands_above_the_defaults_and_below_all_else(tmp_path: Path) -> None:
    preset = load_preset("pinsage")["similar"]
    text = '[training]\npreset = "pinsage"\n[training.similar]\nnegatives = 7\n'
    found = project(
        tmp_path,
        text,
        environment={"KITHKIN_TRAINING__SIMILAR__BATCH_SIZE": "64"},
        overrides={"training.similar.hard_negatives": 1},
    ).settings.training
    assert found.preset == "pinsage"
    assert (
        (found.similar.encoder, found.similar.sampler)
        == ("pin_sage", "random_walk")
        == (
            preset["encoder"],
            preset["sampler"],
        )
    )
    assert (found.similar.negatives, found.similar.batch_size, found.similar.hard_negatives) == (7, 64, 1)
    assert preset["negatives"] != 7
    assert found.similar.heads == 4  # neither says anything
    assert found.user.encoder == "pin_sage"


def test_a_preset_may_come_from_the_environment_or_a_flag(tmp_path: Path) -> None:
    text = '[training]\npreset = "gat"\n'
    assert project(tmp_path, text).settings.training.similar.encoder == "gat"
    environment = {"KITHKIN_TRAINING__PRESET": "r_gcn"}
    assert project(tmp_path, text, environment=environment).settings.training.similar.encoder == "r_gcn"
    overrides = {"training.preset": "pinsage"}
    found = project(tmp_path, text, environment=environment, overrides=overrides)
    assert found.settings.training.similar.encoder == "pin_sage"
    assert project(tmp_path, "").settings.training == TrainingSettings()


def test_an_unknown_preset_is_an_error_that_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.preset: no such preset") as caught:
        project(tmp_path, '[training]\npreset = "pinsge"\n')
    assert "Did you mean 'pinsage'?" in caught.value.hint
    assert all(name in caught.value.hint for name in preset_names())
    with pytest.raises(ConfigError, match=r"training\.preset: Input should be a valid string"):
        project(tmp_path, "[training]\npreset = 3\n")


def test_tables_are_joined_and_values_replaced() -> None:
    preset = {"a": 1, "table": {"b": 2, "c": [3]}, "only": {"d": 4}}
    assert below({"a": 5, "table": {"c": [6, 7]}, "e": 8}, preset) == {
        "a": 5,
        "table": {"b": 2, "c": [6, 7]},
        "only": {"d": 4},
        "e": 8,
    }
    assert below({"table": 1}, preset)["table"] == 1
