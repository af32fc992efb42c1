"""Uniform sampling against exact enumeration, and prefetching.

f0 -- d0, d1, d2      (film f0 has three tags; f3 has none; tag d3 has no film)
f1 -- d0
f2 -- d0, d2
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from graph_store.schema import Triple
from model_store.csr import Csr, EdgeType
from training.sampling import Subgraph, UniformSampler, prefetch

TAGGED = Triple("Film", "TAGGED", "Tag")
OUT, BACK = EdgeType(TAGGED), EdgeType(TAGGED, True)


def nodes(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def csr(rows: list[list[int]], weight: list[float] | None = None) -> Csr:
    return Csr(
        indptr=np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
        indices=np.array([value for row in rows for value in row], dtype=np.int32),
        weight=None if weight is None else np.array(weight, dtype=np.float32),
    )


TOY = {
    OUT: csr([[0, 1, 2], [0], [0, 2], []], [1, 2, 3, 4, 5, 6]),
    BACK: csr([[0, 1, 2], [0], [0, 2], []], [1, 4, 5, 2, 3, 6]),
}
SIZES = {"Film": 4, "Tag": 4}


def toy(*fan_out: int, seed: int = 1) -> UniformSampler:
    return UniformSampler(TOY, SIZES, fan_out=fan_out, seed=seed)


def pairs(subgraph: Subgraph, edge_type: EdgeType) -> list[tuple[int, int]]:
    """Edges as (node, neighbour), by global index."""
    neighbour, node = subgraph.edge_index[edge_type]
    owners = subgraph.node_ids.get(edge_type.node_type, nodes())[node]
    return list(
        zip(owners.tolist(), subgraph.node_ids.get(edge_type.neighbour_type, nodes())[neighbour].tolist(), strict=True)
    )


def star(degree: int) -> UniformSampler:
    return UniformSampler({OUT: csr([list(range(degree))])}, {"Film": 1, "Tag": degree}, fan_out=[5], seed=3)


@pytest.mark.parametrize("fan_out", [3, 100, -1])
def test_a_fan_out_of_the_degree_or_more_takes_every_edge(fan_out: int) -> None:
    subgraph = toy(fan_out, fan_out).sample({"Film": nodes(2, 3)})
    # Hop 1: f2's tags; hop 2: the films of those tags, f2 among them under its own position.
    assert subgraph.node_ids["Film"].tolist() == [2, 3, 0, 1]
    assert subgraph.node_ids["Tag"].tolist() == [0, 2]
    assert subgraph.edge_index[OUT].tolist() == [[0, 1], [0, 0]]
    assert subgraph.edge_index[BACK].tolist() == [[2, 3, 0, 2, 0], [0, 0, 0, 1, 1]]
    assert pairs(subgraph, BACK) == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 2)]
    weight = subgraph.edge_weight[BACK]
    assert weight is not None
    assert weight.tolist() == [1, 4, 5, 3, 6]
    assert subgraph.edge_position[BACK].tolist() == [0, 1, 2, 4, 5]
    np.testing.assert_array_equal(subgraph.importance[BACK], np.array([1 / 3] * 3 + [1 / 2] * 2, dtype=np.float32))
    assert subgraph.nodes_per_hop == {"Film": (2, 0, 2), "Tag": (0, 2, 0)}
    assert subgraph.edges_per_hop == {OUT: (2, 0), BACK: (0, 5)}
    assert subgraph.num_seeds == {"Film": 2}


def test_each_repeated_seed_draws_for_itself_and_is_found_once() -> None:
    subgraph = toy(-1, -1).sample({"Film": nodes(1, 1)})
    assert subgraph.node_ids["Film"].tolist() == [1, 1, 0, 2]
    assert subgraph.edge_index[OUT].tolist() == [[0, 0], [0, 1]]
    assert subgraph.edge_index[BACK].tolist() == [[2, 0, 3], [0, 0, 0]]


def test_isolated_nodes_and_no_seeds() -> None:
    subgraph = toy(2, 2).sample({"Film": nodes(3), "Tag": nodes(3)})
    assert {name: ids.tolist() for name, ids in subgraph.node_ids.items()} == {"Film": [3], "Tag": [3]}
    assert subgraph.edge_index[OUT].shape == subgraph.edge_index[BACK].shape == (2, 0)
    assert subgraph.edges_per_hop == {OUT: (0, 0), BACK: (0, 0)}
    empty = toy(2).sample({"Film": nodes()})
    assert empty.num_nodes("Film") == empty.num_nodes("Tag") == 0
    assert toy(2).sample({}).node_ids == {}


def test_no_hops_is_the_seeds_alone() -> None:
    subgraph = UniformSampler(TOY, SIZES, fan_out=[]).sample({"Tag": nodes(2, 0)})
    assert subgraph.node_ids["Tag"].tolist() == [2, 0]
    assert subgraph.nodes_per_hop == {"Tag": (2,)}
    assert subgraph.edge_index[OUT].shape == (2, 0)


def test_fan_out_by_edge_type() -> None:
    sampler = UniformSampler(TOY, SIZES, fan_out={OUT: [-1, -1], BACK: [0, 1]})
    subgraph = sampler.sample({"Film": nodes(0), "Tag": nodes(1)})
    assert len(pairs(subgraph, OUT)) == 3
    assert len(pairs(subgraph, BACK)) == 2  # one each for d0 and d2, found in hop 1; none for the seed d1


def test_excluded_edges_never_appear_from_either_end() -> None:
    for key in range(50):
        for exclude in ({OUT: (nodes(0, 2), nodes(2, 0))}, {BACK: (nodes(0, 2), nodes(2, 0))}):
            subgraph = toy(2, 2).sample({"Film": nodes(0, 2), "Tag": nodes(0, 2)}, key=key, exclude=exclude)
            assert not {(0, 2), (2, 0)} & set(pairs(subgraph, OUT))
            assert not {(2, 0), (0, 2)} & set(pairs(subgraph, BACK))
            assert {(0, 0), (0, 1), (2, 2)} <= set(pairs(subgraph, OUT))


def test_excluding_one_direction_of_an_asymmetric_pair_spares_its_mirror_image() -> None:
    subgraph = toy(-1).sample({"Film": nodes(0, 2)}, exclude={OUT: (nodes(0), nodes(2))})
    assert pairs(subgraph, OUT) == [(0, 0), (0, 1), (2, 0), (2, 2)]


@pytest.mark.parametrize(("degree", "fan_out"), [(7, 3), (200, 10), (90, 70), (12, 11)])
def test_every_edge_is_as_likely_as_any_other(degree: int, fan_out: int) -> None:
    sampler = UniformSampler(
        {OUT: csr([list(range(degree))])}, {"Film": 1, "Tag": degree}, fan_out=[fan_out], seed=degree
    )
    seen: Counter[int] = Counter()
    both = 0
    for key in range(40):
        subgraph = sampler.sample({"Film": np.zeros(100, dtype=np.int64)}, key=key)
        owners = subgraph.edge_index[OUT][1]
        assert np.bincount(owners).tolist() == [fan_out] * 100
        drawn = subgraph.edge_position[OUT].reshape(100, fan_out)
        assert (np.diff(drawn, axis=1) > 0).all()  # without replacement
        seen.update(drawn.ravel().tolist())
        both += int(((drawn == 0).any(axis=1) & (drawn == degree - 1).any(axis=1)).sum())
    assert chisquare([seen[edge] for edge in range(degree)]).pvalue > 0.01
    expected = 4000 * fan_out * (fan_out - 1) / degree / (degree - 1)
    assert abs(both - expected) < 4 * np.sqrt(expected) + 1  # pairs are drawn together as often as they should


def test_excluded_rows_are_drawn_uniformly_from_what_is_left() -> None:
    seen: Counter[int] = Counter()
    sampler = star(20)
    for key in range(40):
        subgraph = sampler.sample(
            {"Film": np.zeros(50, dtype=np.int64)},
            key=key,
            exclude={OUT: (np.zeros(10, dtype=np.int64), np.arange(0, 20, 2))},
        )
        seen.update(subgraph.edge_position[OUT].tolist())
    assert set(seen) == set(range(1, 20, 2))
    assert chisquare(list(seen.values())).pvalue > 0.01


def test_the_same_call_gives_the_same_answer_whichever_thread_asks() -> None:
    seeds = {"Film": nodes(0, 2), "Tag": nodes(0)}
    expected = [pairs(toy(1, 1).sample(seeds, key=key), OUT) for key in range(64)]
    sampler = toy(1, 1)
    jobs = [lambda key=key: pairs(sampler.sample(seeds, key=key), OUT) for key in range(64)]
    assert list(prefetch(jobs, threads=4)) == expected
    assert len({tuple(drawn) for drawn in expected}) > 3  # another key, another draw
    assert expected != [pairs(toy(1, 1, seed=2).sample(seeds, key=key), OUT) for key in range(64)]


@pytest.mark.parametrize("wrong", [-1, 4])
def test_a_seed_that_is_no_node_is_an_error_and_leaves_the_sampler_usable(wrong: int) -> None:
    sampler = toy(-1)
    with pytest.raises(IndexError, match=f"{wrong} is no Film: there are 4"):
        sampler.sample({"Film": nodes(0, wrong)})
    assert sampler.sample({"Film": nodes(1)}).node_ids["Tag"].tolist() == [0]


def test_read_only_memory_is_sampled(tmp_path: object) -> None:
    frozen = {edge_type: Csr(indptr=part.indptr.copy(), indices=part.indices.copy()) for edge_type, part in TOY.items()}
    for part in frozen.values():
        part.indptr.flags.writeable = part.indices.flags.writeable = False
    subgraph = UniformSampler(frozen, SIZES, fan_out=[-1]).sample({"Film": nodes(0)})
    assert pairs(subgraph, OUT) == [(0, 0), (0, 1), (0, 2)]
    assert subgraph.edge_weight[OUT] is None


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="-1 for all"):
        toy(-2)
    with pytest.raises(ValueError, match="TAGGED__Tag: 4 rows, but 3 nodes"):
        UniformSampler(TOY, {"Film": 3, "Tag": 4}, fan_out=[1])


def test_prefetch_keeps_the_order_and_stays_within_its_bound() -> None:
    started: list[int] = []

    def job(number: int) -> Callable[[], int]:
        def run() -> int:
            started.append(number)
            time.sleep(0.002 if number % 3 else 0.01)
            return number

        return run

    results = prefetch((job(number) for number in range(30)), threads=3, ahead=4)
    assert next(results) == 0
    time.sleep(0.05)
    assert max(started) <= 4
    assert list(results) == list(range(1, 30))


@pytest.mark.parametrize("threads", [0, 2])
def test_prefetch_raises_a_jobs_exception_at_its_place(threads: int) -> None:
    jobs: list[Callable[[], float]] = [lambda: 1.0, lambda: 1 / 0, lambda: 3.0]
    results = prefetch(jobs, threads=threads)
    assert next(results) == 1.0
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_closing_prefetch_ends_its_threads() -> None:
    def jobs() -> Iterator[Callable[[], int]]:
        while True:
            yield lambda: 1

    results = prefetch(jobs(), threads=2)
    assert [next(results) for _ in range(3)] == [1, 1, 1]
    results.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_prefetch_refuses_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="threads must be at least 0"):
        prefetch([], threads=-1)
