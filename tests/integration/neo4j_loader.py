"""A load in many small parts, also as a process of its own: ``python -m tests.integration.neo4j_loader URI``.

It prints a line when it begins each part, and at its end what was created and what was there.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import neo4j
import numpy as np
import pyarrow as pa

from graph_store.neo4j import bulk, scans, statements
from graph_store.neo4j.driver import Neo4jConnection
from graph_store.neo4j.store import Neo4jStore
from graph_store.schema import GraphSchema, NodeType, Relation, Triple
from graph_store.settings import StoreSettings
from graph_store.store import Written

WATCHED = Triple("User", "WATCHED", "Movie")
SEEN = Triple("User", "SEEN", "Movie")
SCHEMA = GraphSchema(
    node_types=(
        NodeType.model_validate({"name": "Movie", "role": "entity"}),
        NodeType.model_validate({"name": "User", "role": "user"}),
    ),
    relations=tuple(
        Relation.model_validate(
            {"triple": triple, "role": "engagement", "time": "time", "properties": {"time": {"type": "timestamp"}}}
        )
        for triple in (WATCHED, SEEN)
    ),
)
MOVIES = pa.table({"id": [f"m{number}" for number in range(100)]})
USERS = pa.table({"id": [f"u{number}" for number in range(40)]})


def watched() -> pa.Table:
    """2,400 edges, no two the same, some between the same two at another time."""
    numbers = np.arange(2400)
    return pa.table(
        {
            "source": [f"u{number % 40}" for number in numbers],
            "target": [f"m{number % 60}" for number in numbers],
            "time": pa.array(numbers * 1_000_003, pa.timestamp("us", "UTC")),
        }
    )


def seen() -> pa.Table:
    """The last thousand of them, in another relation."""
    return watched().slice(1400)


def small_parts(set_: Callable[[Any, str, object], None] = setattr) -> None:
    """Write 50 rows a transaction and read 100 a page."""
    set_(bulk, "ROWS_PER_TRANSACTION", 100)
    set_(bulk, "ROWS_AT_ONCE", 50)
    set_(statements, "ROWS_AT_ONCE", 100)
    set_(scans, "MOST_OF_ONE_SOURCE", 50)


def load(store: Neo4jStore) -> Written:
    """Nodes and edges; what became of the edges."""
    store.apply_schema()
    store.upsert_nodes("Movie", MOVIES)
    store.upsert_nodes("User", USERS)
    return store.upsert_edges(WATCHED, watched())


def main() -> None:
    """Load what ``load`` does."""
    small_parts()
    run_apart, numbers = Neo4jConnection.run_apart, itertools.count()

    def told(connection: Neo4jConnection, statement: str, parameters: Mapping[str, Any]) -> neo4j.SummaryCounters:
        print(f"part {next(numbers)}", flush=True)
        return run_apart(connection, statement, parameters)

    Neo4jConnection.run_apart = told  # type: ignore[method-assign]
    with Neo4jStore.open(SCHEMA, StoreSettings(uri=sys.argv[1], timeout_s=60), read_only=False) as store:
        written = load(store)
    print(f"created {written.created} unchanged {written.unchanged}")


if __name__ == "__main__":
    main()
