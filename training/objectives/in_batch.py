"""Softmax over a batch: every other pair's right-hand side is a negative."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_NEVER = -1e9


def in_batch_softmax(
    scores: Tensor, log_q: Tensor, left: Tensor, right: Tensor, *, known: Tensor | None = None
) -> Tensor:
    """Mean of -log softmax of each row's own column, corrected for how often a column is drawn.

    ``scores`` [B, C] of B left nodes and C >= B candidates, column i < B the positive of row i; ``log_q`` [C]: log of
    the expected number of times a candidate is drawn, subtracted (Yi et al. 2019, section 3.2; Bengio and Senecal
    2003); ``left`` [B] and ``right`` [C] are node numbers, so that a candidate that is the positive itself, or the left
    node, is no negative; ``known`` [B, C] marks further candidates that are no negatives.
    """
    rows = len(left)
    hit = right[None, :] == right[:rows, None]
    hit = hit | (right[None, :] == left[:, None])
    if known is not None:
        hit = hit | known
    own = torch.arange(rows, device=scores.device)
    hit[own, own] = False
    return F.cross_entropy((scores - log_q[None, :]).masked_fill(hit, _NEVER), own)
