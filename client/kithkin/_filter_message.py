"""Filters of `kithkin.filters` to the messages of the wire."""

from __future__ import annotations

from typing import Any

from kithkin._requests import property_value, refs
from kithkin.filters import AllOf, AnyOf, Equals, Filter, Linked, Negated, OneOf, Present, Property, Range
from kithkin.v1 import types_pb2 as wire

_DEEPEST = 40
"""The server takes 20 levels and says so itself; protobuf's own limit, which says little, lies at 100 messages."""


def filter_message(value: Any) -> wire.Filter:
    """The message of a filter; raises TypeError where it is none."""
    if isinstance(value, Property):
        raise TypeError(f"filter: {value!r} alone says nothing: compare it, or write {value!r}.present()")
    if not isinstance(value, Filter):
        raise TypeError(f"filter must be made of kithkin.filters.F, such as F.year >= 1990, not {value!r}")
    return _message(value, 1)


def _message(value: Filter, depth: int) -> wire.Filter:
    if depth > _DEEPEST:
        raise ValueError(
            "filter: too deep, the server takes 20 levels; F.all_of(*filters) and F.any_of(*filters) are one"
        )
    match value:
        case AllOf(filters):
            return wire.Filter(all_of=wire.FilterList(filters=[_message(each, depth + 1) for each in filters]))
        case AnyOf(filters):
            return wire.Filter(any_of=wire.FilterList(filters=[_message(each, depth + 1) for each in filters]))
        case Negated(inner):
            return wire.Filter(negated=_message(inner, depth + 1))
        case Equals(name, single):
            return wire.Filter(equals=wire.PropertyEquals(property=name, value=property_value(name, single)))
        case OneOf(name, values):
            message = wire.PropertyOneOf(property=name, values=[property_value(name, each) for each in values])
            return wire.Filter(one_of=message)
        case Present(name):
            return wire.Filter(present=name)
        case Linked(relation, nodes):
            return wire.Filter(linked=wire.LinkedTo(relation=relation, nodes=refs("F.linked", nodes, None)))
        case Range():
            return wire.Filter(range=_range(value))
    raise TypeError(f"filter: no such kind of filter: {type(value).__name__}")


def _range(value: Range) -> wire.PropertyRange:
    message = wire.PropertyRange(
        property=value.property, min_excluded=value.min_excluded, max_excluded=value.max_excluded
    )
    if value.min is not None:
        message.min.CopyFrom(property_value(value.property, value.min))
    if value.max is not None:
        message.max.CopyFrom(property_value(value.property, value.max))
    return message
