"""Who counts as a neighbour in a space: the setting ``sampler``, for training, inference and publishing alike."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from graph_store.schema import NodeRole
from graph_store.settings import SpaceSettings
from model_store.csr import Csr, EdgeType
from training.fit_features import median_weight
from training.graph import Graph
from training.neighbours import top_neighbours
from training.relevance import relevance_vectors
from training.sampling import Metapath, RandomWalkSampler, Sampler, UniformSampler, round_trips
from training.sampling.region_of_interest import RegionOfInterestSampler, most_relevant_neighbours

_LIST_SEED = 1
"""Walks for lists are the same walks in training's evaluation, inference and publishing."""
_NODES_AT_ONCE = 1024


class Neighbourhoods(Protocol):
    """Neighbours over some edge types, at most so many of each."""

    edge_types: tuple[EdgeType, ...]

    @property
    def medians(self) -> tuple[float, ...]:
        """Median weight per edge type; 0: the edges have no weight."""
        ...

    def lists(self, limit: int) -> dict[EdgeType, Csr]:
        """Per edge type at most ``limit`` neighbours of every node, the best first: what inference reads."""
        ...

    def sampler(self, *, limit: int, seed: int) -> Sampler:
        """Draws neighbourhoods for training; ``limit``: neighbours considered per node and edge type."""
        ...


class Heaviest:
    """Neighbours over the declared relations: the newest or heaviest; in training drawn evenly from these."""

    def __init__(self, graph: Graph, settings: SpaceSettings) -> None:
        self.graph, self.settings = graph, settings
        self.edge_types = graph.edge_types

    @cached_property
    def medians(self) -> tuple[float, ...]:
        """See ``Neighbourhoods``."""
        return _medians(self.graph)

    def lists(self, limit: int) -> dict[EdgeType, Csr]:
        """See ``Neighbourhoods``."""
        return {each: top_neighbours(self.graph.csr(each), limit) for each in self.edge_types}

    def sampler(self, *, limit: int, seed: int) -> Sampler:
        """See ``Neighbourhoods``."""
        own, graph = self.settings, self.graph
        lists = {
            each: graph.shared(each, lambda each=each: _timeless(top_neighbours(graph.csr(each), limit)))  # type: ignore[misc]
            for each in self.edge_types
        }
        return UniformSampler(lists, sizes(graph), fan_out=(own.sampled_fan_out,) * own.layers, seed=seed)


class MostVisited:
    """Neighbours by random-walk importance (PinSage): over each round trip the nodes that walks visit most."""

    def __init__(self, graph: Graph, settings: SpaceSettings) -> None:
        self.graph, self.settings = graph, settings
        there = set(graph.edge_types)
        self.metapaths: tuple[Metapath, ...] = tuple(
            each for each in round_trips(graph.schema) if there.issuperset(each.steps)
        )
        self.edge_types = tuple(each.edge_type for each in self.metapaths)
        # Importance adds up to 1: an even share of it counts as the median.
        self.medians = (1.0 / settings.fan_out,) * len(self.edge_types)

    def lists(self, limit: int) -> dict[EdgeType, Csr]:
        """See ``Neighbourhoods``; weights are importances, which add up to 1."""
        if not self.metapaths:
            return {}
        sampler = self._sampler((limit,), _LIST_SEED)
        found: dict[EdgeType, list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]] = {
            each: [] for each in self.edge_types
        }
        for name, count in sizes(self.graph).items():
            for first in range(0, count, _NODES_AT_ONCE):
                nodes = np.arange(first, min(first + _NODES_AT_ONCE, count), dtype=np.int64)
                subgraph = sampler.sample({name: nodes})
                for each in self.edge_types:
                    if each.node_type == name and each in subgraph.edge_index:
                        sender, receiver = subgraph.edge_index[each]
                        ids = subgraph.node_ids[name]
                        found[each].append((ids[receiver], ids[sender], subgraph.importance[each]))
        return {each: _by_rows(parts, self.graph.num_nodes(each.node_type)) for each, parts in found.items()}

    def sampler(self, *, limit: int, seed: int) -> Sampler:
        """See ``Neighbourhoods``; the most visited ``sampled_fan_out``, from new walks in every step."""
        return self._sampler((self.settings.sampled_fan_out,) * self.settings.layers, seed)

    def _sampler(self, neighbours: tuple[int, ...], seed: int) -> RandomWalkSampler:
        adjacency = {part: self.graph.csr(part) for each in self.metapaths for part in each.steps}
        return RandomWalkSampler(
            adjacency, sizes(self.graph), metapaths=self.metapaths, neighbours=neighbours, seed=seed
        )


class MostRelevant:
    """Neighbours over the declared relations, those most relevant to the node itself: each its own focal point (ZOOMER,
    Jiang et al. 2022, as its source serves indexed nodes).
    """

    def __init__(self, graph: Graph, settings: SpaceSettings) -> None:
        self.graph, self.settings = graph, settings
        self.edge_types = graph.edge_types

    @cached_property
    def medians(self) -> tuple[float, ...]:
        """See ``Neighbourhoods``."""
        return _medians(self.graph)

    @cached_property
    def vectors(self) -> dict[str, NDArray[np.float32]]:
        """What relevance is measured by; the same for the same graph."""
        return relevance_vectors(self.graph)

    def lists(self, limit: int) -> dict[EdgeType, Csr]:
        """See ``Neighbourhoods``."""
        return {
            each: most_relevant_neighbours(
                self.graph.csr(each),
                self.vectors[each.node_type],
                self.vectors[each.neighbour_type],
                limit,
                self.settings.relevance,
            )
            for each in self.edge_types
        }

    def sampler(self, *, limit: int, seed: int) -> Sampler:
        """See ``Neighbourhoods``; always the most relevant ``sampled_fan_out`` whose edges are not left out."""
        own = self.settings
        # No example, no time to look back from.
        timeless = {each: _timeless(csr) for each, csr in self.lists(limit).items()}
        return RegionOfInterestSampler(
            timeless,
            sizes(self.graph),
            self.vectors,
            fan_out=(own.sampled_fan_out,) * own.layers,
            relevance=own.relevance,
        )


def neighbourhoods(graph: Graph, settings: SpaceSettings) -> Neighbourhoods:
    """What ``settings.sampler`` names, over a graph."""
    kinds: dict[str, type[Heaviest] | type[MostVisited] | type[MostRelevant]] = {
        "uniform": Heaviest,
        "random_walk": MostVisited,
        "region_of_interest": MostRelevant,
    }
    return kinds[settings.sampler](graph, settings)


def sizes(graph: Graph) -> dict[str, int]:
    """Number of nodes of each type."""
    return {node_type.name: graph.num_nodes(node_type.name) for node_type in graph.schema.node_types}


def learned_types(graph: Graph, settings: SpaceSettings) -> dict[str, int]:
    """Number of nodes of the types that ``settings.learned`` gives learned vectors."""
    roles = {NodeRole(each) for each in settings.learned}
    return {each.name: graph.num_nodes(each.name) for each in graph.schema.node_types if each.role in roles}


def _medians(graph: Graph) -> tuple[float, ...]:
    return tuple(median_weight(graph.csr(each)) for each in graph.edge_types)


def _timeless(csr: Csr) -> Csr:
    return Csr(indptr=csr.indptr, indices=csr.indices, weight=csr.weight)


def _by_rows(parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]], rows: int) -> Csr:
    """Adjacency from (node, neighbour, weight) with nodes ascending."""
    node = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
    neighbour = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
    weight = np.concatenate([np.empty(0, np.float32), *(part[2] for part in parts)])
    indptr = np.concatenate([[0], np.cumsum(np.bincount(node, minlength=rows))]).astype(np.int64)
    return Csr(indptr=indptr, indices=neighbour.astype(np.int32), weight=weight)
