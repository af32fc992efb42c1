"""Disjoint neighbourhoods: a subgraph of its own for every example, with only the edges that were there before it.

A node that two examples reach is two nodes (GraphSAGE on links as PyG's ``disjoint=True``): the two may see it at
different times, with other edges.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.csr import Csr, EdgeType
from training.sampling.draw import stream
from training.sampling.draw_before import count_before, draw_before, find_or_add, grown
from training.sampling.subgraph import Subgraph
from training.sampling.uniform import _checked

Nodes = NDArray[np.int64]
_EVER = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True, slots=True)
class DisjointSubgraph:
    """A subgraph in which every node belongs to one example."""

    graph: Subgraph
    example: dict[str, Nodes]
    """Per type the example of each node ``[n]``; an edge joins nodes of one example."""
    degree: dict[EdgeType, Nodes]
    """Per edge type, of every node of its node type, how many edges it had before its example ``[n]``, drawn or not."""


class DisjointSampler:
    """Draws, for every example, up to ``fan_out[hop]`` edges per node and edge type among those before the example.

    ``adjacency``, ``num_nodes`` and ``fan_out`` as in ``UniformSampler``. Edge types in ``newest`` give their latest
    edges in place of uniform ones (what a user engaged with last); ties in time go to the later position. Threads may
    share a sampler.
    """

    def __init__(
        self,
        adjacency: Mapping[EdgeType, Csr],
        num_nodes: Mapping[str, int],
        *,
        fan_out: Sequence[int] | Mapping[EdgeType, Sequence[int]],
        newest: Collection[EdgeType] = (),
        seed: int = 1,
    ) -> None:
        self._num_nodes = dict(num_nodes)
        self._adjacency: dict[EdgeType, Csr] = {}
        self._position: dict[EdgeType, Nodes] = {}
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
        if wrong := [each.key for each in newest if each not in self._adjacency or self._adjacency[each].time is None]:
            raise ValueError(f"no times to take the newest by: {', '.join(wrong)}")
        self._newest = frozenset(newest)
        self.hops = max((len(counts) for counts in self._fan_out.values()), default=0)
        self._seed = seed

    def sample(
        self,
        seeds: Mapping[str, Nodes],
        *,
        before: Nodes | None = None,
        key: int = 0,
        apart: Collection[EdgeType] = (),
    ) -> DisjointSubgraph:
        """The examples' neighbourhoods; seed i of every type belongs to example i.

        ``before`` ``[examples]``: edges at this time or later are left out of the example (None: none are); those
        without times never are. ``apart``: edge types in which the example's two seeds are not joined, from either end,
        because that is what is asked. Raises IndexError for a seed that is no node, ValueError where lengths differ.
        """
        ids = {name: [_checked(nodes, self._num_nodes[name], name)] for name, nodes in seeds.items()}
        examples = {len(parts[0]) for parts in ids.values()} | ({len(before)} if before is not None else set())
        if len(examples) > 1:
            raise ValueError("every type has one seed an example, and every example one time")
        count = examples.pop() if examples else 0
        limit = np.full(count, _EVER) if before is None else np.ascontiguousarray(before, dtype=np.int64)
        owners = {name: [np.arange(count)] for name in seeds}
        tables: dict[str, tuple[Nodes, Nodes]] = {}
        for name, parts in ids.items():
            tables[name] = grown((np.empty(0, np.int64), np.empty(0, np.int64)), count)
            find_or_add(*tables[name], owners[name][0] * self._num_nodes[name] + parts[0], 0)
        counts = dict.fromkeys(seeds, count)
        per_hop = {name: [count] for name in seeds}
        edges: dict[EdgeType, list[tuple[Nodes, Nodes, Nodes]]] = {each: [] for each in self._adjacency}
        first = dict.fromkeys(counts, 0)
        for hop in range(self.hops):
            last = dict(counts)
            for number, (edge_type, csr) in enumerate(self._adjacency.items()):
                fan_out = self._fan_out[edge_type][hop : hop + 1]
                start, stop = first.get(edge_type.node_type, 0), last.get(edge_type.node_type, 0)
                if not fan_out or not fan_out[0] or start == stop:
                    edges[edge_type].append((np.empty(0, np.int64),) * 3)
                    continue
                frontier = np.concatenate(ids[edge_type.node_type])[start:stop]
                owner = np.concatenate(owners[edge_type.node_type])[start:stop]
                position, place = draw_before(
                    csr.indptr,
                    csr.indices,
                    _times(csr),
                    frontier,
                    limit[owner],
                    self._left_out(edge_type, seeds, apart, frontier, owner),
                    fan_out[0],
                    edge_type in self._newest,
                    stream(self._seed, key, hop * len(self._adjacency) + number),
                )
                name = edge_type.neighbour_type
                found = counts.setdefault(name, 0)
                tables[name] = grown(tables.get(name, (np.empty(0, np.int64),) * 2), found + len(position))
                reached = owner[place] * self._num_nodes[name] + csr.indices[position]
                neighbour, new = find_or_add(*tables[name], reached, found)
                ids.setdefault(name, []).append(new % self._num_nodes[name])
                owners.setdefault(name, []).append(new // self._num_nodes[name])
                counts[name] = found + len(new)
                edges[edge_type].append((neighbour, place + start, position))
            for name, total in counts.items():
                per_hop.setdefault(name, [0] * (hop + 1)).append(total - sum(per_hop[name]))
            first = {name: last.get(name, 0) for name in counts}
        node_ids = {name: np.concatenate(parts) for name, parts in ids.items()}
        example = {name: np.concatenate(parts) for name, parts in owners.items()}
        degree = {}
        for edge_type, csr in self._adjacency.items():
            nodes = node_ids.get(edge_type.node_type, np.empty(0, np.int64))
            owner = example.get(edge_type.node_type, np.empty(0, np.int64))
            left_out = self._left_out(edge_type, seeds, apart, nodes, owner)
            degree[edge_type] = count_before(csr.indptr, csr.indices, _times(csr), nodes, limit[owner], left_out)
        graph = self._subgraph(node_ids, dict.fromkeys(seeds, count), per_hop, edges)
        return DisjointSubgraph(graph=graph, example=example, degree=degree)

    def _left_out(
        self, edge_type: EdgeType, seeds: Mapping[str, Nodes], apart: Collection[EdgeType], nodes: Nodes, owner: Nodes
    ) -> Nodes:
        """Per node the neighbour it is not joined with, -1 for none."""
        mirrored = EdgeType(edge_type.triple, not edge_type.reversed)
        if edge_type not in apart and mirrored not in apart:
            return np.full(len(nodes), -1)
        own, other = seeds[edge_type.node_type][owner], seeds[edge_type.neighbour_type][owner]
        return np.where(nodes == own, other, -1)

    def _subgraph(
        self,
        node_ids: dict[str, Nodes],
        num_seeds: dict[str, int],
        per_hop: dict[str, list[int]],
        edges: dict[EdgeType, list[tuple[Nodes, Nodes, Nodes]]],
    ) -> Subgraph:
        edge_index, edge_weight, importance, edge_position = {}, {}, {}, {}
        for edge_type, hops in edges.items():
            neighbour, owner, position = (
                (np.concatenate([np.empty(0, np.int64), *parts]) for parts in zip(*hops, strict=True))
                if hops
                else (np.empty(0, np.int64),) * 3
            )
            weight = self._adjacency[edge_type].weight
            edge_index[edge_type] = np.stack([neighbour, owner])
            edge_weight[edge_type] = None if weight is None else weight[position]
            importance[edge_type] = (1.0 / np.bincount(owner)[owner]).astype(np.float32)
            edge_position[edge_type] = self._position[edge_type][position]
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


def _times(csr: Csr) -> Nodes:
    return np.empty(0, np.int64) if csr.time is None else csr.time


def _oldest_first(csr: Csr) -> tuple[Csr, Nodes]:
    """Each row by time, and where each edge stood."""
    if csr.time is None:
        return csr, np.arange(csr.num_edges)
    rows = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
    order = np.lexsort((np.arange(csr.num_edges), np.asarray(csr.time), rows))
    return Csr(
        indptr=np.asarray(csr.indptr),
        indices=np.asarray(csr.indices)[order],
        weight=None if csr.weight is None else np.asarray(csr.weight)[order],
        time=np.asarray(csr.time)[order],
    ), order
