"""Look-up of nodes by what people call them."""

from __future__ import annotations

import bisect

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap

from model_store.node_ids import NodeIds
from server.index.selection import bitmap_of


class NameIndex:
    """Rows of a name, with or without regard to case, by binary search over one sorted column.

    Beside the names themselves it holds a folded copy and 8 bytes a node; a million names take about a second to sort.
    """

    def __init__(self, nodes: pa.Table) -> None:
        names = pc.coalesce(nodes.column(1), nodes.column(0)).combine_chunks()
        self._names = names.chunk(0) if isinstance(names, pa.ChunkedArray) else names
        folded = _folded(self._names)
        order = pc.array_sort_indices(folded)
        self._rows = order.to_numpy().astype(np.int64)
        # Arrow sorts strings by their bytes, which is the order the search compares in.
        self._folded = folded.take(order)
        self._sorted = NodeIds(pa.chunked_array([self._folded]))

    def rows(self, name: str, *, exact: bool) -> list[int]:
        """Rows of the nodes of this name; ``exact``: letter by letter, else without regard to case."""
        key = _folded(pa.array([name], pa.string()))[0].as_py()
        low = bisect.bisect_left(range(len(self._sorted)), key.encode(), key=self._sorted.key)
        found: list[int] = []
        while low < len(self._sorted) and self._sorted[low] == key:
            found.append(int(self._rows[low]))
            low += 1
        return sorted(row for row in found if not exact or self._names[row].as_py() == name)

    def containing(self, part: str) -> BitMap:
        """Rows of the nodes whose name contains this, without regard to case."""
        found = pc.match_substring(self._folded, _folded(pa.array([part], pa.string()))[0].as_py())
        places = np.flatnonzero(found.to_numpy(zero_copy_only=False))
        return bitmap_of(np.sort(self._rows[places]))


def _folded(names: pa.Array) -> pa.Array:
    """Lower case, composed accents, one space between words."""
    spaced = pc.replace_substring_regex(pc.utf8_trim_whitespace(names), r"\s+", " ")
    return pc.utf8_lower(pc.utf8_normalize(spaced, form="NFC"))
