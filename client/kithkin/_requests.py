"""Python values to the parts of request messages; what is wrong whatever the server would say is refused here."""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import UTC, date, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from kithkin.queries import Described, Entity, Event, Link, Value
from kithkin.types import Node, Ref, ScoredEntity, Vector
from kithkin.v1 import types_pb2 as wire

_DESCRIBED_KEYS = tuple(f.name for f in fields(Described))
_INT64 = range(-(2**63), 2**63)


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
    return items


def refs(name: str, items: Iterable[Entity], type: str | None) -> list[wire.NodeRef]:
    """A list of nodes; `type` is for those that do not say theirs."""
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


def vector_message(values: Iterable[float]) -> wire.Vector:
    """A vector of finite floats."""
    if isinstance(values, str | bytes | bytearray):
        raise TypeError("vector must be numbers, not text or bytes")
    try:
        floats = array("f", values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"vector must be a flat list of numbers: {error}") from None
    if not floats:
        raise ValueError("vector is empty")
    for i, value in enumerate(floats):
        if not math.isfinite(value):
            raise ValueError(f"vector[{i}] is {value} as float32; every value must be finite")
    message = wire.Vector(values=floats)
    if isinstance(values, Vector):
        message.space, message.bundle_version = values.space, values.bundle_version
    return message


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
        message.properties[name].CopyFrom(_property(name, item))
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


def _weight(name: str, weight: float | None) -> float:
    if weight is None:
        return 0.0
    number = float(weight)
    # On the wire 0 stands for "not given": sending a true 0 would say the opposite of what was meant.
    if not math.isfinite(number) or number == 0:
        raise ValueError(f"{name}: a weight must be finite and not 0, not {weight!r}; leave out what should not count")
    return number


def _property(name: str, value: Value) -> wire.PropertyValue:
    plain = _plain(value)
    if plain is None:
        return wire.PropertyValue()
    if isinstance(plain, str):
        return wire.PropertyValue(string_value=plain)
    if isinstance(plain, bool):
        return wire.PropertyValue(bool_value=plain)
    if isinstance(plain, int):
        if plain not in _INT64:
            raise ValueError(f"property {name!r}: {plain} does not fit in 64 bits")
        return wire.PropertyValue(int_value=plain)
    if isinstance(plain, float):
        return wire.PropertyValue(float_value=plain)
    if isinstance(plain, date):
        return wire.PropertyValue(time_value=_time(plain))
    if isinstance(plain, Iterable) and not isinstance(plain, bytes | bytearray | Mapping):
        values = [_plain(item) for item in plain]
        if all(isinstance(item, str) for item in values):
            return wire.PropertyValue(strings_value=wire.StringList(values=values))
        if all(isinstance(item, int | float) and not isinstance(item, bool) for item in values):
            return wire.PropertyValue(vector_value=wire.FloatList(values=values))
    raise TypeError(
        f"property {name!r}: a value is text, a number, a bool, a time, a list of texts or a vector, not {value!r}"
    )


def _plain(value: Any) -> Any:
    """Python's own value for NumPy's scalars."""
    if getattr(getattr(value, "dtype", None), "kind", "") == "M":
        value = value.astype("datetime64[us]")  # a datetime64[ns] would become a bare integer
    return value.item() if hasattr(value, "item") and not isinstance(value, Iterable) else value


def _time(value: date) -> Timestamp:
    moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    stamp = Timestamp()
    stamp.FromDatetime(moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment)
    return stamp
