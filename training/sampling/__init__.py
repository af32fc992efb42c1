"""Samplers: the part of the graph that the vectors of a batch of nodes depend on.

The order of the modules: ``subgraph`` (what comes out), ``sampler`` (the contract), ``uniform``, ``random_walk`` and
``region_of_interest`` (the samplers), ``disjoint`` (a subgraph for every example), ``prefetch`` (sampling in threads,
ahead of the training step). ``draw``, ``draw_before``, ``walk`` and ``relevance`` hold the compiled inner loops.
"""

from training.sampling.prefetch import prefetch
from training.sampling.random_walk import Metapath, RandomWalkSampler, round_trips
from training.sampling.region_of_interest import RegionOfInterestSampler
from training.sampling.sampler import Exclusion, Sampler
from training.sampling.subgraph import Subgraph
from training.sampling.uniform import UniformSampler

__all__ = [
    "Exclusion",
    "Metapath",
    "RandomWalkSampler",
    "RegionOfInterestSampler",
    "Sampler",
    "Subgraph",
    "UniformSampler",
    "prefetch",
    "round_trips",
]
