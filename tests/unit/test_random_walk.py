"""Random walks against exact enumeration by powers of matrices.

        f0  f1  f2  f3  f4  f5       f5 has no edge; user u3 knows f3 alone; u4 nothing
u0       9   3   1                   (the numbers are weights)
u1       1   5       2   1
u2               4   1   0           an edge of weight 0 is there, but never walked
u3                   6
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from graph_store.schema import GraphSchema, NodeRole, NodeType, Relation, RelationRole, Triple
from model_store.csr import Csr, EdgeType
from training.sampling import Exclusion, Metapath, RandomWalkSampler, Subgraph, UniformSampler, prefetch, round_trips
from training.sampling import random_walk as module
from training.sampling.walk import alias_table, most_visited

WATCHED = Triple("User", "WATCHED", "Film")
OUT, BACK = EdgeType(WATCHED), EdgeType(WATCHED, True)
FILMS, USERS = Metapath((BACK, OUT)), Metapath((OUT, BACK))
LONG = Metapath((BACK, OUT, BACK, OUT))
SIZES = {"Film": 6, "User": 5}
NAN = np.nan
TOY = np.array(
    [
        [9, 3, 1, NAN, NAN, NAN],
        [1, 5, NAN, 2, 1, NAN],
        [NAN, NAN, 4, 1, 0, NAN],
        [NAN, NAN, NAN, 6, NAN, NAN],
        [NAN] * 6,
    ]
)


def nodes(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def csr(weights: NDArray[np.float64], weighted: bool = True) -> Csr:
    """Rows of a table whose NaNs are no edges."""
    there = ~np.isnan(weights)
    return Csr(
        indptr=np.concatenate([[0], there.sum(axis=1).cumsum()]).astype(np.int64),
        indices=np.nonzero(there)[1].astype(np.int32),
        weight=weights[there].astype(np.float32) if weighted else None,
    )


def adjacency(weights: NDArray[np.float64] = TOY, weighted: bool = True) -> dict[EdgeType, Csr]:
    return {OUT: csr(weights, weighted), BACK: csr(weights.T, weighted)}


def walker(
    metapath: Metapath = FILMS,
    weights: NDArray[np.float64] = TOY,
    *,
    weighted: bool = True,
    neighbours: tuple[int, ...] = (10,),
    walks: int = 200,
    rounds: int = 2,
    restart: float = 0.5,
    seed: int = 1,
) -> RandomWalkSampler:
    return RandomWalkSampler(
        adjacency(weights, weighted),
        {"User": weights.shape[0], "Film": weights.shape[1]},
        metapaths=[metapath],
        neighbours=neighbours,
        walks=walks,
        rounds=rounds,
        restart=restart,
        seed=seed,
    )


def exact(
    node: int, metapath: Metapath, weights: NDArray[np.float64], weighted: bool, rounds: int, restart: float
) -> list[NDArray[np.float64]]:
    """Chance of a visit to each node at the end of each round; less than 1 in all where walks meet dead ends."""
    there = np.nan_to_num(weights if weighted else np.where(np.isnan(weights), NAN, 1.0))
    once = np.eye(there.shape[0 if metapath.steps[0] == OUT else 1])
    for edge_type in metapath.steps:
        part = there if edge_type == OUT else there.T
        total = part.sum(axis=1, keepdims=True)
        once = once @ np.divide(part, total, out=np.zeros_like(part), where=total > 0)
    start = np.eye(len(once))[node]
    chances, at = [], start
    for _ in range(rounds):
        chances.append(at @ once)
        at = (1 - restart) * chances[-1] + (1 - (1 - restart) * chances[-1].sum()) * start
    return chances


def counts(
    sampler: RandomWalkSampler, metapath: Metapath, node: int, size: int, exclude: Exclusion | None = None
) -> NDArray[np.int64]:
    """Visits by node."""
    left_out = module._by_triple(exclude or {})
    reached, visits, _ = sampler.visited(metapath, nodes(node), size, np.uint64(7), left_out)
    return np.bincount(reached, weights=visits, minlength=size).astype(np.int64)


def agree(seen: NDArray[np.int64], chances: NDArray[np.float64], node: int, walks: int) -> None:
    """Visits follow the chances; the node itself, left out, and dead ends make up the rest."""
    expected = chances.copy()
    expected[node] = 0
    assert (seen[expected == 0] == 0).all()
    rest = 1 - expected.sum()
    some = expected > 0
    observed = [*seen[some], walks - seen.sum()] if rest > 1e-12 else seen[some]
    wanted = np.array([*expected[some], rest] if rest > 1e-12 else expected[some]) * walks
    assert len(observed) > 1
    assert chisquare(observed, wanted).pvalue > 0.001


def neighbourhood(subgraph: Subgraph, edge_type: EdgeType) -> list[list[tuple[int, float]]]:
    """Neighbours by global index, with importance, of each node that was expanded."""
    neighbour, node = subgraph.edge_index[edge_type]
    ids = subgraph.node_ids[edge_type.node_type]
    importance = subgraph.importance[edge_type]
    return [
        list(zip(ids[neighbour[node == place]].tolist(), importance[node == place].tolist(), strict=True))
        for place in range(len(ids))
    ]


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("restart", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("metapath", "node"), [(FILMS, 0), (FILMS, 3), (USERS, 1), (LONG, 2)])
def test_visits_of_every_round_follow_the_powers_of_the_matrix(
    metapath: Metapath, node: int, restart: float, weighted: bool
) -> None:
    walks, rounds = 20_000, 3
    size = SIZES[metapath.edge_type.node_type]
    chances = exact(node, metapath, TOY, weighted, rounds, restart)
    before = np.zeros(size, dtype=np.int64)
    for number in range(rounds):
        # A walker's first rounds do not depend on how many follow, so the difference is what the last one visited.
        sampler = walker(metapath, weighted=weighted, walks=walks, rounds=number + 1, restart=restart)
        seen = counts(sampler, metapath, node, size)
        agree(seen - before, chances[number], node, walks)
        before = seen


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(("films", "users"), [((1,), (1,)), ((0, 1, 3), (0, 0, 2)), ((0, 0), (0, 1))])
def test_excluded_edges_leave_the_walk_of_a_graph_without_them(
    films: tuple[int, ...], users: tuple[int, ...], weighted: bool
) -> None:
    without = TOY.copy()
    without[list(users), list(films)] = NAN
    sampler = walker(weighted=weighted, walks=20_000, rounds=1)
    for exclude in ({BACK: (nodes(*films), nodes(*users))}, {OUT: (nodes(*users), nodes(*films))}):
        for node in (1, 3):
            chances = exact(node, FILMS, without, weighted, 1, 0)[0]
            agree(counts(sampler, FILMS, node, 6, exclude), chances, node, 20_000)
    # All edges of f0 are excluded in the last case: no neighbours, and nobody's neighbour.
    if films == (0, 0):
        found = neighbourhood(sampler.sample({"Film": nodes(0, 1)}, exclude=exclude), FILMS.edge_type)
        assert found[0] == []
        assert 0 not in [film for film, _ in found[1]]


def test_an_excluded_edge_that_has_nearly_all_the_weight_leaves_the_others_their_chances() -> None:
    weights = np.array([[1e6, 1, 2, 3, 0]])
    left = weights.copy()
    left[0, 0] = NAN
    for weighted in (True, False):
        sampler = walker(weights=weights, weighted=weighted, walks=20_000, rounds=1)
        seen = counts(sampler, FILMS, 1, 5, {OUT: (nodes(0), nodes(0))})
        agree(seen, exact(1, FILMS, left, weighted, 1, 0)[0], 1, 20_000)


def test_exclusion_changes_only_the_walks_that_would_have_gone_there() -> None:
    sampler = walker(walks=500)
    plain = neighbourhood(sampler.sample({"Film": nodes(2, 3)}), FILMS.edge_type)
    exclude = {OUT: (nodes(4), nodes(5))}
    assert neighbourhood(sampler.sample({"Film": nodes(2, 3)}, exclude=exclude), FILMS.edge_type)[:2] == plain[:2]


def test_the_most_visited_come_first_and_importance_adds_up_to_one() -> None:
    weights = np.array([[0.5, 16.0, 64.0, 4.0, 256.0, 1.0]])
    subgraph = walker(weights=weights, neighbours=(3,), walks=5000, rounds=1).sample({"Film": nodes(0)})
    edge_type = EdgeType(Triple("Film", "User__WATCHED__Film__rev+User__WATCHED__Film", "Film"))
    found = neighbourhood(subgraph, edge_type)[0]
    assert [film for film, _ in found] == [4, 2, 1]
    np.testing.assert_allclose([share for _, share in found], np.array([256, 64, 16]) / 336, atol=0.02)
    assert sum(share for _, share in found) == pytest.approx(1, abs=1e-6)
    assert subgraph.edge_weight == {edge_type: None}
    assert subgraph.edge_position == {}
    # Without weights every film is as near as any other; the first neighbours are no longer those three in order.
    even = walker(weights=weights, weighted=False, walks=5000, rounds=1).sample({"Film": nodes(0)})
    np.testing.assert_allclose([share for _, share in neighbourhood(even, edge_type)[0]], 0.2, atol=0.02)


def test_fewer_neighbours_are_the_first_of_more() -> None:
    more, fewer = (
        neighbourhood(walker(neighbours=(top,)).sample({"Film": nodes(1)}), FILMS.edge_type)[0] for top in (4, 2)
    )
    assert len(more) == 4
    assert [film for film, _ in fewer] == [film for film, _ in more[:2]]


def test_visits_are_counted_without_the_node_itself_and_ties_go_to_the_lower_index() -> None:
    visits = np.array([[5, 3, 9, 3, 2, 2, -1, 8], [9, 7, 5, 3, 2, 2, -1, 1]], dtype=np.int32)
    reached, seen, owners = most_visited(visits, nodes(7, 2), 3)
    assert reached.tolist() == [3, 5, 9, 1, 8]
    assert seen.tolist() == [3, 2, 2, 1, 1]
    assert owners.tolist() == [0, 0, 0, 1, 1]
    assert most_visited(visits, nodes(7, 2), 1)[0].tolist() == [3, 1]
    assert most_visited(np.empty((2, 0), dtype=np.int32), nodes(), 3)[0].tolist() == []


def test_alias_table_holds_the_weights() -> None:
    rng = np.random.default_rng(3)
    degrees = np.array([0, 1, 2, 3, 50, 1000, 4])
    indptr = np.concatenate([[0], degrees.cumsum()])
    indices = np.concatenate([rng.permutation(2000)[:degree] for degree in degrees]).astype(np.int32)
    weight = (rng.pareto(1.0, len(indices)) * (rng.random(len(indices)) < 0.8)).astype(np.float32)
    weight[-4:] = 0
    weight[:3] = [1, 1e-30, 1e30]
    table = alias_table(indptr, indices, weight)
    assert (table[-4:] == [0, 2**32 - 1]).all()
    for row in range(1, 6):
        part = slice(indptr[row], indptr[row + 1])
        own = table[part, 0] / 2**32
        chance = np.bincount(indices[part], weights=own, minlength=2000)
        chance += np.bincount(table[part, 1], weights=1 - own, minlength=2000)
        chance /= degrees[row]
        wanted = np.bincount(indices[part], weights=weight[part], minlength=2000)
        np.testing.assert_allclose(chance, wanted / wanted.sum(), atol=1e-9)
        assert (chance[indices[part][weight[part] == 0]] == 0).all()


def test_isolated_nodes_and_dead_ends_have_no_neighbours() -> None:
    subgraph = walker().sample({"Film": nodes(5), "User": nodes(4)})
    assert {name: ids.tolist() for name, ids in subgraph.node_ids.items()} == {"Film": [5], "User": [4]}
    assert subgraph.edge_index[FILMS.edge_type].shape == (2, 0)
    assert subgraph.edges_per_hop == {FILMS.edge_type: (0,)}
    assert walker().sample({"Film": nodes()}).num_nodes("Film") == 0
    assert walker().sample({}).node_ids == {}
    # One way back is missing: half the walks end at u1, and start anew rather than being lost.
    sampler = RandomWalkSampler(
        {BACK: csr(np.array([[1.0, 1.0], [1.0, NAN]])), OUT: csr(np.array([[NAN, 1.0], [NAN, NAN]]))},
        {"Film": 2, "User": 2},
        metapaths=[FILMS],
        neighbours=[1],
        walks=10_000,
        rounds=2,
        restart=0.0,
    )
    # f0 reaches f1 with chance 1/2; from f1, u0 leads to f1 again; from a dead end the walk starts at f0 anew.
    assert counts(sampler, FILMS, 0, 2)[1] == pytest.approx(10_000 * (0.5 + 0.5 + 0.5 * 0.5), rel=0.03)


def test_an_edge_without_weight_is_never_walked() -> None:
    found = neighbourhood(walker(walks=5000).sample({"Film": nodes(2, 4)}), FILMS.edge_type)
    assert 4 not in dict(neighbourhood(walker(walks=5000, rounds=1).sample({"Film": nodes(2)}), FILMS.edge_type)[0])
    assert 4 in dict(found[0])  # in two rounds, through u0 and u1
    nothing = walker(weights=np.zeros((2, 3)))
    assert neighbourhood(nothing.sample({"Film": nodes(0, 1)}), FILMS.edge_type) == [[], []]
    assert neighbourhood(nothing.sample({"Film": nodes(0)}, exclude={OUT: (nodes(0), nodes(0))}), FILMS.edge_type) == [
        []
    ]


def test_a_node_has_the_same_neighbours_in_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = walker()
    alone = [neighbourhood(sampler.sample({"Film": nodes(film)}), FILMS.edge_type)[0] for film in range(6)]
    assert neighbourhood(sampler.sample({"Film": nodes(4, 2, 0, 2)}), FILMS.edge_type)[:4] == [
        alone[film] for film in (4, 2, 0, 2)
    ]
    # Found in the first hop and expanded in the second, a node has the neighbours that it has as a seed.
    deep = walker(neighbours=(10, 10)).sample({"Film": nodes(2)})
    found = neighbourhood(deep, FILMS.edge_type)
    assert len(found) == 5
    assert [dict(each) for each in found] == [dict(alone[film]) for film in deep.node_ids["Film"]]
    monkeypatch.setattr(module, "_TOGETHER", 1)  # walkers of one node at a time
    assert neighbourhood(sampler.sample({"Film": np.arange(6)}), FILMS.edge_type) == alone
    other_key = neighbourhood(sampler.sample({"Film": np.arange(6)}, key=1), FILMS.edge_type)
    other_seed = neighbourhood(walker(seed=2).sample({"Film": np.arange(6)}), FILMS.edge_type)
    assert len({str(found) for found in (alone, other_key, other_seed)}) == 3


def test_hops_expand_what_the_hop_before_found() -> None:
    chain = np.array([[1, 1, NAN, NAN], [NAN, 1, 1, NAN], [NAN, NAN, 1, 1]])
    subgraph = walker(weights=chain, neighbours=(9, 9, 9, 9), rounds=1).sample({"Film": nodes(0, 0)})
    assert subgraph.node_ids["Film"].tolist() == [0, 0, 1, 2, 3]
    assert subgraph.num_seeds == {"Film": 2}
    assert subgraph.nodes_per_hop == {"Film": (2, 1, 1, 1, 0)}
    assert subgraph.edges_per_hop == {FILMS.edge_type: (2, 2, 2, 1)}
    found = neighbourhood(subgraph, FILMS.edge_type)
    assert [sorted(dict(each)) for each in found] == [[1], [1], [0, 2], [1, 3], [2]]
    neighbour, node = subgraph.edge_index[FILMS.edge_type]
    assert (neighbour[:2].tolist(), node.tolist()) == ([2, 2], [0, 1, 2, 2, 3, 3, 4])


def test_several_metapaths_are_several_edge_types() -> None:
    sampler = RandomWalkSampler(adjacency(), SIZES, metapaths=[FILMS, LONG, USERS], neighbours=[2, 1])
    subgraph = sampler.sample({"User": nodes(0), "Film": nodes(3)})
    assert list(subgraph.edge_index) == [FILMS.edge_type, LONG.edge_type, USERS.edge_type]
    assert LONG.edge_type.key.count("+") == 3
    for edge_type in subgraph.edge_index:
        for found in neighbourhood(subgraph, edge_type):
            assert len(found) <= 2
            assert not found or sum(share for _, share in found) == pytest.approx(1, abs=1e-6)
    assert neighbourhood(subgraph, USERS.edge_type)[0][0][0] == 1


def test_two_threads_give_what_one_gives() -> None:
    expected = [
        str(neighbourhood(walker().sample({"Film": np.arange(6)}, key=key), FILMS.edge_type)) for key in range(40)
    ]
    sampler = walker()
    jobs = [
        lambda key=key: str(neighbourhood(sampler.sample({"Film": np.arange(6)}, key=key), FILMS.edge_type))
        for key in range(40)
    ]
    assert list(prefetch(jobs, threads=2)) == expected


def test_read_only_memory_is_walked() -> None:
    frozen = adjacency()
    for part in frozen.values():
        assert part.weight is not None
        part.indptr.flags.writeable = part.indices.flags.writeable = part.weight.flags.writeable = False
    sampler = RandomWalkSampler(frozen, SIZES, metapaths=[FILMS], neighbours=[10], walks=200)
    assert neighbourhood(sampler.sample({"Film": nodes(1)}), FILMS.edge_type) == neighbourhood(
        walker().sample({"Film": nodes(1)}), FILMS.edge_type
    )


def test_round_trips_go_through_engagement_and_semantic_relations_alone() -> None:
    tagged, near = Triple("Film", "TAGGED", "Tag"), Triple("Film", "NEAR", "Film")
    schema = GraphSchema(
        node_types=(
            NodeType(name="Film", role=NodeRole.ENTITY),
            NodeType(name="Tag", role=NodeRole.CONCEPT),
            NodeType(name="User", role=NodeRole.USER),
        ),
        relations=(
            Relation(triple=tagged, role=RelationRole.SEMANTIC),
            Relation(triple=near, role=RelationRole.CO_ENGAGEMENT),
            Relation(triple=WATCHED, role=RelationRole.ENGAGEMENT),
        ),
    )
    tag = (EdgeType(tagged), EdgeType(tagged, True))
    assert round_trips(schema) == (USERS, FILMS, Metapath(tag), Metapath(tag[::-1]))


@pytest.mark.parametrize(
    ("metapaths", "message"),
    [
        ([], "no metapath: name at least one"),
        ([Metapath(())], "a metapath is empty"),
        ([Metapath((OUT,))], "leads to Film, but .* starts at User"),
        ([Metapath((OUT, OUT))], "leads to Film, but .* starts at User"),
        ([FILMS, FILMS], "named twice"),
        ([Metapath((EdgeType(Triple("Film", "TAGGED", "Tag")),))], "no such edge type"),
    ],
)
def test_metapaths_that_lead_nowhere_are_refused(metapaths: list[Metapath], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RandomWalkSampler(adjacency(), SIZES, metapaths=metapaths, neighbours=[1])


@pytest.mark.parametrize(
    "wrong", [{"walks": 0}, {"rounds": 0}, {"restart": 1.5}, {"restart": NAN}, {"neighbours": (0,)}]
)
def test_numbers_that_make_no_walk_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="at least 1, restart is a probability"):
        walker(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [-1.0, np.inf])
def test_weights_that_are_no_weights_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=f"User__WATCHED__Film__rev: edge 1 weighs {weight}.*shift it"):
        RandomWalkSampler(
            {BACK: csr(np.array([[1.0, weight]])), OUT: csr(np.ones((2, 1)))},
            {"Film": 1, "User": 2},
            metapaths=[FILMS],
            neighbours=[1],
        )


def test_wrong_sizes_and_seeds_are_refused_and_leave_the_sampler_usable() -> None:
    with pytest.raises(ValueError, match="6 rows, but 7 nodes"):
        RandomWalkSampler(adjacency(), {"Film": 7, "User": 5}, metapaths=[FILMS], neighbours=[1])
    sampler = walker()
    with pytest.raises(IndexError, match="6 is no Film: there are 6"):
        sampler.sample({"Film": nodes(0, 6)})
    assert sampler.sample({"Film": nodes(3)}).node_ids["Film"][0] == 3
    both: list[RandomWalkSampler | UniformSampler] = [sampler, UniformSampler(adjacency(), SIZES, fan_out=[1])]
    assert [each.hops for each in both] == [1, 1]
