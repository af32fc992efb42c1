"""What changed since a bundle was published, gathered from the follower's records; a value that is never changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from server.fresh.delta_file import Record


@dataclass(frozen=True, kw_only=True, slots=True)
class TypeDelta:
    """Nodes of one type."""

    nodes: pa.Table
    """Those that are new or changed, a row each (columns as in ``Record``), in no order."""
    deleted: frozenset[str]
    """Ids that are gone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delta:
    """All of it, by node type."""

    types: Mapping[str, TypeDelta] = field(default_factory=dict)

    def plus(self, records: Iterable[Record]) -> Delta:
        """This delta with further records; of each node the last word stands."""
        types = dict(self.types)
        grouped: dict[str, list[Record]] = {}
        for record in records:
            grouped.setdefault(record.node_type, []).append(record)
        for node_type, each in grouped.items():
            types[node_type] = _merged(types.get(node_type), each)
        return Delta(types=types)


def _merged(before: TypeDelta | None, records: Iterable[Record]) -> TypeDelta:
    tables: list[pa.Table] = [] if before is None else [before.nodes]
    deleted = set() if before is None else set(before.deleted)
    last: dict[str, int | None] = {}
    count = 0
    if before is not None:
        last = {node_id: row for row, node_id in enumerate(before.nodes.column("id").to_pylist())}
        count = before.nodes.num_rows
    for record in records:
        ids = record.nodes.column("id").to_pylist()
        if record.kind == "delete":
            deleted |= set(ids)
            last |= dict.fromkeys(ids)
            continue
        deleted -= set(ids)
        last |= {node_id: count + row for row, node_id in enumerate(ids)}
        tables.append(record.nodes)
        count += record.nodes.num_rows
    rows = sorted(row for row in last.values() if row is not None)
    if not tables:
        return TypeDelta(nodes=pa.table({"id": pa.array([], pa.string())}), deleted=frozenset(deleted))
    joined = pa.concat_tables(tables, promote_options="default")
    return TypeDelta(nodes=joined.take(pa.array(rows, pa.int64())).combine_chunks(), deleted=frozenset(deleted))
