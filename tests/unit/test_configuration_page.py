"""docs/configuration.md says what the models say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel, Field

from graph_store.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"


class Example(BaseModel):
    port: int = Field(default=7, ge=0)
    """Where it | listens."""
    name: str | None = None
    quote: str = '"'


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_configuration", DOCS / "generate_configuration.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_up_to_date(generator: ModuleType) -> None:
    assert generator.PAGE.read_text(encoding="utf-8") == generator.render()


def test_every_section_has_a_table(generator: ModuleType) -> None:
    sections = {
        field.annotation.__name__
        for field in Settings.model_fields.values()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }
    assert sections | {"NodeType", "Property", "Relation", "CoEngagement", "Source", "ColumnSpec"} <= generator.shown()


def test_a_table_shows_type_default_limits_and_meaning(generator: ModuleType) -> None:
    assert generator.table(Example).splitlines()[2:] == [
        "| `port` | integer (≥ 0) | `7` | Where it \\| listens. |",
        "| `name` | text |  |  |",
        "| `quote` | text | `'\"'` |  |",
    ]
