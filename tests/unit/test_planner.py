"""Filtered search: every way of it finds what exact search over the rows that pass finds, and all that was asked."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from server.calls.diversity import diversify
from server.deadline import Deadline
from server.errors import DeadlinePassed
from server.index import scann_index
from server.index.exact_index import ExactIndex
from server.index.planner import (
    Approximate,
    Partitions,
    SearchPath,
    approximate,
    approximate_cost,
    exact_path,
)
from server.index.scann_index import ScannIndex, ScannParameters, scann_version
from server.index.selection import Selection
from server.index.vector_index import Found, Rows, Vectors, unit_rows

COUNT = 20_000
needs_scann = pytest.mark.skipif(scann_version() is None, reason="ScaNN has no wheel for this machine")


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    """Around 50 centres, the first rows around the first; three are not known (see ``right``)."""
    random = np.random.default_rng(3)
    centres = random.normal(size=(50, 32))
    drawn = centres[np.arange(COUNT) * 50 // COUNT] + 0.5 * random.normal(size=(COUNT, 32))
    found = unit_rows(drawn.astype(np.float32)).copy()
    found[[0, 17, 18_000]] = 0
    return found


@pytest.fixture(scope="module")
def approximating(vectors: Vectors) -> ScannIndex:
    parameters = ScannParameters(leaves=140, leaves_to_search=20, reorder=100)
    return ScannIndex.build(vectors, parameters, spherical=True)


def right(vectors: Vectors, query: Vectors, k: int, passing: Rows, exclude: Rows) -> list[int]:
    """The slow and plain way."""
    scores = vectors.astype(np.float64) @ query.astype(np.float64)
    rows = np.array([row for row in np.setdiff1d(passing, exclude) if row not in (0, 17, 18_000)], np.int64)
    order = np.lexsort((rows, -scores[rows]))[:k]
    found: list[int] = rows[order].tolist()
    return found


def share(part: float) -> Rows:
    return np.flatnonzero(np.random.default_rng(11).random(COUNT) < part)


SHARES = [0.0, 0.0005, 0.01, 0.1, 0.5, 0.99, 1.0]


@pytest.mark.parametrize("part", SHARES)
def test_exact_search_finds_the_best_that_pass(vectors: Vectors, part: float) -> None:
    passing, exclude = share(part), np.arange(0, COUNT, 3)
    index = ExactIndex(vectors)
    queries = vectors[[5, 9_000, 19_999]]
    selection = Selection.of(passing, COUNT)
    for query, found in zip(queries, index.search(queries, 20, [exclude] * 3, [selection] * 3), strict=True):
        assert found.rows.tolist() == right(vectors, query, 20, passing, exclude)
        assert found.exact
        assert found.path is exact_path(COUNT, len(passing), 32)[0]
        if found.path is SearchPath.ROWS:
            assert found.scored == np.count_nonzero(vectors[np.setdiff1d(passing, exclude)].any(axis=1))


def test_both_exact_ways_are_taken() -> None:
    paths = [exact_path(COUNT, int(part * COUNT), 32)[0] for part in SHARES]
    assert paths[:3] == [SearchPath.ROWS] * 3
    assert paths[-2:] == [SearchPath.ALL] * 2


def test_each_query_of_a_batch_has_its_own_filter(vectors: Vectors) -> None:
    index = ExactIndex(vectors)
    queries = np.repeat(vectors[5:6], 4, axis=0)
    some = [None, Selection.of(share(0.01), COUNT), Selection.of(share(0.9), COUNT), Selection.of(share(0.0), COUNT)]
    exclude = [np.array([5]), np.empty(0, np.int64), np.array([6, 7]), np.array([5])]
    found = index.search(queries, 10, exclude, some)
    for one, selection, left_out in zip(found, some, exclude, strict=True):
        passing = np.arange(COUNT) if selection is None else selection.rows
        assert one.rows.tolist() == right(vectors, queries[0], 10, passing, left_out)
    together = index.search(queries, 10, None, some)
    alone = [index.search(queries[:1], 10, None, [each])[0] for each in some]
    assert [one.rows.tolist() for one in together] == [one.rows.tolist() for one in alone]


def always(cost: float) -> Callable[..., float]:
    return lambda *_: cost


@needs_scann
@pytest.mark.parametrize("part", SHARES)
@pytest.mark.parametrize("forced", ["planned", "approximate", "exact"])
def test_every_way_gives_as_many_as_there_are_and_mostly_the_best(
    vectors: Vectors, approximating: ScannIndex, part: float, forced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if forced == "exact":
        monkeypatch.setattr(scann_index, "approximate_cost", always(math.inf))
    elif forced == "approximate":
        monkeypatch.setattr(
            scann_index, "approximate_cost", lambda question, total, *_: _while_it_is_less(question, total)
        )
    passing, exclude = share(part), np.arange(0, COUNT, 997)
    selection = Selection.of(passing, COUNT)
    queries = vectors[np.random.default_rng(5).choice(np.flatnonzero(vectors.any(axis=1)), 40, replace=False)]
    hits = asked = 0
    paths = set()
    for query, found in zip(queries, approximating.search(queries, 10, [exclude] * 40, [selection] * 40), strict=True):
        best = right(vectors, query, 10, passing, exclude)
        assert len(found.rows) == len(best)
        assert np.isin(found.rows, passing).all()
        assert not np.isin(found.rows, exclude).any()
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        hits, asked = hits + len(set(found.rows.tolist()) & set(best)), asked + len(best)
        paths.add(found.path)
        if found.exact:
            assert found.rows.tolist() == best
    assert hits >= 0.95 * asked
    if forced == "exact":
        assert SearchPath.APPROXIMATE not in paths
    if forced == "approximate" and part >= 0.1:
        assert paths == {SearchPath.APPROXIMATE}
    if forced == "planned" and 0 < part <= 0.0005:
        assert paths == {SearchPath.ROWS}
    if forced == "planned" and part >= 0.5:
        assert paths == {SearchPath.APPROXIMATE}


def _while_it_is_less(question: Approximate, total: int) -> float:
    """Any question but one for everything costs nothing."""
    return 0.0 if question.wanted < total else math.inf


@needs_scann
def test_a_filter_that_lets_only_the_far_ones_pass_is_widened(vectors: Vectors, approximating: ScannIndex) -> None:
    """The query lies in the first cluster; nothing of the first half passes."""
    passing = np.arange(COUNT // 2, COUNT)
    selection = Selection.of(passing, COUNT)
    for row in (3, 100, 390):
        found = approximating.search(vectors[row : row + 1], 10, None, [selection])[0]
        best = right(vectors, vectors[row], 10, passing, np.empty(0, np.int64))
        assert len(found.rows) == 10
        assert len(set(found.rows.tolist()) & set(best)) >= 9


@needs_scann
def test_a_query_without_a_filter_is_answered_as_before_beside_one_with(
    vectors: Vectors, approximating: ScannIndex
) -> None:
    queries = vectors[[5, 5]]
    exclude = [np.array([5]), np.array([5])]
    some = [None, Selection.of(share(0.5), COUNT)]
    first, second = approximating.search(queries, 10, exclude, some)
    assert first.rows.tolist() == approximating.search(queries[:1], 10, exclude[:1])[0].rows.tolist()
    assert second.rows.tolist() == approximating.search(queries[:1], 10, exclude[:1], some[1:])[0].rows.tolist()
    assert np.isin(second.rows, share(0.5)).all()


def test_a_stricter_filter_asks_for_more() -> None:
    partitions = Partitions(leaves=100, leaves_to_search=5, reorder=100)
    asked = [approximate(10_000, passing, 100, partitions) for passing in (10_000, 5_000, 1_000, 0)]
    assert [each.wanted for each in asked] == sorted(each.wanted for each in asked)
    assert [each.leaves for each in asked] == [15, 30, 100, 100]
    costs = [approximate_cost(each, 10_000, 100, 64, 100) for each in asked]
    assert costs == sorted(costs)
    assert costs[3] == math.inf


def unlike(found: Found, vectors: Vectors, k: int, diversity: float) -> list[int]:
    """The definition of maximal marginal relevance, one pair at a time."""
    left, chosen = list(range(len(found.rows))), list[int]()
    lengths = [float(np.linalg.norm(vector)) for vector in vectors.astype(np.float64)]

    def cosine(one: int, two: int) -> float:
        if not lengths[one] * lengths[two]:
            return 0.0
        product = float(vectors[one].astype(np.float64) @ vectors[two].astype(np.float64))
        return product / (lengths[one] * lengths[two])

    while left and len(chosen) < k:
        worth = [
            (1 - diversity) * float(found.scores[each])
            - diversity * max((cosine(each, other) for other in chosen), default=0.0)
            for each in left
        ]
        chosen.append(left.pop(int(np.argmax(worth))))
    return [int(found.rows[each]) for each in chosen]


@pytest.mark.parametrize("diversity", [0.05, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("unit", [True, False])
def test_results_are_chosen_by_marginal_relevance(diversity: float, unit: bool) -> None:
    random = np.random.default_rng(2)
    vectors = random.normal(size=(40, 6)).astype(np.float32)
    vectors[7] = 0
    if unit:
        vectors = unit_rows(vectors)
    scores = np.sort(random.random(40).astype(np.float32))[::-1]
    found = Found(rows=np.arange(100, 140), scores=scores, exact=True, scored=40)
    chosen = diversify(found, vectors, 10, diversity, Deadline())
    assert chosen.rows.tolist() == unlike(found, vectors, 10, diversity)
    assert chosen.scores.tolist() == [float(scores[row - 100]) for row in chosen.rows]
    assert chosen.rows[0] == 100 or diversity == 1.0
    assert chosen.scored == 40


def test_of_equals_the_first_is_chosen_and_no_more_than_there_are() -> None:
    vectors = np.repeat(np.array([[3.0, 4.0]], np.float32), 5, axis=0)
    found = Found(rows=np.arange(5), scores=np.ones(5, np.float32), exact=True, scored=5)
    assert diversify(found, vectors, 9, 0.5, Deadline()).rows.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(DeadlinePassed):
        diversify(found, vectors, 9, 0.5, Deadline(0))
