"""What pairs are compared with: in-batch, shared, mixed and hard negatives, and the losses over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from pydantic import ValidationError

from graph_store.schema import Triple
from graph_store.settings import SpaceSettings, UserSpaceSettings
from tests.memory_snapshot import MemorySnapshot, project_of, themes_document, themes_snapshot
from training.graph import Graph
from training.objectives import Candidates, HardNegatives, contrast, draw_candidates
from training.objectives.candidates import comparison, max_margin, sampled_softmax
from training.objectives.page_rank import RESTART, ranked_band, transition
from training.train import train

NODES = 20
LEFT, RIGHT = np.array([1, 2, 3]), np.array([11, 12, 11])
SHARE = np.full(NODES, 0.02)


def kinds(nodes: np.ndarray) -> np.ndarray:
    """From 18 on another type."""
    return (nodes >= 18).astype(np.int64)


class TwoHard:
    """Stands in for ``HardNegatives``: two for every node, the node itself and 15."""

    def draw(self, nodes: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
        return np.stack([nodes, np.full(len(nodes), 15)], axis=1)


def candidates(hard: Any = None, known: Any = None, pool: tuple[int, int] = (10, 20), **settings: Any) -> Candidates:
    return draw_candidates(
        LEFT,
        RIGHT,
        settings=SpaceSettings(**settings),
        share=SHARE,
        pool=np.arange(*pool),
        type_of=kinds,
        rng=np.random.default_rng(0),
        step=0,
        hard=hard,
        known=known,
    )


def test_in_batch_negatives_leave_out_accidental_hits() -> None:
    found = candidates()
    assert found.shared.tolist() == RIGHT.tolist()
    # Rows 0 and 2 have the same positive; each row's own column is never excluded.
    assert found.excluded.tolist() == [[False, False, True], [False, False, False], [True, False, False]]
    assert found.log_q == pytest.approx(np.log(3 * 0.02))
    assert found.nodes.tolist() == [1, 2, 3, 11, 12]


def test_shared_negatives_are_one_evenly_drawn_set() -> None:
    found = candidates(in_batch=False, negatives=4)
    assert found.shared[:3].tolist() == RIGHT.tolist()
    drawn = found.shared[3:]
    assert len(set(drawn.tolist())) == 4
    assert ((drawn >= 10) & (drawn < 20)).all()
    assert (found.excluded[:, :3] == ~np.eye(3, dtype=bool)).all()
    for row in range(3):
        for column, node in enumerate(drawn, 3):
            assert found.excluded[row, column] == (node == RIGHT[row] or node >= 18)
    assert found.log_q == pytest.approx(np.log(4 / 10))


def test_mixed_negatives_are_corrected_for_both_ways_they_are_drawn() -> None:
    found = candidates(negatives=4)
    assert len(found.shared) == 3 + 4
    assert found.log_q == pytest.approx(np.log(3 * 0.02 + 4 / 10))
    assert candidates(negatives=100).shared.shape == (3 + 10,)  # the whole pool


def test_the_mixture_correction_is_how_often_a_candidate_really_comes() -> None:
    """Drawn many times, a node stands among the candidates as often as the correction says."""
    rng = np.random.default_rng(1)
    share = rng.dirichlet(np.ones(NODES))
    settings = SpaceSettings(negatives=5)
    count, rounds = np.zeros(NODES), 3000
    expected = np.zeros(NODES)
    for step in range(rounds):
        right = rng.choice(NODES, size=8, p=share)
        found = draw_candidates(
            np.zeros(8, np.int64),
            right,
            settings=settings,
            share=share,
            pool=np.arange(NODES),
            type_of=lambda nodes: np.zeros(len(nodes), np.int64),
            rng=rng,
            step=step,
        )
        count += np.bincount(found.shared, minlength=NODES)
        expected[found.shared] = np.exp(found.log_q[0])
    assert count / rounds == pytest.approx(expected, rel=0.1)


def test_hard_negatives_stand_beside_the_shared_ones_in_their_own_row() -> None:
    found = candidates(hard=TwoHard())
    assert found.hard.tolist() == [[1, 15], [2, 15], [3, 15]]
    assert found.excluded[:, 3:].tolist() == [[True, False]] * 3  # the left node itself is no negative
    assert 15 in found.nodes
    known = sp.csr_matrix((np.ones(1, bool), ([2], [15])), shape=(NODES, NODES))
    assert candidates(hard=TwoHard(), known=known).excluded[:, 4].tolist() == [False, True, False]


def test_a_hard_negative_that_is_never_drawn_otherwise_counts_like_the_rarest() -> None:
    share = SHARE.copy()
    share[15] = 0.0
    found = draw_candidates(
        LEFT,
        RIGHT,
        settings=SpaceSettings(),
        share=share,
        pool=np.arange(10, 20),
        type_of=kinds,
        rng=np.random.default_rng(0),
        step=0,
        hard=TwoHard(),  # type: ignore[arg-type]
    )
    assert np.isfinite(found.log_q).all()
    assert found.log_q[:, 4] == pytest.approx(np.log(3 * 0.02))


def test_comparison_gives_every_candidate_its_column() -> None:
    found = candidates(hard=TwoHard(), negatives=2)
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(len(found.nodes), 4, generator=generator)
    bias = torch.randn(len(found.nodes), generator=generator)
    row_of = {int(node): row for row, node in enumerate(found.nodes)}

    def place(nodes: np.ndarray) -> torch.Tensor:
        return torch.tensor([row_of[int(node)] for node in nodes], dtype=torch.int64)

    cosines = comparison(found, vectors, place, bias)
    assert cosines.shape == (3, 3 + 2 + 2)
    for row in range(3):
        for column, node in enumerate([*found.shared, *found.hard[row]]):
            other = row_of[int(node)]
            expected = vectors[row_of[int(LEFT[row])]] @ vectors[other] + bias[other]
            assert float(cosines[row, column]) == pytest.approx(float(expected), abs=1e-6)


def test_softmax_corrects_for_frequency_and_leaves_out_what_is_excluded() -> None:
    scores = torch.tensor([[2.0, 1.0, 3.0], [0.0, 1.0, 5.0]])
    log_q = torch.log(torch.tensor([[0.5, 0.25, 0.25]])).expand(2, 3)
    excluded = torch.tensor([[False, False, True], [False, False, False]])
    rows = [
        -torch.log_softmax(torch.tensor([2.0 - log_q[0, 0], 1.0 - log_q[0, 1]]), 0)[0],
        -torch.log_softmax(torch.tensor([0.0 - log_q[0, 0], 1.0 - log_q[0, 1], 5.0 - log_q[0, 2]]), 0)[1],
    ]
    assert sampled_softmax(scores, log_q, excluded) == pytest.approx(float(sum(rows)) / 2)


def test_max_margin_is_the_mean_hinge_over_the_negatives() -> None:
    scores = torch.tensor([[0.9, 0.85, 0.2], [0.5, 0.4, 1.0]])
    excluded = torch.tensor([[False, False, False], [True, False, False]])
    # Row 0: .85 - .9 + .1 and 0 (far below); row 1: the first is excluded, the third is 1.0 - .4 + .1.
    assert float(max_margin(scores, excluded, 0.1)) == pytest.approx((0.05 + 0.0 + 0.7) / 3)


def test_the_loss_is_the_one_that_is_set() -> None:
    found = candidates()
    cosines = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.3], [0.0, 0.1, 0.95]])
    log_q = torch.from_numpy(found.log_q)
    excluded = torch.from_numpy(found.excluded)
    settings = SpaceSettings(temperature=0.5, log_q=0.0)
    assert contrast(settings, found, cosines) == pytest.approx(float(sampled_softmax(cosines / 0.5, log_q, excluded)))
    settings = SpaceSettings(loss="max_margin", margin=0.7)
    assert contrast(settings, found, cosines) == pytest.approx(float(max_margin(cosines, excluded, 0.7)))


def test_settings_that_leave_no_negatives_are_refused() -> None:
    with pytest.raises(ValidationError, match="leaves no negatives"):
        SpaceSettings(in_batch=False)
    with pytest.raises(ValidationError, match="must go up"):
        SpaceSettings(hard_band=(5, 5))
    assert SpaceSettings().negatives == 0
    assert UserSpaceSettings().negatives == 512


def exact_page_rank(steps: sp.csr_matrix, source: int) -> np.ndarray:
    """By solving for it; a walk that cannot go on ends where it is."""
    dense = steps.toarray()
    ends = dense.sum(axis=1) == 0
    start = np.zeros(len(dense))
    start[source] = 1.0
    visits = np.linalg.solve(np.eye(len(dense)) - (1 - RESTART) * dense.T, start)
    return np.where(ends, 1.0, RESTART) * visits


@pytest.fixture(scope="module")
def themes() -> Graph:
    return Graph(themes_snapshot(films=60, people=40))


def test_steps_take_a_relation_first_so_that_a_rare_one_counts(themes: Graph) -> None:
    steps = transition(themes)
    total = np.asarray(steps.sum(axis=1)).ravel()
    assert total[total > 0] == pytest.approx(np.ones((total > 0).sum()))
    film = themes.offsets["Film"] + 1
    reached = np.asarray(steps[film].todense()).ravel()
    seen = [each for each, csr in themes.links("Film").items() if len(csr.indices[csr.row(1)])]
    for name in ("Genre", "Keyword"):
        first = themes.offsets[name]
        # One relation leads to each of these types.
        assert reached[first : first + themes.num_nodes(name)].sum() == pytest.approx(1 / len(seen))


def test_forward_push_ranks_as_the_exact_page_rank(themes: Graph) -> None:
    steps = transition(themes)
    films = np.arange(themes.num_nodes("Film")) + themes.offsets["Film"]
    candidates = np.zeros(themes.total_nodes, bool)
    candidates[films] = True
    low, high = 5, 25
    sources = films[[0, 7, 59]]
    indptr, members = ranked_band(steps, sources, candidates, low=low, high=high, kept=1000, precision=1e-9)
    for number, source in enumerate(sources):
        score = np.where(candidates, exact_page_rank(steps, int(source)), -1.0)
        score[source] = -1.0
        order = np.argsort(-score, kind="stable")[: int((score > 0).sum())]
        linked = set(steps[source].indices.tolist())
        expected = {int(node) for node in order[low:high] if node not in linked}
        found = members[indptr[number] : indptr[number + 1]].tolist()
        assert set(found) == expected
        assert not set(found) & {int(source), *linked}
    # Fewer are kept at even distances.
    indptr, fewer = ranked_band(steps, sources, candidates, low=low, high=high, kept=4, precision=1e-9)
    assert (np.diff(indptr) <= 4).all()
    assert set(fewer.tolist()) <= set(members.tolist())


def hard_negatives(graph: Graph, edges: int = 1000, steps: int = 40, **settings: Any) -> HardNegatives:
    own = SpaceSettings(batch_size=100, **{"hard_negatives": 3, "hard_band": (5, 25), **settings})
    return HardNegatives(graph, own, queries=("Film",), entities=("Film",), edges=edges, steps=steps)


def test_each_epoch_has_one_hard_negative_more(themes: Graph) -> None:
    # A pass over 1,000 edges is 10 steps; 40 steps have room for four levels.
    hard = hard_negatives(themes)
    assert [hard.count(step) for step in (0, 9, 10, 19, 20, 30, 39, 500)] == [0, 0, 1, 1, 2, 3, 3, 3]
    # A training shorter than its passes still comes to the last level.
    assert [hard_negatives(themes, edges=10**6).count(step) for step in (9, 10, 39)] == [0, 1, 3]


def test_hard_negatives_come_from_the_band(themes: Graph) -> None:
    hard = hard_negatives(themes)
    films = np.arange(themes.num_nodes("Film")) + themes.offsets["Film"]
    rng = np.random.default_rng(0)
    assert hard.draw(films, 0, rng).shape == (60, 0)
    drawn = hard.draw(films, 39, rng)
    assert drawn.shape == (60, 3)
    for film, own in zip(films, drawn, strict=True):
        assert len(hard.band(film)) > 0
        assert set(own.tolist()) <= set(hard.band(film).tolist())


def test_where_the_band_is_empty_they_are_drawn_evenly(themes: Graph) -> None:
    hard = hard_negatives(themes, hard_band=(1000, 2000))
    films = np.arange(themes.num_nodes("Film")) + themes.offsets["Film"]
    assert not any(len(hard.band(film)) for film in films)
    drawn = hard.draw(np.repeat(films, 40), 39, np.random.default_rng(0))
    assert set(drawn.ravel().tolist()) == set(films.tolist())


def test_a_node_without_links_has_no_band(tmp_path: Path) -> None:
    declared = project_of(
        {
            "nodes": {"Film": {"role": "entity"}, "Tag": {"role": "concept"}},
            "relations": [{"triple": ["Film", "HAS", "Tag"], "role": "semantic"}],
        },
        tmp_path,
    )
    snapshot = MemorySnapshot(
        declared.schema,
        {"Film": [{"id": each} for each in "abcd"], "Tag": [{"id": "t"}]},
        {Triple("Film", "HAS", "Tag"): [(each, "t") for each in "abc"]},
    )
    hard = hard_negatives(Graph(snapshot), hard_band=(0, 10))
    assert [hard.band(node).tolist() for node in range(4)] == [[1, 2], [0, 2], [0, 1], []]


@pytest.mark.parametrize("settings", [{"loss": "max_margin", "in_batch": False, "negatives": 40}, {"negatives": 20}])
def test_a_training_with_hard_negatives_repeats_itself(settings: dict[str, Any], tmp_path: Path) -> None:
    snapshot = themes_snapshot(films=24, people=12)
    shared = {"dimension": 8, "hidden": 8, "steps": 8, "batch_size": 64, "hard_negatives": 2, "hard_band": [3, 15]}
    spaces = {"similar": {**shared, **settings}, "user": {**shared, **settings}}
    document = {**themes_document(), "training": {"threads": 1, "input_dimension": 8, **spaces}}
    first, again = (train(project_of(document, tmp_path), snapshot, folder=tmp_path / name) for name in "ab")
    for space in ("similar", "user"):
        assert np.isfinite(first.metrics[space]["loss"])
        for name, found in first.spaces[space].state_dict().items():
            assert torch.equal(found, again.spaces[space].state_dict()[name]), name
