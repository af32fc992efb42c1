"""Declared checks: what the rows of a load must hold before any of them is written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    field_validator,
    model_validator,
)

from graph_store.errors import ConfigError, known_hint
from graph_store.schema import GraphSchema, NodeType, PropertyType, Relation, Triple
from graph_store.sources import Source

_TIMES = (PropertyType.DATE, PropertyType.TIMESTAMP)
_NUMBERS = (PropertyType.INT, PropertyType.FLOAT)
_FITTING: dict[str, tuple[PropertyType, ...]] = {
    "required": tuple(PropertyType),
    "unique": (PropertyType.STRING, *_NUMBERS, *_TIMES),
    "range": (*_NUMBERS, *_TIMES),
    "allowed": (PropertyType.STRING, PropertyType.INT, PropertyType.BOOL, PropertyType.STRINGS),
    "no_future": _TIMES,
}


class CheckLevel(StrEnum):
    """What a check that fails does."""

    ERROR = "error"
    WARN = "warn"


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RangeCheck(_Declared):
    """Values from ``min`` to ``max``, both included; rows without a value pass."""

    property: str
    """A number or a time."""
    min: StrictInt | StrictFloat | datetime | date | None = None
    """Nothing: no lower end. For times a date or a time (without an offset UTC)."""
    max: StrictInt | StrictFloat | datetime | date | None = None
    """Nothing: no upper end."""

    @model_validator(mode="after")
    def _ends(self) -> RangeCheck:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        ends = [end for end in (self.min, self.max) if end is not None]
        if len({isinstance(end, date) for end in ends}) > 1:
            raise ValueError("min and max must both be numbers, or both times")
        if len(ends) == 2 and _comparable(ends[0]) > _comparable(ends[1]):
            raise ValueError("min must not be above max")
        return self


class AllowedCheck(_Declared):
    """Values from a list; rows without a value pass."""

    property: str
    """A text, whole number, true/false, or texts, each of which must be in the list."""
    values: tuple[StrictBool | StrictInt | StrictStr, ...] = Field(min_length=1)
    """What may stand there, letter by letter."""


class Check(_Declared):
    """One check of the rows of one node type or relation: one of required, unique, range, allowed, has, no_future."""

    node: str | None = None
    """The node type whose rows are checked."""
    relation: Triple | None = None
    """The relation whose rows are checked, as its triple."""
    level: CheckLevel = CheckLevel.ERROR
    """Error: past ``tolerance`` nothing is written. Warn: it is only told."""
    tolerance: float = Field(default=0.0, ge=0, lt=1)
    """Share of the checked rows that may fail."""

    required: str | None = None
    """Property that every node or edge must have a value of, from whichever source."""
    unique: str | None = None
    """Property of which no two nodes or edges may have the same value."""
    range: RangeCheck | None = None
    """Ends of a number or a time."""
    allowed: AllowedCheck | None = None
    """A list of values."""
    has: str | None = None
    """Name of a relation of which every node must have an edge, at either end."""
    no_future: str | None = None
    """Time property that may not be later than now (a date: than today, UTC)."""

    @field_validator("relation", mode="before")
    @classmethod
    def _triple(cls, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or len(value) != 3:
            raise ValueError('a relation is three names: ["Movie", "HAS_GENRE", "Genre"]')
        return Triple(*value)

    @model_validator(mode="after")
    def _one(self) -> Check:
        if (self.node is None) == (self.relation is None):
            raise ValueError("a check is of either a node or a relation")
        kinds = ", ".join((*_FITTING, "has"))
        if sum(getattr(self, name) is not None for name in (*_FITTING, "has")) != 1:
            raise ValueError(f"a check has exactly one of {kinds}")
        if self.has is not None and self.node is None:
            raise ValueError("has is a check of a node")
        return self

    @property
    def kind(self) -> str:
        """Which check it is: required, unique, range, allowed, has or no_future."""
        return next(name for name in (*_FITTING, "has") if getattr(self, name) is not None)

    @property
    def property_name(self) -> str | None:
        """The property that is looked at; None for ``has``."""
        asked = getattr(self, self.kind)
        if isinstance(asked, (RangeCheck, AllowedCheck)):
            return asked.property
        return None if self.kind == "has" else str(asked)

    def __str__(self) -> str:
        if self.range is not None:
            ends = (self.range.min, self.range.max)
            asked = f"{self.range.property} {' to '.join('' if end is None else str(end) for end in ends).strip()}"
        elif self.allowed is not None:
            more = ", ..." if len(self.allowed.values) > 3 else ""
            asked = f"{self.allowed.property} in {', '.join(map(str, self.allowed.values[:3]))}{more}"
        else:
            asked = str(getattr(self, self.kind))
        return f"{self.node or self.relation}: {self.kind} {asked}"


def verify_check(schema: GraphSchema, sources: Sequence[Source], check: Check, file: Path, key: str) -> None:
    """ConfigError, with file and key, for a check of what is not declared or of what no source fills."""
    declared = _declared(schema, check, file, key)
    # A project without sources is filled by changes alone, and loads nothing to check.
    filling = [source for source in sources if (source.node, source.relation) == (check.node, check.relation)]
    if sources and not filling:
        subject, value = ("node", check.node) if check.node is not None else ("relation", str(check.relation))
        hint = "A check reads the rows of sources; take it out, or name a file under [[sources]]."
        raise ConfigError("no source fills it", file=file, key=f"{key}.{subject}", value=value, hint=hint)
    name = check.property_name
    if check.has is not None:
        _verify_has(schema, sources, check, file, key)
        return
    assert name is not None
    place = f"{key}.{check.kind}" + (".property" if check.kind in ("range", "allowed") else "")
    if name not in declared.properties:
        hint = known_hint(name, declared.properties) if declared.properties else "Declare it under `properties`."
        raise ConfigError("is not a declared property", file=file, key=place, value=name, hint=hint)
    if filling and not any(name in source.properties or name == source.count_as for source in filling):
        hint = "Read it from a column under `properties` of a source, or take the check out."
        raise ConfigError("no source fills this property", file=file, key=place, value=name, hint=hint)
    kind = declared.properties[name].type
    if kind not in _FITTING[check.kind]:
        known = ", ".join(fitting.value for fitting in _FITTING[check.kind])
        message = f"{check.kind} needs a property of type {known}, not {kind.value}"
        raise ConfigError(message, file=file, key=place, value=name)
    _verify_values(check, kind, file, key)


def _declared(schema: GraphSchema, check: Check, file: Path, key: str) -> NodeType | Relation:
    if check.node is not None:
        try:
            return schema.node_type(check.node)
        except KeyError:
            hint = known_hint(check.node, [node_type.name for node_type in schema.node_types])
            message = "is not a declared node type"
            raise ConfigError(message, file=file, key=f"{key}.node", value=check.node, hint=hint) from None
    assert check.relation is not None
    try:
        relation: Relation = schema.relation(check.relation)
    except KeyError:
        message, hint = f"relation {check.relation} is not declared", "Declare it under [[relations]], or correct it."
        raise ConfigError(message, file=file, key=f"{key}.relation", hint=hint) from None
    if relation.derive:
        message = f"{check.relation} is derived after the load, its edges are not checked"
        raise ConfigError(message, file=file, key=f"{key}.relation", hint="Check the engagements it comes from.")
    return relation


def _verify_has(schema: GraphSchema, sources: Sequence[Source], check: Check, file: Path, key: str) -> None:
    assert check.has is not None
    reaching = [relation for relation in schema.relations if check.node in (relation.triple[0], relation.triple[2])]
    named = [relation for relation in reaching if relation.triple.name == check.has]
    place = f"{key}.has"
    if not named:
        message = f"no relation of this name joins {check.node}"
        hint = known_hint(check.has, {relation.triple.name for relation in reaching}) if reaching else ""
        raise ConfigError(message, file=file, key=place, value=check.has, hint=hint)
    filled = {source.relation for source in sources}
    if sources and not any(relation.triple in filled for relation in named):
        hint = "A check reads the rows of sources; edges that are derived come later."
        raise ConfigError("no source fills this relation", file=file, key=place, value=check.has, hint=hint)


def _verify_values(check: Check, kind: PropertyType, file: Path, key: str) -> None:
    """The ends and values must be of the property's type."""
    given: list[tuple[str, object]] = []
    if check.range is not None:
        ends = (("min", check.range.min), ("max", check.range.max))
        wanted: tuple[type, ...] = (date,) if kind in _TIMES else (int, float)
        given = [(f"range.{name}", end) for name, end in ends if end is not None and not isinstance(end, wanted)]
    elif check.allowed is not None:
        # True is an int in Python, and not in a graph.
        types = {PropertyType.INT: int, PropertyType.BOOL: bool}
        given = [("allowed.values", value) for value in check.allowed.values if type(value) is not types.get(kind, str)]
    for name, value in given[:1]:
        message = f"does not fit the property, which is of type {kind.value}"
        raise ConfigError(message, file=file, key=f"{key}.{name}", value=value)


def _comparable(end: Any) -> Any:
    return utc(end) if isinstance(end, date) else end


def utc(moment: date) -> datetime:
    """A date (its midnight) or a time as a UTC time without a zone."""
    if not isinstance(moment, datetime):
        return datetime(moment.year, moment.month, moment.day)
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
