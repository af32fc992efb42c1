"""Rows of one node type or relation by a hash each, and what differs between two lots of them.

What differs is found among the hashes alone, sorted numbers; ids are compared of those rows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Kind = Literal["upsert", "delete"]
Hashes = NDArray[np.uint64]
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True, slots=True)
class RowHashes:
    """What was seen of one node type or relation; about 16 bytes a row beside its ids."""

    keys: pa.Table
    """Key columns, in the order of ``hashes``' rows as they were read."""
    hashes: Hashes
    """Ascending, of all columns; of equal rows the second and further ones have others than the first."""
    order: NDArray[np.int64]
    """Row of each hash."""
    checksum: tuple[int, int, int]
    """The same for the same rows in any order."""

    @classmethod
    def of(
        cls, connection: duckdb.DuckDBPyConnection, rows: pa.Table, keys: Sequence[str], known: RowHashes | None
    ) -> RowHashes:
        """Hash the rows; where they are those that are known, the known ones (and no second copy of them)."""
        connection.register("scanned", rows)
        columns = _hashed(rows)
        found = connection.sql(f"SELECT hash({columns}) AS h FROM scanned").to_arrow_table()
        connection.unregister("scanned")
        hashes: Hashes = found.column("h").to_numpy()
        total = int(hashes.sum(dtype=np.uint64))
        checksum = len(hashes), int(np.bitwise_xor.reduce(hashes, initial=np.uint64(0))), total
        if known is not None and known.checksum == checksum:
            return known
        order = np.argsort(hashes)
        hashes = hashes[order]
        again = np.flatnonzero(hashes[1:] == hashes[:-1]) + 1
        if len(again):
            # One that is there twice and one that is there once are to differ.
            first = np.searchsorted(hashes, hashes[again])
            hashes[again] += (again - first).astype(np.uint64) * _ODD
            by_hash = np.argsort(hashes)
            hashes, order = hashes[by_hash], order[by_hash]
        return cls(keys=rows.select(list(keys)), hashes=hashes, order=order, checksum=checksum)

    def without(self, others: RowHashes) -> pa.Table:
        """Keys of the rows that the others lack."""
        if not len(others.hashes):
            return self.keys
        place = np.minimum(np.searchsorted(others.hashes, self.hashes), len(others.hashes) - 1)
        return self.keys.take(pa.array(np.sort(self.order[others.hashes[place] != self.hashes])))


def differing(connection: duckdb.DuckDBPyConnection, before: RowHashes, after: RowHashes) -> dict[Kind, pa.Table]:
    """Keys of which a row came, went or has another value, those that are there and those that are gone."""
    names = after.keys.column_names
    if before is after:
        return {"upsert": after.keys.slice(0, 0), "delete": after.keys.slice(0, 0)}
    went, came = before.without(after), after.without(before)
    # Of several rows of one key one may have gone.
    near = after.keys.filter(pc.is_in(after.keys.column(names[0]), value_set=went.column(names[0]).unique()))
    using = ", ".join(quoted(name) for name in names)
    for name, table in (("went", went), ("came", came), ("near", near)):
        connection.register(name, table)
    upserted = connection.sql(
        f"SELECT DISTINCT {using} FROM (FROM came UNION ALL (FROM went SEMI JOIN near USING ({using}))) ORDER BY ALL"
    ).to_arrow_table()
    deleted = connection.sql(
        f"SELECT DISTINCT {using} FROM (FROM went ANTI JOIN near USING ({using})) ORDER BY ALL"
    ).to_arrow_table()
    return {"upsert": upserted, "delete": deleted}


def _hashed(rows: pa.Table) -> str:
    """The columns for ``hash``, lists with their lengths: an empty one has the hash of none at all."""
    return ", ".join(
        f"{quoted(field.name)}, len({quoted(field.name)})" if pa.types.is_list(field.type) else quoted(field.name)
        for field in rows.schema
    )


def by_key(connection: duckdb.DuckDBPyConnection, rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """A ``hash`` for each key, beside it; of a pair that several edges join, one of all of them."""
    connection.register("scanned", rows)
    columns, keyed = _hashed(rows), ", ".join(quoted(name) for name in keys)
    # Exclusive or alone would not see an edge that is there twice.
    hashes = connection.sql(
        f"SELECT {keyed}, CASE WHEN count(*) = 1 THEN any_value(h) ELSE hash(bit_xor(h), count(*)) END AS hash "
        f"FROM (SELECT {keyed}, hash({columns}) AS h FROM scanned) GROUP BY {keyed}"
    ).to_arrow_table()
    connection.unregister("scanned")
    return hashes


def corrected(
    connection: duckdb.DuckDBPyConnection,
    found: dict[Kind, pa.Table],
    rows: pa.Table,
    keys: Sequence[str],
    noted: Sequence[pa.Table],
) -> dict[Kind, pa.Table]:
    """What was found, but of keys that were noted what differs from the last note. ``rows``: all that are there."""
    using = ", ".join(quoted(name) for name in keys)
    numbered: list[Any] = [each.append_column("turn", pa.array([n] * each.num_rows)) for n, each in enumerate(noted)]
    connection.register("noted", pa.concat_tables(numbered))
    last = f"SELECT {using}, arg_max_null(hash, turn) AS hash FROM noted GROUP BY {using}"
    table = connection.sql(last).to_arrow_table()
    near = rows.filter(pc.is_in(rows.column(keys[0]), value_set=table.column(keys[0]).unique()))
    for name, each in (("last", table), ("present", by_key(connection, near, keys)), *found.items()):
        connection.register(name, each)
    other = f"SELECT {using} FROM last LEFT JOIN present USING ({using}) WHERE last.hash IS DISTINCT FROM present.hash"

    def either(kind: Kind, is_there: str) -> pa.Table:
        return connection.sql(
            f'SELECT {using} FROM (FROM "{kind}" ANTI JOIN last USING ({using})) UNION ALL '
            f"SELECT {using} FROM ({other} AND present.hash IS {is_there} NULL) ORDER BY ALL"
        ).to_arrow_table()

    return {"upsert": either("upsert", "NOT"), "delete": either("delete", "")}


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever it is."""
    return '"' + name.replace('"', '""') + '"'
