"""Adversarial training of the entities' side: a score that small changes of an entity's vector leave as it is.

The graph joins entities whose vectors are near in l2; the search walks it by the score. The flatter the score around
each entity's vector, the better the two agree (NANN, Chen et al. 2022, arXiv 2202.10226, section 3.4).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.neural_metric.scorer import Scorer


def perturbed(scorer: Scorer, events: Tensor, mask: Tensor, candidates: Tensor, epsilon: float) -> Tensor:
    """e_v + epsilon * sign of the gradient of s_u(e_v), for every pair: ``[B, N, d]`` (equation 6, FGSM).

    The sign is that of the score's gradient: the probability grows with the score. It is a constant to the gradients of
    the training, ``candidates`` ``[N, d]`` is not.
    """
    count = len(events)
    own = candidates.detach().expand(count, *candidates.shape).clone().requires_grad_()
    with torch.enable_grad():
        score = scorer(events.detach(), mask, own)
        (slope,) = torch.autograd.grad(score.sum(), own)
    return candidates + epsilon * slope.sign()


def flatness_loss(logits: Tensor, changed: Tensor) -> Tensor:
    """Mean over users of the sum over labels v of the divergence of s_u(e_v + delta) from s_u(e_v) (equation 5).

    s_u(e_v) is the probability of v among the user's labels, true and drawn, and s_u(e_v + delta) the same where that
    label's vector alone is changed. The source writes s log(s / s~) for each label. As FGSM raises every score, that
    alone would reward the change; so both outcomes of the classifier are taken, v and not v. (Changing all
    labels together and comparing the softmaxes does not do: it lets all scores rise alike.)

    ``logits`` and ``changed`` ``[B, N]``, corrected for the drawing; a large negative number where a label is none of
    the user's.
    """
    own = F.log_softmax(logits, dim=-1)
    probability = own.exp()
    odds = own - torch.log1p(-probability.clamp(max=1 - 1e-6))
    moved = odds + (changed - logits)
    kept = probability * (F.logsigmoid(odds) - F.logsigmoid(moved))
    missed = (1 - probability) * (F.logsigmoid(-odds) - F.logsigmoid(-moved))
    return (kept + missed).sum(-1).mean()
