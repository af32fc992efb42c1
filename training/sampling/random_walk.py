"""Neighbours by importance: the nodes that short random walks visit most (PinSage, Ying et al. 2018, section 3.1)."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from graph_store.schema import GraphSchema, RelationRole, Triple
from model_store.csr import Csr, EdgeType
from training.sampling.draw import localise, stream
from training.sampling.sampler import Exclusion
from training.sampling.subgraph import Subgraph
from training.sampling.uniform import _NO_PAIRS, Pairs, _between, _by_triple, _checked
from training.sampling.walk import alias_table, begin, most_visited, restart, step

_TOGETHER = 1 << 17
"""Walkers that step together: their state (12 bytes each) stays in the processor's cache."""


class Metapath(NamedTuple):
    """Edge types followed one after the other, from a node type back to it."""

    steps: tuple[EdgeType, ...]

    @property
    def edge_type(self) -> EdgeType:
        """The name under which a subgraph holds the neighbours reached this way.

        A relation from the node type to itself, called by the keys of its steps, for example
        ``User__WATCHED__Film__rev+User__WATCHED__Film``. Being an ``EdgeType``, it needs nothing new of a ``Subgraph``
        or of who reads one; no declared relation can have the name, because no identifier has a ``+``.
        """
        node_type = self.steps[0].node_type
        return EdgeType(Triple(node_type, "+".join(part.key for part in self.steps), node_type))


def round_trips(schema: GraphSchema) -> tuple[Metapath, ...]:
    """All two-step metapaths that go out and back through one engagement or semantic relation, from both its ends."""
    relations = schema.relations_of_role(RelationRole.ENGAGEMENT) + schema.relations_of_role(RelationRole.SEMANTIC)
    directions = [
        (EdgeType(each.triple, way), EdgeType(each.triple, not way)) for each in relations for way in (False, True)
    ]
    return tuple(Metapath(steps) for steps in directions)


class RandomWalkSampler:
    """Takes the ``neighbours[hop]`` nodes that walks along each metapath visit most often.

    From a node, ``walks`` walkers go ``rounds`` times along the metapath; each end of a round is a visit. Before a
    later round a walker returns to its node with the probability ``restart``, and always where no edge led on. A step
    is drawn in proportion to edge weight where the relation has one. The node itself is no neighbour of its own; ties
    go to the lower index. Importance is the visit counts of those taken, divided by their sum.

    ``adjacency`` holds the edges that may be walked (``Snapshot.csr`` or a part of it), ``num_nodes`` the nodes of each
    type, ``metapaths`` at least one way (``round_trips`` for the usual ones). A node's neighbours follow from the
    sampler's seed, the call's ``key`` and what is excluded, not from the batch, hop or thread: with the same ``key``
    they may be kept; fewer ``neighbours`` are the first of more. Weights take 8 bytes an edge more, each thread 4 bytes
    a node. Raises ValueError for metapaths, weights or numbers that cannot be walked.
    """

    def __init__(
        self,
        adjacency: Mapping[EdgeType, Csr],
        num_nodes: Mapping[str, int],
        *,
        metapaths: Sequence[Metapath],
        neighbours: Sequence[int],
        walks: int = 100,
        rounds: int = 2,
        restart: float = 0.5,
        seed: int = 1,
    ) -> None:
        if walks < 1 or rounds < 1 or not 0 <= restart <= 1 or any(count < 1 for count in neighbours):
            raise ValueError("walks, rounds and neighbours are at least 1, restart is a probability")
        self._num_nodes = dict(num_nodes)
        self._metapaths = {metapath.edge_type: metapath for metapath in _walkable(metapaths, adjacency)}
        self._adjacency = {part: adjacency[part] for each in self._metapaths.values() for part in each.steps}
        self._tables = {}
        for edge_type, csr in self._adjacency.items():
            if csr.num_rows != self._num_nodes[edge_type.node_type]:
                raise ValueError(
                    f"{edge_type.key}: {csr.num_rows} rows, but {self._num_nodes[edge_type.node_type]} nodes"
                )
            self._tables[edge_type] = _table(edge_type, csr)
        self._neighbours = tuple(neighbours)
        self._walks, self._rounds, self._restart, self._seed = walks, rounds, float(restart), seed
        self.hops = len(self._neighbours)
        self._thread = threading.local()

    def sample(
        self,
        seeds: Mapping[str, NDArray[np.int64]],
        *,
        focal: Mapping[str, NDArray[np.float32]] | None = None,
        key: int = 0,
        exclude: Exclusion | None = None,
    ) -> Subgraph:
        """The neighbourhood of the seeds; see ``Sampler``. ``focal`` is not read.

        The edge types are those of the metapaths (``Metapath.edge_type``), each node's edges by falling importance;
        they have no weight and no position. Each hop adds the neighbours of the nodes that the hop before found.
        Excluded edges are walked in neither direction: the walk is that of a graph without them.
        """
        left_out = _by_triple(exclude or {})
        ids = {name: [_checked(nodes, self._num_nodes[name], name)] for name, nodes in seeds.items()}
        num_seeds = {name: len(parts[0]) for name, parts in ids.items()}
        counts = dict(num_seeds)
        per_hop = {name: [count] for name, count in counts.items()}
        edges: dict[EdgeType, list[tuple[NDArray[np.int64], ...]]] = {each: [] for each in self._metapaths}
        places = self._places()
        try:
            for name, parts in ids.items():
                # A repeated seed is found under its first position.
                places[name][parts[0][::-1]] = np.arange(counts[name], dtype=np.int32)[::-1]
            first = dict.fromkeys(counts, 0)
            for top in self._neighbours:
                last = dict(counts)
                for number, (edge_type, metapath) in enumerate(self._metapaths.items()):
                    name = edge_type.node_type
                    start, stop = first.get(name, 0), last.get(name, 0)
                    if start == stop:
                        edges[edge_type].append((*_NO_PAIRS, _NO_PAIRS[0]))
                        continue
                    frontier = _between(ids[name], start, stop)
                    state = stream(self._seed, key, number)
                    reached, visits, owner = self.visited(metapath, frontier, top, state, left_out)
                    neighbour, new = localise(places[name], reached, counts[name])
                    ids[name].append(new)
                    counts[name] += len(new)
                    edges[edge_type].append((neighbour, owner + start, visits))
                for name, count in counts.items():
                    per_hop[name].append(count - sum(per_hop[name]))
                first = last
            node_ids = {name: np.concatenate(parts) for name, parts in ids.items()}
        finally:
            for name, parts in ids.items():
                for part in parts:
                    places[name][part] = -1
        return _subgraph(node_ids, num_seeds, per_hop, edges)

    def visited(
        self,
        metapath: Metapath,
        nodes: NDArray[np.int64],
        top: int,
        state: np.uint64,
        left_out: Mapping[EdgeType, Pairs],
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """The most visited of each node, their counts and the place in ``nodes`` each belongs to; see ``most_visited``.

        ``left_out``: pairs by edge type, sorted by node, then neighbour.
        """
        chunk = max(_TOGETHER // self._walks, 1)
        results = []
        for start in range(0, len(nodes), chunk):
            part = nodes[start : start + chunk]
            current, states = begin(part, self._walks, state)
            visits = np.empty((self._rounds, len(current)), dtype=np.int32)
            for number in range(self._rounds):
                if number:
                    restart(current, part, states, self._restart)
                for edge_type in metapath.steps:
                    csr = self._adjacency[edge_type]
                    pairs = left_out.get(edge_type, _NO_PAIRS)
                    step(csr.indptr, csr.indices, *self._tables[edge_type], current, states, *pairs)
                visits[number] = current
            reached, counts, owners = most_visited(visits, part, top)
            results.append((reached, counts, owners + start))
        reached, counts, owners = (np.concatenate(parts) for parts in zip(*results, strict=True))
        return reached, counts, owners

    def _places(self) -> dict[str, NDArray[np.int32]]:
        """Per type the position of every node in the subgraph under way, -1 for none; one set a thread."""
        places: dict[str, NDArray[np.int32]] | None = getattr(self._thread, "places", None)
        if places is None:
            places = {name: np.full(count, -1, dtype=np.int32) for name, count in self._num_nodes.items()}
            self._thread.places = places
        return places


def _walkable(metapaths: Sequence[Metapath], adjacency: Mapping[EdgeType, Csr]) -> Sequence[Metapath]:
    if not metapaths:
        raise ValueError("no metapath: name at least one way to walk, or take those of round_trips(schema)")
    for metapath in metapaths:
        steps = metapath.steps
        if not steps:
            raise ValueError("a metapath is empty: name the edge types to walk along")
        for edge_type in steps:
            if edge_type not in adjacency:
                raise ValueError(f"metapath over {edge_type.key}: there is no such edge type in the adjacency")
        for before, after in zip(steps, (*steps[1:], steps[0]), strict=True):
            if before.neighbour_type != after.node_type:
                raise ValueError(
                    f"metapath {metapath.edge_type.triple.name}: {before.key} leads to {before.neighbour_type}, but "
                    f"{after.key} starts at {after.node_type}; a metapath ends where it starts"
                )
    if len(set(metapaths)) < len(metapaths):
        raise ValueError("a metapath is named twice: name each once")
    return metapaths


def _table(edge_type: EdgeType, csr: Csr) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """Alias table and weights; both empty where every edge weighs 1."""
    if csr.weight is None:
        return np.empty((0, 2), dtype=np.uint32), np.empty(0, dtype=np.float32)
    wrong = np.flatnonzero(~((csr.weight >= 0) & np.isfinite(csr.weight)))
    if len(wrong):
        raise ValueError(
            f"{edge_type.key}: edge {wrong[0]} weighs {csr.weight[wrong[0]]}; walks need finite weights of at least 0: "
            "leave the weight out of the adjacency, or shift it"
        )
    return alias_table(csr.indptr, csr.indices, csr.weight), csr.weight


def _subgraph(
    node_ids: dict[str, NDArray[np.int64]],
    num_seeds: dict[str, int],
    per_hop: dict[str, list[int]],
    edges: dict[EdgeType, list[tuple[NDArray[np.int64], ...]]],
) -> Subgraph:
    edge_index, importance = {}, {}
    for edge_type, hops in edges.items():
        none = (*_NO_PAIRS, _NO_PAIRS[0])
        neighbour, owner, visits = (np.concatenate(parts) for parts in zip(none, *hops, strict=True))
        edge_index[edge_type] = np.stack([neighbour, owner])
        importance[edge_type] = (visits / np.bincount(owner, weights=visits)[owner]).astype(np.float32)
    return Subgraph(
        node_ids=node_ids,
        num_seeds=num_seeds,
        edge_index=edge_index,
        edge_weight=dict.fromkeys(edges),
        importance=importance,
        edge_position={},
        nodes_per_hop={name: tuple(counts) for name, counts in per_hop.items()},
        edges_per_hop={edge_type: tuple(len(part[0]) for part in hops) for edge_type, hops in edges.items()},
    )
