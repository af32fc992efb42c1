"""Filters: which entities may be answered, written as Python expressions of `F`.

>>> from kithkin.filters import F
>>> (F.year >= 1990) & F.country.one_of(["de", "fr"]) & ~F.linked("HAS_GENRE", "noir")
(F.year >= 1990) & F.country.one_of(['de', 'fr']) & ~F.linked('HAS_GENRE', 'noir')

``F.year`` names a property that kithkin.toml declares with ``filter = true``; ``F["first aired"]`` takes any name.
Compare it with ``== != < <= > >=``, or ask ``between``, ``one_of``, ``present``. Join filters with ``&``, ``|`` and
``~``, each comparison in parentheses: Python's ``and``, ``or``, ``not`` and ``1990 <= F.year < 2000`` cannot be taken
over, and raise TypeError. Values are str, int, float, bool, date or datetime (without a zone: UTC). An entity without
the property passes no comparison, and so it passes the negation of each, ``!=`` too.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any, NoReturn

from kithkin._scalars import INT64, plain
from kithkin.queries import Entity
from kithkin.types import Node, Ref, ScoredEntity

FilterValue = str | int | float | bool | date
"""What a property is compared with; a datetime is a date too."""

_PARENTHESES = "put each comparison in parentheses, (F.year >= 1990) & (F.country == 'de')"


class Filter:
    """What says of an entity whether it may be answered; join filters with ``&``, ``|`` and ``~``."""

    __slots__ = ()

    def __and__(self, other: Filter) -> Filter:
        return AllOf((*_parts(AllOf, self), *_parts(AllOf, _filter(other))))

    def __or__(self, other: Filter) -> Filter:
        return AnyOf((*_parts(AnyOf, self), *_parts(AnyOf, _filter(other))))

    def __rand__(self, other: Any) -> NoReturn:
        _filter(other)
        raise AssertionError("two filters meet in __and__")

    __ror__ = __rand__

    def __invert__(self) -> Filter:
        return self.filter if isinstance(self, Negated) else Negated(self)

    def __bool__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} is a filter, neither true nor false here: write & | ~ for `and`, `or`, `not`, "
            "and F.year.between(1990, 1999) for 1990 <= F.year <= 1999"
        )


@dataclass(frozen=True, slots=True, repr=False)
class AllOf(Filter):
    """All of these hold."""

    filters: tuple[Filter, ...]

    def __repr__(self) -> str:
        return " & ".join(map(_wrapped, self.filters)) if len(self.filters) > 1 else f"F.all_of{_listed(self.filters)}"


@dataclass(frozen=True, slots=True, repr=False)
class AnyOf(Filter):
    """At least one of these holds."""

    filters: tuple[Filter, ...]

    def __repr__(self) -> str:
        return " | ".join(map(_wrapped, self.filters)) if len(self.filters) > 1 else f"F.any_of{_listed(self.filters)}"


@dataclass(frozen=True, slots=True, repr=False)
class Negated(Filter):
    """This does not hold."""

    filter: Filter

    def __repr__(self) -> str:
        if isinstance(self.filter, Equals):
            return f"{_shown(self.filter.property)} != {self.filter.value!r}"
        return f"~{_wrapped(self.filter)}"


@dataclass(frozen=True, slots=True, repr=False)
class Equals(Filter):
    """The property has this value; a list has it among its elements."""

    property: str
    value: FilterValue

    def __repr__(self) -> str:
        return f"{_shown(self.property)} == {self.value!r}"


@dataclass(frozen=True, slots=True, repr=False)
class OneOf(Filter):
    """The property has one of these values."""

    property: str
    values: tuple[FilterValue, ...]

    def __repr__(self) -> str:
        return f"{_shown(self.property)}.one_of({list(self.values)!r})"


@dataclass(frozen=True, slots=True, repr=False)
class Range(Filter):
    """The property lies between two values; None: no end on that side."""

    property: str
    min: FilterValue | None = None
    max: FilterValue | None = None
    min_excluded: bool = False
    max_excluded: bool = False

    def __repr__(self) -> str:
        shown = _shown(self.property)
        if self.min is not None and self.max is not None:
            return f"{shown}.between({self.min!r}, {self.max!r})"
        if self.min is not None:
            return f"{shown} {'>' if self.min_excluded else '>='} {self.min!r}"
        return f"{shown} {'<' if self.max_excluded else '<='} {self.max!r}"


@dataclass(frozen=True, slots=True, repr=False)
class Present(Filter):
    """The entity has a value of the property."""

    property: str

    def __repr__(self) -> str:
        return f"{_shown(self.property)}.present()"


@dataclass(frozen=True, slots=True, repr=False)
class Linked(Filter):
    """The entity has a link to one of these nodes."""

    relation: str
    nodes: tuple[Entity, ...]

    def __repr__(self) -> str:
        return f"F.linked({', '.join(map(repr, (self.relation, *self.nodes)))})"


class Property:
    """One property to say something of."""

    __slots__ = ("_name",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"F[...] takes the name of a property, not {name!r}")
        self._name = name

    def __eq__(self, value: Any) -> Filter:  # type: ignore[override]
        return Equals(self._name, _value(self, value))

    def __ne__(self, value: Any) -> Filter:  # type: ignore[override]
        return Negated(Equals(self._name, _value(self, value)))

    def __ge__(self, value: Any) -> Filter:
        return Range(self._name, min=_end(self, value))

    def __gt__(self, value: Any) -> Filter:
        return Range(self._name, min=_end(self, value), min_excluded=True)

    def __le__(self, value: Any) -> Filter:
        return Range(self._name, max=_end(self, value))

    def __lt__(self, value: Any) -> Filter:
        return Range(self._name, max=_end(self, value), max_excluded=True)

    def between(self, min: FilterValue, max: FilterValue) -> Filter:
        """At least ``min`` and at most ``max``: two numbers, or two dates or times."""
        low, high = _end(self, min), _end(self, max)
        if isinstance(low, date) != isinstance(high, date):
            raise TypeError(f"{self!r}.between: {min!r} and {max!r} do not compare; give two numbers or two times")
        return Range(self._name, low, high)

    def one_of(self, values: Iterable[FilterValue]) -> Filter:
        """One of these values; of a list, one of its elements is. No value at all never holds."""
        if isinstance(values, str | bytes) or not isinstance(values, Iterable):
            raise TypeError(f"{self!r}.one_of takes a list of values, not {values!r}; for a single one write ==")
        return OneOf(self._name, tuple(_value(self, value) for value in values))

    def present(self) -> Filter:
        """The entity has a value of it."""
        return Present(self._name)

    def __contains__(self, value: object) -> NoReturn:
        raise TypeError(f"`in` cannot be taken over: {self!r} == {value!r} holds for a list that has it, too")

    def __bool__(self) -> NoReturn:
        raise TypeError(f"{self!r} alone says nothing: compare it, or write {self!r}.present()")

    def _alone(self, other: object = None) -> NoReturn:
        raise TypeError(f"{self!r} alone says nothing, and & and | bind tighter than comparisons: {_PARENTHESES}")

    __and__ = __or__ = __rand__ = __ror__ = __invert__ = _alone

    def __repr__(self) -> str:
        return _shown(self._name)


class Properties:
    """The start of every filter: ``F.year``, ``F["first aired"]``, ``F.linked(...)``."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Property:
        # Names of Python's own protocols (copying, pickling) are no properties.
        if name.startswith("__"):
            raise AttributeError(name)
        return Property(name)

    def __getitem__(self, name: str) -> Property:
        return Property(name)

    def linked(self, relation: str, *nodes: Entity) -> Filter:
        """A link by this relation to at least one of these nodes: ids, ``("Type", "id")``, or what an answer gave."""
        if not isinstance(relation, str) or not relation:
            raise TypeError(f"F.linked takes the name of a relation, such as 'HAS_GENRE', not {relation!r}")
        if not nodes:
            raise TypeError(f"F.linked({relation!r}): name at least one node, F.linked({relation!r}, 'noir', 'drama')")
        return Linked(relation, tuple(_linked_node(relation, node) for node in nodes))

    def all_of(self, *filters: Filter) -> Filter:
        """All of these hold; none given: holds always."""
        return AllOf(tuple(map(_filter, filters)))

    def any_of(self, *filters: Filter) -> Filter:
        """At least one of these holds; none given: never holds."""
        return AnyOf(tuple(map(_filter, filters)))

    def __repr__(self) -> str:
        return "F"


F = Properties()
"""``F.year`` is the property ``year``."""


def _filter(value: Any) -> Filter:
    if isinstance(value, Property):
        value._alone()
    if not isinstance(value, Filter):
        raise TypeError(f"{value!r} is no filter: {_PARENTHESES}")
    return value


def _linked_node(relation: str, node: Any) -> Entity:
    if isinstance(node, Node | ScoredEntity):
        return node.ref
    if isinstance(node, str | tuple | Ref):
        return node
    # Whole numbers of NumPy, too: id columns of frames hold them.
    if hasattr(node, "__index__") and not isinstance(node, bool) and not getattr(node, "shape", None):
        return operator.index(node)
    raise TypeError(
        f"F.linked({relation!r}, ...): a node is an id, ('Type', 'id'), a Ref or a result, not {node!r}; "
        "of a list write *nodes"
    )


def _parts(kind: type[AllOf | AnyOf], value: Filter) -> tuple[Filter, ...]:
    # a & b & c is one list of three: the server takes 20 levels, and people write more conditions than that.
    return value.filters if isinstance(value, kind) and value.filters else (value,)


def _value(of: Property, value: Any) -> FilterValue:
    value = plain(value)
    if isinstance(value, Property):
        raise TypeError(f"{of!r} and {value!r}: a property is compared with a value, not with another property")
    if value is None:
        raise TypeError(f"{of!r} is compared with a value; for entities without one write ~{of!r}.present()")
    if not isinstance(value, str | bool | int | float | date):
        more = f"; of several values write {of!r}.one_of([...])" if isinstance(value, Iterable) else ""
        raise TypeError(f"{of!r}: a value is str, int, float, bool, date or datetime, not {value!r}{more}")
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{of!r}: NaN equals nothing; for entities without a value write ~{of!r}.present()")
    if isinstance(value, int) and value not in INT64:
        raise ValueError(f"{of!r}: {value} does not fit in 64 bits")
    known: FilterValue = value
    return known


def _end(of: Property, value: Any) -> FilterValue:
    end = _value(of, value)
    if isinstance(end, str | bool):
        raise TypeError(f"{of!r}: only numbers, dates and times have an order, not {end!r}")
    return end


def _shown(name: str) -> str:
    plain_name = name.isidentifier() and not name.startswith("__") and not hasattr(Properties, name)
    return f"F.{name}" if plain_name else f"F[{name!r}]"


def _wrapped(value: Filter) -> str:
    closed = isinstance(value, OneOf | Present | Linked) or (
        isinstance(value, Negated) and not isinstance(value.filter, Equals)
    )
    closed = closed or (isinstance(value, Range) and value.min is not None and value.max is not None)
    closed = closed or (isinstance(value, AllOf | AnyOf) and len(value.filters) < 2)
    return repr(value) if closed else f"({value!r})"


def _listed(filters: tuple[Filter, ...]) -> str:
    return f"({', '.join(map(repr, filters))})"
