"""Results unlike each other: maximal marginal relevance (Carbonell and Goldstein 1998, doi 10.1145/290941.291025)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from server.deadline import Deadline
from server.index.rescoring import scores_of
from server.index.vector_index import Found, Vectors, unit_rows

DEPTH = 4
"""Candidates a result is chosen out of."""


def diversify(found: Found, vectors: Vectors, k: int, diversity: float, deadline: Deadline) -> Found:
    """Choose k of the candidates one after the other.

    Each is the one of those left that is largest by::

        (1 - diversity) * score - diversity * largest cosine with those chosen before

    ``vectors [candidates, dimension]`` are theirs, in their order; one of zeros has the cosine 0 with any other. Ties
    go to the better score. Raises DeadlinePassed.
    """
    units = unit_rows(np.asarray(vectors, np.float32))
    worth = (1.0 - diversity) * found.scores.astype(np.float64)
    closest = np.zeros(len(found.rows))
    chosen: list[int] = []
    while len(chosen) < min(k, len(found.rows)):
        deadline.check("diversity")
        marginal = worth - diversity * closest
        marginal[chosen] = -np.inf
        best = int(np.argmax(marginal))
        cosines = scores_of(units, units[best]).astype(np.float64)
        # The first one is the first to be close to: until then nothing was.
        closest = np.maximum(closest, cosines) if chosen else cosines
        chosen.append(best)
    return replace(found, rows=found.rows[chosen], scores=found.scores[chosen])
