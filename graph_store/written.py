"""What a store's own log tells of writes: which nodes and edges, not their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

MOST_KEYS = 500
"""Keys that one entry names; of a larger write only the type or relation is noted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Logged:
    """One write of one call."""

    what: str
    """Node type, or the relation's ``Triple.key``."""
    op: Literal["upsert", "delete"]
    keys: tuple[tuple[str, ...], ...] | None
    """Ids as ``(id,)``, or edges as ``(source, target)``; None: too many to name."""

    def to_json(self) -> list[Any]:
        return [self.what, self.op, None if self.keys is None else [list(key) for key in self.keys]]

    @classmethod
    def from_json(cls, value: Any) -> Logged:
        what, op, keys = value
        return cls(what=what, op=op, keys=None if keys is None else tuple(tuple(key) for key in keys))


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenSince:
    """What the log tells since a watermark."""

    changes: tuple[Logged, ...]
    watermark: str
    """Give this one the next time."""
    complete: bool
    """True: nothing else was committed meanwhile, by anyone."""
    others: bool = False
    """True: something else was, and the next answer will not say so again."""


def logged(what: str, op: Literal["upsert", "delete"], *tables: pa.Table) -> list[Logged]:
    """The entry for rows of the columns ``id``, or ``source`` and ``target``; none where there are no rows."""
    rows = sum(table.num_rows for table in tables)
    if not rows:
        return []
    if rows > MOST_KEYS:
        return [Logged(what=what, op=op, keys=None)]
    names = ["id"] if "id" in tables[0].column_names else ["source", "target"]
    keys: dict[tuple[str, ...], None] = {}
    for table in tables:
        keys.update(dict.fromkeys(zip(*(table.column(name).to_pylist() for name in names), strict=True)))
    return [Logged(what=what, op=op, keys=tuple(keys))]
