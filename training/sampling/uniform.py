"""Uniform neighbours: every edge of a node and edge type is as likely as any other (Hamilton et al. 2017, 3.1)."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model_store.csr import Csr, EdgeType
from training.sampling.draw import draw_uniform, localise, stream
from training.sampling.sampler import Exclusion
from training.sampling.subgraph import Subgraph

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
_NO_PAIRS: Pairs = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


class UniformSampler:
    """Draws up to ``fan_out[hop]`` edges per node and edge type, without replacement.

    ``adjacency`` holds the edges that may carry messages (``Snapshot.csr`` or a part of it), ``num_nodes`` the nodes of
    each type. ``fan_out`` has one number a hop, for all edge types or by edge type; -1 takes all edges, 0 none. Several
    threads may sample at once: the work is done without the interpreter's lock, and each thread keeps 4 bytes a node.
    """

    def __init__(
        self,
        adjacency: Mapping[EdgeType, Csr],
        num_nodes: Mapping[str, int],
        *,
        fan_out: Sequence[int] | Mapping[EdgeType, Sequence[int]],
        seed: int = 1,
    ) -> None:
        self._adjacency = dict(adjacency)
        self._num_nodes = dict(num_nodes)
        if not isinstance(fan_out, Mapping):
            fan_out = dict.fromkeys(self._adjacency, fan_out)
        self._fan_out = {edge_type: tuple(fan_out.get(edge_type, ())) for edge_type in self._adjacency}
        if any(count < -1 for counts in self._fan_out.values() for count in counts):
            raise ValueError("a fan-out is a number of edges, 0 for none, -1 for all")
        self.hops = max((len(counts) for counts in self._fan_out.values()), default=0)
        self._seed = seed
        self._thread = threading.local()
        for edge_type, csr in self._adjacency.items():
            if csr.num_rows != self._num_nodes[edge_type.node_type]:
                raise ValueError(
                    f"{edge_type.key}: {csr.num_rows} rows, but {self._num_nodes[edge_type.node_type]} nodes"
                )

    def sample(
        self,
        seeds: Mapping[str, NDArray[np.int64]],
        *,
        focal: Mapping[str, NDArray[np.float32]] | None = None,
        key: int = 0,
        exclude: Exclusion | None = None,
    ) -> Subgraph:
        """The neighbourhood of the seeds; see ``Sampler``. ``importance`` is 1 / edges kept; ``focal`` is not read."""
        left_out = _by_triple(exclude or {})
        ids = {name: [_checked(nodes, self._num_nodes[name], name)] for name, nodes in seeds.items()}
        counts = {name: len(parts[0]) for name, parts in ids.items()}
        per_hop = {name: [count] for name, count in counts.items()}
        edges: dict[EdgeType, list[tuple[NDArray[np.int64], ...]]] = {edge_type: [] for edge_type in self._adjacency}
        places = self._places()
        try:
            for name, parts in ids.items():
                # A repeated seed is found under its first position.
                places[name][parts[0][::-1]] = np.arange(counts[name], dtype=np.int32)[::-1]
            first = dict.fromkeys(counts, 0)
            for hop in range(self.hops):
                last = dict(counts)
                for number, (edge_type, csr) in enumerate(self._adjacency.items()):
                    fan_out = self._fan_out[edge_type][hop : hop + 1]
                    start = first.get(edge_type.node_type, 0)
                    stop = last.get(edge_type.node_type, 0)
                    if not fan_out or not fan_out[0] or start == stop:
                        edges[edge_type].append((*_NO_PAIRS, _NO_PAIRS[0]))
                        continue
                    frontier = _between(ids[edge_type.node_type], start, stop)
                    state = stream(self._seed, key, hop * len(self._adjacency) + number)
                    pairs = left_out.get(edge_type, _NO_PAIRS)
                    position, owner = draw_uniform(csr.indptr, csr.indices, frontier, fan_out[0], *pairs, state)
                    name = edge_type.neighbour_type
                    found = counts.setdefault(name, 0)
                    neighbour, new = localise(places[name], csr.indices[position], found)
                    ids.setdefault(name, []).append(new)
                    counts[name] = found + len(new)
                    edges[edge_type].append((neighbour, owner + start, position))
                for name, count in counts.items():
                    before = sum(per_hop.setdefault(name, [0] * (hop + 1)))
                    per_hop[name].append(count - before)
                first = {name: last.get(name, 0) for name in counts}
            node_ids = {name: np.concatenate(parts) for name, parts in ids.items()}
        finally:
            for name, parts in ids.items():
                for part in parts:
                    places[name][part] = -1
        return self._subgraph(node_ids, {name: len(ids[name][0]) for name in seeds}, per_hop, edges)

    def _subgraph(
        self,
        node_ids: dict[str, NDArray[np.int64]],
        num_seeds: dict[str, int],
        per_hop: dict[str, list[int]],
        edges: dict[EdgeType, list[tuple[NDArray[np.int64], ...]]],
    ) -> Subgraph:
        edge_index, edge_weight, importance, edge_position = {}, {}, {}, {}
        for edge_type, hops in edges.items():
            none = (*_NO_PAIRS, _NO_PAIRS[0])
            neighbour, owner, position = (np.concatenate(parts) for parts in zip(none, *hops, strict=True))
            weight = self._adjacency[edge_type].weight
            kept = np.bincount(owner)
            edge_index[edge_type] = np.stack([neighbour, owner])
            edge_weight[edge_type] = None if weight is None else np.asarray(weight[position])
            importance[edge_type] = (1.0 / kept[owner]).astype(np.float32)
            edge_position[edge_type] = position
        return Subgraph(
            node_ids=node_ids,
            num_seeds=num_seeds,
            edge_index=edge_index,
            edge_weight=edge_weight,
            importance=importance,
            edge_position=edge_position,
            nodes_per_hop={name: tuple(counts) for name, counts in per_hop.items()},
            edges_per_hop={edge_type: tuple(len(part[0]) for part in hops) for edge_type, hops in edges.items()},
        )

    def _places(self) -> dict[str, NDArray[np.int32]]:
        """Per type the position of every node in the subgraph under way, -1 for none; one set a thread."""
        places: dict[str, NDArray[np.int32]] | None = getattr(self._thread, "places", None)
        if places is None:
            places = {name: np.full(count, -1, dtype=np.int32) for name, count in self._num_nodes.items()}
            self._thread.places = places
        return places


def _checked(nodes: NDArray[np.int64], count: int, name: str) -> NDArray[np.int64]:
    nodes = np.ascontiguousarray(nodes, dtype=np.int64)
    if len(nodes) and (nodes.min() < 0 or nodes.max() >= count):
        wrong = nodes[(nodes < 0) | (nodes >= count)][0]
        raise IndexError(f"{wrong} is no {name}: there are {count}")
    return nodes


def _between(parts: list[NDArray[np.int64]], start: int, stop: int) -> NDArray[np.int64]:
    joined = np.concatenate(parts)
    parts[:] = [parts[0], joined[len(parts[0]) :]]  # the seeds stay the first part
    return joined[start:stop]


def _by_triple(exclude: Exclusion) -> dict[EdgeType, Pairs]:
    """The pairs from both ends, sorted by node and neighbour."""
    gathered: dict[EdgeType, list[Pairs]] = {}
    for edge_type, (nodes, neighbours) in exclude.items():
        mirrored = EdgeType(edge_type.triple, not edge_type.reversed)
        gathered.setdefault(edge_type, []).append((nodes, neighbours))
        gathered.setdefault(mirrored, []).append((neighbours, nodes))
    result = {}
    for edge_type, pairs in gathered.items():
        nodes = np.concatenate([np.asarray(pair[0], dtype=np.int64) for pair in pairs])
        neighbours = np.concatenate([np.asarray(pair[1], dtype=np.int64) for pair in pairs])
        order = np.lexsort((neighbours, nodes))
        result[edge_type] = (nodes[order], neighbours[order])
    return result
