"""What users engaged with next: held-out newest engagements, ranked among all entities not engaged with before.

Two protocols over the same rankings: ``users`` asks for all that was held out of a user, ``next`` for the first of it
alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from graph_store.schema import Relation
from model_store.csr import EdgeType
from training.evaluation.groups import by_relation, by_tenths, measured
from training.evaluation.metrics import Interval, bootstrap_columns, paired_bootstrap, ranking
from training.evaluation.report import OURS, Protocol
from training.evaluation.top_k import average_popularity, coverage, hits, list_metrics, personalization
from training.graph import Graph
from training.holdout import Split, first_held_out

Scores = NDArray[np.float64]
_EASE_LIMIT = 12_000
"""EASE inverts a matrix of the smaller of users and entities: up to this many."""
_EASE_REGULARISATION = 250.0
_USERS_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """What each scorer answers to the users who are asked."""

    relation: Relation
    graph: Graph
    """Without the held-out engagements."""
    asked: NDArray[np.int64]
    """Users with something kept and something held out, ascending."""
    lists: dict[str, NDArray[np.int64]]
    """By scorer: entities not engaged with before, best first ``[asked, k]``; -1 where there are fewer."""
    seen: Any
    wanted: Any
    """What was kept and what was held out, CSR matrices ``[users, entities]`` of ones."""
    following: NDArray[np.int64]
    """The first entity held out ``[asked]``; -1 where it is not known."""


def rank_users(
    split: Split,
    relation: Relation,
    users: NDArray[np.float32],
    entities: NDArray[np.float32],
    *,
    at: int,
    max_users: int,
) -> Ranked | None:
    """Rank by ours (inner products) and by the baselines, ``at`` answers each; None where nothing is held out.

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
    lists: dict[str, NDArray[np.int64]] = {}
    for name, scorer in _scorers(seen, users, entities):
        found = np.full((len(asked), at), -1, np.int64)
        for first in range(0, len(asked), _USERS_AT_ONCE):
            chunk = asked[first : first + _USERS_AT_ONCE]
            scores = np.array(scorer(chunk), dtype=np.float64)
            for row, user in enumerate(chunk):
                own = scores[row]
                own[seen.indices[seen.indptr[user] : seen.indptr[user + 1]]] = -np.inf
                order = _top(own, at)
                found[first + row, : len(order)] = order
        lists[name] = found
    return Ranked(
        relation=relation,
        graph=split.graph,
        asked=asked,
        lists=lists,
        seen=seen,
        wanted=wanted,
        following=first_held_out(split, relation)[asked],
    )


def users_protocol(ranked: Ranked, *, at: int, resamplings: int) -> Protocol:
    """All that was held out of each user: PyG's metrics of the first ``at`` answers."""
    wanted = ranked.wanted[ranked.asked]
    relevant = np.diff(wanted.indptr).astype(np.int64)
    popularity = np.asarray(ranked.seen.sum(axis=0)).ravel()
    values, alone = {}, {}
    for name, lists in ranked.lists.items():
        first = lists[:, :at]
        values[name] = list_metrics(hits(first, wanted), relevant, at)
        values[name][f"AveragePopularity@{at}"] = average_popularity(first, popularity)
        # Figures of all lists together, not of one query: they have no interval over queries.
        alone[name] = {
            f"Coverage@{at}": Interval.alone(coverage(first, len(popularity))),
            f"Personalization@{at}": Interval.alone(personalization(first)),
        }
    intervals = _intervals(values, resamplings)
    return _protocol(
        ranked,
        "users",
        f"NDCG@{at}",
        {name: _ordered({**intervals[name], **alone[name]}, at) for name in intervals},
        values,
        ranked.asked,
        resamplings,
        note="Each user's newest engagements, held out of training; all entities not engaged with before are ranked.",
    )


def next_protocol(ranked: Ranked, *, at: Sequence[int], resamplings: int) -> Protocol | None:
    """The first engagement that was held out of each user, and no other; None where no time says which it was."""
    known = ranked.following >= 0
    if not known.any():
        return None
    relevant = np.ones(int(known.sum()), np.int64)
    most = max(at)
    values = {}
    for name, lists in ranked.lists.items():
        found = lists[known] == ranked.following[known, None]
        metrics = list_metrics(found, relevant, most)
        each = {f"Recall@{k}": list_metrics(found, relevant, k)[f"Recall@{k}"] for k in at}
        values[name] = {**each, f"NDCG@{most}": metrics[f"NDCG@{most}"], f"MRR@{most}": metrics[f"MRR@{most}"]}
    return _protocol(
        ranked,
        "next",
        f"Recall@{min(at)}",
        _intervals(values, resamplings),
        values,
        ranked.asked[known],
        resamplings,
        note="The one engagement that follows what was kept; all entities not engaged with before are ranked.",
    )


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
    """``rank_users`` and ``users_protocol``; None where nothing is held out."""
    ranked = rank_users(split, relation, users, entities, at=at, max_users=max_users)
    return None if ranked is None else users_protocol(ranked, at=at, resamplings=resamplings)


def _ordered(metrics: dict[str, Interval], at: int) -> dict[str, Interval]:
    """What says most first: a terminal has no room for all."""
    first = [f"{name}@{at}" for name in ("Recall", "NDCG", "MRR", "HitRatio", "Coverage", "AveragePopularity")]
    return {name: metrics[name] for name in (*first, *(name for name in metrics if name not in first))}


def _intervals(values: dict[str, dict[str, Scores]], resamplings: int) -> dict[str, dict[str, Interval]]:
    columns = np.stack([each for found in values.values() for each in found.values()], axis=1)
    intervals = iter(bootstrap_columns(columns, resamplings))
    return {scorer: {name: next(intervals) for name in found} for scorer, found in values.items()}


def _protocol(
    ranked: Ranked,
    kind: str,
    headline: str,
    scores: dict[str, dict[str, Interval]],
    values: dict[str, dict[str, Scores]],
    users: NDArray[np.int64],
    resamplings: int,
    *,
    note: str,
) -> Protocol:
    by_scorer = {name: found[headline] for name, found in values.items()}
    best = max((name for name in by_scorer if name != OURS), key=lambda name: by_scorer[name].mean())
    activity = np.diff(ranked.seen.indptr)[users].astype(np.float64)
    relations = by_relation(ranked.graph, ranked.relation.triple.source, users, but=ranked.relation)
    return Protocol(
        name=f"{ranked.relation.triple}" + (", next entity" if kind == "next" else ""),
        kind=kind,
        queries=len(users),
        note=note,
        headline=headline,
        scores=scores,
        best_baseline=best,
        gain=paired_bootstrap(by_scorer[OURS], by_scorer[best], resamplings),
        groups=(
            *measured("activity", by_tenths(activity), by_scorer, resamplings),
            *measured("relation", relations, by_scorer, resamplings),
        ),
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
