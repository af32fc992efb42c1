"""The score of an entity for a user: target attention and an MLP, and its inner-product twin.

NANN (Chen et al. 2022, arXiv 2202.10226, section 3.1) puts three branches side by side: a user network, an attention of
the target over the user's events, an entity network. Here the entity's side is a vector e_v of its own, over which
the similarity graph is built; a user is their events and nothing else, so that new users need no training.

Shapes: B users, T event slots, N candidates, d the length of an entity's vector.
"""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.neural_metric.settings import ScorerSettings

LARGEST_LOGIT = 30.0
"""Attention logits are clamped to this, so that no maximum has to be found before the exponential."""

MEAN_WEIGHT = 4.0
"""Of the mean of the events in a user's first vector: vectors of length 1 then give scores of a useful size."""


class Scorer(nn.Module):
    """What both scores have: a table of entity vectors, and ``forward`` on vectors."""

    def __init__(self, settings: ScorerSettings, entities: int, vectors: NDArray[np.float32] | None = None) -> None:
        """Fresh parameters, by torch's random state.

        ``vectors`` ``[entities, any]``: where the learned vectors start, reduced by SVD or padded, and cut to length 1.
        """
        super().__init__()
        self.settings = settings
        self.table = nn.Parameter(torch.empty(entities, settings.dimension))
        self.reset_table(vectors)

    def reset_table(self, vectors: NDArray[np.float32] | None) -> None:
        """Start the vectors at random, or from given ones."""
        d = self.settings.dimension
        start = torch.randn(self.table.shape) * d**-0.5
        if vectors is not None:
            given = torch.from_numpy(reduced(vectors, d))
            length = given.norm(dim=1, keepdim=True)
            start *= 0.1
            # Directions alone: lengths, which say how popular an entity is, would be squared in the first scores.
            start[:, : given.shape[1]] += given / length.clamp(min=1e-12)
        with torch.no_grad():
            self.table.copy_(start)

    def entity_vectors(self) -> NDArray[np.float32]:
        """``[entities, d]``: what the similarity graph is built over, and what the exported scorer reads."""
        return self.table.detach().cpu().numpy().astype(np.float32)

    def event_vectors(self, events: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors ``[B, T, d]`` and mask ``[B, T]`` of event rows ``[B, T]``, -1 where there is none."""
        mask = events >= 0
        return F.embedding(events.clamp(min=0), self.table), mask

    @abstractmethod
    def forward(self, events: Tensor, mask: Tensor, candidates: Tensor) -> Tensor:
        """Scores ``[B, N]`` of candidates ``[N, d]`` (or ``[B, N, d]``, a user's own) for events ``[B, T, d]``."""


class UserTower(nn.Module):
    """A user's vector from their events: attention with learned queries, the mean, and an MLP."""

    def __init__(self, settings: ScorerSettings) -> None:
        super().__init__()
        d, self.heads = settings.dimension, settings.heads
        self.key = nn.Linear(d, self.heads)
        self.recency = nn.Parameter(torch.zeros(settings.events, self.heads))
        self.value = nn.Linear(d, d, bias=False)
        self.inner = nn.Linear(2 * d, settings.hidden)
        self.outer = nn.Linear(settings.hidden, d)
        self.skip = nn.Linear(2 * d, d)
        # At first a user is the mean of their events: where the vectors start from given ones, that is a fair guess.
        with torch.no_grad():
            for parameter in (*self.outer.parameters(), *self.skip.parameters()):
                parameter.zero_()
            self.skip.weight[:, d:] = MEAN_WEIGHT * torch.eye(d)

    def forward(self, events: Tensor, mask: Tensor, age: Tensor) -> Tensor:
        """``[B, d]``; ``age`` ``[B, T]`` counts the events that came after; events are zero where masked."""
        logits = self.key(events) + self.recency[age]  # [B, T, heads]
        share = shares(logits, mask[..., None], dim=1)
        values = self.value(events).unflatten(-1, (self.heads, -1))  # [B, T, heads, d / heads]
        pooled = (share[..., None] * values).sum(1).flatten(1)
        count = mask.sum(1, keepdim=True).clamp(min=1)
        joined = torch.cat([pooled, events.sum(1) / count], dim=-1)
        outer: Tensor = self.outer(F.gelu(self.inner(joined))) + self.skip(joined)
        return outer


class TwoTowerScorer(Scorer):
    """The twin: the same user's side, then an inner product with the entity's vector."""

    def __init__(self, settings: ScorerSettings, entities: int, vectors: NDArray[np.float32] | None = None) -> None:
        super().__init__(settings, entities, vectors)
        self.user = UserTower(settings)

    def forward(self, events: Tensor, mask: Tensor, candidates: Tensor) -> Tensor:
        events = events.masked_fill(~mask[..., None], 0.0)
        user: Tensor = self.user(events, mask, ages(mask))
        if candidates.dim() == 2:
            return user @ candidates.T
        return (candidates @ user[..., None]).squeeze(-1)


class NeuralScorer(Scorer):
    """Target attention over the events, the user's vector, the entity's vector, and an MLP over their products."""

    def __init__(self, settings: ScorerSettings, entities: int, vectors: NDArray[np.float32] | None = None) -> None:
        super().__init__(settings, entities, vectors)
        d, hidden, self.heads = settings.dimension, settings.hidden, settings.heads
        self.user = UserTower(settings)
        self.query = nn.Linear(d, d)
        self.key = nn.Linear(d, d, bias=False)
        self.value = nn.Linear(d, d, bias=False)
        self.recency = nn.Parameter(torch.zeros(settings.events, d))
        # One hidden layer over [candidate, user, attended, candidate * attended, candidate * user], whose first two
        # parts are taken once a candidate and once a user.
        self.of_candidate = nn.Linear(d, hidden)
        self.of_user = nn.Linear(d, hidden, bias=False)
        self.of_pair = nn.Linear(3 * d, hidden, bias=False)
        self.inner = nn.Linear(hidden, hidden // 2)
        self.outer = nn.Linear(hidden // 2, 1)
        # A linear path past the hidden layers.
        self.skip_candidate = nn.Linear(d, 1)
        self.skip_pair = nn.Linear(3 * d, 1, bias=False)
        # At first candidates attend to the events that are like them, and the score is what they find there, and the
        # user's vector, by inner product: item-kNN and a two-tower score in one.
        width = d // self.heads
        with torch.no_grad():
            for parameter in (*self.outer.parameters(), *self.skip_candidate.parameters(), self.skip_pair.weight):
                parameter.zero_()
            self.query.weight.copy_(4.0 * width**0.5 * torch.eye(d))
            self.query.bias.fill_(1.0)  # through which the recency counts
            self.key.weight.copy_(torch.eye(d))
            self.value.weight.copy_(torch.eye(d))
            self.skip_pair.weight[:, d : 2 * d].fill_(MEAN_WEIGHT)
            self.skip_pair.weight[:, 2 * d :].fill_(1.0)

    def start_from(self, twin: TwoTowerScorer) -> None:
        """Take over the entities' vectors and the user's side of the twin: at first both give the same scores."""
        with torch.no_grad():
            self.table.copy_(twin.table)
            self.skip_pair.weight[:, : 2 * twin.settings.dimension].zero_()
        self.user.load_state_dict(twin.user.state_dict())

    def forward(self, events: Tensor, mask: Tensor, candidates: Tensor) -> Tensor:
        events, age = events.masked_fill(~mask[..., None], 0.0), ages(mask)
        user = self.user(events, mask, age)  # [B, d]
        attended = self._attended(events, mask, age, candidates)  # [B, N, d]
        pair = torch.cat([attended, candidates * attended, candidates * user[:, None]], dim=-1)
        hidden = self.of_candidate(candidates) + self.of_user(user)[:, None] + self.of_pair(pair)
        hidden = F.gelu(self.inner(F.gelu(hidden)))
        score: Tensor = self.outer(hidden) + self.skip_candidate(candidates) + self.skip_pair(pair)
        return score.squeeze(-1)

    def _attended(self, events: Tensor, mask: Tensor, age: Tensor, candidates: Tensor) -> Tensor:
        """What each candidate finds among the events, ``[B, N, d]``."""
        heads = (self.heads, candidates.shape[-1] // self.heads)
        # Slot 0 is nobody: key and value zero, always there, so that a candidate may find nothing.
        key = F.pad(self.key(events) + self.recency[age], (0, 0, 1, 0))
        value = F.pad(self.value(events), (0, 0, 1, 0))
        closed = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf)
        query = self.query(candidates).expand(len(events), *candidates.shape[-2:])
        query, key, value = (
            each.reshape(*each.shape[:-1], *heads).transpose(1, 2) for each in (query, key, value)
        )  # [B, heads, N or T + 1, d / heads]
        closed = F.pad(closed, (1, 0))[:, None, None].expand(-1, self.heads, query.shape[2], -1)
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=closed)
        return found.transpose(1, 2).flatten(2)


def make_scorer(
    settings: ScorerSettings, entities: int, vectors: NDArray[np.float32] | None = None
) -> NeuralScorer | TwoTowerScorer:
    """A scorer with fresh parameters, by torch's random state."""
    if settings.kind == "two_tower":
        return TwoTowerScorer(settings, entities, vectors)
    return NeuralScorer(settings, entities, vectors)


def shares(logits: Tensor, mask: Tensor, dim: int) -> Tensor:
    """A softmax that may also choose nothing: exp(logit) / (1 + sum of exp), zero where masked.

    So a user without events is no special case, and a user whose events have nothing to do with a candidate says so.
    """
    exponent = logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).exp() * mask
    return exponent / (1.0 + exponent.sum(dim, keepdim=True))


def ages(mask: Tensor) -> Tensor:
    """How many events came after each, ``[B, T]``; 0 in empty slots too, which are masked anyway."""
    there = mask.long()
    return (there.flip(-1).cumsum(-1).flip(-1) - there) * there


def reduced(vectors: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    """Vectors ``[N, at most dimension]`` with the inner products of the given ones as far as that goes (SVD)."""
    if vectors.shape[1] <= dimension:
        return np.array(vectors, np.float32)
    gram = vectors.T.astype(np.float64) @ vectors
    _, directions = np.linalg.eigh(gram)
    found: NDArray[np.float32] = (vectors @ directions[:, ::-1][:, :dimension]).astype(np.float32)
    return found
