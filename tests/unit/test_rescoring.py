"""The compiled end of a search against a plain one."""

from __future__ import annotations

import numpy as np
import pytest

from server.index.rescoring import best_candidates, best_of_each, scores_of


def plain(vectors: np.ndarray, query: np.ndarray, candidates: np.ndarray, exclude: set[int], k: int) -> list[int]:
    rows = [row for row in candidates.tolist() if row not in exclude and 0 <= row < len(vectors)]
    scores = dict(zip(rows, scores_of(vectors[rows], query).tolist(), strict=True)) if rows else {}
    return sorted(rows, key=lambda row: (-scores[row], row))[:k]


@pytest.mark.parametrize("dimension", [1, 4, 7, 8, 64, 65])
def test_scores_are_inner_products_and_equal_vectors_tie(dimension: int) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(50, dimension)).astype(np.float32)
    vectors[[3, 17, 41]] = vectors[9]
    query = rng.normal(size=dimension).astype(np.float32)
    scores = scores_of(vectors, query)
    assert scores == pytest.approx(vectors.astype(np.float64) @ query.astype(np.float64), rel=1e-5, abs=1e-5)
    assert len(set(scores[[3, 9, 17, 41]].tolist())) == 1
    assert scores_of(vectors[:, ::-1], query[::-1]) == pytest.approx(scores, rel=1e-4, abs=1e-5)


def test_all_ways_give_the_same_scores_to_the_last_bit() -> None:
    rng = np.random.default_rng(4)
    for dimension in (*range(1, 40), 63, 64, 65, 100, 127, 128, 200, 256, 512):
        vectors = rng.normal(size=(30, dimension)).astype(np.float32)
        query = rng.normal(size=dimension).astype(np.float32)
        every = np.arange(30)
        rows, scores = best_candidates(vectors, query, every, None, 30)
        assert scores.tolist() == scores_of(vectors, query)[rows].tolist(), dimension
        both = best_of_each(vectors, np.stack([query, query]), np.stack([every, every]), np.array([-1, -1]), 30)
        assert both[1].tolist() == [scores.tolist(), scores.tolist()], dimension


@pytest.mark.parametrize("left_out", [[], [5], [30, 2, 11, 9], list(range(60))])
@pytest.mark.parametrize("k", [1, 10, 60, 100])
def test_the_best_are_those_of_sorting(left_out: list[int], k: int) -> None:
    rng = np.random.default_rng(2)
    # Few values, so that many scores tie.
    vectors = rng.integers(-1, 2, (60, 3)).astype(np.float32)
    vectors.setflags(write=False)
    for _ in range(20):
        query = rng.integers(-1, 2, 3).astype(np.float32)
        candidates = rng.permutation(60)[:40].astype(np.uint32)
        exclude = np.array(left_out, np.int64)
        rows, scores = best_candidates(vectors, query, candidates, exclude, k)
        assert rows.tolist() == plain(vectors, query, candidates, set(left_out), k)
        assert scores.tolist() == scores_of(vectors[rows], query).tolist()
        everything, _ = best_candidates(vectors, query, candidates, None, k)
        assert everything.tolist() == plain(vectors, query, candidates, set(), k)


def test_a_batch_is_its_single_searches() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(60, 16)).astype(np.float32)
    queries = rng.normal(size=(9, 16)).astype(np.float32)
    candidates = rng.integers(0, 60, (9, 20)).astype(np.uint32)
    candidates = np.array([rng.permutation(60)[:20] for _ in range(9)]).astype(np.uint32)
    candidates[4, 5:] = 2**32 - 1  # what ScaNN puts where it found no more
    exclude = np.array([-1, 3, -1, *candidates[3:8, 0], -1], np.int64)
    rows, scores, counts = best_of_each(vectors, queries, candidates, exclude, 8)
    for number in range(9):
        left_out = exclude[number : number + 1]
        one = best_candidates(vectors, queries[number], candidates[number], left_out, 8)
        assert rows[number, : counts[number]].tolist() == one[0].tolist()
        assert scores[number, : counts[number]].tolist() == one[1].tolist()
    assert counts[4] == 4, "five were found, and one of them is left out"
