"""The order of a neighbourhood, the same in every store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from graph_store.schema import Relation
from graph_store.store import Neighbour


class Found(NamedTuple):
    """One edge as a store found it."""

    direction: str
    node_type: str
    node_id: str
    properties: dict[str, Any]


def heaviest_first(relation: Relation, found: Sequence[Found]) -> list[Neighbour]:
    """By weight (heaviest first, without one last), then id by bytes, outgoing first, then time and kind."""

    def order(edge: Found) -> tuple[Any, ...]:
        weight = edge.properties[relation.weight] if relation.weight else 1
        rest = tuple((edge.properties[key] is not None, edge.properties[key] or "") for key in relation.key_columns[2:])
        return (weight is None, -(weight or 0), edge.node_id.encode(), edge.direction != "out", rest)

    return [
        Neighbour(
            triple=relation.triple,
            direction=_direction(edge.direction),
            node_type=edge.node_type,
            node_id=edge.node_id,
            properties=edge.properties,
        )
        for edge in sorted(found, key=order)
    ]


def _direction(text: str) -> Literal["out", "in"]:
    return "out" if text == "out" else "in"
