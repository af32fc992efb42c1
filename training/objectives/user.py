"""The objective of the space ``user``: a user's next engagement scores above what they did not engage with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from graph_store.settings import SpaceSettings
from model_store.features import FeatureTransforms
from training.batches import Batcher
from training.encoders import Batch
from training.graph import Graph, engagements
from training.holdout import supervision_parts
from training.objectives.in_batch import in_batch_softmax
from training.space_model import SpaceModel, SpaceShape


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    left: NDArray[np.int64]
    """Users [B], as numbers in the column of all nodes."""
    right: NDArray[np.int64]
    """Their entities, then the evenly drawn ones."""
    nodes: NDArray[np.int64]
    seeds: dict[str, int]
    batch: Batch
    log_q: NDArray[np.float32]
    known: NDArray[np.bool_]
    """[B, right]: what is no negative."""


class UserLoss:
    """Softmax of each user's engagement against the batch's entities and evenly drawn ones."""

    def __init__(
        self,
        graph: Graph,
        transforms: FeatureTransforms,
        shape: SpaceShape,
        own: SpaceSettings,
        *,
        limit: int,
        seed: int,
    ) -> None:
        self.own, self.seed = own, seed
        self.parts = supervision_parts(graph, max(2, round(1.0 / own.supervision)), seed)
        self.batchers = [
            Batcher(part.message, transforms, shape, own, max_neighbours=limit, seed=seed + number)
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

    def draw(self, step: int) -> _Drawn | None:
        """See ``Objective``."""
        own = self.own
        part, batcher = self.parts[step % len(self.parts)], self.batchers[step % len(self.parts)]
        if not len(part.users):
            return None
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.integers(len(part.users), size=min(own.batch_size, len(part.users)))
        extra = rng.choice(self.pool, size=min(own.negatives, len(self.pool)), replace=False)
        left, right = part.users[chosen], np.concatenate([part.entities[chosen], extra])
        nodes = np.unique(np.concatenate([left, right]))
        seeds = batcher.by_type(nodes)
        batch = batcher.batch(seeds, key=step)
        expected = len(chosen) * self.share[right] + len(extra) / len(self.pool)
        kinds = batcher.type_of(right)
        known = self.known[left][:, right].toarray() | (kinds[: len(left), None] != kinds[None, :])
        return _Drawn(
            left=left,
            right=right,
            nodes=nodes,
            seeds={name: len(rows) for name, rows in seeds.items()},
            batch=batch,
            log_q=np.log(expected).astype(np.float32) * np.float32(own.log_q),
            known=known,
        )

    def loss(self, model: SpaceModel, drawn: _Drawn) -> Tensor:
        """See ``Objective``."""
        types = self.batchers[0].types
        vectors, biases = model.encode(drawn.batch, drawn.seeds)
        stacked = torch.cat([vectors[name] for name in types if name in vectors])
        bias = torch.cat([biases[name] for name in types if name in biases])
        u = torch.from_numpy(np.searchsorted(drawn.nodes, drawn.left)).to(stacked.device)
        i = torch.from_numpy(np.searchsorted(drawn.nodes, drawn.right)).to(stacked.device)
        scores = stacked[u] @ stacked[i].T / model.settings.temperature + bias[i][None, :]
        return in_batch_softmax(
            scores,
            torch.from_numpy(drawn.log_q).to(stacked.device),
            torch.from_numpy(drawn.left).to(stacked.device),
            torch.from_numpy(drawn.right).to(stacked.device),
            known=torch.from_numpy(drawn.known).to(stacked.device),
        )
