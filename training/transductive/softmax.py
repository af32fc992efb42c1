"""The loss of the learned vectors: each user's entities against drawn ones, over vectors of the whole graph.

Softmax over sampled negatives shared by the batch (Wu et al. 2022, "On the Effectiveness of Sampled Softmax Loss for
Item Recommendation", arXiv 2201.02327): cosines over a temperature, beside them the logarithm of the entity's
popularity, which the cosines then need not learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from training.encoders.light_gcn import Propagation
from training.space_model import SpaceModel
from training.transductive.factor_model import FactorModel
from training.transductive.interactions import Interactions


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Some users with all their entities, and the negatives they share."""

    users: NDArray[np.int64]
    """``[batch]``."""
    rows: NDArray[np.int64]
    """``[pairs]``, position of the pair's user in the batch."""
    entities: NDArray[np.int64]
    """``[pairs]``."""
    weights: NDArray[np.float32]
    """``[pairs]``, one over the root of the user's number of pairs; their sum is 1."""
    negatives: NDArray[np.int64]
    """``[drawn]``, drawn by the root of popularity."""
    known: tuple[NDArray[np.int64], NDArray[np.int64]]
    """Positions (user in the batch, negative) of negatives that the user engaged with."""


class UserSoftmax:
    """An ``Objective`` over a ``FactorModel``; a step takes ``batch_size`` users and ``negatives`` entities."""

    def __init__(self, interactions: Interactions, model: FactorModel, seed: int) -> None:
        own = model.settings
        self.interactions, self.seed = interactions, seed
        self.propagation = Propagation(interactions, own.layers if own.encoder == "light_gcn" else 0)
        self.active = np.flatnonzero(interactions.user_degrees > 0)
        self.batch_size, self.negatives = min(own.batch_size, len(self.active)), max(own.negatives, 1)
        popularity = np.maximum(interactions.entity_degrees, 1.0).astype(np.float64)
        self.share = np.sqrt(popularity) / np.sqrt(popularity).sum()
        # Log-popularity as a probability, and the log of how often a negative is expected in a draw.
        self.prior = torch.from_numpy(np.log(popularity / popularity.sum()).astype(np.float32))
        self.expected = torch.from_numpy((own.log_q * np.log(self.share * self.negatives)).astype(np.float32))

    def draw(self, step: int) -> Asked | None:
        """See ``Objective``."""
        if not self.batch_size:
            return None
        rng = np.random.default_rng([self.seed, step])
        users = np.sort(rng.choice(self.active, self.batch_size, replace=False))
        negatives = rng.choice(self.interactions.entities, self.negatives, p=self.share)
        part = self.interactions.matrix[users]
        degrees = np.diff(part.indptr)
        rows = np.repeat(np.arange(len(users)), degrees)
        weights = 1.0 / np.sqrt(degrees[rows])
        known = part[:, negatives].tocoo()
        return Asked(
            users=users,
            rows=rows,
            entities=part.indices.astype(np.int64),
            weights=(weights / weights.sum()).astype(np.float32),
            negatives=negatives,
            known=(known.row.astype(np.int64), known.col.astype(np.int64)),
        )

    def loss(self, model: SpaceModel, drawn: Asked) -> Tensor:
        """See ``Objective``."""
        assert isinstance(model, FactorModel)
        device, temperature = model.medians.device, model.settings.temperature
        vectors = self.propagation(torch.cat([model.learned_users, model.learned_entities]))
        count = self.interactions.users
        users = F.normalize(vectors[torch.from_numpy(drawn.users).to(device)], dim=1)
        entities = F.normalize(vectors[count:], dim=1)
        prior, expected = self.prior.to(device), self.expected.to(device)
        negatives, rows, wanted = (
            torch.from_numpy(each).to(device) for each in (drawn.negatives, drawn.rows, drawn.entities)
        )
        against = users @ entities[negatives].T / temperature + (prior - expected)[negatives]
        hit = tuple(torch.from_numpy(each).to(device) for each in drawn.known)
        against = against.index_put(hit, torch.tensor(-1e9, device=device))
        positive = (users[rows] * entities[wanted]).sum(1) / temperature + prior[wanted]
        # Each positive against the negatives alone: the user's other entities do not compete with it.
        each = F.softplus(against.logsumexp(1)[rows] - positive)
        return (each * torch.from_numpy(drawn.weights).to(device)).sum()
