"""Disjoint neighbourhoods against exact enumeration: who is in an example, and what was there before it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from graph_store.schema import Triple
from model_store.csr import Csr, EdgeType
from training.graph import transposed
from training.sampling.disjoint import DisjointSampler, DisjointSubgraph

SAW = EdgeType(Triple("User", "SAW", "Film"))
SEEN = EdgeType(Triple("User", "SAW", "Film"), True)
KIND = EdgeType(Triple("Film", "KIND", "Genre"))
OF = EdgeType(Triple("Film", "KIND", "Genre"), True)
USERS, FILMS, GENRES = 12, 15, 3
SIZES = {"User": USERS, "Film": FILMS, "Genre": GENRES}


@pytest.fixture(scope="module")
def links() -> np.ndarray:
    """Rows of user, film, time: every pair once, in a third of the cases, at times with ties."""
    rng = np.random.default_rng(3)
    pairs = [(user, film) for user in range(USERS) for film in range(FILMS) if rng.random() < 0.35]
    return np.array([(user, film, int(rng.integers(20))) for user, film in pairs])


@pytest.fixture(scope="module")
def adjacency(links: np.ndarray) -> dict[EdgeType, Csr]:
    saw = Csr(
        indptr=np.concatenate([[0], np.cumsum(np.bincount(links[:, 0], minlength=USERS))]),
        indices=links[:, 1].astype(np.int32),
        time=links[:, 2].astype(np.int64),
    )
    kind = Csr(indptr=np.arange(FILMS + 1), indices=(np.arange(FILMS) % GENRES).astype(np.int32))
    return {SAW: saw, SEEN: transposed(saw, FILMS), KIND: kind, OF: transposed(kind, GENRES)}


def edges_of(found: DisjointSubgraph, edge_type: EdgeType, example: int, hops: int = 99) -> Counter[tuple[int, int]]:
    """(node, neighbour) of one example's edges, as node indices."""
    graph = found.graph
    count = sum(graph.edges_per_hop[edge_type][:hops])
    sender, receiver = graph.edge_index[edge_type][:, :count]
    owner = found.example[edge_type.node_type][receiver]
    assert np.array_equal(owner, found.example[edge_type.neighbour_type][sender])  # no edge between two examples
    mine = owner == example
    nodes = graph.node_ids[edge_type.node_type][receiver[mine]]
    return Counter(zip(nodes.tolist(), graph.node_ids[edge_type.neighbour_type][sender[mine]].tolist(), strict=True))


def enumerated(
    links: np.ndarray, user: int, film: int, before: int, hops: int
) -> tuple[set[int], set[int], Counter[tuple[int, int]], Counter[tuple[int, int]]]:
    """Users, films, and edges seen from users and from films, by walking through all links hop by hop."""
    known = [(u, f) for u, f, at in links.tolist() if at < before and (u, f) != (user, film)]
    users, films = {user}, {film}
    last_users, last_films = {user}, {film}
    saw: Counter[tuple[int, int]] = Counter()
    seen: Counter[tuple[int, int]] = Counter()
    for _ in range(hops):
        saw.update((u, f) for u, f in known if u in last_users)
        seen.update((f, u) for u, f in known if f in last_films)
        reached_films = {f for u, f in known if u in last_users} - films
        reached_users = {u for u, f in known if f in last_films} - users
        users, films = users | reached_users, films | reached_films
        last_users, last_films = reached_users, reached_films
    return users, films, saw, seen


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_all_edges_before_the_example_and_nothing_else(
    links: np.ndarray, adjacency: dict[EdgeType, Csr], hops: int
) -> None:
    sampler = DisjointSampler({SAW: adjacency[SAW], SEEN: adjacency[SEEN]}, SIZES, fan_out=[-1] * hops)
    asked = links[::3]
    found = sampler.sample({"User": asked[:, 0], "Film": asked[:, 1]}, before=asked[:, 2], apart=[SAW])
    some = 0
    for example, (user, film, at) in enumerate(asked.tolist()):
        users, films, saw, seen = enumerated(links, user, film, at, hops)
        in_example = {name: found.graph.node_ids[name][found.example[name] == example] for name in ("User", "Film")}
        assert sorted(in_example["User"]) == sorted(users)
        assert sorted(in_example["Film"]) == sorted(films)
        assert edges_of(found, SAW, example) == saw
        assert edges_of(found, SEEN, example) == seen
        some += len(saw)
    assert some > 40


def test_a_pair_asked_for_is_not_joined_even_where_no_time_forbids_it(
    links: np.ndarray, adjacency: dict[EdgeType, Csr]
) -> None:
    sampler = DisjointSampler({SAW: adjacency[SAW], SEEN: adjacency[SEEN]}, SIZES, fan_out=[-1, -1])
    seeds = {"User": links[:, 0], "Film": links[:, 1]}
    joined, apart = sampler.sample(seeds), sampler.sample(seeds, apart=[SEEN])
    for example, (user, film, _) in enumerate(links.tolist()):
        assert edges_of(joined, SAW, example)[user, film] == 1
        assert edges_of(apart, SAW, example)[user, film] == edges_of(apart, SEEN, example)[film, user] == 0
        without = edges_of(joined, SAW, example, hops=1) - Counter([(user, film)])
        assert edges_of(apart, SAW, example, hops=1) == without


def test_degrees_count_all_edges_before_drawn_or_not(links: np.ndarray, adjacency: dict[EdgeType, Csr]) -> None:
    sampler = DisjointSampler(adjacency, SIZES, fan_out=[1])
    asked = links[::5]
    found = sampler.sample({"User": asked[:, 0], "Film": asked[:, 1]}, before=asked[:, 2])
    for name, edge_type, column in (("User", SAW, 0), ("Film", SEEN, 1)):
        for node, example, degree in zip(
            found.graph.node_ids[name], found.example[name], found.degree[edge_type], strict=True
        ):
            assert degree == ((links[:, column] == node) & (links[:, 2] < asked[example, 2])).sum()
    assert set(found.degree[KIND].tolist()) == {1}  # without times: always there


def test_a_fan_out_is_kept_and_every_edge_is_as_likely(links: np.ndarray, adjacency: dict[EdgeType, Csr]) -> None:
    sampler = DisjointSampler({SAW: adjacency[SAW]}, SIZES, fan_out=[2])
    user = int(np.argmax(np.bincount(links[:, 0])))
    allowed = links[(links[:, 0] == user) & (links[:, 2] < 15), 1]
    assert len(allowed) >= 4
    many = 6000
    found = sampler.sample({"User": np.full(many, user)}, before=np.full(many, 15))
    films = found.graph.node_ids["Film"][found.graph.edge_index[SAW][0]].reshape(many, 2)
    assert (films[:, 0] != films[:, 1]).all()  # without replacement
    drawn = np.bincount(films.ravel(), minlength=FILMS)
    assert set(np.flatnonzero(drawn)) == set(allowed)
    expected = 2 * many / len(allowed)
    chi_square = ((drawn[allowed] - expected) ** 2 / expected).sum()
    assert chi_square < 3 * len(allowed)


def test_the_newest_are_the_newest_before_the_example(links: np.ndarray, adjacency: dict[EdgeType, Csr]) -> None:
    sampler = DisjointSampler({SAW: adjacency[SAW]}, SIZES, fan_out=[3], newest=[SAW])
    users = np.arange(USERS)
    found = sampler.sample({"User": users}, before=np.full(USERS, 12))
    for user in users.tolist():
        times = np.sort(links[(links[:, 0] == user) & (links[:, 2] < 12), 2])[-3:]
        drawn = [film for _, film in edges_of(found, SAW, user)]
        assert sorted(links[(links[:, 0] == user) & np.isin(links[:, 1], drawn), 2]) == times.tolist()
    at = adjacency[SAW].time
    assert at is not None
    assert (at[found.graph.edge_position[SAW]] < 12).all()  # positions are those of the adjacency given


def test_two_examples_share_no_node_and_the_call_says_what_is_drawn(
    links: np.ndarray, adjacency: dict[EdgeType, Csr]
) -> None:
    sampler = DisjointSampler(adjacency, SIZES, fan_out=[3, 2], seed=5)
    seeds = {"User": np.array([0, 0, 1]), "Film": np.array([2, 2, 2])}
    first, again, other = (sampler.sample(seeds, key=key) for key in (7, 7, 8))
    for name in ("User", "Film", "Genre"):
        keys = first.example[name] * SIZES[name] + first.graph.node_ids[name]
        assert len(np.unique(keys)) == len(keys)
        assert np.array_equal(first.graph.node_ids[name], again.graph.node_ids[name])
    assert first.graph.num_nodes("Film") > len(np.unique(first.graph.node_ids["Film"]))
    assert not np.array_equal(first.graph.edge_index[SAW], other.graph.edge_index[SAW])
    assert first.graph.num_seeds == {"User": 3, "Film": 3}
    assert {name: sum(counts) for name, counts in first.graph.nodes_per_hop.items()} == {
        name: len(nodes) for name, nodes in first.graph.node_ids.items()
    }


def test_no_examples_and_wrong_ones(adjacency: dict[EdgeType, Csr]) -> None:
    sampler = DisjointSampler(adjacency, SIZES, fan_out=[2])
    none = sampler.sample({"User": np.empty(0, np.int64), "Film": np.empty(0, np.int64)})
    assert none.graph.num_nodes("Film") == 0
    assert none.graph.edge_index[SAW].shape == (2, 0)
    with pytest.raises(ValueError, match="one seed an example"):
        sampler.sample({"User": np.array([0, 1]), "Film": np.array([0])})
    with pytest.raises(IndexError, match="15 is no Film"):
        sampler.sample({"Film": np.array([15])})
    with pytest.raises(ValueError, match="Film__KIND__Genre"):
        DisjointSampler(adjacency, SIZES, fan_out=[2], newest=[KIND])
