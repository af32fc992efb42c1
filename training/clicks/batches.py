"""From examples to what the click network reads: disjoint sampled neighbourhoods, or all nodes of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from graph_store.schema import RelationRole
from graph_store.settings import ClickNetworkSettings
from model_store.csr import EdgeType
from training.clicks.data import ClickFrame, Clicks
from training.clicks.model import ClickBatch
from training.encoders.convolution import Edges
from training.neighbours import top_neighbours
from training.sampling.disjoint import DisjointSampler

Nodes = NDArray[np.int64]
_PRIOR_VIEWS = 5.0
COUNTS = 8
"""Columns of counts: four of users, four of entities."""


class ClickBatcher:
    """Makes batches over the links of ``rows``; ``place`` is the clock, so that an example sees what was before it."""

    def __init__(self, frame: ClickFrame, rows: Clicks, settings: ClickNetworkSettings, *, seed: int) -> None:
        self.frame, self.settings, self._seed = frame, settings, seed
        self.graph = frame.graph(rows, clock="place")
        self.edge_types = message_types(frame, settings)
        self._rate = float(rows.clicked.mean()) if len(rows) else 0.5
        self._first: dict[str, int] = {}
        total = 0
        for name in node_types(frame, self.edge_types):
            self._first[name] = total
            total += self.graph.num_nodes(name)

    @cached_property
    def _sampler(self) -> DisjointSampler:
        return DisjointSampler(
            {each: self.graph.csr(each) for each in self.edge_types},
            {name: self.graph.num_nodes(name) for name in self._first},
            fan_out={each: self._fan_out(each) for each in self.edge_types},
            newest=[each for each in self.edge_types if self._of_user(each) and self.settings.last],
            seed=self._seed,
        )

    def sampled(self, examples: Clicks, before: Nodes, *, key: int) -> ClickBatch:
        """Each example's own subgraph, of links before its place; the pair asked for is not joined in it."""
        frame, layers = self.frame, self.settings.layers
        drawn = self._sampler.sample(
            {frame.user_type: examples.users, frame.entity_type: examples.entities},
            before=before,
            key=key,
            apart=[EdgeType(frame.clicked), EdgeType(frame.passed)],
        )
        subgraph = drawn.graph
        places, sizes = _hop_by_hop(subgraph.nodes_per_hop, layers)
        edges = []
        for layer in range(layers):
            # The last layer needs the edges of the first hop only.
            index, kinds = [np.empty((2, 0), np.int64)], [np.empty(0, np.int64)]
            for number, each in enumerate(self.edge_types):
                count = sum(subgraph.edges_per_hop[each][: layers - layer])
                if count:
                    sender, receiver = subgraph.edge_index[each][:, :count]
                    index.append(np.stack([places[each.neighbour_type][sender], places[each.node_type][receiver]]))
                    kinds.append(np.full(count, number))
            edges.append(_edges(np.concatenate(index, axis=1), np.concatenate(kinds)))
        total = sizes[0]
        nodes, counts, linked = np.empty(total, np.int64), np.zeros((total, COUNTS), np.float32), np.ones(total, bool)
        for name, rows in subgraph.node_ids.items():
            nodes[places[name]] = rows + self._first[name]
            counts[places[name]], linked[places[name]] = self._counts(name, drawn.degree, len(rows))
        return ClickBatch(
            nodes=torch.from_numpy(nodes),
            counts=torch.from_numpy(counts),
            linked=torch.from_numpy(linked),
            sizes=sizes,
            edges=edges,
            users=torch.from_numpy(places[frame.user_type][: len(examples)]),
            entities=torch.from_numpy(places[frame.entity_type][: len(examples)]),
        )

    def whole(self, examples: Clicks) -> ClickBatch:
        """All nodes once, each from all its neighbours (of users the newest, where ``last`` says so)."""
        layers, first = self.settings.layers, self._first
        index, kinds = [np.empty((2, 0), np.int64)], [np.empty(0, np.int64)]
        degrees = {}
        for number, each in enumerate(self.edge_types):
            csr = self.graph.csr(each)
            degrees[each] = np.diff(csr.indptr)
            if self.settings.last and self._of_user(each):
                csr = top_neighbours(csr, self.settings.last)
            receiver = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr)) + first[each.node_type]
            index.append(np.stack([np.asarray(csr.indices) + first[each.neighbour_type], receiver]))
            kinds.append(np.full(csr.num_edges, number))
        edges = _edges(np.concatenate(index, axis=1), np.concatenate(kinds))
        found = [self._counts(name, degrees, self.graph.num_nodes(name)) for name in first]
        counts = np.concatenate([each[0] for each in found])
        return ClickBatch(
            nodes=torch.arange(len(counts)),
            counts=torch.from_numpy(counts),
            linked=torch.from_numpy(np.concatenate([each[1] for each in found])),
            sizes=(len(counts),) * (layers + 1),
            edges=(edges,) * layers,
            users=torch.from_numpy(examples.users) + first[self.frame.user_type],
            entities=torch.from_numpy(examples.entities) + first[self.frame.entity_type],
        )

    def _of_user(self, edge_type: EdgeType) -> bool:
        return edge_type.node_type == self.frame.user_type and self.graph.csr(edge_type).time is not None

    def _fan_out(self, edge_type: EdgeType) -> tuple[int, ...]:
        wanted = [
            self.settings.fan_out[min(hop, len(self.settings.fan_out) - 1)] for hop in range(self.settings.layers)
        ]
        if self.settings.last and self._of_user(edge_type):
            return (self.settings.last,) * self.settings.layers
        return tuple(wanted)

    def _counts(
        self, name: str, degrees: Mapping[EdgeType, Nodes], nodes: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """What the links of the nodes of a type count up to ``[nodes, COUNTS]``, and whether there are any ``[nodes]``.

        For users, then for entities (zeros in the columns of the other): ln(1 + links) clicked and passed, the share of
        clicks drawn to that of all, and 1 where there are no links.
        """
        counts = np.zeros((nodes, COUNTS), np.float32)
        if name not in (self.frame.user_type, self.frame.entity_type):
            return counts, np.ones(nodes, bool)
        is_entity = name == self.frame.entity_type
        clicked, passed = (
            degrees[EdgeType(triple, is_entity)].astype(np.float64)
            for triple in (self.frame.clicked, self.frame.passed)
        )
        share = (clicked + _PRIOR_VIEWS * self._rate) / (clicked + passed + _PRIOR_VIEWS) - self._rate
        none = clicked + passed == 0
        columns = np.stack([np.log1p(clicked) / 5, np.log1p(passed) / 5, share, none], axis=1)
        half = COUNTS // 2
        counts[:, half * is_entity : half * (1 + is_entity)] = columns
        return counts, ~none


def message_types(frame: ClickFrame, settings: ClickNetworkSettings) -> tuple[EdgeType, ...]:
    """Edge types that carry messages: clicked and passed from both ends, and where asked for all others but users'."""
    own = (frame.clicked, frame.passed)
    chosen = [
        relation.triple
        for relation in frame.schema.relations
        if relation.triple in own or (settings.concepts and relation.role is not RelationRole.ENGAGEMENT)
    ]
    return tuple(EdgeType(triple, backward) for triple in chosen for backward in (False, True))


def node_types(frame: ClickFrame, edge_types: tuple[EdgeType, ...]) -> tuple[str, ...]:
    """The types that these edges join, in declared order."""
    joined = {frame.user_type, frame.entity_type, *(each.node_type for each in edge_types)}
    return tuple(each.name for each in frame.schema.node_types if each.name in joined)


def _edges(index: Nodes, kinds: Nodes) -> Edges:
    ones = torch.ones(len(kinds))
    return Edges(index=torch.from_numpy(index), type=torch.from_numpy(kinds), weight=ones, share=ones)


def _hop_by_hop(per_hop: Mapping[str, tuple[int, ...]], layers: int) -> tuple[dict[str, Nodes], tuple[int, ...]]:
    """Place of every node in a column ordered by hop, then type; and the nodes that each layer leaves."""
    parts: dict[str, list[Nodes]] = {name: [] for name in per_hop}
    total, until = 0, []
    for hop in range(layers + 1):
        for name, counts in per_hop.items():
            count = counts[hop] if hop < len(counts) else 0
            parts[name].append(np.arange(total, total + count))
            total += count
        until.append(total)
    return {name: np.concatenate(each) for name, each in parts.items()}, tuple(reversed(until))
