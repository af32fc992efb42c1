"""Reduced vectors brought nearer to the scores where they are ranked: at the top of each user's list.

The truncated SVD keeps all scores alike, those of entities that a user knows already and those of the thousands that no
list will show. Here the squared errors at the first unknown entities of each user count more, those at the known ones
not at all; alternating least squares over users and entities, as in implicit matrix factorisation (Hu, Koren and
Volinsky 2008) but with the full scores as what is wanted. Rows are solved by conjugate gradients (Takacs, Pilaszy and
Tikk 2011).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float32]

_TOP = 100
"""Unknown entities of each user whose scores count more."""
_WEIGHT = 100.0
"""How much more; that of every score is 1."""
_ITERATIONS = 4
_ROWS_AT_ONCE = 512
_LINKS_AT_ONCE = 40_000


def refine(
    users: Floats, entities: Floats, start: tuple[Floats, Floats], known: Any, rounds: int
) -> tuple[Floats, Floats]:
    """Vectors ``[users, dimension]`` and ``[entities, dimension]`` whose inner products are near the scores.

    ``users`` and ``entities`` are rows ``[n, width]`` whose inner products are the scores, ``start`` their reduced
    forms, ``known`` a CSR matrix of ones at the pairs that are never asked for. Reads all scores once.
    """
    weights, wanted = _counted(users, entities, known)
    turned = weights.T.tocsr(), wanted.T.tocsr()
    of_users, of_entities = (torch.from_numpy(each.copy()) for each in start)
    full = torch.from_numpy(users), torch.from_numpy(entities)
    for _ in range(rounds):
        _solve(of_users, of_entities, full[0], full[1], weights, wanted)
        _solve(of_entities, of_users, full[1], full[0], *turned)
    return of_users.numpy(), of_entities.numpy()


def onto(full: Floats, reduced: Floats) -> Floats:
    """Matrix ``[width, dimension]`` that turns a row of the other side into the vector whose inner products with
    ``reduced [n, dimension]`` are nearest to its own with ``full [n, width]``.
    """
    gram = reduced.T.astype(np.float64) @ reduced
    gram[np.diag_indices(len(gram))] += 1e-7 * max(float(np.trace(gram)) / len(gram), 1e-30)
    return np.asarray(np.linalg.solve(gram, reduced.T.astype(np.float64) @ full).T, np.float32)


def _counted(users: Floats, entities: Floats, known: Any) -> tuple[Any, Any]:
    """Weights beside that of every score, and the scores there: CSR matrices of the same pattern."""
    top = min(_TOP, entities.shape[0])
    turned = torch.from_numpy(np.ascontiguousarray(entities.T))
    columns, scores, weights, indptr = [], [], [], [0]
    for first in range(0, len(users), _ROWS_AT_ONCE):
        all_scores = torch.from_numpy(users[first : first + _ROWS_AT_ONCE]) @ turned
        part = known[first : first + _ROWS_AT_ONCE]
        rows = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr))
        of_known = all_scores[rows, part.indices].numpy()
        all_scores[rows, part.indices] = -torch.inf
        best = all_scores.topk(top, dim=1)
        for row in range(part.shape[0]):
            own = slice(part.indptr[row], part.indptr[row + 1])
            there = torch.isfinite(best.values[row]).numpy()
            columns += [best.indices[row].numpy()[there], part.indices[own]]
            scores += [best.values[row].numpy()[there], of_known[own]]
            weights += [np.full(int(there.sum()), _WEIGHT), np.full(own.stop - own.start, -1.0)]
            indptr.append(indptr[-1] + int(there.sum()) + own.stop - own.start)
    shape = (len(users), len(entities))
    found = (
        sp.csr_matrix((np.concatenate(values).astype(np.float32), np.concatenate(columns), indptr), shape=shape)
        for values in (weights, scores)
    )
    return next(found), next(found)


def _solve(ours: Tensor, theirs: Tensor, full: Tensor, full_theirs: Tensor, weights: Any, wanted: Any) -> None:
    """One side anew, in place: conjugate gradients from what it is, with the matrix of all scores as preconditioner."""
    common = theirs.T @ theirs
    towards = full @ (full_theirs.T @ theirs)
    ridge = 1e-6 * common.diagonal().mean().clamp_min(1e-30) * torch.eye(len(common))
    inverse = torch.linalg.inv(common + ridge)
    alone = torch.from_numpy(np.flatnonzero(np.diff(weights.indptr) == 0))
    ours[alone] = towards[alone] @ inverse
    for rows, places, there in _padded(weights.indptr):
        chosen = torch.from_numpy(rows)
        near = theirs[torch.from_numpy(weights.indices[places].astype(np.int64))]
        weight = torch.from_numpy(np.where(there, weights.data[places], 0.0).astype(np.float32))
        scores = torch.from_numpy(wanted.data[places])

        def product(vector: Tensor, near: Tensor = near, weight: Tensor = weight) -> Tensor:
            inner = torch.bmm(near, vector[:, :, None])[:, :, 0]
            return vector @ common + torch.bmm((weight * inner)[:, None], near)[:, 0]

        found = ours[chosen]
        rest = towards[chosen] + torch.bmm((weight * scores)[:, None], near)[:, 0] - product(found)
        direction = turned = rest @ inverse
        size = (rest * turned).sum(1)
        for _ in range(_ITERATIONS):
            image = product(direction)
            step = size / (direction * image).sum(1).clamp_min(1e-30)
            found = found + step[:, None] * direction
            rest = rest - step[:, None] * image
            turned = rest @ inverse
            before, size = size, (rest * turned).sum(1)
            direction = turned + (size / before.clamp_min(1e-30))[:, None] * direction
        ours[chosen] = found


def _padded(indptr: NDArray[Any]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]]:
    """Rows of like length together: the rows, and the places of their links ``[rows, longest]`` with a mask."""
    length = np.diff(indptr)
    order = np.argsort(length, kind="stable")
    order = order[length[order] > 0]
    first = 0
    while first < len(order):
        last = first + 1
        while last < len(order) and (last + 1 - first) * length[order[last]] <= _LINKS_AT_ONCE:
            last += 1
        rows = order[first:last]
        slots = np.arange(length[rows].max())
        there = slots < length[rows][:, None]
        yield rows, np.where(there, indptr[rows][:, None] + slots, indptr[rows][:, None]), there
        first = last
