"""The JSON Schema of kithkin.toml, for editors, made from the models that read it.

Draft 4, the one that Taplo (Even Better TOML) knows wholly. What only the models can tell (that a name is declared,
that two keys fit each other) the schema leaves open: every kithkin.toml that can be read fits it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from graph_store.checks import Check
from graph_store.schema import NodeType, Relation
from graph_store.settings import Settings
from graph_store.sources import Source

FILE_NAME = "kithkin.schema.json"
_REFERENCE = "#/definitions/"
_LISTS: dict[str, type[BaseModel]] = {"relations": Relation, "sources": Source, "checks": Check}


def json_schema() -> dict[str, Any]:
    """The schema as plain JSON values."""
    models: list[type[BaseModel]] = [Settings, NodeType, *_LISTS.values()]
    made = models_json_schema([(model, "validation") for model in models], ref_template=_REFERENCE + "{model}")[1]
    definitions: dict[str, Any] = made["$defs"]
    known = _models(models)
    for name, definition in definitions.items():
        if name in known:
            for field, text in field_docstrings(known[name]).items():
                definition["properties"][field]["description"] = text
    _short_columns(definitions["Source"])
    _named_by_its_table(definitions["NodeType"])
    top = definitions.pop("Settings")
    properties: dict[str, Any] = {
        "name": {"type": "string", "minLength": 1, "description": "The project's name; nothing: the folder's."},
        "nodes": {
            "type": "object",
            "additionalProperties": {"$ref": f"{_REFERENCE}NodeType"},
            "minProperties": 1,
            "description": "Node types by name: [nodes.Movie].",
        },
    }
    for key, model in _LISTS.items():
        reference = {"$ref": _REFERENCE + model.__name__}
        properties[key] = {"type": "array", "items": reference, "description": _first_sentence(model)}
    plain: dict[str, Any] = _draft_4(
        {
            "type": "object",
            "properties": {**properties, **top["properties"]},
            "required": ["nodes"],
            "additionalProperties": False,
            "definitions": definitions,
        }
    )
    return {"$schema": "http://json-schema.org/draft-04/schema#", "title": "kithkin.toml", **plain}


def field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """What stands as a string under each field of a model, its own and inherited ones."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if not issubclass(kind, BaseModel) or kind is BaseModel:
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in zip(definition.body, definition.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = " ".join(str(text.value.value).split()).replace("``", "`")
    return found


def _models(roots: list[type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """Every model that can be reached, by the name that its definition has."""
    found: dict[str, type[BaseModel]] = {}
    waiting: list[Any] = list(roots)
    while waiting:
        kind = waiting.pop()
        waiting.extend(getattr(kind, "__args__", ()))
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind.__name__ not in found:
            found[kind.__name__] = kind
            waiting.extend(field.annotation for field in kind.model_fields.values())
    return found


def _short_columns(source: dict[str, Any]) -> None:
    """A plain text is short for a column."""
    column = {"anyOf": [{"type": "string"}, {"$ref": f"{_REFERENCE}ColumnSpec"}]}
    for name in ("id", "source", "target"):
        source["properties"][name] |= column
    source["properties"]["properties"]["additionalProperties"] = column


def _named_by_its_table(node_type: dict[str, Any]) -> None:
    del node_type["properties"]["name"]
    node_type["required"].remove("name")


def _first_sentence(model: type[BaseModel]) -> str:
    return (inspect.getdoc(model) or "").split("\n")[0].replace("``", "`")


def _draft_4(schema: Any) -> Any:
    """Pydantic's schema (2020-12) in the words of draft 4, without nulls, which TOML has not."""
    if isinstance(schema, list):
        return [_draft_4(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key != "title" and not (key == "default" and value is None)}
    for key in ("properties", "definitions"):
        if key in kept:
            # Names of properties, not words of the schema.
            kept[key] = {name: _draft_4(value) for name, value in kept[key].items()}
    done = {
        key: value if key in ("properties", "definitions", "default", "enum") else _draft_4(value)
        for key, value in kept.items()
    }
    if isinstance(done.get("description"), str):
        done["description"] = done["description"].replace("``", "`")
    if done.get("format") == "path":
        del done["format"]
    if "anyOf" in done:
        choices = [choice for choice in done["anyOf"] if choice != {"type": "null"}]
        if len(choices) == 1:
            del done["anyOf"]
            done = {**choices[0], **done}
        else:
            done["anyOf"] = choices
    if "prefixItems" in done:
        first, *_ = done.pop("prefixItems")
        done["items"] = first
    if "const" in done:
        done["enum"] = [done.pop("const")]
    for bound in ("Minimum", "Maximum"):
        if f"exclusive{bound}" in done and done[f"exclusive{bound}"] is not True:
            done[bound.lower()] = done[f"exclusive{bound}"]
            done[f"exclusive{bound}"] = True
    if "$ref" in done and len(done) > 1:
        # Draft 4 reads nothing beside a reference.
        done["allOf"] = [{"$ref": done.pop("$ref")}]
    return done
