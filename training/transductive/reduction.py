"""The best inner products of fewer dimensions: the SVD of a score matrix that is never made."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


def gram(rows: Floats, weights: Floats | None = None) -> Doubles:
    """``X' W^2 X`` of rows ``[n, d]`` with a weight each."""
    weighted = rows if weights is None else rows * weights[:, None]
    return np.asarray(weighted.T @ weighted, np.float64)


def reduce_inner_products(users: Doubles, entities: Doubles, dimension: int) -> tuple[Floats, Floats]:
    """Two matrices ``[d, dimension]``; rows of users times the first and of entities times the second keep as much of
    the (weighted) score matrix as any ``dimension`` columns can (Eckart and Young 1936).

    ``users`` and ``entities`` are Gram matrices ``[d, d]``, see ``gram``. With ``H = L L'`` of the entities and
    ``L' G L = Q t Q'`` the right singular vectors of ``X_u X_e'`` are ``X_e L^-T Q``. Where ``dimension`` is above d
    the last columns are zeros.
    """
    width = len(users)
    kept = min(dimension, width)
    lower = _cholesky(entities)
    _, turned = np.linalg.eigh(lower.T @ users @ lower)
    turned = turned[:, ::-1][:, :kept]
    turned = turned * np.where(turned[np.abs(turned).argmax(axis=0), np.arange(kept)] < 0, -1.0, 1.0)
    for_users, for_entities = np.zeros((2, width, dimension), np.float32)
    for_users[:, :kept] = lower @ turned
    for_entities[:, :kept] = np.linalg.solve(lower.T, turned)
    return for_users, for_entities


def _cholesky(matrix: Doubles) -> Doubles:
    """The lower factor of a Gram matrix, which may be singular."""
    # Columns differ by orders of magnitude: brought to one scale, so that the ridge touches none of them.
    scale = np.sqrt(np.maximum(np.diag(matrix), 1e-30))
    ridge = 1e-7 * np.eye(len(matrix))
    return np.asarray(scale[:, None] * np.linalg.cholesky(matrix / np.outer(scale, scale) + ridge))
