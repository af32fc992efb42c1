"""Python values to the parts of request messages; what is wrong whatever the server would say is refused here."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import UTC, date, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from kithkin._floats import float32
from kithkin._scalars import INT64, finite, plain
from kithkin.queries import Context, Described, Entity, Event, Link, Value
from kithkin.types import Fallback, Node, Ref, Score, ScoredEntity
from kithkin.v1 import types_pb2 as wire

_DESCRIBED_KEYS = tuple(f.name for f in fields(Described))


def exactly_one(call: str, **queries: object) -> None:
    """Raises TypeError unless just one of the ways to say the query is used."""
    given = [name for name, value in queries.items() if value is not None]
    if len(given) != 1:
        first, *rest = queries
        options = f"an {first}" if first[0] in "aeio" else f"a {first}"
        options += "".join(f" or {name}=..." for name in rest)
        what = f"not {' and '.join(given)} together" if given else "got none of them"
        raise TypeError(f"{call}() takes {options}, exactly one: {what}")


def count(name: str, value: int, least: int = 0) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    number = operator.index(value)
    if not least <= number < 2**31:
        raise ValueError(f"{name} must be at least {least} and below 2**31, not {number}")
    return number


def text(name: str, value: str | None) -> str:
    """A string; None becomes the empty one."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")
    return value


def many(name: str, items: Iterable[Any]) -> Iterable[Any]:
    """The items of a list; raises TypeError for a single one."""
    # A lone string is iterable too, and "1234" would quietly become the four ids 1, 2, 3, 4.
    if isinstance(items, str | bytes | Mapping | Ref | Node | ScoredEntity | Event | Described) or not isinstance(
        items, Iterable
    ):
        raise TypeError(f"{name} must be a list, not {items!r}; for a single one write [{items!r}]")
    if is_frame(items):
        raise TypeError(f"{name} is a whole frame; give one of its columns, such as frame['id']")
    return items


def is_frame(items: Any) -> bool:
    """True for a pandas or Polars frame: iterating over one gives its columns, not its rows."""
    return hasattr(items, "columns") and (hasattr(items, "itertuples") or hasattr(items, "iter_rows"))


def is_row(item: Any) -> bool:
    """True for one row of an array; a scalar of NumPy has a shape too, of no length."""
    return bool(getattr(item, "shape", None))


def rows_of(frame: Any) -> Iterable[dict[str, Any]]:
    """The rows of a frame by column name; cells without a value are left out."""
    rows = frame.iter_rows(named=True) if hasattr(frame, "iter_rows") else frame.to_dict("records")
    # pandas knows no value as None, NaN, NaT or NA; a list is none of them.
    return ({key: value for key, value in row.items() if not _missing(value)} for row in rows)


def _missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (value != value) is True


class SharedRefs:
    """A list of nodes that many requests hold, made into messages once for each type."""

    def __init__(self, name: str, items: Iterable[Entity]) -> None:
        self._name, self._items = name, list(many(name, items))
        self._made: dict[str | None, list[wire.NodeRef]] = {}

    def of(self, type: str | None) -> list[wire.NodeRef]:
        """The messages; `type` is for nodes that do not say theirs."""
        if type not in self._made:
            self._made[type] = refs(self._name, self._items, type)
        return self._made[type]


def refs(name: str, items: Iterable[Entity] | SharedRefs, type: str | None) -> list[wire.NodeRef]:
    """A list of nodes; `type` is for those that do not say theirs."""
    if isinstance(items, SharedRefs):
        return items.of(type)
    return [ref(name, item, type) for item in many(name, items)]


def ref(name: str, value: Entity, type: str | None = None) -> wire.NodeRef:
    """One node; `type` is for one that does not say its own."""
    if isinstance(value, ScoredEntity | Node):
        value = value.ref
    if isinstance(value, tuple):
        if len(value) != 2:
            raise ValueError(f"{name}: a tuple names a node as ('Type', 'id'), not {value!r}")
        value = Ref(value[0], _id(name, value[1]))
    if not isinstance(value, Ref):
        value = Ref("", _id(name, value))
    if not isinstance(value.type, str):
        raise TypeError(f"{name}: the node type must be a string, not {value.type!r}")
    # In lists and pairs `type` is for those that say none; for a single node, two types that differ are a slip.
    if value.type and type and value.type != type and name in ("entity", "user", "id"):
        raise ValueError(f"{name}: {value!r} already has a type, and type={type!r} is another")
    key = _id(name, value.id)
    if not key:
        raise ValueError(f"{name}: the id is empty")
    return wire.NodeRef(type=value.type or text("type", type), id=key)


def _id(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    # Id columns of data frames are often whole numbers; the graph's ids are their text.
    if hasattr(value, "__index__") and not isinstance(value, bool):
        return str(operator.index(value))
    raise TypeError(f"{name}: an entity is an id such as '1', ('Type', 'id'), a Ref or a result, not {value!r}")


def described_entity(value: Described | Mapping[str, Any], type: str | None) -> wire.DescribedEntity:
    """A described entity; `type` is for one that does not say its own."""
    if isinstance(value, Mapping):
        unknown = sorted(set(value) - set(_DESCRIBED_KEYS))
        if unknown:
            raise ValueError(
                f"described: no such key {unknown[0]!r}; it takes {', '.join(_DESCRIBED_KEYS)}, "
                "such as {'properties': {'year': 1999}, 'links': {'HAS_GENRE': ['Drama']}}"
            )
        value = Described(**value)
    if not isinstance(value, Described):
        raise TypeError(f"described must be a kithkin.Described or a dict of its fields, not {value!r}")
    message = wire.DescribedEntity(type=text("described.type", value.type or type))
    for name, item in value.properties.items():
        message.properties[name].CopyFrom(property_value(name, item))
    message.links.extend(
        wire.DescribedLink(relation=link.relation, node=ref("links", link.node), weight=_weight("links", link.weight))
        for link in _links(value.links)
    )
    return message


def _links(links: Iterable[Link] | Mapping[str, Iterable[Entity] | Mapping[Entity, float]]) -> Iterable[Link]:
    if isinstance(links, Mapping):
        for relation, nodes in links.items():
            if isinstance(nodes, Mapping):
                yield from (Link(relation, node, weight) for node, weight in nodes.items())
            else:
                yield from (Link(relation, node) for node in many(f"links[{relation!r}]", nodes))
        return
    for link in many("links", links):
        if not isinstance(link, Link):
            raise TypeError(f"links holds kithkin.Link(relation, node) or is a dict by relation name; got {link!r}")
        yield link


def event(item: Event | Entity, type: str | None) -> wire.Event:
    """One event of a user; `type` is for an entity that does not say its own."""
    event = item if isinstance(item, Event) else Event(item)
    message = wire.Event(entity=ref("events", event.entity, type), weight=_weight("events", event.weight))
    if event.time is not None:
        message.time.CopyFrom(_time(event.time))
    return message


def context_message(context: Context | Entity, type: str | None) -> wire.Context:
    """What a user looks at; `type` is for an entity that does not say its own."""
    whole = context if isinstance(context, Context) else Context(entity=context)
    message = wire.Context(concepts=refs("context.concepts", whole.concepts, None))
    if whole.entity is not None:
        message.entity.CopyFrom(ref("context.entity", whole.entity, type))
    elif not message.concepts:
        raise ValueError("context says nothing: give the entity that is looked at, or concepts, or both")
    return message


def fallback_value(fallback: Fallback | None) -> wire.Fallback:
    """What may be answered instead."""
    if fallback is None:
        return wire.FALLBACK_UNSPECIFIED
    if fallback != "popular":
        raise ValueError(f"fallback must be None or 'popular', not {fallback!r}")
    return wire.FALLBACK_POPULAR


def score_value(score: Score | None) -> wire.Score:
    """What ranks."""
    if score is None:
        return wire.SCORE_UNSPECIFIED
    if score != "neural":
        raise ValueError(f"score must be None or 'neural', not {score!r}")
    return wire.NEURAL


def number(name: str, value: float, least: float = -math.inf, most: float = math.inf) -> float:
    """A finite number between two."""
    if isinstance(value, bool) or not isinstance(plain(value), int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not finite(value):
        raise ValueError(f"{name} must be finite, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be between {least:g} and {most:g}, not {value!r}")
    return float(value)


def _weight(name: str, weight: float | None) -> float:
    if weight is None:
        return 0.0
    number = float(weight) if not isinstance(weight, int) or finite(weight) else math.inf
    # On the wire 0 stands for "not given": sending a true 0 would say the opposite of what was meant.
    if not math.isfinite(number) or number == 0:
        raise ValueError(f"{name}: a weight must be finite and not 0, not {weight!r}; leave out what should not count")
    return number


def property_value(name: str, value: Value) -> wire.PropertyValue:
    single = plain(value)
    if single is None:
        return wire.PropertyValue()
    if isinstance(single, str):
        return wire.PropertyValue(string_value=single)
    if isinstance(single, bool):
        return wire.PropertyValue(bool_value=single)
    if isinstance(single, int):
        if single not in INT64:
            raise ValueError(f"property {name!r}: {single} does not fit in 64 bits")
        return wire.PropertyValue(int_value=single)
    if isinstance(single, float):
        return wire.PropertyValue(float_value=single)
    if isinstance(single, date):
        return wire.PropertyValue(time_value=_time(single))
    if getattr(getattr(single, "dtype", None), "kind", "") in ("f", "i", "u"):
        return wire.PropertyValue(vector_value=wire.FloatList(values=float32(single)))
    if isinstance(single, Iterable) and not isinstance(single, bytes | bytearray | Mapping):
        values = [plain(item) for item in single]
        if all(isinstance(item, str) for item in values):
            return wire.PropertyValue(strings_value=wire.StringList(values=values))
        if all(isinstance(item, int | float) and not isinstance(item, bool) for item in values):
            return wire.PropertyValue(vector_value=wire.FloatList(values=float32(values)))
    raise TypeError(
        f"property {name!r}: a value is text, a number, a bool, a time, a list of texts or a vector, not {value!r}"
    )


def _time(value: date) -> Timestamp:
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    stamp = Timestamp()
    stamp.FromDatetime(moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment)
    return stamp
