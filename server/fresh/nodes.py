"""Nodes as the store has them now, as a bundle has them: properties, neighbour lists, vectors by online encoders."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graph_store.schema import GraphSchema, Relation, RelationRole, Triple
from graph_store.store import GraphStore
from graph_store.written import Logged
from kithkin.v1 import bundle_pb2
from model_store import layout
from model_store.bundle import Bundle
from model_store.csr import EdgeType
from server.fresh.delta_file import Record
from server.index.vector_index import Vectors
from server.model.encoder import Link, OnlineEncoder

_AT_ONCE = 2_000
"""Nodes of a record."""
_FEW = 50
"""Nodes up to which the store is asked for each one's edges; of more, whole relations are read."""
_EVERY_EDGE = 10_000_000


class _Edge(NamedTuple):
    """An edge in the order of neighbour lists: the newest first, the heaviest, then by id."""

    age: float
    lightness: float
    key: bytes

    @property
    def neighbour(self) -> str:
        return self.key.decode()

    @property
    def weight(self) -> float:
        return -self.lightness


class FreshNodes:
    """Makes records of nodes. What the bundle does not know (types, relations, properties) it leaves out."""

    def __init__(self, bundle: Bundle, schema: GraphSchema, max_neighbours: int) -> None:
        self._bundle, self._most = bundle, max_neighbours
        self._types = {each.name: each for each in schema.node_types if each.name in bundle.node_types}
        self._relations = {each.triple: each for each in schema.relations if each.triple in bundle.relations}
        features = bundle.features() if any(space.encoders for space in bundle.manifest.spaces) else None
        self._encoders: dict[tuple[str, str], OnlineEncoder] = {}
        if features is not None:
            for space in bundle.manifest.spaces:
                for each in space.encoders:
                    encoder = OnlineEncoder(bundle, space, each.node_type, features)
                    self._encoders[space.name, each.node_type] = encoder

    def records(self, store: GraphStore, affected: Mapping[str, Collection[str]]) -> Iterator[Record]:
        """Records of these nodes by type: as they are now, or gone. Raises StoreError as every scan does."""
        for node_type, ids in affected.items():
            if node_type not in self._types:
                continue
            listed = sorted(ids)
            for start in range(0, len(listed), _AT_ONCE):
                yield from self._some(store, node_type, listed[start : start + _AT_ONCE])

    def _some(self, store: GraphStore, node_type: str, ids: Sequence[str]) -> Iterator[Record]:
        declared = self._types[node_type]
        wanted = pa.array(ids, pa.string())
        scanned = pa.Table.from_batches(store.scan_nodes(node_type), declared.arrow_schema)
        rows = scanned.filter(pc.is_in(scanned.column("id"), value_set=wanted)).sort_by("id")
        gone = sorted(set(ids) - set(rows.column("id").to_pylist()))
        if gone:
            yield Record(kind="delete", node_type=node_type, nodes=pa.table({"id": pa.array(gone, pa.string())}))
        if rows.num_rows:
            yield Record(kind="upsert", node_type=node_type, nodes=self._nodes(store, node_type, rows))

    def _nodes(self, store: GraphStore, node_type: str, rows: pa.Table) -> pa.Table:
        declared = self._types[node_type]
        ids = rows.column("id").to_pylist()
        lists = self._lists(store, node_type, ids)
        manifest = self._bundle.node_types[node_type]
        columns: dict[str, Any] = {"id": rows.column("id")}
        columns["name"] = rows.column(declared.display or "id")
        columns["popularity"] = pa.array([self._popularity(lists, node_id) for node_id in ids], pa.float64())
        for each in manifest.properties:
            given = rows.column(each.name) if each.name in declared.properties else None
            column = layout.property_column(each.name)
            kind = self._bundle.nodes(node_type).schema.field(column).type
            columns[column] = pa.nulls(len(ids), kind) if given is None else given.cast(kind)
        for edge_type, of_nodes in lists.items():
            engagement = self._relations[edge_type.triple].role is RelationRole.ENGAGEMENT
            most = None if engagement and not edge_type.reversed else self._most
            kept = [of_nodes.get(node_id, [])[:most] for node_id in ids]
            columns[f"links/{edge_type.key}"] = pa.array(
                [[edge.neighbour for edge in each] for each in kept], pa.list_(pa.string())
            )
            columns[f"weights/{edge_type.key}"] = pa.array(
                [[edge.weight for edge in each] for each in kept], pa.list_(pa.float32())
            )
        for (space, encoded), encoder in self._encoders.items():
            if encoded == node_type:
                vectors = [
                    self._vector(encoder, manifest, rows.slice(place, 1), node_id, lists)
                    for place, node_id in enumerate(ids)
                ]
                columns[f"vector/{space}"] = pa.array(vectors, pa.list_(pa.float32()))
        return pa.table(columns)

    def _vector(
        self,
        encoder: OnlineEncoder,
        manifest: bundle_pb2.NodeTypeManifest,
        row: pa.Table,
        node_id: str,
        lists: Mapping[EdgeType, Mapping[str, list[_Edge]]],
    ) -> Vectors | None:
        """By what is published of the neighbours; None where nothing is known of the node, or it is not finite."""
        links: dict[EdgeType, list[Link]] = {}
        for edge_type, of_nodes in lists.items():
            edges = of_nodes.get(node_id, ())
            found = zip(edges, self._bundle.ids(edge_type.neighbour_type).rows(e.neighbour for e in edges), strict=True)
            links[edge_type] = [Link(row=int(at), weight=edge.weight) for edge, at in found if at >= 0]
        read = [each.name for each in manifest.properties if each.feature and each.name in row.column_names]
        if not any(links.values()) and all(row.column(name)[0].as_py() is None for name in read):
            return None
        names = [each.name for each in manifest.properties if each.name in row.column_names]
        # A table without columns has no rows.
        vector = encoder.encode(row.select(names or ["id"]).combine_chunks(), links)
        return vector if np.isfinite(vector).all() else None

    def _lists(self, store: GraphStore, node_type: str, ids: Sequence[str]) -> dict[EdgeType, dict[str, list[_Edge]]]:
        """All edges of the nodes, by edge type of theirs, in the order of the lists."""
        lists: dict[EdgeType, dict[str, list[_Edge]]] = {
            each: {}
            for each in self._bundle.edge_types
            if each.node_type == node_type and each.triple in self._relations
        }
        if len(ids) <= _FEW:
            self._ask(store, node_type, ids, lists)
        else:
            self._scan(store, ids, lists)
        for of_nodes in lists.values():
            for edges in of_nodes.values():
                edges.sort()
        return lists

    def _ask(
        self, store: GraphStore, node_type: str, ids: Sequence[str], lists: dict[EdgeType, dict[str, list[_Edge]]]
    ) -> None:
        limit = self._limit(node_type, lists)
        for node_id in ids:
            for each in store.neighbourhood(node_type, node_id, limit=limit):
                ends = [each.direction == "in"]
                if (each.node_type, each.node_id) == (node_type, node_id):
                    ends = [False, True]  # a loop is told once
                for reverse in ends:
                    found = lists.get(EdgeType(each.triple, reverse))
                    if found is not None:
                        relation = self._relations[each.triple]
                        found.setdefault(node_id, []).append(_edge(relation, each.node_id, each.properties))

    def _limit(self, node_type: str, lists: Collection[EdgeType]) -> int:
        """Edges to ask for by relation: what is not encoded needs those of its lists; a genre may have a million."""
        encoded = any(each == node_type for _, each in self._encoders)
        engaged = any(self._relations[each.triple].role is RelationRole.ENGAGEMENT for each in lists)
        # Both directions of a relation share the limit.
        both_ways = any(each.node_type == each.neighbour_type for each in lists)
        return _EVERY_EDGE if encoded or engaged or both_ways else self._most

    def _scan(self, store: GraphStore, ids: Sequence[str], lists: dict[EdgeType, dict[str, list[_Edge]]]) -> None:
        wanted = pa.array(ids, pa.string())
        for triple in dict.fromkeys(edge_type.triple for edge_type in lists):
            relation = self._relations[triple]
            columns = [name for name in (relation.weight, relation.time) if name]
            for batch in store.scan_edges(triple, columns):
                for edge_type in (EdgeType(triple), EdgeType(triple, True)):
                    if edge_type not in lists:
                        continue
                    own, other = ("target", "source") if edge_type.reversed else ("source", "target")
                    for row in batch.filter(pc.is_in(batch.column(own), value_set=wanted)).to_pylist():
                        lists[edge_type].setdefault(row[own], []).append(_edge(relation, row[other], row))

    def _popularity(self, lists: Mapping[EdgeType, Mapping[str, list[_Edge]]], node_id: str) -> float:
        return float(
            sum(
                len(of_nodes.get(node_id, ()))
                for edge_type, of_nodes in lists.items()
                if self._relations[edge_type.triple].role is RelationRole.ENGAGEMENT
            )
        )


def _edge(relation: Relation, neighbour: str, properties: Mapping[str, Any]) -> _Edge:
    weight = 1.0 if relation.weight is None else properties.get(relation.weight)
    moment = None if relation.time is None else properties.get(relation.time)
    age = 0.0 if relation.time is None else float("inf") if moment is None else -_seconds(moment)
    # As float32, which is what the lists hold and what the encoder reads.
    return _Edge(age, -float(np.float32(1.0 if weight is None else weight)), neighbour.encode())


def _seconds(moment: Any) -> float:
    return float(moment.timestamp() if hasattr(moment, "timestamp") else moment.toordinal() * 86_400)


def affected_nodes(
    nodes: Mapping[str, Collection[str]], edges: Mapping[Triple, Collection[tuple[str, str]]]
) -> dict[str, set[str]]:
    """Nodes that are named, and both ends of the edges that are."""
    found: dict[str, set[str]] = {node_type: set(ids) for node_type, ids in nodes.items()}
    for triple, pairs in edges.items():
        for source, target in pairs:
            found.setdefault(triple.source, set()).add(source)
            found.setdefault(triple.target, set()).add(target)
    return found


def logged_nodes(schema: GraphSchema, changes: Collection[Logged]) -> dict[str, set[str]] | None:
    """The same of what a store's log tells; None where it does not name all of them."""
    relations = {each.triple.key: each.triple for each in schema.relations}
    found: dict[str, set[str]] = {}
    for each in changes:
        triple = relations.get(each.what)
        # With a node go edges that the log does not name, and their other ends differ too.
        if each.keys is None or (triple is None and each.op == "delete"):
            return None
        types = (each.what,) if triple is None else (triple.source, triple.target)
        for key in each.keys:
            for node_type, node_id in zip(types, key, strict=True):
                found.setdefault(node_type, set()).add(node_id)
    return found
