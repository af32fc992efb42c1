"""Beam search where only some may be answered, where time runs out, and where a score is no number."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model_store.beam_search import SearchSettings, beam_search, exhaustive
from model_store.neighbour_graph import NeighbourGraph
from training.neural_metric.graph import build_graph
from training.neural_metric.settings import GraphSettings

COUNT = 1500


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return np.random.default_rng(5).standard_normal((COUNT, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def graph(vectors: NDArray[np.float32]) -> NeighbourGraph:
    return build_graph(vectors, GraphSettings(neighbours=6, candidates=30, seed=1))


@pytest.fixture(scope="module")
def scores(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearer to a point, the better."""
    return -np.square(vectors - vectors[11]).sum(1)


def best(scores: NDArray[np.float32], allowed: NDArray[np.bool_], k: int) -> list[int]:
    order = np.lexsort((np.arange(len(scores)), -scores))
    return [int(row) for row in order if allowed[row]][:k]


@pytest.mark.parametrize("share", [0.9, 0.3, 0.05])
def test_only_allowed_rows_are_answered_and_the_walk_goes_through_others(
    graph: NeighbourGraph, scores: NDArray[np.float32], share: float
) -> None:
    allowed = np.random.default_rng(1).random(COUNT) < share
    settings = SearchSettings(beam=30, width=4, scored_whole=50)
    found = beam_search(graph, scores.__getitem__, k=20, settings=settings, allowed=allowed)
    assert allowed[found.entities].all()
    assert np.isin(best(scores, allowed, 20), found.entities).mean() > 0.9
    assert found.scores.tolist() == scores[found.entities].tolist()
    # As many of the allowed are kept as without a filter of all: the fewer there are, the further the walk.
    plain = beam_search(graph, scores.__getitem__, k=20, settings=settings)
    assert found.evaluations > plain.evaluations
    everything = np.ones(COUNT, bool)
    same = beam_search(graph, scores.__getitem__, k=20, settings=settings, allowed=everything)
    assert (same.entities.tolist(), same.evaluations) == (plain.entities.tolist(), plain.evaluations)


def test_where_fewer_are_allowed_than_asked_for_all_are_found(
    graph: NeighbourGraph, scores: NDArray[np.float32]
) -> None:
    allowed = np.zeros(COUNT, bool)
    allowed[[5, 700, 1400]] = True
    found = beam_search(graph, scores.__getitem__, k=20, settings=SearchSettings(), allowed=allowed)
    assert sorted(found.entities.tolist()) == [5, 700, 1400]
    assert found.evaluations == COUNT
    nobody = beam_search(graph, scores.__getitem__, k=20, settings=SearchSettings(), allowed=np.zeros(COUNT, bool))
    assert not len(nobody.entities)


def test_a_search_that_is_stopped_answers_the_best_so_far(graph: NeighbourGraph, scores: NDArray[np.float32]) -> None:
    settings = SearchSettings(beam=200, width=4, scored_whole=50)
    whole = beam_search(graph, scores.__getitem__, k=10, settings=settings)
    assert not whole.truncated
    for calls in (1, 2, 5, 10):
        asked: list[NDArray[np.int64]] = []

        def score(rows: NDArray[np.int64], asked: list[NDArray[np.int64]] = asked) -> NDArray[np.float32]:
            asked.append(rows)
            return scores[rows]

        found = beam_search(
            graph, score, k=10, settings=settings, stop=lambda asked=asked, calls=calls: len(asked) >= calls
        )
        assert found.truncated
        assert found.rounds == len(asked) == calls
        seen = np.concatenate(asked)
        assert found.evaluations == len(seen) == len(np.unique(seen))
        mask = np.zeros(COUNT, bool)
        mask[seen] = True
        assert found.entities.tolist() == best(scores, mask, 10)


def test_brute_force_over_some_rows(scores: NDArray[np.float32]) -> None:
    rows = np.arange(0, COUNT, 3)
    found = exhaustive(rows, scores.__getitem__, k=7)
    mask = np.zeros(COUNT, bool)
    mask[rows] = True
    assert found.entities.tolist() == best(scores, mask, 7)
    assert (found.evaluations, found.rounds, found.truncated) == (500, 1, False)
    assert not len(exhaustive(rows[:0], scores.__getitem__, k=7).entities)


def test_what_is_no_number_is_never_answered(graph: NeighbourGraph, scores: NDArray[np.float32]) -> None:
    broken = scores.copy()
    broken[best(scores, np.ones(COUNT, bool), 3)] = np.nan
    fine = ~np.isnan(broken)
    found = beam_search(graph, broken.__getitem__, k=10, settings=SearchSettings(beam=1500))
    assert found.entities.tolist() == best(scores, fine, 10)


@pytest.mark.parametrize("name", ["beam", "upper_beam", "width", "rounds", "budget", "scored_whole"])
def test_settings_are_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        SearchSettings(**{name: 0})
