"""Ladybug's values as plain Python, in the shape that every store answers with."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from graph_store.embedded.tables import relation_properties
from graph_store.schema import GraphSchema

_INTERNAL = frozenset({"_ID", "_LABEL", "_SRC", "_DST"})


def plain_values(schema: GraphSchema, value: Any) -> Any:
    """A node as ``{"_type", "id", properties}``, a relationship as ``{"_type", properties}``, a path as both lists."""
    if isinstance(value, dict):
        if "_NODES" in value and "_RELS" in value:
            return {
                "_nodes": [plain_values(schema, node) for node in value["_NODES"]],
                "_relationships": [plain_values(schema, edge) for edge in value["_RELS"]],
            }
        if "_LABEL" in value and "_SRC" in value:
            return _properties(schema, value, list(relation_properties(schema, value["_LABEL"])))
        if "_LABEL" in value and "_ID" in value:
            declared = {node_type.name: list(node_type.properties) for node_type in schema.node_types}
            return _properties(schema, value, ["id", *declared.get(value["_LABEL"], ())])
        return {key: plain_values(schema, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_values(schema, item) for item in value]
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal):
        # Ladybug sums integers in 128 bits, which its client gives as decimals.
        return int(value) if value == value.to_integral_value() else float(value)
    return value


def _properties(schema: GraphSchema, value: dict[str, Any], declared: list[str]) -> dict[str, Any]:
    """The declared properties in order, then what else is there; a missing declared one is None."""
    own = {key: plain_values(schema, item) for key, item in value.items() if key not in _INTERNAL}
    rest = {key: item for key, item in own.items() if key not in declared and item is not None}
    return {"_type": value["_LABEL"], **{key: own.get(key) for key in declared}, **rest}
