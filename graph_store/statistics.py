"""What a graph holds and what looks wrong in it: counts, gaps, cold entities, degrees, hubs, drift from the schema.

``statistics(store, schema)`` scans every node type and every relation once. It holds the ids of the node types and one
number for each node that has an edge, never the edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graph_store.schema import GraphSchema, NodeRole, NodeType, Relation, RelationRole, Triple
from graph_store.store import GraphStore

HUB_DEGREE = 1000
"""No node with fewer edges is called a hub."""
HUB_RATIO = 100
"""How many times the 99th percentile a hub's degree is."""
HUB_DEVIATIONS = 6
"""How many standard deviations above the mean a hub's degree is, both of the logarithms of the end's degrees."""
HUBS_SHOWN = 10
"""Hubs named per relation and end, the largest first."""
_COMPACT = 2_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeStatistics:
    """One node type."""

    name: str
    role: NodeRole
    count: int
    isolated: int
    """Nodes without any edge of a declared relation."""
    cold: int | None
    """Entities that no engagement reaches; None for other roles, and where no engagement with the type is declared."""
    null_share: dict[str, float]
    """Share of the nodes without a value, by property; 0 where there are no nodes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hub:
    """A node with suspiciously many edges of one relation at one end."""

    id: str
    degree: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EndStatistics:
    """The nodes at one end of a relation; degrees are over those that have an edge, and are observed values."""

    node_type: str
    distinct: int
    median: int
    p99: int
    max: int
    hub_count: int
    hubs: tuple[Hub, ...]
    """The largest, at most ``HUBS_SHOWN``; see ``statistics`` for the rule."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RelationStatistics:
    """One relation."""

    triple: Triple
    role: RelationRole
    count: int
    source: EndStatistics
    target: EndStatistics
    null_share: dict[str, float]
    """Share of the edges without a value, by property; 0 where there are no edges."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """The whole graph, in the order of the declaration."""

    nodes: tuple[NodeStatistics, ...]
    relations: tuple[RelationStatistics, ...]


def statistics(store: GraphStore, schema: GraphSchema, *, hub_degree: int = HUB_DEGREE) -> Statistics:
    """Scan the graph and count.

    A node is a hub of a relation's end where it has more than ``hub_degree`` edges there and either more than
    ``HUB_RATIO`` times the 99th percentile of that end (a machine among users, a broken join), or a degree whose
    logarithm is more than ``HUB_DEVIATIONS`` standard deviations above the mean, or, in a relation that keeps no
    separate events, edges to more than half of the nodes at the other end: that a node is linked with it then carries
    less than one bit.
    """
    degrees = {relation.triple: _Degrees() for relation in schema.relations}
    relations = [_relation(store, relation, degrees[relation.triple], hub_degree) for relation in schema.relations]
    nodes = []
    for node_type in schema.node_types:
        ends = [
            (relation, ids)
            for relation in schema.relations
            for end, ids in zip(("source", "target"), degrees[relation.triple].ids(), strict=True)
            if getattr(relation.triple, end) == node_type.name
        ]
        engaged = None
        if node_type.role is NodeRole.ENTITY:
            engaged = [ids for relation, ids in ends if relation.role is RelationRole.ENGAGEMENT]
        nodes.append(_node_type(store, node_type, [ids for _, ids in ends], engaged))
    return Statistics(nodes=tuple(nodes), relations=tuple(relations))


class _Counter:
    """How often each id was seen, from batches; compacted now and then, so that memory follows the distinct ids."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []
        self._rows = 0
        self._compact = True

    def add(self, ids: pa.Array) -> None:
        counted = ids.cast(pa.string()).value_counts()
        columns = [counted.field("values"), counted.field("counts")]
        self._parts.append(pa.Table.from_arrays(columns, names=["id", "n"]))
        self._rows += len(counted)
        self._compact = False
        if self._rows > _COMPACT:
            compacted = self.table()
            # Where nearly all ids are distinct, compacting each time would cost more than it saves.
            self._rows = -len(compacted)

    def table(self) -> pa.Table:
        """``id: string, n: int64``, each id once."""
        if not self._parts:
            self._parts = [pa.table({"id": pa.array([], pa.string()), "n": pa.array([], pa.int64())})]
        if self._compact:
            return self._parts[0]
        counted = pa.concat_tables(self._parts).group_by("id", use_threads=False).aggregate([("n", "sum")])
        self._parts, self._compact = [pa.table({"id": counted["id"], "n": counted["n_sum"]})], True
        return self._parts[0]


class _Degrees:
    """Degrees of one relation from both ends."""

    def __init__(self) -> None:
        self.source, self.target = _Counter(), _Counter()

    def ids(self) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        return self.source.table()["id"], self.target.table()["id"]


def _relation(store: GraphStore, relation: Relation, degrees: _Degrees, hub_degree: int) -> RelationStatistics:
    count = 0
    nulls = dict.fromkeys(relation.properties, 0)
    for batch in store.scan_edges(relation.triple):
        count += len(batch)
        degrees.source.add(batch.column("source"))
        degrees.target.add(batch.column("target"))
        for name in nulls:
            nulls[name] += batch.column(name).null_count
    sources, targets = degrees.source.table(), degrees.target.table()
    events = len(relation.key_columns) > 2
    ends = [
        _end(node_type, table, None if events else len(others), hub_degree)
        for node_type, table, others in (
            (relation.triple.source, sources, targets),
            (relation.triple.target, targets, sources),
        )
    ]
    return RelationStatistics(
        triple=relation.triple,
        role=relation.role,
        count=count,
        source=ends[0],
        target=ends[1],
        null_share=_shares(nulls, count),
    )


def _end(node_type: str, table: pa.Table, others: int | None, hub_degree: int) -> EndStatistics:
    """Degrees of one end; ``others``: nodes at the other end, None where a pair may have several edges."""
    if not len(table):
        return EndStatistics(node_type=node_type, distinct=0, median=0, p99=0, max=0, hub_count=0, hubs=())
    degree = table["n"].to_numpy()
    median, p99 = (int(value) for value in np.percentile(degree, [50, 99], method="inverted_cdf"))
    logs = np.log(degree)
    # A little above, so that rounding makes no hubs where all degrees are the same.
    far = float(np.exp(logs.mean() + HUB_DEVIATIONS * logs.std() + 1e-9))
    limit = min(HUB_RATIO * p99, far, *(() if others is None else (others / 2,)))
    hubs = table.filter(pc.greater(table["n"], max(hub_degree, limit)))
    first = hubs.sort_by([("n", "descending"), ("id", "ascending")]).slice(0, HUBS_SHOWN)
    return EndStatistics(
        node_type=node_type,
        distinct=len(table),
        median=median,
        p99=p99,
        max=int(degree.max()),
        hub_count=len(hubs),
        hubs=tuple(Hub(id=row["id"], degree=row["n"]) for row in first.to_pylist()),
    )


def _node_type(
    store: GraphStore, node_type: NodeType, linked: Sequence[pa.ChunkedArray], engaged: Sequence[pa.ChunkedArray] | None
) -> NodeStatistics:
    count = 0
    nulls = dict.fromkeys(node_type.properties, 0)
    ids: list[pa.Array] = []
    for batch in store.scan_nodes(node_type.name):
        count += len(batch)
        ids.append(batch.column("id").cast(pa.string()))
        for name in nulls:
            nulls[name] += batch.column(name).null_count
    all_ids = pa.chunked_array(ids, pa.string())
    return NodeStatistics(
        name=node_type.name,
        role=node_type.role,
        count=count,
        isolated=count - _among(all_ids, linked),
        cold=count - _among(all_ids, engaged) if engaged else None,
        null_share=_shares(nulls, count),
    )


def _among(ids: pa.ChunkedArray, sets: Sequence[pa.ChunkedArray]) -> int:
    """How many of ``ids`` stand in one of the sets."""
    if not sets:
        return 0
    chunks = [chunk for ids_of_end in sets for chunk in ids_of_end.chunks]
    value_set = pa.chunked_array(chunks, pa.string()).unique()
    return int(pc.sum(pc.is_in(ids, value_set=value_set)).as_py() or 0)


def _shares(nulls: dict[str, int], count: int) -> dict[str, float]:
    return {name: number / count if count else 0.0 for name, number in nulls.items()}
