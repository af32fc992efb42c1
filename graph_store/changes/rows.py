"""One change as it is given: what it is about, and its values before they are typed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

from graph_store.schema import GraphSchema, NodeType, Relation, Triple

Operation = Literal["upsert", "delete"]
BLANKS = " \t\r\n\u00a0\ufeff"
_KEYS = ("op", "type", "relation", "id", "source", "target", "properties")


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """One row as it stands in a file, or in a list from Python."""

    number: int
    """The line in its file, or the place in the list, from 1."""
    values: Mapping[str, Any]
    """``op``, ``type`` or ``relation``, ``id`` or ``source`` and ``target``, ``properties`` (a mapping)."""
    text: str
    """The row as people see it."""
    flat: bool = False
    """Columns of a table: those of other types are there and empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reject:
    """Why a row is bad."""

    number: int
    column: str
    value: str | None
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One change of a declared node or edge; ``properties`` are texts, lists of texts or None until they are typed."""

    number: int
    op: Operation
    declared: NodeType | Relation
    ends: tuple[str, ...]
    """``(id,)``, or ``(source, target)``."""
    properties: dict[str, Any] = field(default_factory=dict)


class Bad(Exception):  # not an error: carries what is wrong with one row to who gathers the bad ones
    """One row is bad."""

    def __init__(self, column: str, value: object, reason: str) -> None:
        super().__init__()
        self.column, self.value, self.reason = column, None if value is None else str(value), reason


def read(schema: GraphSchema, rows: Iterable[Given]) -> tuple[list[Change], list[Reject]]:
    """The rows as changes of what the schema declares, and the bad ones."""
    changes, rejects = [], []
    for row in rows:
        try:
            changes.append(_change(schema, row))
        except Bad as bad:
            rejects.append(Reject(number=row.number, column=bad.column, value=bad.value, reason=bad.reason))
    return changes, rejects


def _change(schema: GraphSchema, row: Given) -> Change:
    values = row.values
    unknown = [key for key in values if key not in _KEYS]
    if unknown:
        raise Bad(unknown[0], None, f"not a key of a change; there are {', '.join(_KEYS)}")
    op = values.get("op")
    if op not in ("upsert", "delete"):
        raise Bad("op", op, "not upsert or delete")
    declared = _declared(schema, values)
    wanted = ("id",) if isinstance(declared, NodeType) else ("source", "target")
    for name in {"id", "source", "target"}.difference(wanted):
        if values.get(name) not in (None, ""):
            raise Bad(name, values[name], f"a change of a {'node' if 'id' in wanted else 'relation'} has none")
    ends = tuple(_identity(name, values.get(name)) for name in wanted)
    properties = values.get("properties")
    if properties is None:
        properties = {}
    if not isinstance(properties, Mapping):
        raise Bad("properties", properties, "not an object of properties")
    kept: dict[str, Any] = {}
    for name, value in properties.items():
        if name not in declared.properties:
            if row.flat and (value is None or value == ""):
                continue
            filled = declared.name if isinstance(declared, NodeType) else str(declared.triple)
            close = difflib.get_close_matches(str(name), list(declared.properties), n=1)
            meant = f", did you mean {close[0]!r}?" if close else ""
            raise Bad(str(name), value, f"not a declared property of {filled}{meant}")
        kept[name] = _plain(name, value)
    return Change(number=row.number, op=op, declared=declared, ends=ends, properties=kept)


def _declared(schema: GraphSchema, values: Mapping[str, Any]) -> NodeType | Relation:
    node, relation = values.get("type"), values.get("relation")
    if (node in (None, "")) == (relation in (None, "")):
        raise Bad("type", node, "name either a node type (type) or a relation (relation)")
    if node not in (None, ""):
        for node_type in schema.node_types:
            if node_type.name == node:
                return node_type
        raise Bad("type", node, f"not a declared node type; there are {', '.join(n.name for n in schema.node_types)}")
    triples = {each.triple: each for each in schema.relations}
    if isinstance(relation, (list, tuple)):
        if len(relation) == 3 and Triple(*relation) in triples:
            return triples[Triple(*relation)]
    else:
        named = [each for triple, each in triples.items() if relation in (triple.name, triple.key)]
        if len(named) == 1:
            return named[0]
        if named:
            keys = ", ".join(each.triple.key for each in named)
            raise Bad("relation", relation, f"several relations have this name, write one of {keys}")
    raise Bad("relation", relation, f"not a declared relation; there are {', '.join(t.key for t in triples)}")


def _identity(name: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is not None and not isinstance(value, str):
        raise Bad(name, value, "not a text")
    text = (value or "").strip(BLANKS)
    if not text:
        raise Bad(name, None, "empty id")
    return text


def _plain(name: str, value: Any) -> Any:
    """A value as ingest reads it: a text, a list of texts, or None."""
    if isinstance(value, (list, tuple)):
        items = [_plain(name, item) for item in value]
        if any(isinstance(item, list) for item in items):
            raise Bad(name, value, "a list of lists")
        return items
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, (int, float)):
        return repr(value)
    if hasattr(value, "tolist"):  # NumPy's
        return _plain(name, value.tolist())
    raise Bad(name, value, f"of the kind {type(value).__name__}, not a text, number, time, or list of them")
