"""The objective of the space ``user``: a user's next engagement scores above what they did not engage with."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graph_store.settings import SpaceSettings
from model_store.features import FeatureTransforms
from training.batches import Batcher
from training.graph import Graph, engagements
from training.holdout import supervision_parts
from training.objectives.in_batch import in_batch_softmax
from training.space_model import SpaceModel


class UserLoss:
    """Softmax of each user's engagement against the batch's entities and evenly drawn ones."""

    def __init__(
        self, graph: Graph, transforms: FeatureTransforms, own: SpaceSettings, *, limit: int, seed: int
    ) -> None:
        self.seed = seed
        self.parts = supervision_parts(graph, max(2, round(1.0 / own.supervision)), seed)
        self.batchers = [
            Batcher(part.message, transforms, graph.edge_types, own, max_neighbours=limit, seed=seed + number)
            for number, part in enumerate(self.parts)
        ]
        total = graph.total_nodes
        users = np.concatenate([part.users for part in self.parts])
        entities = np.concatenate([part.entities for part in self.parts])
        self.known = sp.csr_matrix((np.ones(len(users), bool), (users, entities)), shape=(total, total))
        self.share = np.bincount(entities, minlength=total) / max(len(entities), 1)
        targets = sorted({relation.triple.target for relation in engagements(graph.schema)})
        self.pool = np.concatenate(
            [np.arange(graph.num_nodes(name), dtype=np.int64) + graph.offsets[name] for name in targets]
        )

    def __call__(self, model: SpaceModel, step: int) -> Tensor | None:
        own = model.settings
        part, batcher = self.parts[step % len(self.parts)], self.batchers[step % len(self.parts)]
        if not len(part.users):
            return None
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.integers(len(part.users), size=min(own.batch_size, len(part.users)))
        extra = rng.choice(self.pool, size=min(own.negatives, len(self.pool)), replace=False)
        left, right = part.users[chosen], np.concatenate([part.entities[chosen], extra])
        nodes = np.unique(np.concatenate([left, right]))
        seeds = batcher.by_type(nodes)
        batch = batcher.batch(seeds, model, key=step)
        vectors, biases = model.encoder(batch, {name: len(rows) for name, rows in seeds.items()})
        stacked = torch.cat([vectors[name] for name in batcher.types if name in vectors])
        bias = torch.cat([biases[name] for name in batcher.types if name in biases])
        u = torch.from_numpy(np.searchsorted(nodes, left)).to(stacked.device)
        i = torch.from_numpy(np.searchsorted(nodes, right)).to(stacked.device)
        scores = stacked[u] @ stacked[i].T / own.temperature + bias[i][None, :]
        expected = len(chosen) * self.share[right] + len(extra) / len(self.pool)
        kinds = batcher.type_of(right)
        known = self.known[left][:, right].toarray() | (kinds[: len(left), None] != kinds[None, :])
        return in_batch_softmax(
            scores,
            torch.from_numpy(np.log(expected).astype(np.float32) * np.float32(own.log_q)).to(stacked.device),
            torch.from_numpy(left).to(stacked.device),
            torch.from_numpy(right).to(stacked.device),
            known=torch.from_numpy(known).to(stacked.device),
        )
