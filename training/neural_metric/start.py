"""Where the entities' vectors start: who was engaged with by the same users."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from training.factorise import right_factors
from training.neural_metric.histories import Histories


def incidence_vectors(
    known: Histories, users: NDArray[np.int64], entities: int, dimension: int, seed: int
) -> NDArray[np.float32]:
    """Vectors ``[entities, dimension]`` by SVD of engagements, each divided by the roots of its ends' counts.

    Of the given users alone, so that the others stay unseen. Fewer columns where the matrix has a lower rank.
    """
    whole = sp.csr_matrix(
        (np.ones(len(known.entities), np.float32), known.entities, known.indptr), shape=(known.num_users, entities)
    )
    seen = whole[users]
    of_user = np.maximum(np.diff(seen.indptr), 1.0).astype(np.float32)
    of_entity = np.maximum(np.bincount(seen.indices, minlength=entities), 1.0).astype(np.float32)
    scaled: Any = sp.diags(of_user**-0.5) @ seen @ sp.diags(of_entity**-0.5)
    right = right_factors(scaled, dimension, seed)
    strength = np.linalg.norm(scaled @ right, axis=0)
    return np.asarray(right * strength, np.float32)
