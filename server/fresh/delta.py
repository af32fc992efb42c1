"""What changed since a bundle was published, gathered from the follower's records; a value that is never changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from model_store.bundle import Bundle
from server.fresh.delta_file import Record

_NONE = np.empty(0, np.int64)
_AT_ONCE = 20_000
"""Nodes of a record that others were folded into."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TypeDelta:
    """Nodes of one type."""

    nodes: pa.Table
    """Those that are new or changed, a row each (columns as in ``Record``), in no order."""
    deleted: frozenset[str]
    """Ids that are gone."""
    numbers: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    """Number of the record that each row came with; empty: not told."""


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

    def records(self) -> Iterator[Record]:
        """Records that come to the same."""
        for name, each in self.types.items():
            for start in range(0, each.nodes.num_rows, _AT_ONCE):
                yield Record(kind="upsert", node_type=name, nodes=each.nodes.slice(start, _AT_ONCE))
            if each.deleted:
                gone = pa.table({"id": pa.array(sorted(each.deleted), pa.string())})
                yield Record(kind="delete", node_type=name, nodes=gone)

    def since(self, bundle: Bundle) -> Delta:
        """Without what is gone and was never published: nodes that came and went would add up for ever."""
        types = dict(self.types)
        for name, each in types.items():
            gone = pa.array(sorted(each.deleted), pa.string())
            known = gone.filter(pc.is_in(gone, value_set=bundle.nodes(name).column(0).cast(pa.string())))
            if len(known) < len(gone):
                types[name] = TypeDelta(nodes=each.nodes, deleted=frozenset(known.to_pylist()), numbers=each.numbers)
        return Delta(types=types)


def _merged(before: TypeDelta | None, records: Iterable[Record]) -> TypeDelta:
    tables: list[pa.Table] = []
    numbers: list[NDArray[np.int64]] = []
    deleted = set() if before is None else set(before.deleted)
    last: dict[str, int | None] = {}
    count = 0
    for record in records:
        ids = record.nodes.column("id").to_pylist()
        if record.kind == "delete":
            deleted.update(ids)
            last |= dict.fromkeys(ids)
            continue
        deleted.difference_update(ids)
        last |= {node_id: count + row for row, node_id in enumerate(ids)}
        tables.append(record.nodes)
        numbers.append(np.full(len(ids), record.number, np.int64))
        count += len(ids)
    parts, told = [], []
    if before is not None:
        own = before.nodes.column("id")
        stays = pc.invert(pc.is_in(own, value_set=pa.array(list(last), pa.string())))
        parts.append(before.nodes.filter(stays))
        known = before.numbers if len(before.numbers) else np.zeros(len(own), np.int64)
        told.append(known[stays.to_numpy()])
    if tables:
        rows = np.array(sorted(row for row in last.values() if row is not None), np.int64)
        parts.append(pa.concat_tables(tables, promote_options="default").take(pa.array(rows)))
        told.append(np.concatenate(numbers)[rows])
    if not parts:
        return TypeDelta(nodes=pa.table({"id": pa.array([], pa.string())}), deleted=frozenset(deleted))
    joined = pa.concat_tables(parts, promote_options="default").combine_chunks()
    return TypeDelta(nodes=joined, deleted=frozenset(deleted), numbers=np.concatenate(told))
