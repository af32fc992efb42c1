"""Fill the tables of docs/configuration.md from the models behind kithkin.toml; with --check, only compare.

The text around the tables is written by hand. A table stands between ``<!-- table: Model -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import enum
import re
import sys
import types
import typing
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from graph_store import (
    checks,
    evaluation_settings,
    neural_settings,
    schema,
    serving_settings,
    settings,
    sources,
    store_settings,
    training_settings,
)
from graph_store.json_schema import field_docstrings

PAGE = Path(__file__).parent / "configuration.md"
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_MODELS: dict[str, type[BaseModel]] = {
    name: model
    for module in (
        schema,
        sources,
        checks,
        settings,
        store_settings,
        training_settings,
        neural_settings,
        evaluation_settings,
        serving_settings,
    )
    for name, model in vars(module).items()
    if isinstance(model, type) and issubclass(model, BaseModel) and model.__module__ == module.__name__
}


def render() -> str:
    """The page with its tables as the models are now; KeyError where a table names no model."""
    text = PAGE.read_text(encoding="utf-8")
    return _BLOCK.sub(lambda block: block[1] + table(_MODELS[block[2]]) + block[3], text)


def shown() -> set[str]:
    """The models that have a table on the page."""
    return {block[2] for block in _BLOCK.finditer(PAGE.read_text(encoding="utf-8"))}


def table(model: type[BaseModel]) -> str:
    """A Markdown table of a model's keys: type, default, meaning."""
    meanings = field_docstrings(model)
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        cells = (
            f"`{name}`",
            _type(field.annotation) + _limits(field.metadata),
            _default(field),
            meanings.get(name, ""),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(argument) for argument in arguments if argument is not type(None))
    if origin is typing.Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"table of {_type(arguments[1])}"
    if annotation is schema.Triple:
        return "three names"
    if isinstance(annotation, type) and issubclass(annotation, enum.StrEnum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        anchor = annotation.__name__.lower()
        return f"[{annotation.__name__}](#{anchor})" if annotation.__name__ in shown() else "table"
    names = {
        str: "text",
        int: "integer",
        float: "number",
        bool: "true/false",
        Path: "path",
        date: "date",
        datetime: "time",
    }
    return names.get(annotation, str(annotation))


def _limits(metadata: list[Any]) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {getattr(part, name):g}" for part in metadata for name, sign in signs.items() if hasattr(part, name)
    ]
    return f" ({', '.join(found)})" if found else ""


def _default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "required" if field.default_factory is None else "empty"
    value = field.default
    if value is None:
        return ""
    if value == ():
        return "empty"
    if isinstance(value, BaseModel):
        return "see there"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Path):
        return f"`{value.as_posix()}`"
    if isinstance(value, (int, float)):
        return f"`{value}`"
    return f"`'{value}'`" if '"' in value else f'`"{value}"`'


def main() -> int:
    """Write the page, or with ``--check`` only say whether it is out of date."""
    text = render()
    if PAGE.read_text(encoding="utf-8") == text:
        return 0
    if "--check" in sys.argv:
        print("out of date: configuration.md; run make docs")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
