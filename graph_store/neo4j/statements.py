"""Pieces of Cypher that reading and writing share, and how many rows go into one statement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import neo4j
import pyarrow as pa

from graph_store.neo4j import columns as columnar
from graph_store.schema import NodeType, PropertyType, Relation

Running = neo4j.Transaction | neo4j.ManagedTransaction
Run = Callable[[str, dict[str, Any]], object]

ROWS_AT_ONCE = 20_000
"""Rows one statement writes or reads."""


def type_of(declared: NodeType, name: str) -> PropertyType:
    """Type of a property, or of ``id``."""
    return PropertyType.STRING if name == "id" else declared.properties[name].type


def counted(transaction: Running, matched: str) -> int:
    """How many nodes ``n``, or relationships ``r``, a pattern matches."""
    variable = "r" if "[r:" in matched else "n"
    return int(transaction.run(f"{matched} RETURN count({variable}) AS count").single(strict=True)["count"])


def run_in_parts(run: Run, statement: str, rows: pa.Table) -> None:
    """Run a statement for every row (``i``), many rows at once; column k is ``$ck[i]``."""
    for start in range(0, rows.num_rows, ROWS_AT_ONCE):
        part = rows.slice(start, ROWS_AT_ONCE)
        parameters = {"rows": part.num_rows, **columnar.parameters(part)}
        run(f"UNWIND range(0, $rows - 1) AS i {statement}", parameters)


def matched_edge(relation: Relation, columns: Sequence[str]) -> str:
    """Cypher that finds the edge ``r`` of a row of these columns."""
    source, name, target = relation.triple
    number = {column: index for index, column in enumerate(columns)}
    ends = (
        f"MATCH (a:`{source}` {{id: $c{number['source']}[i]}}) MATCH (b:`{target}` {{id: $c{number['target']}[i]}}) "
        f"MATCH (a)-[r:`{name}`]->(b)"
    )
    conditions = [
        columnar.equals(f"r.`{key}`", number[key], relation.properties[key].type) for key in relation.key_columns[2:]
    ]
    return f"{ends} WHERE {' AND '.join(conditions)}" if conditions else ends
