"""Nodes as the store has them now, as a bundle has them: properties, neighbour lists, vectors by online encoders."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graph_store.changes import Noted
from graph_store.changes.lookup import Lookup
from graph_store.schema import GraphSchema, NodeRole, RelationRole, Triple
from graph_store.store import GraphStore
from graph_store.written import Logged
from model_store import layout
from model_store.bundle import Bundle
from model_store.csr import EdgeType
from server.fresh.delta_file import Record
from server.fresh.lists import Lists
from server.model.encoder import OnlineEncoder

_AT_ONCE = 2_000
"""Nodes of a record."""
_FEW = 20
"""Nodes up to which the store is asked for each one's edges, where that is of no consequence."""
_ENCODED_AT_ONCE = 256
_EVERY_EDGE = 10_000_000


class FreshNodes:
    """Makes records of nodes. What the bundle does not know (types, relations, properties) it leaves out."""

    def __init__(self, bundle: Bundle, schema: GraphSchema, max_neighbours: int) -> None:
        self.bundle, self._most = bundle, max_neighbours
        self.lookup = Lookup(schema)
        self._types = {each.name: each for each in schema.node_types if each.name in bundle.node_types}
        self._relations = {each.triple: each for each in schema.relations if each.triple in bundle.relations}
        self._ids: dict[str, pa.Array] = {}
        features = bundle.features() if any(space.encoders for space in bundle.manifest.spaces) else None
        self._encoders: dict[tuple[str, str], OnlineEncoder] = {}
        if features is not None:
            for space in bundle.manifest.spaces:
                for each in space.encoders:
                    encoder = OnlineEncoder(bundle, space, each.node_type, features)
                    self._encoders[space.name, each.node_type] = encoder

    def records(
        self,
        store: GraphStore,
        affected: Mapping[str, Collection[str]],
        pairs: Mapping[Triple, Collection[tuple[str, str]]] | None = None,
        noted: Noted | None = None,
    ) -> Iterator[Record]:
        """Records of these nodes by type: as they are now, or gone. Raises StoreError as every scan does.

        ``noted`` is told of the nodes, and of the edges of these ``pairs`` whose sources are among the nodes.
        """
        wanted = {
            node_type: pa.array(sorted(ids), pa.string())
            for node_type, ids in affected.items()
            if node_type in self._types and ids
        }
        lists = self._lists(store, wanted, pairs or {}, noted)
        for node_type, ids in wanted.items():
            rows = self.lookup.nodes(store, node_type, ids).sort_by("id").combine_chunks()
            if noted is not None:
                noted.note(self._types[node_type].arrow_schema, node_type, pa.table({"id": ids}), rows)
            gone = ids.filter(pc.invert(pc.is_in(ids, value_set=_one(rows.column("id")))))
            if len(gone):
                yield Record(kind="delete", node_type=node_type, nodes=pa.table({"id": gone}))
            of_type = {each: found for each, found in lists.items() if each.node_type == node_type}
            for start in range(0, rows.num_rows, _AT_ONCE):
                part = rows.slice(start, _AT_ONCE).combine_chunks()
                at = pc.index_in(part.column("id"), value_set=ids).to_numpy().astype(np.int64)
                nodes = self._nodes(node_type, part, {each: found.take(at) for each, found in of_type.items()})
                yield Record(kind="upsert", node_type=node_type, nodes=nodes)

    def _nodes(self, node_type: str, rows: pa.Table, lists: Mapping[EdgeType, Lists]) -> pa.Table:
        declared = self._types[node_type]
        every = np.arange(rows.num_rows)
        popularity = np.zeros(rows.num_rows, np.float64)
        for edge_type, each in lists.items():
            if self._relations[edge_type.triple].role is RelationRole.ENGAGEMENT:
                popularity += each.degree
        columns: dict[str, Any] = {"id": rows.column("id")}
        columns["name"] = rows.column(declared.display or "id")
        columns["popularity"] = pa.array(popularity)
        for told in self.bundle.node_types[node_type].properties:
            column = layout.property_column(told.name)
            kind = self.bundle.nodes(node_type).schema.field(column).type
            given = rows.column(told.name) if told.name in declared.properties else pa.nulls(rows.num_rows)
            columns[column] = given.cast(kind)
        for edge_type, each in lists.items():
            engagement = self._relations[edge_type.triple].role is RelationRole.ENGAGEMENT
            kept = each if engagement and not edge_type.reversed else each.take(every, self._most)
            columns[f"links/{edge_type.key}"] = kept.ids_column()
            columns[f"weights/{edge_type.key}"] = kept.weights_column()
        for (space, encoded), encoder in self._encoders.items():
            if encoded == node_type:
                columns[f"vector/{space}"] = self._vectors(encoder, node_type, rows, lists)
        return pa.table(columns)

    def _vectors(
        self, encoder: OnlineEncoder, node_type: str, rows: pa.Table, lists: Mapping[EdgeType, Lists]
    ) -> pa.Array:
        """By what is published of the neighbours; null where nothing is known of the node, or it is not finite.

        A concept that is published keeps its vector: only one that training did not know is encoded.
        """
        manifest = self.bundle.node_types[node_type]
        links = {each: found.known(self._published(each.neighbour_type)) for each, found in lists.items()}
        names = [each.name for each in manifest.properties if each.name in rows.column_names]
        read = [each.name for each in manifest.properties if each.feature and each.name in rows.column_names]
        known = np.zeros(rows.num_rows, np.bool_)
        for csr in links.values():
            known |= np.diff(csr.indptr) > 0
        for name in read:
            known |= pc.is_valid(rows.column(name)).to_numpy()
        if manifest.role == NodeRole.CONCEPT.value:
            known = pc.invert(pc.is_in(rows.column("id"), value_set=self._published(node_type))).to_numpy()
        vectors: list[Any] = [None] * rows.num_rows
        which = np.flatnonzero(known)
        # A table without columns has no rows.
        table = rows.select(names or ["id"])
        for start in range(0, len(which), _ENCODED_AT_ONCE):
            some = which[start : start + _ENCODED_AT_ONCE]
            own = {each: csr.take(some) for each, csr in links.items()}
            found = encoder.encode_rows(table.take(pa.array(some)).combine_chunks(), own)
            for row, vector in zip(some.tolist(), found, strict=True):
                vectors[row] = vector if np.isfinite(vector).all() else None
        return pa.array(vectors, pa.list_(pa.float32()))

    def _published(self, node_type: str) -> pa.Array:
        if node_type not in self._ids:
            self._ids[node_type] = _one(self.bundle.nodes(node_type).column(0)).cast(pa.string())
        return self._ids[node_type]

    def _lists(
        self,
        store: GraphStore,
        wanted: Mapping[str, pa.Array],
        pairs: Mapping[Triple, Collection[tuple[str, str]]],
        noted: Noted | None,
    ) -> dict[EdgeType, Lists]:
        """All edges of the nodes, by edge type of theirs; each relation is read once for both ends."""
        if sum(map(len, wanted.values())) <= _FEW:
            return self._asked(store, wanted)
        found: dict[EdgeType, Lists] = {}
        nobody = pa.array([], pa.string())
        for triple, relation in self._relations.items():
            listed = [EdgeType(triple), EdgeType(triple, True)]
            ends = [wanted.get(each.node_type, nobody) if each in self.bundle.edge_types else nobody for each in listed]
            if not any(map(len, ends)):
                continue
            columns = [name for name in (relation.weight, relation.time) if name]
            if noted is not None and triple in pairs:
                columns = list(relation.properties)
            tables = self.lookup.edges(store, triple, columns, sources=ends[0], targets=ends[1])
            if noted is not None and triple in pairs and len(ends[0]):
                told = [pa.array(each, pa.string()) for each in zip(*pairs[triple], strict=True)]
                noted.note(relation.arrow_schema, triple, pa.table(told, ["source", "target"]), tables[0])
            for edge_type, ids, table in zip(listed, ends, tables, strict=True):
                if len(ids):
                    own, other = ("target", "source") if edge_type.reversed else ("source", "target")
                    found[edge_type] = Lists.of(ids, relation, table.column(own), table.column(other), table)
        return found

    def _asked(self, store: GraphStore, wanted: Mapping[str, pa.Array]) -> dict[EdgeType, Lists]:
        found: dict[EdgeType, Lists] = {}
        for node_type, ids in wanted.items():
            edge_types = [
                each
                for each in self.bundle.edge_types
                if each.node_type == node_type and each.triple in self._relations
            ]
            limit = self._limit(node_type, edge_types)
            edges: dict[EdgeType, list[tuple[str, str, Mapping[str, Any]]]] = {each: [] for each in edge_types}
            for node_id in ids.to_pylist():
                for each in store.neighbourhood(node_type, node_id, limit=limit):
                    ends = [each.direction == "in"]
                    if (each.node_type, each.node_id) == (node_type, node_id):
                        ends = [False, True]  # a loop is told once
                    for reverse in ends:
                        if EdgeType(each.triple, reverse) in edges:
                            edges[EdgeType(each.triple, reverse)].append((node_id, each.node_id, each.properties))
            for edge_type, listed in edges.items():
                relation = self._relations[edge_type.triple]
                own, other = (
                    pa.chunked_array([pa.array([edge[end] for edge in listed], pa.string())]) for end in (0, 1)
                )
                columns = [name for name in (relation.weight, relation.time) if name]
                more = {
                    name: pa.array([edge[2].get(name) for edge in listed], relation.properties[name].type.arrow)
                    for name in columns
                }
                found[edge_type] = Lists.of(ids, relation, own, other, pa.table(more))
        return found

    def _limit(self, node_type: str, lists: Collection[EdgeType]) -> int:
        """Edges to ask for by relation: what is not encoded needs those of its lists; a genre may have a million."""
        encoded = any(each == node_type for _, each in self._encoders)
        engaged = any(self._relations[each.triple].role is RelationRole.ENGAGEMENT for each in lists)
        # Both directions of a relation share the limit.
        both_ways = any(each.node_type == each.neighbour_type for each in lists)
        return _EVERY_EDGE if encoded or engaged or both_ways else self._most


def _one(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return joined.chunk(0) if isinstance(joined, pa.ChunkedArray) else joined


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


def logged_nodes(
    schema: GraphSchema, changes: Collection[Logged]
) -> tuple[dict[str, set[str]], dict[Triple, set[tuple[str, str]]], bool]:
    """The same of what a store's log tells; the pairs of ends it names; whether it names all that changed."""
    relations = {each.triple.key: each.triple for each in schema.relations}
    found: dict[str, set[str]] = {}
    pairs: dict[Triple, set[tuple[str, str]]] = {}
    whole = True
    for each in changes:
        triple = relations.get(each.what)
        # With a node go edges that the log does not name, and their other ends differ too.
        whole &= each.keys is not None and not (triple is None and each.op == "delete")
        for key in each.keys or ():
            if triple is None:
                found.setdefault(each.what, set()).add(key[0])
            else:
                pairs.setdefault(triple, set()).add((key[0], key[1]))
    return affected_nodes(found, pairs), pairs, whole
