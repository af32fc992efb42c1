"""Neo4j's own numbers of nodes: quicker than ids to look up, to send and to join (measured, docs/graph_store.md).

The number of a deleted node is given to another one, but not as long as a transaction is open that was open when the
node was deleted (measured). So numbers are read and used while one transaction is open, and never kept beyond it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from graph_store.neo4j import columns as columnar
from graph_store.neo4j import statements
from graph_store.neo4j.statements import Running, counted

Int64s = npt.NDArray[np.int64]
Part = tuple[list[int], list[str | None]]
ABSENT = -1
"""In place of a number, where no node of the type has the id."""
_ID = pa.field("id", pa.string())


class Numbers:
    """Ids and numbers of the nodes of one type, as far as they were asked for within a transaction."""

    def __init__(self, transaction: Running, label: str) -> None:
        self._transaction, self._label = transaction, label
        self._numbers: Int64s = np.empty(0, np.int64)
        """Ascending."""
        self._ids = pa.array([], pa.string())
        """In the order of their numbers; null: no node of this type has the number."""
        self._all = False

    def read_all(self) -> Int64s:
        """Read those of all nodes that have an id; returns the numbers, ascending."""
        if not self._all:
            parts: list[Part] = []
            last: str | None = None
            while not parts or len(parts[-1][1]) == statements.ROWS_AT_ONCE:
                after = "n.id IS NOT NULL" if last is None else "n.id > $last"
                record = self._transaction.run(
                    f"MATCH (n:`{self._label}`) WHERE {after} WITH n ORDER BY n.id LIMIT {statements.ROWS_AT_ONCE} "
                    "RETURN collect(id(n)) AS numbers, collect(n.id) AS ids",
                    last=last,
                ).single(strict=True)
                parts.append((record["numbers"], record["ids"]))
                last = record["ids"][-1] if record["ids"] else None
            self._numbers, self._ids = self._numbers[:0], self._ids[:0]  # those looked up before are among them
            self._add(parts)
            self._all = True
        return self._numbers

    def of(self, ids: pa.Array | pa.ChunkedArray) -> Int64s:
        """The number of each id, ``ABSENT`` where no node of this type has it."""
        if not self._all:
            self._read(pc.unique(ids))
        places = pc.index_in(ids, value_set=self._ids)
        if isinstance(places, pa.ChunkedArray):
            places = places.combine_chunks()
        numbers: Int64s = np.append(self._numbers, ABSENT)[places.fill_null(-1).to_numpy()]
        return numbers

    def ids(self, numbers: Int64s) -> pa.Array:
        """The id of each node, null where it is not of this type or has none."""
        places, known = self._places(numbers)
        if not known.all():  # made since all were read, or not read yet
            self._look_up(np.unique(numbers[~known]))
            places, _ = self._places(numbers)
        return pc.take(self._ids, pa.array(places))

    def _places(self, numbers: Int64s) -> tuple[Int64s, npt.NDArray[np.bool_]]:
        if not len(self._numbers):
            return np.zeros(len(numbers), np.int64), np.zeros(len(numbers), np.bool_)
        places = np.minimum(np.searchsorted(self._numbers, numbers), len(self._numbers) - 1)
        return places, self._numbers[places] == numbers

    def _read(self, ids: pa.Array) -> None:
        wanted = ids.filter(pc.invert(pc.is_in(ids, value_set=self._ids)))
        if not len(wanted):
            return
        if self._are_many(len(wanted)):
            self.read_all()
            return
        statement = (
            f"UNWIND $ids AS id MATCH (n:`{self._label}` {{id: id}}) "
            "RETURN collect(id(n)) AS numbers, collect(id) AS ids"
        )
        parts: list[Part] = []
        for start in range(0, len(wanted), statements.ROWS_AT_ONCE):
            part = wanted.slice(start, statements.ROWS_AT_ONCE).to_pylist()
            record = self._transaction.run(statement, ids=part).single(strict=True)
            parts.append((record["numbers"], record["ids"]))
        self._add(parts)

    def _are_many(self, nodes: int) -> bool:
        """Whether reading all is quicker than looking up so many."""
        if self._all or nodes <= statements.FEW:
            return False
        return nodes * 4 >= counted(self._transaction, f"MATCH (n:`{self._label}`)")

    def _look_up(self, numbers: Int64s) -> None:
        statement = (
            f"UNWIND $numbers AS number MATCH (n:`{self._label}`) WHERE id(n) = number AND n.id IS NOT NULL "
            "RETURN collect(number) AS numbers, collect(n.id) AS ids"
        )
        if self._are_many(len(self._numbers) + len(numbers)):
            self.read_all()
            numbers = np.setdiff1d(numbers, self._numbers)
        parts: list[Part] = []
        for start in range(0, len(numbers), statements.ROWS_AT_ONCE):
            part = numbers[start : start + statements.ROWS_AT_ONCE]
            record = self._transaction.run(statement, numbers=part.tolist()).single(strict=True)
            others = np.setdiff1d(part, np.array(record["numbers"], np.int64)).tolist()
            parts.append((record["numbers"] + others, record["ids"] + [None] * len(others)))
        self._add(parts)

    def _add(self, parts: list[Part]) -> None:
        numbers = np.concatenate([self._numbers, *(np.array(part, np.int64) for part, _ in parts)])
        ids = pa.concat_arrays([self._ids, *(columnar.array(part, _ID) for _, part in parts)])
        order = np.argsort(numbers, kind="stable")
        self._numbers, self._ids = numbers[order], pc.take(ids, pa.array(order))
