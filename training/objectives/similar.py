"""The objective of the space ``similar``: nodes that the graph says are alike lie near each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graph_store.schema import NodeRole
from graph_store.settings import SpaceSettings
from model_store.csr import EdgeType
from training.batches import Batcher
from training.encoders import Batch
from training.objectives.candidates import Candidates, comparison, contrast, draw_candidates
from training.objectives.hard_negatives import HardNegatives
from training.objectives.pairs import PairTasks
from training.space_model import SpaceModel

Nodes = NDArray[np.int64]


@dataclass(frozen=True)
class _Drawn:
    candidates: tuple[Candidates, ...]
    """Of the pairs without and with a concept on the right, where there are any."""
    nodes: Nodes
    """All of their nodes, ascending."""
    seeds: dict[str, int]
    batch: Batch


class SimilarLoss:
    """Pairs from every relation against the batch's other pairs and further negatives (``Candidates``).

    Pairs with concepts are compared among themselves, and have no hard negatives.
    """

    def __init__(self, batcher: Batcher, tasks: PairTasks, own: SpaceSettings, seed: int, *, steps: int) -> None:
        """``steps``: how many the training has; the curriculum of hard negatives is laid over them."""
        self.batcher, self.tasks, self.own, self.seed = batcher, tasks, own, seed
        graph = batcher.graph
        types = {role: [each.name for each in graph.schema.of_role(role)] for role in NodeRole}
        self._pools = {
            concepts: np.concatenate(
                [np.arange(graph.num_nodes(name), dtype=np.int64) + graph.offsets[name] for name in types[role]]
                or [np.empty(0, np.int64)]
            )
            for concepts, role in ((False, NodeRole.ENTITY), (True, NodeRole.CONCEPT))
        }
        entities = types[NodeRole.ENTITY]
        edges = sum(source.edges for source in tasks.sources)
        self._hard = (
            HardNegatives(graph, own, queries=entities, entities=entities, edges=edges, steps=steps)
            if own.hard_negatives
            else None
        )

    def draw(self, step: int) -> _Drawn | None:
        """See ``Objective``."""
        rng = np.random.default_rng([self.seed, step])
        pairs = {concepts: self.tasks.draw(self.own.batch_size, rng, concepts=concepts) for concepts in (False, True)}
        if not sum(len(left) for left, _ in pairs.values()):
            return None
        candidates = tuple(
            draw_candidates(
                left,
                right,
                settings=self.own,
                share=np.exp(self.tasks.log_q(concepts, self.seed)),
                pool=self._pools[concepts],
                type_of=self.batcher.type_of,
                rng=rng,
                step=step,
                hard=None if concepts else self._hard,
            )
            for concepts, (left, right) in pairs.items()
            if len(left)
        )
        nodes = np.unique(np.concatenate([each.nodes for each in candidates]))
        seeds = self.batcher.by_type(nodes)
        batch = self.batcher.batch(seeds, key=step, exclude=self._asked(pairs))
        return _Drawn(candidates, nodes, {name: len(rows) for name, rows in seeds.items()}, batch)

    def loss(self, model: SpaceModel, drawn: _Drawn) -> Tensor:
        """See ``Objective``."""
        nodes = drawn.nodes
        vectors, _ = model.encode(drawn.batch, drawn.seeds)
        # ``nodes`` ascend through the types in their order, as the seeds' vectors do.
        stacked = torch.cat([vectors[name] for name in self.batcher.types if name in vectors])

        def place(wanted: Nodes) -> Tensor:
            return torch.from_numpy(np.searchsorted(nodes, wanted)).to(stacked.device)

        total = sum(len(each.left) for each in drawn.candidates)
        losses = [
            contrast(self.own, each, comparison(each, stacked, place, None)) * (len(each.left) / total)
            for each in drawn.candidates
        ]
        return torch.stack(losses).sum()

    def _asked(self, drawn: dict[bool, tuple[Nodes, Nodes]]) -> dict[EdgeType, tuple[Nodes, Nodes]]:
        """The pairs of the batch as edges: none of them may carry a message."""
        left, right = (np.concatenate([pair[end] for pair in drawn.values()]) for end in (0, 1))
        types, offsets = self.batcher.types, self.batcher.offsets
        left_type, right_type = self.batcher.type_of(left), self.batcher.type_of(right)
        asked = {}
        for edge_type in self.batcher.graph.edge_types:
            ends = types.index(edge_type.node_type), types.index(edge_type.neighbour_type)
            found = (left_type == ends[0]) & (right_type == ends[1])
            if found.any():
                asked[edge_type] = left[found] - offsets[ends[0]], right[found] - offsets[ends[1]]
        return asked
