"""LightGCN (He et al. 2020, arXiv 2002.02126): a learned vector per user and entity, and nothing but propagation.

A node's vector is the mean of its states of layers 0 to K, where the state of a layer is the sum of the neighbours'
states below, each divided by the root of both degrees. With K = 0 it is matrix factorisation. The whole graph is
propagated in every training step, so this is no ``Convolution`` over sampled neighbours; ``training.transductive``
trains it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from training.transductive.interactions import Interactions

Floats = NDArray[np.float32]


class Propagation:
    """The mean over layers 0 to ``layers`` of all nodes' states, users first, then entities."""

    def __init__(self, interactions: Interactions, layers: int) -> None:
        self.layers = layers
        self._down = interactions.scaled(0.5, 0.5)
        self._up = self._down.T.tocsr()
        self._users = interactions.users

    def __call__(self, learned: Tensor) -> Tensor:
        """Vectors ``[nodes, d]`` from the learned ones; differentiable."""
        if not self.layers:
            return learned
        found: Tensor = _Propagated.apply(learned, self)
        return found

    def mean(self, states: Floats) -> Floats:
        """The same on arrays. The operator is symmetric, so this is its own derivative too."""
        return np.asarray(self.total(states, self.layers) / np.float32(self.layers + 1))

    def total(self, states: Floats, layers: int) -> Floats:
        """The sum over layers 0 to ``layers``."""
        users, entities = states[: self._users], states[self._users :]
        total = states.copy()
        for _ in range(layers):
            users, entities = self._down @ entities, self._up @ users
            total[: self._users] += users
            total[self._users :] += entities
        return total


class _Propagated(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, learned: Tensor, propagation: Propagation) -> Tensor:
        context.propagation = propagation
        return _applied(propagation, learned)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _applied(context.propagation, gradient), None


def _applied(propagation: Propagation, states: Tensor) -> Tensor:
    # SciPy's product with a sparse matrix: torch's costs more on the CPU. On a GPU the states travel.
    found = propagation.mean(np.ascontiguousarray(states.detach().cpu().numpy()))
    return torch.from_numpy(found).to(states.device)
