"""The JSON Schema of kithkin.toml: it takes every example, and refuses what the models refuse."""

from __future__ import annotations

import json
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

from cli.main import app
from graph_store.json_schema import FILE_NAME, json_schema
from graph_store.project import parse_project
from graph_store.scaffold import write_project
from graph_store.settings import Settings
from graph_store.synthetic import generate

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*/kithkin.toml"))
SMALL = """
[nodes.Film]
role = "entity"
properties = { year = { type = "int" } }
[nodes.User]
role = "user"
[[relations]]
triple = ["User", "RATED", "Film"]
role = "engagement"
time = "at"
properties = { at = { type = "timestamp" } }
[[sources]]
file = "films.csv"
node = "Film"
id = { column = "id", lower = true }
properties = { year = { column = "year", extract = '(\\d+)' } }
where = { kind = ["film", "short"] }
[[sources]]
file = "ratings.csv"
relation = ["User", "RATED", "Film"]
source = "user"
target = "film"
properties = { at = "at" }
[[checks]]
node = "Film"
range = { property = "year", min = 1880 }
[[checks]]
relation = ["User", "RATED", "Film"]
range = { property = "at", min = 2001-01-01, max = 2030-01-01T00:00:00Z }
"""


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft4Validator:
    schema = json_schema()
    jsonschema.Draft4Validator.check_schema(schema)
    return jsonschema.Draft4Validator(schema)


def as_json(value: Any) -> Any:
    """A TOML document as editors see it: times are texts."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value


def faults(validator: jsonschema.Draft4Validator, document: dict[str, Any]) -> list[str]:
    return [error.json_path for error in validator.iter_errors(as_json(document))]


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
def test_every_example_fits(validator: jsonschema.Draft4Validator, file: Path) -> None:
    assert faults(validator, tomllib.loads(file.read_text(encoding="utf-8"))) == []


def test_what_the_models_read_fits(validator: jsonschema.Draft4Validator) -> None:
    document = tomllib.loads(SMALL)
    parse_project(document, file=Path("kithkin.toml"), environment={})
    assert faults(validator, document) == []


def test_the_defaults_fit(validator: jsonschema.Draft4Validator) -> None:
    settings = Settings().model_dump(mode="json", exclude_none=True)
    assert faults(validator, {**tomllib.loads(SMALL), **settings}) == []


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ('role = "user"', 'role = "usr"', "$.nodes.User.role"),
        ('role = "user"', 'role = "user"\nroles = "user"', "$.nodes.User"),
        ('triple = ["User", "RATED", "Film"]', 'triple = ["User", "RATED"]', "$.relations[0].triple"),
        ('type = "int"', 'type = "integer"', "$.nodes.Film.properties.year.type"),
        ("lower = true", "lower = 1", "$.sources[0].id"),
        ("min = 1880", "minimum = 1880", "$.checks[0].range"),
        ("min = 1880", "min = true", "$.checks[0].range.min"),
        ('[nodes.User]\nrole = "user"', "[training]\nseed = 'x'", "$.training.seed"),
        ('[nodes.User]\nrole = "user"', "[training.similar]\nlearning_rate = 0", "$.training.similar.learning_rate"),
        ('[nodes.User]\nrole = "user"', "[training.similar]\nhard_band = [1]", "$.training.similar.hard_band"),
        ('[nodes.User]\nrole = "user"', "[trainig]\nseed = 1", "$"),
    ],
)
def test_mistakes_are_found_where_they_stand(
    validator: jsonschema.Draft4Validator, old: str, new: str, path: str
) -> None:
    assert old in SMALL
    assert faults(validator, tomllib.loads(SMALL.replace(old, new))) == [path]


def test_every_setting_has_its_meaning() -> None:
    schema = json_schema()
    training = schema["definitions"]["TrainingSettings"]["properties"]
    assert training["seed"]["description"] == "Seed of every random choice."
    assert schema["definitions"]["UserSpaceSettings"]["properties"]["heads"]["description"] == "Attention heads."
    sections = {
        name
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    described = [schema, *(each for each in schema["definitions"].values() if "properties" in each)]
    silent = {name for each in described for name, value in each["properties"].items() if "description" not in value}
    # A key that belongs to the one after it shares its meaning.
    assert silent <= sections | {"query", "tune_remainder", "candidates_column", "cold_remainder"}


def test_the_command_prints_it() -> None:
    printed = CliRunner().invoke(app, ["schema"])
    assert printed.exit_code == 0, printed.output
    assert json.loads(printed.stdout) == json_schema()


def test_init_names_a_schema_that_lies_beside(tmp_path: Path, validator: jsonschema.Draft4Validator) -> None:
    generate(tmp_path, entities=50, users=10, seed=1, overwrite=True)
    line = f"#:schema ./{FILE_NAME}\n"
    written = write_project(tmp_path, force=True).read_text(encoding="utf-8")
    assert not written.startswith(line)
    assert faults(validator, tomllib.loads(written)) == []
    (tmp_path / FILE_NAME).write_text(json.dumps(json_schema()), encoding="utf-8")
    assert write_project(tmp_path, force=True).read_text(encoding="utf-8") == line + written
