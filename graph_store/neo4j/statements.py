"""What reading and writing share, and how many rows go into one statement."""

from __future__ import annotations

import neo4j

from graph_store.schema import NodeType, PropertyType

Running = neo4j.Transaction | neo4j.ManagedTransaction

ROWS_AT_ONCE = 20_000
"""Rows one statement writes or reads."""
FEW = 500
"""Nodes that are looked up, however few there are: asking how many there are takes as long."""


def type_of(declared: NodeType, name: str) -> PropertyType:
    """Type of a property, or of ``id``."""
    return PropertyType.STRING if name == "id" else declared.properties[name].type


def counted(transaction: Running, matched: str) -> int:
    """How many nodes ``n``, or relationships ``r``, a pattern matches."""
    variable = "r" if "[r:" in matched else "n"
    return int(transaction.run(f"{matched} RETURN count({variable}) AS count").single(strict=True)["count"])
