"""The objective of the space ``similar``: nodes that the graph says are alike lie near each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graph_store.settings import SpaceSettings
from model_store.csr import EdgeType
from training.batches import Batcher
from training.encoders import Batch
from training.objectives.in_batch import in_batch_softmax
from training.objectives.pairs import PairTasks
from training.space_model import SpaceModel

Nodes = NDArray[np.int64]


@dataclass(frozen=True)
class _Drawn:
    pairs: dict[bool, tuple[Nodes, Nodes]]
    """Without and with a concept on the right, as numbers in the column of all nodes."""
    nodes: Nodes
    """All of their nodes, ascending."""
    seeds: dict[str, int]
    batch: Batch


class SimilarLoss:
    """Softmax over a batch of pairs from every relation; pairs with concepts have their own softmax."""

    def __init__(self, batcher: Batcher, tasks: PairTasks, own: SpaceSettings, seed: int) -> None:
        self.batcher, self.tasks, self.own, self.seed = batcher, tasks, own, seed

    def draw(self, step: int) -> _Drawn | None:
        """See ``Objective``."""
        rng = np.random.default_rng([self.seed, step])
        pairs = {concepts: self.tasks.draw(self.own.batch_size, rng, concepts=concepts) for concepts in (False, True)}
        if not sum(len(left) for left, _ in pairs.values()):
            return None
        nodes = np.unique(np.concatenate([each for pair in pairs.values() for each in pair]))
        seeds = self.batcher.by_type(nodes)
        batch = self.batcher.batch(seeds, key=step, exclude=self._asked(pairs))
        return _Drawn(pairs, nodes, {name: len(rows) for name, rows in seeds.items()}, batch)

    def loss(self, model: SpaceModel, drawn: _Drawn) -> Tensor:
        """See ``Objective``."""
        own, nodes = model.settings, drawn.nodes
        vectors, _ = model.encode(drawn.batch, drawn.seeds)
        # ``nodes`` ascend through the types in their order, as the seeds' vectors do.
        stacked = torch.cat([vectors[name] for name in self.batcher.types if name in vectors])
        total = sum(len(left) for left, _ in drawn.pairs.values())
        losses = []
        for concepts, (left, right) in drawn.pairs.items():
            if not len(left):
                continue
            log_q = self.tasks.log_q(concepts, self.seed)[right] * own.log_q
            kinds = self.batcher.type_of(right)
            a = stacked[torch.from_numpy(np.searchsorted(nodes, left)).to(stacked.device)]
            b = stacked[torch.from_numpy(np.searchsorted(nodes, right)).to(stacked.device)]
            loss = in_batch_softmax(
                a @ b.T / own.temperature,
                torch.from_numpy(log_q).to(stacked.device),
                torch.from_numpy(left).to(stacked.device),
                torch.from_numpy(right).to(stacked.device),
                known=torch.from_numpy(kinds[:, None] != kinds[None, :]).to(stacked.device),
            )
            losses.append(loss * (len(left) / total))
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
