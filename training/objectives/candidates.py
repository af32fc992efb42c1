"""Who the pairs of a batch are compared with, and the losses of the comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from graph_store.settings import SpaceSettings
from training.objectives.hard_negatives import HardNegatives

Nodes = NDArray[np.int64]
_NEVER = -1e9


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The pairs of a batch, and what their right-hand sides are compared with."""

    left: Nodes
    """[B], as numbers in the column of all nodes."""
    shared: Nodes
    """[C]: the right-hand sides of the B pairs, then negatives of the whole batch."""
    hard: Nodes
    """[B, k]: negatives of each pair's own."""
    log_q: NDArray[np.float32]
    """[B, C + k], log of how often each is expected among a batch's candidates."""
    excluded: NDArray[np.bool_]
    """[B, C + k]: what is no negative of the row; a row's own positive never is."""

    @property
    def nodes(self) -> Nodes:
        """All nodes that need a vector, ascending."""
        return np.unique(np.concatenate([self.left, self.shared, self.hard.ravel()]))


def draw_candidates(
    left: Nodes,
    right: Nodes,
    *,
    settings: SpaceSettings,
    share: NDArray[np.floating],
    pool: Nodes,
    type_of: Callable[[Nodes], NDArray[np.int64]],
    rng: np.random.Generator,
    step: int,
    hard: HardNegatives | None = None,
    known: sp.csr_matrix | None = None,
) -> Candidates:
    """The candidates of the pairs (``left``, ``right``) [B].

    In-batch negatives (Yi et al. 2019), one set of evenly drawn ones for the whole batch (PinSage's shared negatives),
    both (mixed negatives, Yang et al. 2020), and hard ones for each pair. ``share`` [all nodes] is the chance that a
    right-hand side is this node, ``pool`` what evenly drawn ones come from. Left out are the positive met again, the
    left node itself, nodes of another type than the positive and what ``known`` [all nodes, all nodes] holds.

    The correction is by the mixture of in-batch and even draws. A hard negative counts as if drawn like the others:
    that it is there more often is what it is for.
    """
    extra = rng.choice(pool, size=min(settings.negatives, len(pool)), replace=False) if settings.negatives else pool[:0]
    shared = np.concatenate([right, extra])
    own = hard.draw(left, step, rng) if hard is not None else np.empty((len(left), 0), np.int64)

    def expected(nodes: Nodes) -> NDArray[np.float64]:
        in_batch = len(left) * share[nodes] if settings.in_batch else np.zeros(nodes.shape)
        return np.asarray(in_batch + len(extra) / max(len(pool), 1), dtype=np.float64)

    often = expected(shared)
    # A hard negative that was never anyone's positive counts like the rarest of the others.
    rare = np.maximum(expected(own), often.min(initial=np.inf) if len(often) else 1.0)
    log_q = np.concatenate([np.broadcast_to(often, (len(left), len(often))), rare], axis=1)

    nodes = np.concatenate([np.broadcast_to(shared, (len(left), len(shared))), own], axis=1)
    kinds = np.concatenate(
        [np.broadcast_to(type_of(shared), (len(left), len(shared))), type_of(own.ravel()).reshape(own.shape)], axis=1
    )
    excluded = (nodes == right[:, None]) | (nodes == left[:, None]) | (kinds != type_of(right)[:, None])
    if known is not None:
        excluded[:, : len(shared)] |= known[left][:, shared].toarray()
        if own.size:
            rows = np.repeat(left, own.shape[1])
            excluded[:, len(shared) :] |= np.asarray(known[rows, own.ravel()]).reshape(own.shape)
    if not settings.in_batch:
        excluded[:, : len(left)] = True
    excluded[np.arange(len(left)), np.arange(len(left))] = False
    return Candidates(left=left, shared=shared, hard=own, log_q=np.log(log_q).astype(np.float32), excluded=excluded)


def comparison(
    candidates: Candidates, vectors: Tensor, place: Callable[[Nodes], Tensor], bias: Tensor | None
) -> Tensor:
    """Cosines [B, C + k] of the left nodes and their candidates; ``place`` gives the rows of nodes in ``vectors``.

    ``bias`` [nodes of ``vectors``] is added to every candidate's.
    """
    left, shared = vectors[place(candidates.left)], place(candidates.shared)
    cosines = left @ vectors[shared].T
    if bias is not None:
        cosines = cosines + bias[shared][None, :]
    if not candidates.hard.size:
        return cosines
    own = place(candidates.hard.ravel())
    hard = torch.einsum("bd,bkd->bk", left, vectors[own].view(len(left), -1, vectors.shape[1]))
    if bias is not None:
        hard = hard + bias[own].view(len(left), -1)
    return torch.cat([cosines, hard], dim=1)


def contrast(settings: SpaceSettings, candidates: Candidates, cosines: Tensor) -> Tensor:
    """The loss that ``settings.loss`` names, of cosines [B, C + k] whose column i < B is row i's positive."""
    excluded = torch.from_numpy(candidates.excluded).to(cosines.device)
    if settings.loss == "max_margin":
        return max_margin(cosines, excluded, settings.margin)
    log_q = torch.from_numpy(candidates.log_q).to(cosines.device) * settings.log_q
    return sampled_softmax(cosines / settings.temperature, log_q, excluded)


def sampled_softmax(scores: Tensor, log_q: Tensor, excluded: Tensor) -> Tensor:
    """Mean of -log softmax of each row's own column; ``log_q`` is subtracted (Bengio and Senecal 2003)."""
    own = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy((scores - log_q).masked_fill(excluded, _NEVER), own)


def max_margin(scores: Tensor, excluded: Tensor, margin: float) -> Tensor:
    """Mean over all negatives of ``max(0, score - positive's + margin)`` (PinSage, equation 1)."""
    positive = scores.diagonal()[:, None]
    negative = ~excluded
    negative.fill_diagonal_(False)
    above = F.relu(scores - positive + margin) * negative
    return above.sum() / negative.sum().clamp_min(1)
