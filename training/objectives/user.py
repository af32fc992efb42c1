"""The objective of the space ``user``: a user's next engagement scores above what they did not engage with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from graph_store.settings import SpaceSettings
from model_store.features import FeatureTransforms
from training.batches import Batcher
from training.encoders import Batch
from training.graph import Graph, engagements
from training.objectives.candidates import Candidates, comparison, contrast, draw_candidates
from training.objectives.hard_negatives import HardNegatives
from training.part_features import part_features
from training.space_model import SpaceModel, SpaceShape
from training.supervision import counted, known_pairs, supervision_parts


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    candidates: Candidates
    """Users on the left, entities on the right."""
    seeds: dict[str, int]
    batch: Batch


class UserLoss:
    """Each user's engagement against the batch's entities, evenly drawn ones and hard ones (``Candidates``)."""

    def __init__(
        self,
        graph: Graph,
        transforms: FeatureTransforms,
        shape: SpaceShape,
        own: SpaceSettings,
        *,
        limit: int,
        seed: int,
        steps: int,
        memory_mib: float = 4096,
        folder: Path | None = None,
    ) -> None:
        """``steps``: how many the training has; the curriculum of hard negatives is laid over them. ``memory_mib`` and
        ``folder`` are for the features of all nodes, see ``Batcher``; the parts share them.
        """
        self.own, self.seed = own, seed
        self.parts = supervision_parts(graph, max(2, round(1.0 / own.supervision)), seed)
        features = part_features(
            transforms, [part.message for part in self.parts], memory_mib=memory_mib, folder=folder
        )
        self.batchers = [
            Batcher(part.message, transforms, shape, own, max_neighbours=limit, seed=seed + number, features=each)
            for number, (part, each) in enumerate(zip(self.parts, features, strict=True))
        ]
        self.known = known_pairs(graph)
        asked = sum(len(part.users) for part in self.parts)
        self.share = np.sum([counted(part.entities, graph.total_nodes) for part in self.parts], axis=0) / max(asked, 1)
        targets = sorted({relation.triple.target for relation in engagements(graph.schema)})
        sources = sorted({relation.triple.source for relation in engagements(graph.schema)})
        self._hard = (
            HardNegatives(graph, own, queries=sources, entities=targets, edges=asked, steps=steps)
            if own.hard_negatives
            else None
        )
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
        candidates = draw_candidates(
            part.users[chosen].astype(np.int64),
            part.entities[chosen].astype(np.int64),
            settings=own,
            share=self.share,
            pool=self.pool,
            type_of=batcher.type_of,
            rng=rng,
            step=step,
            hard=self._hard,
            known=self.known,
        )
        seeds = batcher.by_type(candidates.nodes)
        batch = batcher.batch(seeds, key=step)
        return _Drawn(candidates=candidates, seeds={name: len(rows) for name, rows in seeds.items()}, batch=batch)

    def loss(self, model: SpaceModel, drawn: _Drawn) -> Tensor:
        """See ``Objective``."""
        types = self.batchers[0].types
        vectors, biases = model.encode(drawn.batch, drawn.seeds)
        stacked = torch.cat([vectors[name] for name in types if name in vectors])
        bias = torch.cat([biases[name] for name in types if name in biases])
        nodes = drawn.candidates.nodes

        def place(wanted: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(np.searchsorted(nodes, wanted)).to(stacked.device)

        # The bias stands beside the cosine over the temperature in the published vectors.
        cosines = comparison(drawn.candidates, stacked, place, bias * self.own.temperature)
        return contrast(self.own, drawn.candidates, cosines)
