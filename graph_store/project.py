"""``kithkin.toml``, read and checked: the schema, the sources and the settings of one project."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from graph_store.errors import ConfigError
from graph_store.schema import GraphSchema, NodeType, PropertyType, Relation, RelationRole
from graph_store.settings import Settings
from graph_store.sources import Source

Model = TypeVar("Model", bound=BaseModel)

FILE_NAME = "kithkin.toml"
ENVIRONMENT_PREFIX = "KITHKIN_"
_TOP_LEVEL_VARIABLES = ("KITHKIN_DATA", "KITHKIN_WORK")
_SETTING_SECTIONS = ("store", "ingest", "training", "evaluation", "publish", "serving")


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """One declared graph with everything needed to build and serve it."""

    file: Path
    """The kithkin.toml."""
    name: str
    schema: GraphSchema
    sources: tuple[Source, ...]
    settings: Settings

    @property
    def folder(self) -> Path:
        """The folder of kithkin.toml, which relative paths start from."""
        return self.file.parent

    @property
    def work(self) -> Path:
        """Folder for what Kithkin makes; created when first needed."""
        return self.folder / self.settings.work

    @property
    def data(self) -> Path:
        """Folder that the paths of the sources and judgements start from."""
        return self.folder / self.settings.data


def find_project_file(start: Path | None = None) -> Path:
    """The nearest kithkin.toml in ``start`` (a folder or the file itself) or above; ConfigError where none is."""
    start = (start or Path.cwd()).resolve()
    if start.is_file():
        return start
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise ConfigError(
        f"no {FILE_NAME} in {start} or above",
        hint="Run `kithkin init PATH` on a folder of data files, or give the file with --project.",
    )


def load_project(
    path: Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Project:
    """Read and check a kithkin.toml.

    ``overrides`` are settings by dotted key (``"store.uri"``), above the environment, above the file. Raises
    ConfigError that names file, key and value of the first thing wrong (and how many more there are).
    """
    file = find_project_file(path)
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8: {error.reason} at byte {error.start}", file=file) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}", file=file) from None
    return parse_project(document, file=file, overrides=overrides, environment=environment)


def parse_project(
    document: Mapping[str, Any],
    *,
    file: Path,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Project:
    """Check a parsed kithkin.toml; see ``load_project``."""
    known = {"name", "work", "data", "nodes", "relations", "sources", *_SETTING_SECTIONS}
    for key, value in document.items():
        if key not in known:
            raise ConfigError(f"unknown key, known are {', '.join(sorted(known))}", file=file, key=key, value=value)

    nodes = document.get("nodes", {})
    if not isinstance(nodes, dict) or not nodes:
        raise ConfigError("declares no node types ([nodes.Movie] ...)", file=file, key="nodes")
    node_types = tuple(
        _validate(NodeType, {**_table(body, file, f"nodes.{name}"), "name": name}, file, f"nodes.{name}")
        for name, body in nodes.items()
    )
    relations = tuple(
        _validate(Relation, _table(body, file, f"relations[{number}]"), file, f"relations[{number}]")
        for number, body in enumerate(document.get("relations", []))
    )
    schema = _validate(GraphSchema, {"node_types": node_types, "relations": relations}, file, "")
    sources = tuple(
        _validate(Source, _table(body, file, f"sources[{number}]"), file, f"sources[{number}]")
        for number, body in enumerate(document.get("sources", []))
    )
    for number, source in enumerate(sources):
        _check_source(schema, source, file, f"sources[{number}]")
    given = {key: document[key] for key in ("work", "data", *_SETTING_SECTIONS) if key in document}
    given = _layered(given, os.environ if environment is None else environment, overrides or {}, file)
    settings = _validate(Settings, given, file, "")
    name = document.get("name", file.resolve().parent.name)
    if not isinstance(name, str) or not name:
        raise ConfigError("must be a text", file=file, key="name", value=name)
    return Project(file=file, name=name, schema=schema, sources=sources, settings=settings)


def _table(body: object, file: Path, key: str) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ConfigError("must be a table", file=file, key=key, value=body)
    return body


def _validate(model: type[Model], data: Mapping[str, Any], file: Path, key: str) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first, *others = error.errors()
        place = ".".join(part for part in (key, *(str(part) for part in first["loc"])) if part)
        message = first["msg"].removeprefix("Value error, ")
        if others:
            message += f" (and {len(others)} more)"
        value = first["input"] if isinstance(first["input"], (str, int, float, bool)) else None
        raise ConfigError(message, file=file, key=place, value=value) from None


def _check_source(schema: GraphSchema, source: Source, file: Path, key: str) -> None:
    """A source may only fill what is declared."""
    if source.node is not None:
        try:
            declared = schema.node_type(source.node).properties
        except KeyError:
            raise ConfigError("is not a declared node type", file=file, key=f"{key}.node", value=source.node) from None
    else:
        assert source.relation is not None
        try:
            relation: Relation = schema.relation(source.relation)
        except KeyError:
            raise ConfigError(
                f"relation {source.relation} is not declared",
                file=file,
                key=f"{key}.relation",
                hint="Declare it under [[relations]], or correct the triple.",
            ) from None
        if relation.role is RelationRole.CO_ENGAGEMENT and relation.derive:
            raise ConfigError(f"{source.relation} is derived, no source may fill it", file=file, key=f"{key}.relation")
        declared = relation.properties
        counted = source.count_as
        if counted is not None and (counted not in declared or declared[counted].type is not PropertyType.INT):
            raise ConfigError("must be a declared int property", file=file, key=f"{key}.count_as", value=counted)
    for name in source.properties:
        if name not in declared:
            raise ConfigError("is not a declared property", file=file, key=f"{key}.properties", value=name)


def _layered(
    given: dict[str, Any], environment: Mapping[str, str], overrides: Mapping[str, Any], file: Path
) -> dict[str, Any]:
    """Put the environment above the file, and the overrides above both."""
    result: dict[str, Any] = {key: dict(value) if isinstance(value, Mapping) else value for key, value in given.items()}
    from_environment = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", "."): value
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX) and ("__" in name or name in _TOP_LEVEL_VARIABLES)
    }
    for key, value in (*from_environment.items(), *overrides.items()):
        if value is None:
            continue
        section: dict[str, Any] = result
        *path, last = key.split(".")
        for part in path:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigError("is not a section", file=file, key=key, value=value)
        section[last] = value
    return result
