"""The contract of all samplers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from model_store.csr import EdgeType
from training.sampling.subgraph import Subgraph

Exclusion: TypeAlias = Mapping[EdgeType, tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Pairs (node, neighbour) as seen from the edge type, whose edges are left out from both ends."""


class Sampler(Protocol):
    """Chooses the part of the graph that the vectors of some nodes are computed from.

    The answer depends on the arguments and the sampler's seed alone, whichever thread asks and in which order.
    """

    def sample(
        self,
        seeds: Mapping[str, NDArray[np.int64]],
        *,
        focal: Mapping[str, NDArray[np.float32]] | None = None,
        key: int = 0,
        exclude: Exclusion | None = None,
    ) -> Subgraph:
        """The neighbourhood of the seeds (node indices by type).

        ``focal``: per node type one vector a seed ``[n, d]`` that says what is looked for; only samplers of a region of
        interest read it. ``key``: number of the call, which the random choices follow from. ``exclude``: edges that
        must not carry messages, because the loss asks for them. Raises IndexError for a seed that is no node.
        """
        ...
