"""What a request describes, as the encoder reads it: a row of properties, and links to nodes of the graph."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
from google.protobuf.timestamp_pb2 import Timestamp

from graph_store.schema import NodeRole, PropertyType, RelationRole, Triple
from kithkin.v1 import bundle_pb2, types_pb2
from model_store.bundle import Bundle
from model_store.csr import EdgeType
from server.errors import InvalidField, NotDeclared, TypeNeeded, VectorNotFinite, WrongDimension
from server.model.catalogue import Catalogue, NodeKey
from server.model.encoder import Link

_KINDS = {
    PropertyType.STRING: "string_value",
    PropertyType.INT: "int_value",
    PropertyType.FLOAT: "float_value",
    PropertyType.BOOL: "bool_value",
    PropertyType.DATE: "time_value",
    PropertyType.TIMESTAMP: "time_value",
    PropertyType.STRINGS: "strings_value",
    PropertyType.VECTOR: "vector_value",
}
_EPOCH = date(1970, 1, 1)
_EARLIEST, _LATEST = -62_135_596_800, 253_402_300_799
"""Seconds of the years 1 to 9999, what a Timestamp may hold."""
_WHOLE = 2**53
"""Features are made of floats; whole numbers beyond this are not exact in them."""
_MOST_WEIGHT = 1e30
"""The encoder reads weights as float32, and adds them up."""
MOST_LINKS = 1000
MOST_EVENTS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """A node that is not in the graph."""

    node_type: str
    properties: pa.Table
    """One row with the columns of the type's properties that the bundle carries; null: not told."""
    links: dict[EdgeType, list[Link]] = field(default_factory=dict)
    """Links by edge type of ``node_type``, the heaviest first (events: the newest), ties by id."""


class Describer:
    """Reads described entities and lists of events against what a bundle declares."""

    def __init__(self, bundle: Bundle, catalogue: Catalogue) -> None:
        self._bundle = bundle
        self._catalogue = catalogue
        self._engagements = [
            EdgeType(triple)
            for triple, relation in bundle.relations.items()
            if relation.role == RelationRole.ENGAGEMENT.value
        ]

    def empty(self, node_type: str) -> Description:
        """A node of which nothing is told."""
        return Description(
            node_type=node_type, properties=_row({}, list(self._bundle.node_types[node_type].properties))
        )

    def entity(self, described: types_pb2.DescribedEntity, place: str) -> Description:
        """Read a described entity. Raises InvalidField and its kinds, and NodeNotFound for a link to nowhere."""
        node_type = self._catalogue.type_named(described.type, f"{place}.type", NodeRole.ENTITY)
        if not described.properties and not described.links:
            raise InvalidField(place, "describes nothing", hint="Give at least one property or link.")
        if len(described.links) > MOST_LINKS:
            raise InvalidField(f"{place}.links", f"{len(described.links)} links, send at most {MOST_LINKS}")
        declared = {each.name: each for each in self._bundle.node_types[node_type].properties}
        values: dict[str, Any] = {}
        for name, value in sorted(described.properties.items()):
            where = f"{place}.properties[{name!r}]"
            if name not in declared:
                raise NotDeclared(
                    where,
                    f"{node_type} has no property {name!r} that is shown, filterable or a feature",
                    hint=f"There are {', '.join(declared) or 'none'}.",
                )
            values[name] = _plain(value, declared[name], where)
        links: dict[EdgeType, dict[int, float]] = {}
        for number, link in enumerate(described.links):
            where = f"{place}.links[{number}]"
            edge_type = self.edge_type(
                node_type, link.relation, link.node.type, f"{where}.relation", f"{where}.node.type"
            )
            ref = types_pb2.NodeRef(type=edge_type.neighbour_type, id=link.node.id)
            row = self._catalogue.resolve(ref, f"{where}.node").row
            # The same link told twice is one link, of the later weight, as in the graph.
            links.setdefault(edge_type, {})[row] = _weight(link.weight, f"{where}.weight")
        read = [name for name, each in declared.items() if each.feature]
        if not links and all(values.get(name) is None for name in read):
            raise InvalidField(
                place,
                "tells nothing that vectors are made from",
                hint=f"Give a link{' or one of ' + ', '.join(read) if read else ''}.",
            )
        return Description(
            node_type=node_type,
            properties=_row(values, list(declared.values())),
            links={
                edge_type: [Link(row=row, weight=w) for row, w in sorted(each.items(), key=lambda e: (-e[1], e[0]))]
                for edge_type, each in links.items()
            },
        )

    def events(self, events: types_pb2.EventList, place: str) -> tuple[Description, list[NodeKey]]:
        """Read a user told by events, and the entities of the events, the newest first.

        Events stand by their times, those without one by their place in the list, as older than all that have one. The
        encoder reads as many as it read of the users it learned from: the newest, or the heaviest where the relation
        has no time; ties as in the bundle's lists.

        The user type is that of the first engagement relation that reaches the events' entities.
        """
        if not events.events:
            raise InvalidField(f"{place}.events", "is empty", hint="Give at least one event, or a user, or a vector.")
        if len(events.events) > MOST_EVENTS:
            raise InvalidField(
                f"{place}.events",
                f"{len(events.events)} events, send at most {MOST_EVENTS}",
                hint="Send the newest.",
            )
        reached = {each.neighbour_type for each in self._engagements}
        touched: list[_Touched] = []
        for number, event in enumerate(events.events):
            where = f"{place}.events[{number}]"
            key = self._catalogue.resolve(event.entity, f"{where}.entity", NodeRole.ENTITY)
            if key.type not in reached:
                raise InvalidField(f"{where}.entity", f"no engagement relation reaches {key.type}")
            touched.append(
                _Touched(
                    key=key,
                    weight=_weight(event.weight, f"{where}.weight"),
                    time=_time(event.time, f"{where}.time") if event.HasField("time") else None,
                )
            )
        newest = _newest_first(touched)
        engagements = {
            each.neighbour_type: each
            for each in reversed(self._engagements)
            if each.neighbour_type in {each.key.type for each in touched}
        }
        user_types = {each.node_type for each in engagements.values()}
        if len(user_types) > 1:
            raise TypeNeeded(f"{place}.events", "these entities are engaged with by users of several types")
        links: dict[EdgeType, list[Link]] = {}
        for edge_type in dict.fromkeys(engagements[each.key.type] for each in newest):
            of_type = [each for each in newest if each.key.type == edge_type.neighbour_type]
            if not self._bundle.relations[edge_type.triple].timed:
                # As the lists of such a relation are cut: the heaviest count.
                of_type.sort(key=lambda each: -each.weight)
            links[edge_type] = [Link(row=each.key.row, weight=each.weight) for each in of_type]
        user_type = user_types.pop()
        description = replace(self.empty(user_type), links=links)
        return description, [each.key for each in newest]

    def relation_ends(self, node_type: str, relation: str, field: str) -> list[EdgeType]:
        """Every end of the relations of this name that a type stands at, forward first. Raises NotDeclared."""
        ends = [
            EdgeType(Triple(*triple), reverse)
            for triple in self._bundle.relations
            if triple.name == relation
            for reverse in (False, True)
        ]
        ends = [each for each in ends if each.node_type == node_type]
        if not ends:
            known = sorted({triple.name for triple in self._bundle.relations if node_type in (triple[0], triple[2])})
            raise NotDeclared(
                field,
                f"{node_type} has no relation {relation!r}",
                hint=f"There are {', '.join(known) or 'none'}.",
            )
        return ends

    def edge_type(
        self, node_type: str, relation: str, neighbour_type: str, relation_field: str, type_field: str
    ) -> EdgeType:
        """The relation of this name seen from a type; forward where both ends fit. ``neighbour_type``: "" for any.

        Raises NotDeclared and TypeNeeded, and InvalidField where it does not lead to that type.
        """
        ends = self.relation_ends(node_type, relation, relation_field)
        kinds = sorted({each.neighbour_type for each in ends})
        if neighbour_type:
            self._catalogue.type_named(neighbour_type, type_field, None)
            fitting = [each for each in ends if each.neighbour_type == neighbour_type]
            if not fitting:
                raise InvalidField(
                    type_field,
                    f"{relation} of {node_type} does not lead to {neighbour_type}",
                    hint=f"It leads to {', '.join(kinds)}.",
                )
            return fitting[0]
        if len(kinds) > 1:
            raise TypeNeeded(type_field, f"{relation} leads to several types", hint=", ".join(kinds))
        return ends[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Touched:
    """One event, read."""

    key: NodeKey
    weight: float
    time: int | None
    """Nanoseconds since 1970; None: not told."""


def _newest_first(touched: list[_Touched]) -> list[_Touched]:
    """Events by time, at one time the heaviest first, ties by row; those without a time last, by their place."""
    told = [each for each in touched if each.time is not None]
    told.sort(key=lambda each: (-(each.time or 0), -each.weight, each.key.row))
    return told + [each for each in reversed(touched) if each.time is None]


def _time(time: Timestamp, where: str) -> int:
    """Nanoseconds since 1970."""
    if not (_EARLIEST <= time.seconds <= _LATEST and 0 <= time.nanos < 1_000_000_000):
        raise InvalidField(where, "is not a time of the years 1 to 9999")
    return int(time.seconds) * 1_000_000_000 + int(time.nanos)


def _weight(weight: float, where: str) -> float:
    if not 0 <= weight <= _MOST_WEIGHT:
        raise InvalidField(
            where,
            f"{weight} is not a weight",
            hint=f"Give a number above 0 and up to {_MOST_WEIGHT:g}, or 0 for the usual 1.",
        )
    return weight or 1.0


def _plain(value: types_pb2.PropertyValue, declared: bundle_pb2.PropertyManifest, where: str) -> Any:
    kind = value.WhichOneof("kind")
    if kind is None:
        return None
    wanted = PropertyType(declared.type)
    if kind == "int_value" and wanted is PropertyType.FLOAT:
        return float(value.int_value)
    if kind != _KINDS[wanted]:
        raise InvalidField(
            where, f"is a {kind}, and {declared.name} is declared {wanted}", hint=f"Send {_KINDS[wanted]}."
        )
    if kind == "time_value" and not _EARLIEST <= value.time_value.seconds <= _LATEST:
        raise InvalidField(where, "is not a time of the years 1 to 9999")
    match wanted:
        case PropertyType.DATE:
            return _EPOCH + timedelta(days=value.time_value.ToSeconds() // 86_400)
        case PropertyType.TIMESTAMP:
            return value.time_value.ToMicroseconds()
        case PropertyType.STRINGS:
            return list(value.strings_value.values)
        case PropertyType.VECTOR:
            numbers = list(value.vector_value.values)
            if declared.dimension and len(numbers) != declared.dimension:
                raise WrongDimension(where, f"has {len(numbers)} values, {declared.name} has {declared.dimension}")
            if not all(map(math.isfinite, numbers)):
                raise VectorNotFinite(where, "has a value that is NaN or infinite")
            return numbers
        case PropertyType.FLOAT if not math.isfinite(value.float_value):
            raise InvalidField(where, "is NaN or infinite")
        case PropertyType.INT if declared.feature and abs(value.int_value) > _WHOLE:
            raise InvalidField(where, f"{value.int_value} is too large: a feature lies within -2^53 and 2^53")
        case _:
            return getattr(value, kind)


def _row(values: dict[str, Any], declared: list[bundle_pb2.PropertyManifest]) -> pa.Table:
    schema = pa.schema([pa.field(each.name, PropertyType(each.type).arrow) for each in declared])
    if not declared:
        # A row without columns: Arrow counts rows by columns, so one that says nothing stands for it.
        return pa.table({"id": pa.nulls(1, pa.string())})
    return pa.Table.from_pylist([{each.name: values.get(each.name) for each in declared}], schema=schema)
