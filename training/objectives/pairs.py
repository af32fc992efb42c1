"""Positive pairs for the space of similarity, drawn from every relation in balance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from graph_store.schema import NodeRole, RelationRole
from model_store.csr import EdgeType
from model_store.features import link_weight
from training.factorise import idf
from training.fit_features import median_weight, relation_groups
from training.graph import Graph

Nodes = NDArray[np.int64]


class PairSource(Protocol):
    """Draws positive pairs of one kind."""

    @property
    def name(self) -> str: ...

    @property
    def edges(self) -> int:
        """Edges it draws from: what its share of a batch follows from."""
        ...

    @property
    def is_concept(self) -> bool:
        """Whether the right-hand side is a concept."""
        ...

    @property
    def is_company(self) -> bool:
        """Whether the pairs come from engagements."""
        ...

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Nodes, Nodes]:
        """Left and right nodes ``[count]``, as numbers in the column of all nodes; a pair may be of twice one node."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkedPairs:
    """Both ends of an edge, heavier edges more often."""

    name: str
    left: Nodes
    right: Nodes
    cumulative: NDArray[np.float64]
    is_concept: bool = False
    is_company: bool = False

    @property
    def edges(self) -> int:
        return len(self.left)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Nodes, Nodes]:
        chosen = _chosen(self.cumulative, count, rng)
        return self.left[chosen], self.right[chosen]


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedPairs:
    """Two nodes that share a neighbour, found over an edge to it drawn by weight times idf and an edge back."""

    name: str
    node: Nodes
    """Node of each edge, in the column of all nodes; edges stand by shared neighbour."""
    neighbour: Nodes
    """Number of the shared neighbour of each edge, ascending."""
    cumulative: NDArray[np.float64]
    indptr: NDArray[np.int64]
    is_concept: bool = False
    is_company: bool = False

    @property
    def edges(self) -> int:
        return len(self.node)

    def draw(self, count: int, rng: np.random.Generator) -> tuple[Nodes, Nodes]:
        there = _chosen(self.cumulative, count, rng)
        first, last = self.indptr[self.neighbour[there]], self.indptr[self.neighbour[there] + 1]
        low, high = np.where(first > 0, self.cumulative[first - 1], 0.0), self.cumulative[last - 1]
        back = np.searchsorted(self.cumulative, low + (high - low) * rng.random(count), side="right")
        return self.node[there], self.node[np.clip(back, first, last - 1)]


@dataclass(frozen=True, kw_only=True)
class PairTasks:
    """Pair sources, each with its share of a batch."""

    sources: tuple[PairSource, ...]
    shares: tuple[float, ...]
    """Add up to 1."""
    total_nodes: int
    _log_q: dict[bool, NDArray[np.float32]] = field(default_factory=dict)

    def draw(self, count: int, rng: np.random.Generator, *, concepts: bool) -> tuple[Nodes, Nodes]:
        """About ``count`` times the share of pairs with a concept (or without) on the right, none of twice one node."""
        left, right = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for source, share in zip(self.sources, self.shares, strict=True):
            if source.is_concept == concepts:
                # The remainder by chance, so that a small share is not lost.
                part = int(count * share + rng.random())
                drawn = source.draw(part, rng)
                left.append(drawn[0])
                right.append(drawn[1])
        a, b = np.concatenate(left), np.concatenate(right)
        return a[a != b], b[a != b]

    def log_q(self, concepts: bool, seed: int, draws: int = 200_000) -> NDArray[np.float32]:
        """Log of the probability ``[all nodes]`` that a right-hand side is this node, estimated by drawing."""
        if concepts not in self._log_q:
            right = self.draw(draws, np.random.default_rng([seed, int(concepts)]), concepts=concepts)[1]
            count = np.bincount(right, minlength=self.total_nodes).astype(np.float64)
            self._log_q[concepts] = np.log((count + 0.5) / (len(right) + 1.0)).astype(np.float32)
        return self._log_q[concepts]


def similar_tasks(graph: Graph, *, balance: float, concept_share: float) -> PairTasks:
    """Every relation that says that entities are alike, as pairs.

    Co-engagement and other entity-entity edges give their ends; concepts (and, where there are no co-engagement
    edges, users) give entities that share them; edges to concepts give the pair (entity, concept). A source's share
    grows with its edges to the power ``balance`` (0: all alike; 1: as they come); pairs with concepts get
    ``concept_share`` of the whole. Without any such edge there are no sources.
    """
    roles = {node_type.name: node_type.role for node_type in graph.schema.node_types}
    pairs: list[PairSource] = []
    concepts: list[PairSource] = []
    related = {
        relation.triple.source
        for relation in graph.schema.relations_of_role(RelationRole.CO_ENGAGEMENT)
        if graph.csr(EdgeType(relation.triple)).num_edges
    }
    for relation in graph.schema.relations_of_role(RelationRole.CO_ENGAGEMENT):
        edge_types = [EdgeType(relation.triple)]
        pairs += _linked(graph, f"{relation.triple}", edge_types, is_company=True)
    for (near, far, role), relations in relation_groups(graph.schema).items():
        if roles[near] is not NodeRole.ENTITY or role is RelationRole.CO_ENGAGEMENT:
            continue
        seen = [
            EdgeType(relation.triple, relation.triple.source != near or relation.triple.target != far)
            for relation in relations
        ]
        if roles[far] is NodeRole.ENTITY:
            pairs += _linked(graph, f"{near} linked with {far}", seen)
        elif roles[far] is NodeRole.CONCEPT:
            pairs += _shared(graph, f"{near} sharing {far}", seen, near, far)
            concepts += _linked(graph, f"{near} with {far}", seen, is_concept=True)
        elif near not in related:
            pairs += _shared(graph, f"{near} sharing {far}", seen, near, far, is_company=True)
    if not pairs:
        concept_share = 1.0
    shares = [
        *_shares(pairs, balance, 1.0 - (concept_share if concepts else 0.0)),
        *_shares(concepts, balance, concept_share),
    ]
    return PairTasks(sources=(*pairs, *concepts), shares=tuple(shares), total_nodes=graph.total_nodes)


def _shares(sources: Sequence[PairSource], balance: float, whole: float) -> list[float]:
    weight = np.asarray([float(source.edges) for source in sources]) ** balance
    return list(weight / weight.sum() * whole) if len(sources) else []


def _linked(
    graph: Graph, name: str, edge_types: list[EdgeType], *, is_concept: bool = False, is_company: bool = False
) -> list[PairSource]:
    left: list[Nodes] = []
    right: list[Nodes] = []
    weight: list[NDArray[np.float64]] = []
    for edge_type in edge_types:
        csr = graph.csr(edge_type)
        rows = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
        a = rows + graph.offsets[edge_type.node_type]
        b = np.asarray(csr.indices).astype(np.int64) + graph.offsets[edge_type.neighbour_type]
        w = link_weight(csr, median_weight(csr)).astype(np.float64)
        both = edge_type.node_type == edge_type.neighbour_type
        left += [a, b] if both else [a]
        right += [b, a] if both else [b]
        weight += [w, w] if both else [w]
    weights = np.concatenate(weight)
    if not weights.sum() > 0:
        return []
    return [
        LinkedPairs(
            name=name,
            left=np.concatenate(left),
            right=np.concatenate(right),
            cumulative=np.cumsum(weights),
            is_concept=is_concept,
            is_company=is_company,
        )
    ]


def _shared(
    graph: Graph, name: str, edge_types: list[EdgeType], near: str, far: str, *, is_company: bool = False
) -> list[PairSource]:
    shape = (graph.num_nodes(near), graph.num_nodes(far))
    incidence = sp.csr_matrix(shape)
    for edge_type in edge_types:
        csr = graph.csr(edge_type)
        weight = link_weight(csr, median_weight(csr)).astype(np.float64)
        incidence = incidence + sp.csr_matrix((weight, np.asarray(csr.indices), np.asarray(csr.indptr)), shape=shape)
    columns = (incidence @ sp.diags(idf(incidence))).tocsc()
    # A neighbour of one node only joins nothing.
    alone = np.repeat(np.diff(columns.indptr) < 2, np.diff(columns.indptr))
    data = np.where(alone, 0.0, columns.data)
    if not data.sum() > 0:
        return []
    return [
        SharedPairs(
            name=name,
            node=columns.indices.astype(np.int64) + graph.offsets[near],
            neighbour=np.repeat(np.arange(shape[1]), np.diff(columns.indptr)),
            cumulative=np.cumsum(data),
            indptr=columns.indptr.astype(np.int64),
            is_company=is_company,
        )
    ]


def _chosen(cumulative: NDArray[np.float64], count: int, rng: np.random.Generator) -> Nodes:
    found = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    return np.asarray(np.minimum(found, len(cumulative) - 1), dtype=np.int64)
