"""Whether anybody else has written: Neo4j numbers its transactions, and the log of writes numbers ours.

Where both moved by the same, nobody else has committed anything. A write in parts, a schema that is applied, what
another project or program commits: all of these move the former alone.
"""

from __future__ import annotations

from dataclasses import replace

from graph_store.neo4j.driver import Neo4jConnection
from graph_store.neo4j.schema import writes, written_since
from graph_store.written import WrittenSince

_ATTEMPTS = 4
"""Of reading both numbers: between the one and the other we may commit ourselves."""
_REMEMBERED = 8


class Others:
    """Reads the log for one store, and remembers what was between the two numbers at each position."""

    def __init__(self, connection: Neo4jConnection, prefix: str) -> None:
        self._connection, self._prefix = connection, prefix
        self._between: dict[str, int] = {}

    def position(self) -> str:
        """Where the log stands."""
        ours, number = self._both()
        between = None if number is None else number - ours
        for _ in range(1, _ATTEMPTS):
            if between is None:
                break
            again, number = self._both()
            if number is None or number - again >= between:
                break
            ours, between = again, number - again
        self._remember(str(ours), between)
        return str(ours)

    def written_since(self, position: str) -> WrittenSince | None:
        """What the log tells; complete where the numbers say so."""
        told, number = self._connection.read_at(
            lambda transaction: written_since(transaction, self._prefix, int(position))
        )
        if told is None:
            return None
        before = self._between.get(position)
        between = None if number is None else number - int(told.watermark)
        for _ in range(1, _ATTEMPTS):
            if before is None or between is None or between <= before:
                break
            ours, number = self._both()
            between = None if number is None else min(between, number - ours)
        self._remember(told.watermark, between)
        known = before is not None and between is not None
        return replace(told, complete=known and between == before, others=known and between != before)

    def _both(self) -> tuple[int, int | None]:
        return self._connection.read_at(lambda transaction: writes(transaction, self._prefix))

    def _remember(self, position: str, between: int | None) -> None:
        if between is not None:
            # Of two looks at one position the first counts: what was committed in between it has not seen.
            self._between.setdefault(position, between)
            while len(self._between) > _REMEMBERED:
                del self._between[next(iter(self._between))]
