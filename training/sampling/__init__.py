"""Samplers: the part of the graph that the vectors of a batch of nodes depend on.

The order of the modules: ``subgraph`` (what comes out), ``sampler`` (the contract), ``uniform`` (the first sampler),
``prefetch`` (sampling in threads, ahead of the training step).
"""

from training.sampling.prefetch import prefetch
from training.sampling.sampler import Exclusion, Sampler
from training.sampling.subgraph import Subgraph
from training.sampling.uniform import UniformSampler

__all__ = ["Exclusion", "Sampler", "Subgraph", "UniformSampler", "prefetch"]
