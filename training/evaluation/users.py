"""What users engaged with next: held-out newest engagements, ranked among all entities not engaged with before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from graph_store.schema import Relation
from model_store.csr import EdgeType
from training.evaluation.metrics import bootstrap, ndcg, paired_bootstrap, ranking, recall
from training.evaluation.report import OURS, Protocol
from training.holdout import Split

Scores = NDArray[np.float64]
_EASE_LIMIT = 12_000
"""EASE inverts a matrix of the smaller of users and entities: up to this many."""
_EASE_REGULARISATION = 250.0
_USERS_AT_ONCE = 256


def evaluate_users(
    split: Split,
    relation: Relation,
    users: NDArray[np.float32],
    entities: NDArray[np.float32],
    *,
    at: int,
    max_users: int,
    resamplings: int,
) -> Protocol | None:
    """Recall and NDCG of ours (inner products) and of the baselines; None where nothing is held out.

    ``users`` and ``entities`` are vectors made without the held-out engagements.
    """
    edge_type = EdgeType(relation.triple)
    train, test = split.graph.csr(edge_type), split.held_out[edge_type]
    count = split.graph.num_nodes(relation.triple.target)
    seen = _binary(train.indptr, train.indices, count)
    wanted = _binary(test.indptr, test.indices, count)
    asked = np.flatnonzero((np.diff(wanted.indptr) > 0) & (np.diff(seen.indptr) > 0))
    if not len(asked):
        return None
    if len(asked) > max_users:
        asked = np.sort(np.random.default_rng(0).permutation(asked)[:max_users])
    values: dict[str, NDArray[np.float64]] = {}
    for name, scorer in _scorers(seen, users, entities):
        found = np.empty((len(asked), 2))
        for first in range(0, len(asked), _USERS_AT_ONCE):
            chunk = asked[first : first + _USERS_AT_ONCE]
            scores = np.array(scorer(chunk), dtype=np.float64)
            for row, user in enumerate(chunk):
                own = scores[row]
                own[seen.indices[seen.indptr[user] : seen.indptr[user + 1]]] = -np.inf
                order = _top(own, at)
                relevant = wanted.indices[wanted.indptr[user] : wanted.indptr[user + 1]].astype(np.int64)
                found[first + row] = recall(order, relevant, at), ndcg(order, relevant, at)
        values[name] = found
    names = (f"Recall@{at}", f"NDCG@{at}")
    scores_of = {
        name: {metric: bootstrap(found[:, place], resamplings) for place, metric in enumerate(names)}
        for name, found in values.items()
    }
    best = max((name for name in values if name != OURS), key=lambda name: values[name][:, 1].mean())
    return Protocol(
        name=f"{relation.triple}",
        kind="users",
        queries=len(asked),
        note="Each user's newest engagements, held out of training; all entities not engaged with before are ranked.",
        headline=names[1],
        scores=scores_of,
        best_baseline=best,
        gain=paired_bootstrap(values[OURS][:, 1], values[best][:, 1], resamplings),
    )


def _scorers(seen: Any, users: NDArray[np.float32], entities: NDArray[np.float32]) -> Iterator[tuple[str, Any]]:
    popularity = np.asarray(seen.sum(axis=0)).ravel()
    yield "popularity", lambda chunk: np.tile(popularity, (len(chunk), 1))
    unit = (seen @ sp.diags(1.0 / np.sqrt(np.maximum(popularity, 1.0)))).tocsr()
    # The cosine of entities summed over what the user engaged with, without the diagonal (those are left out anyway).
    yield "item-kNN cosine", lambda chunk: np.asarray((_knn(unit, seen, chunk)).todense())
    if _ease_fits(*seen.shape):
        yield "EASE", _Ease(seen)
    yield OURS, lambda chunk: users[chunk] @ entities.T


def _knn(unit: Any, seen: Any, chunk: NDArray[np.int64]) -> Any:
    # seen @ D^-1/2 (X^T X) D^-1/2, from the left so that no entity-by-entity matrix is made.
    return ((unit[chunk] @ seen.T) @ unit).tocsr()


def _ease_fits(users: int, entities: int) -> bool:
    """Whether EASE is affordable: by users it holds a dense users-by-entities matrix beside the inverse."""
    return min(users, entities) <= _EASE_LIMIT and (users >= entities or users * entities <= _EASE_LIMIT**2)


class _Ease:
    """EASE (Steck 2019) by the smaller of its two forms: over users where they are fewer than the entities."""

    def __init__(self, seen: Any) -> None:
        self.seen = seen
        users, entities = seen.shape
        by_users = users < entities
        gram = (seen @ seen.T if by_users else seen.T @ seen).toarray()
        gram[np.diag_indices(len(gram))] += _EASE_REGULARISATION
        inverse = np.linalg.inv(gram)
        if by_users:
            # (X'X + l I)^-1 = (I - X' (X X' + l I)^-1 X) / l
            half = np.asarray(inverse @ seen)
            self.diagonal = (1.0 - np.asarray(seen.multiply(half).sum(axis=0)).ravel()) / _EASE_REGULARISATION
            self.half: Any = half
            self.inverse: Any = None
        else:
            self.diagonal, self.half, self.inverse = np.diag(inverse).copy(), None, inverse

    def __call__(self, chunk: NDArray[np.int64]) -> Scores:
        rows = self.seen[chunk]
        dense = rows.toarray()
        if self.inverse is not None:
            product = np.asarray(rows @ self.inverse)
        else:
            product = (dense - np.asarray((rows @ self.seen.T) @ self.half)) / _EASE_REGULARISATION
        return np.asarray(dense - product / self.diagonal)


def _binary(indptr: NDArray[np.int64], indices: NDArray[np.int32], columns: int) -> Any:
    shape = (len(indptr) - 1, columns)
    matrix = sp.csr_matrix((np.ones(len(indices)), np.array(indices), np.array(indptr)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def _top(scores: Scores, at: int) -> NDArray[np.int64]:
    """The best ``at``, ties by position."""
    if len(scores) > 4 * at:
        least = np.partition(scores, len(scores) - at)[len(scores) - at]
        rows = np.flatnonzero(scores >= least)
        return rows[ranking(scores[rows], at)]
    return ranking(scores, at)
