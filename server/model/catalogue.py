"""The nodes of a bundle as requests name them and answers show them."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
from pyroaring import BitMap

from graph_store.schema import NodeRole, PropertyType
from kithkin.v1 import types_pb2
from model_store.bundle import Bundle
from server.calls.answer_bytes import Parts
from server.errors import InvalidField, NodeNotFound, NotDeclared, TypeNeeded
from server.filters.recent import Recent
from server.model.names import NameIndex

_CACHED_NODES = 100_000
_LONGEST_CACHED = 256
"""Bytes of an id up to which its row is remembered; what callers send may be of any length."""
_CACHED_PARTS = 32
"""Parts of names asked last, per node type: pages of one listing ask again."""
_EPOCH_DAYS = 86_400


class NodeKey(NamedTuple):
    """A node of the bundle: its type and its row."""

    type: str
    row: int


class Catalogue:
    """Finds nodes by reference or name, and shows them."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._names: dict[str, NameIndex] = {}
        self._contained: dict[str, Recent[str, BitMap]] = {}
        # Columns as single arrays: a table finds a value in ten times the time.
        self._shown = {
            node_type.name: [
                (each.name, each.type, _one_array(bundle.property(node_type.name, each.name)))
                for each in node_type.properties
                if each.show and each.type != PropertyType.VECTOR
            ]
            for node_type in bundle.manifest.node_types
        }
        self.node = lru_cache(maxsize=_CACHED_NODES)(self._node)
        self._rows: dict[tuple[str, str], int] = {}
        """Those asked for; a plain dictionary, for it is asked once for each item of a batch."""
        self._parts: dict[str, Parts] = {}

    @cached_property
    def entity_types(self) -> tuple[str, ...]:
        """Entity types, in declared order."""
        return self.types_of(NodeRole.ENTITY)

    def types_of(self, role: NodeRole) -> tuple[str, ...]:
        """Node types of a role, in declared order."""
        return tuple(each.name for each in self._bundle.manifest.node_types if each.role == role.value)

    def role(self, node_type: str) -> NodeRole:
        return NodeRole(self._bundle.node_types[node_type].role)

    def type_named(self, name: str, field: str, role: NodeRole | None = NodeRole.ENTITY) -> str:
        """The declared type of this name; for an empty one the only type of the role.

        Raises NotDeclared, TypeNeeded, and InvalidField where a type of another role is named (role None: any will do).
        """
        if name:
            if name not in self._bundle.node_types:
                raise NotDeclared(
                    field, f"{name!r} is not a node type", hint=f"There are {', '.join(self._bundle.node_types)}."
                )
            if role is not None and self.role(name) is not role:
                raise InvalidField(
                    field, f"{name!r} is not of the role {role}", hint=f"Name one of {', '.join(self.types_of(role))}."
                )
            return name
        wanted = role or NodeRole.ENTITY
        candidates = self.types_of(wanted)
        if len(candidates) != 1:
            raise TypeNeeded(field, f"the graph has {len(candidates)} {wanted} types", hint=_choose(candidates))
        return candidates[0]

    def resolve(self, ref: types_pb2.NodeRef, field: str, role: NodeRole | None = None) -> NodeKey:
        """The node a reference names. An empty type means the only type of ``role`` (None: any type, empty: entity).

        Raises NodeNotFound and what ``type_named`` raises.
        """
        node_type = self.type_named(ref.type, f"{field}.type", role)
        return NodeKey(node_type, self.row(node_type, ref, field))

    def row(self, node_type: str, ref: types_pb2.NodeRef, field: str) -> int:
        """The row of a reference whose type is known. Raises InvalidField and NodeNotFound."""
        node_id = ref.id
        row = self._rows.get((node_type, node_id))
        if row is not None:
            return row
        if not node_id:
            raise InvalidField(f"{field}.id", "is empty", hint="Give the node's key property `id`.")
        row = self._row(node_type, node_id)
        if row is None:
            raise NodeNotFound(
                field,
                node_type,
                ref.id,
                f"no {node_type} has the id {ref.id!r}",
                hint="Look it up by name with GetEntity; nodes newer than the bundle come with the next one.",
            )
        return row

    def named(self, name: str, node_types: tuple[str, ...]) -> list[NodeKey]:
        """Nodes of a name: exact matches, else those that differ in case only; the most engaged first, ties by id."""
        found: list[NodeKey] = []
        for exact in (True, False):
            for node_type in node_types:
                found += [NodeKey(node_type, row) for row in self._name_index(node_type).rows(name, exact=exact)]
            if found:
                break
        return sorted(found, key=lambda key: (-float(self._bundle.popularity(key.type)[key.row]), key.type, key.row))

    def name_contains(self, node_type: str, part: str) -> BitMap:
        """Rows of the nodes of a type whose name contains this, without regard to case."""
        recent = self._contained.setdefault(node_type, Recent(_CACHED_PARTS))
        found = recent.get(part)
        if found is None:
            found = self._name_index(node_type).containing(part)
            recent.put(part, found)
        return found

    def prepare(self) -> None:
        """Build the look-up of entity names (those of other types are built when first asked for), and compile."""
        for node_type in self.entity_types:
            self._name_index(node_type)
            self.parts(node_type).prepare()

    def id(self, key: NodeKey) -> str:
        return self._bundle.ids(key.type)[key.row]

    def name(self, key: NodeKey) -> str:
        return self._bundle.name(key.type, key.row)

    def parts(self, node_type: str) -> Parts:
        """The nodes of a type as parts of encoded answers."""
        if node_type not in self._parts:
            count = len(self._bundle.ids(node_type))
            self._parts[node_type] = Parts(lambda row: self._node(NodeKey(node_type, row)), count)
        return self._parts[node_type]

    def _row(self, node_type: str, node_id: str) -> int | None:
        """Row of a node; remembered is only what there is, so that made-up ids push nothing out."""
        row = self._rows.get((node_type, node_id))
        if row is None:
            row = self._bundle.row(node_type, node_id)
            if row is not None and len(node_id.encode()) <= _LONGEST_CACHED:
                if len(self._rows) >= _CACHED_NODES:
                    # Rather all anew than a book of who was asked for.
                    self._rows.clear()
                self._rows[node_type, node_id] = row
        return row

    def _name_index(self, node_type: str) -> NameIndex:
        if node_type not in self._names:
            self._names[node_type] = NameIndex(self._bundle.nodes(node_type))
        return self._names[node_type]

    def _node(self, key: NodeKey) -> types_pb2.Node:
        node = types_pb2.Node(name=self.name(key))
        node.ref.type, node.ref.id = key.type, self.id(key)
        for name, kind, column in self._shown[key.type]:
            value = column[key.row]
            if value.is_valid:
                set_value(node.properties[name], kind, value)
        return node


def set_value(target: types_pb2.PropertyValue, kind: str, value: pa.Scalar) -> None:
    """Write a stored value as the message has it."""
    plain: Any = value.as_py() if kind not in (PropertyType.DATE, PropertyType.TIMESTAMP) else value.value
    match PropertyType(kind):
        case PropertyType.STRING:
            target.string_value = plain
        case PropertyType.INT:
            target.int_value = plain
        case PropertyType.FLOAT:
            target.float_value = plain
        case PropertyType.BOOL:
            target.bool_value = plain
        case PropertyType.DATE:
            target.time_value.FromSeconds(plain * _EPOCH_DAYS)
        case PropertyType.TIMESTAMP:
            target.time_value.FromMicroseconds(plain)
        case PropertyType.STRINGS:
            # Present even where the list is empty: the node has a value.
            target.strings_value.SetInParent()
            target.strings_value.values.extend(each for each in plain if each is not None)
        case PropertyType.VECTOR:
            target.vector_value.values.extend(plain)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _choose(candidates: tuple[str, ...]) -> str:
    return f"Name one of {', '.join(candidates)}." if candidates else "The graph declares none."
