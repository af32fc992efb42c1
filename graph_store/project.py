"""``kithkin.toml``, read and checked: the schema, the sources and the settings of one project."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from graph_store.checks import Check, verify_check
from graph_store.errors import ConfigError, known_hint
from graph_store.presets import below, load_preset, preset_names
from graph_store.schema import GraphSchema, NodeType, PropertyType, Relation, RelationRole
from graph_store.settings import Settings
from graph_store.sources import Source

Model = TypeVar("Model", bound=BaseModel)

FILE_NAME = "kithkin.toml"
ENVIRONMENT_PREFIX = "KITHKIN_"
_TOP_LEVEL_VARIABLES = ("KITHKIN_DATA", "KITHKIN_WORK")
_SETTING_SECTIONS = ("store", "ingest", "export", "training", "evaluation", "publish", "retrain", "serving")


@dataclass(frozen=True, kw_only=True, slots=True)
class Project:
    """One declared graph with everything needed to build and serve it."""

    file: Path
    """The kithkin.toml."""
    name: str
    schema: GraphSchema
    sources: tuple[Source, ...]
    settings: Settings
    checks: tuple[Check, ...] = ()
    """What the rows of a load must hold before they are written."""

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
    if not start.exists():
        raise ConfigError(f"no such file or folder: {start}", hint="Give a kithkin.toml, or the folder that holds it.")
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
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", file=file, hint="Check the file's rights.") from None
    except UnicodeDecodeError as error:
        message = f"not UTF-8: {error.reason} at byte {error.start}"
        raise ConfigError(message, file=file, hint="Save it as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        hint = "Texts need quotes, and a table may be declared once only."
        raise ConfigError(f"not valid TOML: {error}", file=file, hint=hint) from None
    return parse_project(document, file=file, overrides=overrides, environment=environment)


def parse_project(
    document: Mapping[str, Any],
    *,
    file: Path,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Project:
    """Check a parsed kithkin.toml; see ``load_project``."""
    known = {"name", "work", "data", "nodes", "relations", "sources", "checks", *_SETTING_SECTIONS}
    for key, value in document.items():
        if key not in known:
            shown = value if isinstance(value, (str, int, float)) else None
            raise ConfigError("unknown key", file=file, key=key, value=shown, hint=known_hint(key, known))

    nodes = document.get("nodes", {})
    if not isinstance(nodes, dict) or not nodes:
        raise ConfigError("declares no node types ([nodes.Movie] ...)", file=file, key="nodes")
    node_types = tuple(
        _validate(NodeType, {**_table(body, file, f"nodes.{name}"), "name": name}, file, f"nodes.{name}")
        for name, body in nodes.items()
    )
    relations = tuple(
        _validate(Relation, _table(body, file, f"relations[{number}]"), file, f"relations[{number}]")
        for number, body in enumerate(_tables(document, "relations", file))
    )
    schema = _validate(GraphSchema, {"node_types": node_types, "relations": relations}, file, "")
    sources = tuple(
        _validate(Source, _table(body, file, f"sources[{number}]"), file, f"sources[{number}]")
        for number, body in enumerate(_tables(document, "sources", file))
    )
    for number, source in enumerate(sources):
        _check_source(schema, source, file, f"sources[{number}]")
    checks = tuple(
        _validate(Check, _table(body, file, f"checks[{number}]"), file, f"checks[{number}]")
        for number, body in enumerate(_tables(document, "checks", file))
    )
    for number, check in enumerate(checks):
        verify_check(schema, sources, check, file, f"checks[{number}]")
    given = {key: document[key] for key in ("work", "data", *_SETTING_SECTIONS) if key in document}
    given, origins = _layered(given, os.environ if environment is None else environment, overrides or {}, file)
    settings = _validate(Settings, _over_preset(given, file), file, "", origins)
    settings = settings.model_copy(update={"store": settings.store.within(file.parent)})
    name = document.get("name", file.resolve().parent.name)
    if not isinstance(name, str) or not name:
        raise ConfigError("must be a text", file=file, key="name", value=name)
    return Project(file=file, name=name, schema=schema, sources=sources, settings=settings, checks=checks)


def _over_preset(given: dict[str, Any], file: Path) -> dict[str, Any]:
    """The settings over those of the preset that they name, if they do."""
    training = given.get("training")
    name = training.get("preset") if isinstance(training, dict) else None
    if not isinstance(training, dict) or not isinstance(name, str):
        return given
    try:
        return {**given, "training": below(training, load_preset(name))}
    except KeyError:
        hint = known_hint(name, preset_names())
        raise ConfigError("no such preset", file=file, key="training.preset", value=name, hint=hint) from None


def _table(body: object, file: Path, key: str) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ConfigError("must be a table", file=file, key=key, value=body)
    return body


def _tables(document: Mapping[str, Any], key: str, file: Path) -> list[Any]:
    bodies = document.get(key, [])
    if not isinstance(bodies, list):
        raise ConfigError("must be an array of tables", file=file, key=key, hint=f"Write each under [[{key}]].")
    return bodies


def _validate(
    model: type[Model], data: Mapping[str, Any], file: Path, key: str, origins: Mapping[str, str] | None = None
) -> Model:
    """Check against a model; ``origins`` says which dotted keys came from elsewhere than the file."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first, *others = error.errors()
        place = key
        for part in first["loc"]:
            place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
        message = first["msg"].removeprefix("Value error, ")
        hint = ""
        if first["type"] == "extra_forbidden":
            message = "unknown key"
            hint = known_hint(str(first["loc"][-1]), _fields_at(model, first["loc"][:-1]))
        if others:
            message += f" (and {len(others)} more)"
        value = first["input"] if isinstance(first["input"], (str, int, float, bool)) else None
        if place == "store.password":
            value, hint = None, "It never stands in kithkin.toml: KITHKIN_STORE_PASSWORD, or store.password_file."
        for dotted, origin in (origins or {}).items():
            if dotted == place or dotted.startswith(f"{place}."):
                message += f", from {origin}"
        raise ConfigError(message, file=file, key=place, value=value, hint=hint) from None


def _fields_at(model: type[BaseModel], path: Sequence[int | str]) -> set[str]:
    """Names of the keys that may stand at ``path`` in a model's data."""
    current: Any = model
    for part in path:
        annotation = (
            current.model_fields[part].annotation if isinstance(part, str) and part in _names(current) else current
        )
        while not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            inner = [argument for argument in get_args(annotation) if argument not in (str, Ellipsis, type(None))]
            if not inner:
                break
            annotation = inner[-1]
        current = annotation
    return _names(current)


def _names(model: Any) -> set[str]:
    return set(model.model_fields) if isinstance(model, type) and issubclass(model, BaseModel) else set()


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
        for name in relation.key_columns[2:]:
            if name not in source.properties:
                raise ConfigError(
                    f"an edge of {relation.triple} is identified by {name!r} too, and this source does not fill it",
                    file=file,
                    key=f"{key}.properties",
                    hint=f'Name its column, or give a constant: {name} = {{ value = "..." }}.',
                )
        counted = source.count_as
        if counted is not None and (counted not in declared or declared[counted].type is not PropertyType.INT):
            raise ConfigError("must be a declared int property", file=file, key=f"{key}.count_as", value=counted)
        if counted is not None and counted in source.properties:
            message = "is counted, no column may fill it too"
            raise ConfigError(message, file=file, key=f"{key}.count_as", value=counted)
    for name, spec in source.properties.items():
        if name not in declared:
            hint = known_hint(name, declared) if declared else "Declare it under `properties`."
            raise ConfigError("is not a declared property", file=file, key=f"{key}.properties", value=name, hint=hint)
        if spec.split and declared[name].type not in (PropertyType.STRINGS, PropertyType.VECTOR):
            raise ConfigError(
                f"split gives several values, but the property is of type {declared[name].type.value}",
                file=file,
                key=f"{key}.properties.{name}.split",
                value=spec.split,
                hint='Declare the property as type = "strings", or take one part with `extract`.',
            )


def _layered(
    given: dict[str, Any], environment: Mapping[str, str], overrides: Mapping[str, Any], file: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """Put the environment above the file, and the overrides above both; and which keys came from where."""
    result: dict[str, Any] = {key: dict(value) if isinstance(value, Mapping) else value for key, value in given.items()}
    from_environment = {
        name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", "."): (value, f"the environment's {name}")
        for name, value in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX) and ("__" in name or name in _TOP_LEVEL_VARIABLES)
    }
    origins: dict[str, str] = {}
    from_flags = {key: (value, "the command line") for key, value in overrides.items()}
    for key, (value, origin) in (*from_environment.items(), *from_flags.items()):
        if value is None:
            continue
        origins[key] = origin
        section: dict[str, Any] = result
        *path, last = key.split(".")
        for part in path:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigError(f"is not a section, from {origin}", file=file, key=key, value=value)
        section[last] = value
    return result, origins
