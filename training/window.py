"""A snapshot less the engagements that are too old to learn from."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph_store.schema import GraphSchema
from model_store.csr import Csr, EdgeType
from training.graph import Snapshot, engagements, kept_edges, transposed

_MICROSECONDS_PER_DAY = 86_400_000_000


class Window:
    """The snapshot with only the engagements of the last ``days``, counted from the newest one of any relation.

    Engagements without a time, and relations that declare none, stay whole, as does derived co-engagement: it was
    counted in the store, which has a window of its own (``derive.window_days``).
    """

    def __init__(self, snapshot: Snapshot, days: float) -> None:
        self._snapshot = snapshot
        self.schema: GraphSchema = snapshot.schema
        self.edge_types = snapshot.edge_types
        self.content_hash = hashlib.sha256(f"{snapshot.content_hash} {days}".encode()).hexdigest()
        self._kept: dict[EdgeType, Csr] = {}
        timed = [EdgeType(each.triple) for each in engagements(self.schema) if each.time is not None]
        known = [times[times > np.iinfo(np.int64).min] for times in (self._times(each) for each in timed)]
        last = max((int(times.max()) for times in known if len(times)), default=None)
        self.left_out = 0
        """Engagements that are older."""
        if last is None:
            return
        begin = last - round(days * _MICROSECONDS_PER_DAY)
        for edge_type in timed:
            times = self._times(edge_type)
            old = (times < begin) & (times > np.iinfo(np.int64).min)
            self.left_out += int(old.sum())
            forward = kept_edges(snapshot.csr(edge_type), ~old)
            self._kept[edge_type] = forward
            self._kept[EdgeType(edge_type.triple, True)] = transposed(
                forward, snapshot.num_nodes(edge_type.triple.target)
            )

    def _times(self, edge_type: EdgeType) -> NDArray[np.int64]:
        return np.asarray(self._snapshot.csr(edge_type).time, dtype=np.int64)

    def num_nodes(self, node_type: str) -> int:
        return self._snapshot.num_nodes(node_type)

    def ids(self, node_type: str) -> pa.StringArray:
        return self._snapshot.ids(node_type)

    def nodes(self, node_type: str) -> pa.Table:
        return self._snapshot.nodes(node_type)

    def csr(self, edge_type: EdgeType) -> Csr:
        return self._kept[edge_type] if edge_type in self._kept else self._snapshot.csr(edge_type)
