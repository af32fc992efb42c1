"""Regions of interest against sorting all neighbours by their relevance in plain NumPy."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from graph_store.schema import Triple
from model_store.csr import Csr, EdgeType
from training.sampling import Subgraph
from training.sampling.region_of_interest import RegionOfInterestSampler, Relevance, most_relevant_neighbours

WATCHED = Triple("User", "WATCHED", "Film")
OUT, BACK = EdgeType(WATCHED), EdgeType(WATCHED, True)
SIZES = {"Film": 60, "User": 40}
WIDTH = 5
Edges = set[tuple[str, int, int, int]]


def table(chance: float = 0.5, seed: int = 0) -> NDArray[np.float64]:
    """Times of the edges, users by films; NaN: no edge."""
    rng = np.random.default_rng(seed)
    times = rng.permutation(SIZES["User"] * SIZES["Film"]).reshape(SIZES["User"], SIZES["Film"]).astype(float)
    return np.where(rng.random(times.shape) < chance, times, np.nan)


def csr(times: NDArray[np.float64]) -> Csr:
    there = ~np.isnan(times)
    return Csr(
        indptr=np.concatenate([[0], there.sum(axis=1).cumsum()]).astype(np.int64),
        indices=np.nonzero(there)[1].astype(np.int32),
        weight=times[there].astype(np.float32),
        time=times[there].astype(np.int64),
    )


def vectors(seed: int = 1) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((count, WIDTH)).astype(np.float32) for name, count in SIZES.items()}


def sampler(
    times: NDArray[np.float64], fan_out: tuple[int, ...] = (4,), relevance: Relevance = "tanimoto"
) -> RegionOfInterestSampler:
    adjacency = {OUT: csr(times), BACK: csr(times.T)}
    return RegionOfInterestSampler(adjacency, SIZES, vectors(), fan_out=fan_out, relevance=relevance)


def by_definition(focal: NDArray[np.float32], others: NDArray[np.float32], relevance: Relevance) -> NDArray[np.float64]:
    f, j = focal.astype(np.float64), others.astype(np.float64)
    product = j @ f
    if relevance == "cosine":
        return np.asarray(product / np.sqrt((f @ f) * (j * j).sum(1)))
    return np.asarray(product / (f @ f + (j * j).sum(1) - product))


def best(
    times: NDArray[np.float64], edge_type: EdgeType, node: int, focal: NDArray[np.float32], count: int, how: Relevance
) -> list[int]:
    row = times[node] if edge_type == OUT else times[:, node]
    there = np.flatnonzero(~np.isnan(row))
    value = by_definition(focal, vectors()[edge_type.neighbour_type][there], how)
    return [int(each) for each in there[np.argsort(-value, kind="stable")][:count]]


def neighbours(subgraph: Subgraph, edge_type: EdgeType, receiver: int) -> list[int]:
    """Node indices of a receiver's neighbours, in the order of the edges."""
    sender, owner = subgraph.edge_index[edge_type]
    return [int(each) for each in subgraph.node_ids[edge_type.neighbour_type][sender[owner == receiver]]]


def nodes(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


@pytest.mark.parametrize("relevance", ["tanimoto", "cosine"])
@pytest.mark.parametrize("fan_out", [1, 4, 17, -1])
def test_neighbours_are_the_most_relevant_to_the_focal_vector(relevance: Relevance, fan_out: int) -> None:
    times = table()
    focal = np.random.default_rng(2).standard_normal((3, WIDTH)).astype(np.float32)
    subgraph = sampler(times, (fan_out,), relevance).sample({"User": nodes(3, 3, 7)}, focal={"User": focal})
    for place, user in enumerate((3, 3, 7)):
        expected = best(times, OUT, user, focal[place], fan_out if fan_out > 0 else 99, relevance)
        assert neighbours(subgraph, OUT, place) == expected


def test_the_focal_vector_of_the_seed_decides_at_every_hop() -> None:
    times = table()
    focal = np.random.default_rng(3).standard_normal((2, WIDTH)).astype(np.float32)
    subgraph = sampler(times, (3, 2)).sample({"Film": nodes(5, 6)}, focal={"Film": focal})
    senders, owners = subgraph.edge_index[BACK]
    for sender in range(subgraph.num_nodes("User")):
        tree = int(owners[senders == sender][0])  # a user of the first hop has one receiver, the seed
        user = int(subgraph.node_ids["User"][sender])
        found = neighbours(subgraph, OUT, sender)
        assert found == best(times, OUT, user, focal[tree], 2, "tanimoto")


def test_two_seeds_share_no_node_and_one_seed_repeats_none() -> None:
    times = table(chance=1.0)
    focal = np.ones((2, WIDTH), np.float32)
    subgraph = sampler(times, (5, 5)).sample({"Film": nodes(0, 1)}, focal={"Film": focal})
    # The same focal vector and all edges: both films reach the same five users, each for itself.
    assert subgraph.num_nodes("User") == 10
    assert neighbours(subgraph, BACK, 0) == neighbours(subgraph, BACK, 1)
    # Within a tree the five users reach the same five films; a seed among them is not added again.
    assert subgraph.num_nodes("Film") <= 12
    assert len(subgraph.edge_index[OUT][0]) == 2 * 5 * 5


def test_without_a_focal_vector_every_node_is_its_own() -> None:
    times = table()
    subgraph = sampler(times, (3, 2)).sample({"User": nodes(1, 2, 1)})
    for place in range(3):
        user = int(subgraph.node_ids["User"][place])
        # The repeated seed is found under its first position, and has its own edges all the same.
        assert neighbours(subgraph, OUT, place) == best(times, OUT, user, vectors()["User"][user], 3, "tanimoto")
    assert len(np.unique(subgraph.node_ids["Film"])) == subgraph.num_nodes("Film")
    for place in range(subgraph.num_nodes("Film")):
        film = int(subgraph.node_ids["Film"][place])
        assert neighbours(subgraph, BACK, place) == best(times, BACK, film, vectors()["Film"][film], 2, "tanimoto")


def test_excluded_edges_carry_nothing_from_either_end() -> None:
    times = table()
    user = 4
    film = best(times, OUT, user, vectors()["User"][user], 1, "tanimoto")[0]
    subgraph = sampler(times, (99,)).sample(
        {"User": nodes(user), "Film": nodes(film)}, exclude={OUT: (nodes(user), nodes(film))}
    )
    assert film not in neighbours(subgraph, OUT, 0)
    assert user not in neighbours(subgraph, BACK, 0)
    without = times.copy()
    without[user, film] = np.nan
    assert neighbours(subgraph, OUT, 0) == best(without, OUT, user, vectors()["User"][user], 99, "tanimoto")


def test_examples_see_earlier_edges_alone_and_not_the_link_they_ask_for() -> None:
    times = table()
    users, films = nodes(2, 2, 9), nodes(8, 8, 30)
    before = nodes(1200, 600, 2400)
    found = sampler(times, (6, 3)).examples({"User": users, "Film": films}, before=before, apart=(OUT,))
    for place in range(3):
        focal = vectors()["User"][users[place]] + vectors()["Film"][films[place]]
        seen = np.where(times < before[place], times, np.nan)
        seen[users[place], films[place]] = np.nan
        assert neighbours(found.graph, OUT, place) == best(seen, OUT, users[place], focal, 6, "tanimoto")
        assert neighbours(found.graph, BACK, place) == best(seen, BACK, films[place], focal, 6, "tanimoto")
        assert found.degree[OUT][place] == (~np.isnan(seen[users[place]])).sum()
    for edge_type in (OUT, BACK):
        sender, receiver = found.graph.edge_index[edge_type]
        assert (found.example[edge_type.neighbour_type][sender] == found.example[edge_type.node_type][receiver]).all()
        time = csr(times if edge_type == OUT else times.T).time
        assert time is not None
        # The position of an edge is that in the adjacency given, whatever order it is kept in.
        limit = before[found.example[edge_type.node_type][receiver]]
        assert (time[found.graph.edge_position[edge_type]] < limit).all()
        weight = found.graph.edge_weight[edge_type]
        assert weight is not None
        assert weight.astype(np.int64).tolist() == time[found.graph.edge_position[edge_type]].tolist()


def test_importance_adds_up_to_one_and_hops_to_all() -> None:
    subgraph = sampler(table(), (4, 2)).sample({"User": nodes(0, 5)})
    for edge_type, (_, receiver) in subgraph.edge_index.items():
        total = np.bincount(receiver, weights=subgraph.importance[edge_type])
        assert total[total > 0] == pytest.approx(1.0)
        assert sum(subgraph.edges_per_hop[edge_type]) == len(receiver)
    for name in SIZES:
        assert sum(subgraph.nodes_per_hop[name]) == subgraph.num_nodes(name)


def test_ties_go_to_the_lower_index_and_zero_vectors_are_not_relevant() -> None:
    same = {"User": np.ones((40, WIDTH), np.float32), "Film": np.ones((60, WIDTH), np.float32)}
    same["Film"][10:20] = 0.0
    times = table(chance=1.0)
    for relevance in ("tanimoto", "cosine"):
        chosen = RegionOfInterestSampler({OUT: csr(times)}, SIZES, same, fan_out=(52,), relevance=relevance)
        found = neighbours(chosen.sample({"User": nodes(0)}), OUT, 0)
        assert found == [*range(10), *range(20, 60), 10, 11]


def test_nothing_depends_on_the_batch_the_thread_or_the_key() -> None:
    one = sampler(table(), (5, 5))
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda user: one.sample({"User": nodes(user)}, key=user), range(40)))
    for user, part in enumerate(parts):
        assert neighbours(part, OUT, 0) == best(table(), OUT, user, vectors()["User"][user], 5, "tanimoto")


@pytest.mark.parametrize("relevance", ["tanimoto", "cosine"])
def test_lists_of_all_nodes_are_exact(relevance: Relevance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.sampling.region_of_interest._NODES_AT_ONCE", 7)
    times = table()
    found = most_relevant_neighbours(csr(times), vectors()["User"], vectors()["Film"], 9, relevance)
    assert found.weight is not None
    for user in range(40):
        films = best(times, OUT, user, vectors()["User"][user], 9, relevance)
        assert found.indices[found.row(user)].tolist() == films
        assert found.weight[found.row(user)].tolist() == times[user, films].tolist()


def test_what_does_not_fit_is_refused() -> None:
    adjacency = {OUT: csr(table())}
    with pytest.raises(ValueError, match="vectors"):
        RegionOfInterestSampler(adjacency, SIZES, {**vectors(), "Film": np.ones((3, WIDTH), np.float32)}, fan_out=(1,))
    with pytest.raises(ValueError, match="not finite"):
        RegionOfInterestSampler(
            adjacency, SIZES, {**vectors(), "Film": np.full((60, WIDTH), np.nan, np.float32)}, fan_out=(1,)
        )
    with pytest.raises(ValueError, match="focal vectors"):
        sampler(table()).sample({"User": nodes(1, 2)}, focal={"User": np.ones((1, WIDTH), np.float32)})
    with pytest.raises(IndexError, match="is no User"):
        sampler(table()).sample({"User": nodes(40)})
    with pytest.raises(ValueError, match="one seed an example"):
        sampler(table()).examples({"User": nodes(1, 2), "Film": nodes(1)})
    with pytest.raises(ValueError, match="fan-out"):
        sampler(table(), (-2,))
