"""Filters of requests: read, checked, and answered by the rows that pass."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from time import thread_time

import numpy as np
from pyroaring import BitMap

from graph_store.schema import NodeRole, PropertyType
from kithkin.v1 import bundle_pb2, types_pb2
from model_store.bundle import Bundle
from model_store.csr import EdgeType
from server.deadline import Deadline
from server.errors import InvalidField, NodeNotFound, NotDeclared
from server.filters.link_index import LinkIndex
from server.filters.property_index import ORDERED, TEXTS, Bound, PropertyIndex
from server.filters.recent import Recent
from server.index.selection import Selection
from server.model.catalogue import Catalogue
from server.model.description import Describer

BUDGET_S = 0.5
"""Seconds of computing for a filter that was not asked before: nothing else is answered meanwhile."""
MOST_PARTS = 1000
"""Filters in one filter, itself included."""
DEEPEST = 20
MOST_VALUES = 1000
MOST_NODES = 1000
_CACHE_BYTES = 64 << 20
"""Held per node type for filters asked before, in the form that takes most memory."""
_MOST_CACHED, _FEWEST_CACHED = 1024, 16
_TIMES = frozenset({PropertyType.DATE, PropertyType.TIMESTAMP})
_EARLIEST, _LATEST = -62_135_596_800, 253_402_300_799
_KINDS = {
    PropertyType.STRING: "string_value",
    PropertyType.STRINGS: "string_value",
    PropertyType.INT: "int_value",
    PropertyType.FLOAT: "float_value",
    PropertyType.BOOL: "bool_value",
    PropertyType.DATE: "time_value",
    PropertyType.TIMESTAMP: "time_value",
}
"""How a request tells a value of each type (of a list: an element)."""


class Filters:
    """Answers filters on the nodes of one bundle; those asked again are remembered."""

    def __init__(self, bundle: Bundle, catalogue: Catalogue, describer: Describer) -> None:
        self._bundle = bundle
        self._catalogue = catalogue
        self._describer = describer
        self._links = LinkIndex(bundle)
        self._properties: dict[tuple[str, str], PropertyIndex] = {}
        self._recent: dict[str, Recent[bytes, Selection]] = {}

    def prepare(self, node_type: str) -> None:
        """Build what filters on a type read, once; what is not prepared is built when first asked for."""
        for declared in self._bundle.node_types[node_type].properties:
            if declared.filter:
                self._index(node_type, declared)
        if self._catalogue.role(node_type) is NodeRole.ENTITY:
            self._links.prepare(node_type)

    def select(self, message: types_pb2.Filter, node_type: str, deadline: Deadline, field: str = "filter") -> Selection:
        """The nodes of a type that pass.

        Raises InvalidField and its kinds, each naming the part that is wrong, and DeadlinePassed.
        """
        recent = self._recent_of(node_type)
        # A filter may take megabytes, what it lets pass a few kilobytes: only a digest of it is kept.
        key = hashlib.blake2b(message.SerializeToString(deterministic=True), digest_size=16).digest()
        found = recent.get(key)
        if found is None:
            _check_size(message, field)
            found = Selection(self._passing(message, node_type, _Cost(deadline, field), field), self._count(node_type))
            recent.put(key, found)
        return found

    def _passing(self, message: types_pb2.Filter, node_type: str, cost: _Cost, where: str) -> BitMap:
        cost.check()
        kind = message.WhichOneof("kind")
        place = f"{where}.{kind}"
        match kind:
            case "all_of":
                parts = self._parts(message.all_of, node_type, cost, place)
                return BitMap.intersection(*parts) if parts else self._everything(node_type)
            case "any_of":
                parts = self._parts(message.any_of, node_type, cost, place)
                return BitMap.union(*parts) if parts else BitMap()
            case "negated":
                return self._everything(node_type) - self._passing(message.negated, node_type, cost, place)
            case "equals":
                return self._equal(node_type, message.equals.property, [message.equals.value], cost, place, ["value"])
            case "one_of":
                values = message.one_of.values
                if len(values) > MOST_VALUES:
                    raise InvalidField(f"{place}.values", f"{len(values)} values, send at most {MOST_VALUES}")
                names = [f"values[{number}]" for number in range(len(values))]
                return self._equal(node_type, message.one_of.property, values, cost, place, names)
            case "range":
                return self._range(message.range, node_type, place)
            case "present":
                return self._index(node_type, self._declared(node_type, message.present, place)).present
            case "linked":
                return self._linked(message.linked, node_type, cost, place)
            case _:
                raise InvalidField(where, "is not set", hint="Say what must hold: equals, range, linked, all_of ...")

    def _parts(self, message: types_pb2.FilterList, node_type: str, cost: _Cost, place: str) -> list[BitMap]:
        return [
            self._passing(each, node_type, cost, f"{place}.filters[{number}]")
            for number, each in enumerate(message.filters)
        ]

    def _equal(
        self,
        node_type: str,
        name: str,
        values: Sequence[types_pb2.PropertyValue],
        cost: _Cost,
        place: str,
        fields: Sequence[str],
    ) -> BitMap:
        declared = self._declared(node_type, name, f"{place}.property")
        index = self._index(node_type, declared)
        found: list[BitMap] = []
        for value, field in zip(values, fields, strict=True):
            told, whole = _comparable(value, declared, f"{place}.{field}")
            if whole:
                cost.check()
                found.append(index.equal(told))
        return BitMap.union(*found) if found else BitMap()

    def _range(self, message: types_pb2.PropertyRange, node_type: str, place: str) -> BitMap:
        declared = self._declared(node_type, message.property, f"{place}.property")
        if PropertyType(declared.type) not in ORDERED:
            raise InvalidField(
                f"{place}.property",
                f"{declared.name} is declared {declared.type}, which has no ranges",
                hint="Ranges are of numbers, dates and times.",
            )
        low = high = None
        if message.HasField("min"):
            value, whole = _comparable(message.min, declared, f"{place}.min")
            assert not isinstance(value, str)
            # A time between two microseconds lies above the first of them.
            low = Bound(value=value, excluded=message.min_excluded or not whole)
        if message.HasField("max"):
            value, whole = _comparable(message.max, declared, f"{place}.max")
            assert not isinstance(value, str)
            high = Bound(value=value, excluded=message.max_excluded and whole)
        return self._index(node_type, declared).between(low, high)

    def _linked(self, message: types_pb2.LinkedTo, node_type: str, cost: _Cost, place: str) -> BitMap:
        if len(message.nodes) > MOST_NODES:
            raise InvalidField(f"{place}.nodes", f"{len(message.nodes)} nodes, send at most {MOST_NODES}")
        self._describer.relation_ends(node_type, message.relation, f"{place}.relation")
        rows: dict[EdgeType, list[int]] = {}
        for number, node in enumerate(message.nodes):
            where = f"{place}.nodes[{number}]"
            edge_type = self._describer.edge_type(
                node_type, message.relation, node.type, f"{place}.relation", f"{where}.type"
            )
            ref = types_pb2.NodeRef(type=edge_type.neighbour_type, id=node.id)
            try:
                rows.setdefault(edge_type, []).append(self._catalogue.resolve(ref, where).row)
            except NodeNotFound as error:
                # The filter is at fault: NOT_FOUND would seem to speak of what was asked for.
                raise InvalidField(where, error.message.removeprefix(f"{where}: "), hint=error.hint) from None
        found = []
        for edge_type, each in rows.items():
            cost.apart(self._links.make_ready, edge_type)
            # Named twice, a node with very many links would be read twice.
            found.append(self._links.linked(edge_type, np.unique(np.array(each, np.int64))))
        return BitMap.union(*found) if found else BitMap()

    def _declared(self, node_type: str, name: str, field: str) -> bundle_pb2.PropertyManifest:
        """The filterable property of this name. Raises NotDeclared."""
        properties = self._bundle.node_types[node_type].properties
        for declared in properties:
            if declared.name == name and declared.filter:
                return declared
        names = ", ".join(each.name for each in properties if each.filter)
        raise NotDeclared(
            field,
            f"{node_type} has no property {name!r} that is declared with `filter = true`",
            hint=f"Those that are: {names}." if names else f"No property of {node_type} is.",
        )

    def _index(self, node_type: str, declared: bundle_pb2.PropertyManifest) -> PropertyIndex:
        key = node_type, declared.name
        if key not in self._properties:
            column = self._bundle.property(node_type, declared.name)
            self._properties[key] = PropertyIndex(column, PropertyType(declared.type))
        return self._properties[key]

    def _everything(self, node_type: str) -> BitMap:
        return BitMap(range(self._count(node_type)))

    def _count(self, node_type: str) -> int:
        return int(self._bundle.node_types[node_type].count)

    def _recent_of(self, node_type: str) -> Recent[bytes, Selection]:
        if node_type not in self._recent:
            # A selection is at most a number of 8 bytes and a boolean a row.
            room = _CACHE_BYTES // (9 * max(self._count(node_type), 1))
            self._recent[node_type] = Recent(min(max(room, _FEWEST_CACHED), _MOST_CACHED))
        return self._recent[node_type]


class _Cost:
    """What a filter's evaluation may cost."""

    def __init__(self, deadline: Deadline, field: str) -> None:
        self._deadline, self._field = deadline, field
        self._end = thread_time() + BUDGET_S

    def check(self) -> None:
        """Asked before each part. Raises DeadlinePassed, and InvalidField where the parts before took too long."""
        self._deadline.check("filter")
        if thread_time() >= self._end:
            raise InvalidField(
                self._field,
                f"is too costly: it takes more than {BUDGET_S:g} s",
                hint="Send fewer parts, or such that let less pass.",
            )

    def apart(self, work: Callable[[EdgeType], object], edge_type: EdgeType) -> None:
        """Do what is done once and kept, and so is no cost of this filter."""
        started = thread_time()
        work(edge_type)
        self._end += thread_time() - started


def _check_size(message: types_pb2.Filter, field: str) -> None:
    """Raise InvalidField where a filter has too many parts or lies too deep."""
    parts, level, depth = 0, [message], 0
    while level:
        depth, parts = depth + 1, parts + len(level)
        if depth > DEEPEST:
            raise InvalidField(field, f"is more than {DEEPEST} filters deep")
        if parts > MOST_PARTS:
            raise InvalidField(field, f"has more than {MOST_PARTS} parts", hint="Use one_of for many values.")
        level = [inner for each in level for inner in _inner(each)]


def _inner(message: types_pb2.Filter) -> Sequence[types_pb2.Filter]:
    match message.WhichOneof("kind"):
        case "all_of":
            return message.all_of.filters
        case "any_of":
            return message.any_of.filters
        case "negated":
            return [message.negated]
        case _:
            return ()


def _comparable(
    value: types_pb2.PropertyValue, declared: bundle_pb2.PropertyManifest, where: str
) -> tuple[str | int | float, bool]:
    """A value as the index holds it, and whether it is that value wholly: times are held by the microsecond."""
    kind, wanted = value.WhichOneof("kind"), PropertyType(declared.type)
    if kind is None:
        raise InvalidField(where, "is not set", hint="Ask by `present` whether there is a value.")
    if wanted is PropertyType.VECTOR:
        raise InvalidField(where, f"{declared.name} is a vector", hint="Ask by `present` whether there is one.")
    if kind == "int_value" and wanted is PropertyType.FLOAT:
        if int(float(value.int_value)) != value.int_value:
            raise InvalidField(where, f"{value.int_value} is not exact as a float")
        return float(value.int_value), True
    if kind != _KINDS[wanted]:
        raise InvalidField(
            where, f"is a {kind}, and {declared.name} is declared {wanted}", hint=f"Send {_KINDS[wanted]}."
        )
    if wanted in TEXTS:
        return str(value.string_value), True
    if wanted in _TIMES:
        time = value.time_value
        if not (_EARLIEST <= time.seconds <= _LATEST and 0 <= time.nanos < 1_000_000_000):
            raise InvalidField(where, "is not a time of the years 1 to 9999")
        micros, rest = divmod(time.nanos, 1000)
        return time.seconds * 1_000_000 + micros, rest == 0
    if wanted is PropertyType.FLOAT:
        if not math.isfinite(value.float_value):
            raise InvalidField(where, "is NaN or infinite")
        return float(value.float_value), True
    return int(getattr(value, kind)), True
