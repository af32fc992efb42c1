"""The region of interest: the neighbours most relevant to a focal point (ZOOMER, Jiang et al. 2022)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_store.csr import Csr, EdgeType
from training.sampling.disjoint import DisjointSubgraph
from training.sampling.draw_before import count_before, find_or_add, grown
from training.sampling.relevance import most_relevant
from training.sampling.sampler import Exclusion
from training.sampling.subgraph import Subgraph
from training.sampling.uniform import _NO_PAIRS, _by_triple, _checked

Nodes = NDArray[np.int64]
Vectors = NDArray[np.float32]
Relevance = Literal["tanimoto", "cosine"]
_EVER = np.iinfo(np.int64).max
_NODES_AT_ONCE = 8192


class RegionOfInterestSampler:
    """Takes the ``fan_out[hop]`` neighbours per node and edge type that are the most relevant to the focal vector.

    Relevance of a neighbour's vector j to the focal vector f: ``f.j / (|f|^2 + |j|^2 - f.j)`` (``tanimoto``, the
    paper's, arXiv 2203.12596) or ``f.j / (|f| |j|)`` (``cosine``). ``vectors`` are those of all nodes ``[nodes, d]``,
    in one space, by node type; ``adjacency``, ``num_nodes`` and ``fan_out`` as in ``UniformSampler``. Nothing is drawn
    by chance: ties go to the lower index. Threads may share a sampler. Raises ValueError where shapes differ or a
    vector is not finite.
    """

    def __init__(
        self,
        adjacency: Mapping[EdgeType, Csr],
        num_nodes: Mapping[str, int],
        vectors: Mapping[str, Vectors],
        *,
        fan_out: Sequence[int] | Mapping[EdgeType, Sequence[int]],
        relevance: Relevance = "tanimoto",
    ) -> None:
        self._num_nodes = dict(num_nodes)
        self._adjacency: dict[EdgeType, Csr] = {}
        self._position: dict[EdgeType, Nodes | None] = {}
        for edge_type, csr in adjacency.items():
            if csr.num_rows != self._num_nodes[edge_type.node_type]:
                raise ValueError(
                    f"{edge_type.key}: {csr.num_rows} rows, but {self._num_nodes[edge_type.node_type]} nodes"
                )
            self._adjacency[edge_type], self._position[edge_type] = _oldest_first(csr)
        if not isinstance(fan_out, Mapping):
            fan_out = dict.fromkeys(self._adjacency, fan_out)
        self._fan_out = {each: tuple(fan_out.get(each, ())) for each in self._adjacency}
        if any(count < -1 for counts in self._fan_out.values() for count in counts):
            raise ValueError("a fan-out is a number of edges, 0 for none, -1 for all")
        self.hops = max((len(counts) for counts in self._fan_out.values()), default=0)
        needed = {name for each in self._adjacency for name in (each.node_type, each.neighbour_type)}
        self._vectors = {name: np.ascontiguousarray(vectors[name], dtype=np.float32) for name in needed}
        widths = {each.shape[1] for each in self._vectors.values()}
        for name, each in self._vectors.items():
            if len(each) != self._num_nodes[name] or len(widths) > 1:
                raise ValueError(f"{name}: vectors {each.shape} for {self._num_nodes[name]} nodes, widths {widths}")
            if not np.isfinite(each).all():
                raise ValueError(f"{name}: a vector is not finite")
        self._squares = {name: np.einsum("nd,nd->n", each, each) for name, each in self._vectors.items()}
        self._tanimoto = relevance == "tanimoto"

    def sample(
        self,
        seeds: Mapping[str, Nodes],
        *,
        focal: Mapping[str, Vectors] | None = None,
        key: int = 0,
        exclude: Exclusion | None = None,
    ) -> Subgraph:
        """The neighbourhood of the seeds; see ``Sampler``. ``importance`` is 1 / edges kept; ``key`` is not read.

        With ``focal`` each seed has a subgraph of its own, in which its vector decides at every hop: a node that two
        seeds reach is two nodes. Without, every node met is its own focal point, and stands there once.
        """
        left_out = _by_triple(exclude or {})
        ids = {name: _checked(nodes, self._num_nodes[name], name) for name, nodes in seeds.items()}
        if focal is None:
            owners = {name: np.zeros(len(nodes), np.int64) for name, nodes in ids.items()}
            return self._walk(ids, owners, None, None, left_out, ())[0]
        owners, total = {}, 0
        for name, nodes in ids.items():
            owners[name] = np.arange(total, total + len(nodes))
            total += len(nodes)
        stacked = np.concatenate([np.asarray(focal[name], np.float32) for name in ids])
        return self._walk(ids, owners, self._of_width(stacked, total), None, left_out, ())[0]

    def examples(
        self,
        seeds: Mapping[str, Nodes],
        *,
        focal: Vectors | None = None,
        before: Nodes | None = None,
        key: int = 0,
        apart: Collection[EdgeType] = (),
    ) -> DisjointSubgraph:
        """The examples' neighbourhoods; seed i of every type belongs to example i. See ``DisjointSampler.sample``.

        ``focal`` ``[examples, d]``; None: the sum of the vectors of the example's seeds (the source's user and query).
        """
        ids = {name: _checked(nodes, self._num_nodes[name], name) for name, nodes in seeds.items()}
        lengths = {len(nodes) for nodes in ids.values()} | ({len(before)} if before is not None else set())
        if len(lengths) > 1:
            raise ValueError("every type has one seed an example, and every example one time")
        count = lengths.pop() if lengths else 0
        if focal is None:
            focal = np.sum([self._vectors[name][nodes] for name, nodes in ids.items()], axis=0, dtype=np.float32)
        limit = np.full(count, _EVER) if before is None else np.ascontiguousarray(before, dtype=np.int64)
        owners = {name: np.arange(count) for name in ids}
        graph, example = self._walk(ids, owners, self._of_width(focal, count), limit, {}, apart)
        degree = {}
        for edge_type, csr in self._adjacency.items():
            nodes = graph.node_ids.get(edge_type.node_type, np.empty(0, np.int64))
            owner = example.get(edge_type.node_type, np.empty(0, np.int64))
            degree[edge_type] = count_before(
                csr.indptr, csr.indices, _times(csr), nodes, limit[owner], _apart(edge_type, ids, apart, nodes, owner)
            )
        return DisjointSubgraph(graph=graph, example=example, degree=degree)

    def _of_width(self, focal: Vectors, count: int) -> Vectors:
        width = next((each.shape[1] for each in self._vectors.values()), 0)
        if focal.shape != (count, width):
            raise ValueError(f"focal vectors are {focal.shape}, not {(count, width)}")
        return np.ascontiguousarray(focal, dtype=np.float32)

    def _walk(
        self,
        seeds: dict[str, Nodes],
        owners: dict[str, Nodes],
        focal: Vectors | None,
        limit: Nodes | None,
        left_out: Mapping[EdgeType, tuple[Nodes, Nodes]],
        apart: Collection[EdgeType],
    ) -> tuple[Subgraph, dict[str, Nodes]]:
        """Hop after hop; nodes are told apart by owner (row of ``focal`` and ``limit``) and node.

        ``focal`` None: each node's own vector. Returns the owner of each node too.
        """
        ids = {name: [nodes] for name, nodes in seeds.items()}
        owned = {name: [each] for name, each in owners.items()}
        tables = {name: self._table(name, ids[name][0], owned[name][0]) for name in ids}
        counts = {name: len(nodes) for name, nodes in seeds.items()}
        per_hop = {name: [count] for name, count in counts.items()}
        edges: dict[EdgeType, list[tuple[Nodes, Nodes, Nodes]]] = {each: [] for each in self._adjacency}
        first = dict.fromkeys(counts, 0)
        for hop in range(self.hops):
            last = dict(counts)
            for edge_type, csr in self._adjacency.items():
                fan_out = self._fan_out[edge_type][hop : hop + 1]
                start, stop = first.get(edge_type.node_type, 0), last.get(edge_type.node_type, 0)
                if not fan_out or not fan_out[0] or start == stop:
                    continue
                nodes = np.concatenate(ids[edge_type.node_type])[start:stop]
                owner = np.concatenate(owned[edge_type.node_type])[start:stop]
                name = edge_type.neighbour_type
                position, place, _ = most_relevant(
                    csr.indptr,
                    csr.indices,
                    _times(csr),
                    nodes,
                    np.full(len(nodes), _EVER) if limit is None else limit[owner],
                    nodes if focal is None else owner,
                    self._vectors[edge_type.node_type] if focal is None else focal,
                    self._vectors[name],
                    self._squares[name],
                    fan_out[0],
                    self._tanimoto,
                    _apart(edge_type, seeds, apart, nodes, owner),
                    *left_out.get(edge_type, _NO_PAIRS),
                )
                found = counts.setdefault(name, 0)
                tables[name] = grown(tables.get(name, (_NO_PAIRS[0], _NO_PAIRS[0])), found + len(position))
                reached = owner[place] * self._num_nodes[name] + csr.indices[position]
                neighbour, new = find_or_add(*tables[name], reached, found)
                ids.setdefault(name, []).append(new % self._num_nodes[name])
                owned.setdefault(name, []).append(new // self._num_nodes[name])
                counts[name] = found + len(new)
                edges[edge_type].append((neighbour, place + start, position))
            for edge_type in edges:
                if len(edges[edge_type]) <= hop:
                    edges[edge_type].append((*_NO_PAIRS, _NO_PAIRS[0]))
            for name, total in counts.items():
                per_hop.setdefault(name, [0] * (hop + 1)).append(total - sum(per_hop[name]))
            first = {name: last.get(name, 0) for name in counts}
        graph = self._subgraph(
            {name: np.concatenate(parts) for name, parts in ids.items()},
            {name: len(nodes) for name, nodes in seeds.items()},
            per_hop,
            edges,
        )
        return graph, {name: np.concatenate(parts) for name, parts in owned.items()}

    def _table(self, name: str, nodes: Nodes, owner: Nodes) -> tuple[Nodes, Nodes]:
        """The seeds' places; a repeated seed is found under its first."""
        wanted, place = np.unique(owner * self._num_nodes[name] + nodes, return_index=True)
        keys, values = grown((_NO_PAIRS[0], _NO_PAIRS[0]), len(wanted))
        find_or_add(keys, values, wanted, 0)
        taken = keys >= 0
        values[taken] = place[values[taken]]
        return keys, values

    def _subgraph(
        self,
        node_ids: dict[str, Nodes],
        num_seeds: dict[str, int],
        per_hop: dict[str, list[int]],
        edges: dict[EdgeType, list[tuple[Nodes, Nodes, Nodes]]],
    ) -> Subgraph:
        edge_index, edge_weight, importance, edge_position = {}, {}, {}, {}
        for edge_type, hops in edges.items():
            none = (*_NO_PAIRS, _NO_PAIRS[0])
            neighbour, owner, position = (np.concatenate(parts) for parts in zip(none, *hops, strict=True))
            weight, stood = self._adjacency[edge_type].weight, self._position[edge_type]
            edge_index[edge_type] = np.stack([neighbour, owner])
            edge_weight[edge_type] = None if weight is None else np.asarray(weight[position])
            importance[edge_type] = (1.0 / np.bincount(owner)[owner]).astype(np.float32)
            edge_position[edge_type] = position if stood is None else stood[position]
        return Subgraph(
            node_ids=node_ids,
            num_seeds=num_seeds,
            edge_index=edge_index,
            edge_weight=edge_weight,
            importance=importance,
            edge_position=edge_position,
            nodes_per_hop={name: tuple(counts) for name, counts in per_hop.items()},
            edges_per_hop={each: tuple(len(part[0]) for part in hops) for each, hops in edges.items()},
        )


def most_relevant_neighbours(
    csr: Csr, own: Vectors, neighbours: Vectors, limit: int, relevance: Relevance = "tanimoto"
) -> Csr:
    """Each row's ``limit`` neighbours most relevant to the row's own vector, the most relevant first.

    ``own`` ``[rows, d]``, ``neighbours`` ``[columns, d]``. Exact: every edge is looked at; beside the result no more
    memory is taken than for a few thousand rows.
    """
    indptr, indices = np.asarray(csr.indptr), np.asarray(csr.indices)
    own, neighbours = (np.ascontiguousarray(each, dtype=np.float32) for each in (own, neighbours))
    squares = np.einsum("nd,nd->n", neighbours, neighbours)
    kept = np.minimum(np.diff(indptr), limit)
    position = np.empty(int(kept.sum()), np.int64)
    out = 0
    for start in range(0, csr.num_rows, _NODES_AT_ONCE):
        nodes = np.arange(start, min(start + _NODES_AT_ONCE, csr.num_rows))
        ever, nobody = np.full(len(nodes), _EVER), np.full(len(nodes), -1)
        found, _, _ = most_relevant(
            indptr,
            indices,
            _NO_PAIRS[0],
            nodes,
            ever,
            nodes,
            own,
            neighbours,
            squares,
            limit,
            relevance == "tanimoto",
            nobody,
            *_NO_PAIRS,
        )
        position[out : out + len(found)] = found
        out += len(found)
    return Csr(
        indptr=np.concatenate([[0], np.cumsum(kept)]).astype(np.int64),
        indices=indices[position],
        weight=None if csr.weight is None else np.asarray(csr.weight)[position],
        time=None if csr.time is None else np.asarray(csr.time)[position],
    )


def _times(csr: Csr) -> Nodes:
    return _NO_PAIRS[0] if csr.time is None else csr.time


def _apart(
    edge_type: EdgeType, seeds: Mapping[str, Nodes], apart: Collection[EdgeType], nodes: Nodes, owner: Nodes
) -> Nodes:
    """Per node the neighbour it is not joined with, because the example asks for the link; -1 for none."""
    mirrored = EdgeType(edge_type.triple, not edge_type.reversed)
    if edge_type not in apart and mirrored not in apart:
        return np.full(len(nodes), -1)
    own, other = seeds[edge_type.node_type][owner], seeds[edge_type.neighbour_type][owner]
    return np.where(nodes == own, other, -1)


def _oldest_first(csr: Csr) -> tuple[Csr, Nodes | None]:
    """Each row by time, and where each edge stood (None: where it stands)."""
    plain = Csr(indptr=np.asarray(csr.indptr), indices=np.asarray(csr.indices), weight=csr.weight)
    if csr.time is None:
        return plain, None
    rows = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
    order = np.lexsort((np.arange(csr.num_edges), np.asarray(csr.time), rows))
    return Csr(
        indptr=plain.indptr,
        indices=plain.indices[order],
        weight=None if csr.weight is None else np.asarray(csr.weight)[order],
        time=np.asarray(csr.time)[order],
    ), order
