"""The neural metric: histories, scores, training and the similarity graph, on data whose answers are known.

Groups of entities: entity i is of group i % 4. A user's events are of one group, so that the next one is too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_store.beam_search import SearchSettings, beam_search
from model_store.csr import Csr
from model_store.errors import BundleCorrupt
from model_store.neighbour_graph import NeighbourGraph
from training.neural_metric.adversarial import flatness_loss, perturbed
from training.neural_metric.evaluate import UserScore, agreement, exact_best, task_recall
from training.neural_metric.fit import fit_scorer
from training.neural_metric.graph import build_graph
from training.neural_metric.histories import (
    ExampleSource,
    Histories,
    earlier,
    histories,
    questions,
    split_users,
)
from training.neural_metric.scorer import NeuralScorer, TwoTowerScorer, ages, make_scorer, reduced
from training.neural_metric.settings import GraphSettings, ScorerSettings

GROUPS = 4
SMALL = ScorerSettings(
    dimension=8, hidden=16, events=6, batch_size=32, negatives=16, steps=100, learning_rate=0.02, seed=3
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors are too small here for threads, which wait for each other where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def grouped(users: int = 120, entities: int = 40, ordered: bool = True) -> Histories:
    """User j engaged with 8 entities of group j % 4."""
    rng = np.random.default_rng(0)
    rows = [rng.permutation(np.arange(user % GROUPS, entities, GROUPS))[:8] for user in range(users)]
    return Histories(
        indptr=np.arange(users + 1, dtype=np.int64) * 8,
        entities=np.concatenate(rows).astype(np.int32),
        ordered=ordered,
    )


def random_events(count: int, entities: int, slots: int, rng: np.random.Generator) -> NDArray[np.int64]:
    events = rng.integers(entities, size=(count, slots))
    return np.where(np.arange(slots) < rng.integers(slots, size=(count, 1)), -1, events)


# histories


def test_events_are_ordered_by_time_within_each_user() -> None:
    csr = Csr(
        indptr=np.array([0, 3, 3, 5]),
        indices=np.array([1, 4, 7, 2, 3], np.int32),
        time=np.array([30, 10, 20, 2, 1]),
    )
    known = histories(csr)
    assert known.ordered
    assert [known.of(user).tolist() for user in range(3)] == [[4, 7, 1], [], [3, 2]]


def test_events_of_one_moment_are_not_ordered_by_row() -> None:
    csr = Csr(indptr=np.array([0, 50]), indices=np.arange(50, dtype=np.int32), time=np.zeros(50, np.int64))
    found = histories(csr).of(0)
    assert sorted(found.tolist()) == list(range(50))
    assert abs(np.corrcoef(found, np.arange(50))[0, 1]) < 0.4


def test_earlier_events_stop_at_the_user_and_align_to_the_right() -> None:
    known = Histories(indptr=np.array([0, 2, 6]), entities=np.array([9, 8, 1, 2, 3, 4], np.int32), ordered=True)
    found = earlier(known, np.array([1, 1, 0]), np.array([5, 3, 0]), 3)
    assert found.tolist() == [[1, 2, 3], [-1, -1, 1], [-1, -1, -1]]


def test_unordered_examples_hold_others_of_the_user_and_never_the_target() -> None:
    known = grouped(ordered=False)
    examples = ExampleSource(known, np.arange(10), 5).draw(200, np.random.default_rng(1))
    for user, events, target in zip(examples.users, examples.events, examples.targets, strict=True):
        own = set(known.of(int(user)).tolist())
        assert target in own
        assert len(set(events.tolist())) == 5
        assert set(events.tolist()) <= own - {target}


def test_questions_end_with_the_last_event_and_know_what_was_seen() -> None:
    known = grouped()
    asked = questions(known, np.array([4, 5]), 3, each=2)
    assert asked.users.tolist() == [4, 4, 5, 5]
    assert {int(known.of(4)[-1]), int(known.of(5)[-1])} <= set(asked.targets.tolist())
    last = int(np.flatnonzero(asked.targets == known.of(4)[-1])[0])
    assert asked.seen[last].tolist() == known.of(4)[:-1].tolist()
    assert asked.events[last].tolist() == known.of(4)[-4:-1].tolist()


def test_users_are_split_90_5_5_and_stay_apart() -> None:
    split = split_users(grouped(users=200), seed=1)
    assert [len(part) for part in (split.train, split.validation, split.test)] == [180, 10, 10]
    assert len(np.unique(np.concatenate([split.train, split.validation, split.test]))) == 200


# scores


@pytest.mark.parametrize("kind", ["neural", "two_tower"])
def test_what_stands_in_empty_slots_changes_no_score_and_gets_no_gradient(kind: str) -> None:
    torch.manual_seed(0)
    scorer = make_scorer(SMALL.model_copy(update={"kind": kind}), 20)
    events = torch.randn(2, 6, 8, requires_grad=True)
    mask = torch.tensor([[False, False, True, True, True, True], [False] * 6])
    score = scorer(events, mask, scorer.table[:7])
    other = torch.where(mask[..., None], events.detach(), torch.full((), 1e6))
    assert torch.allclose(score, scorer(other, mask, scorer.table[:7]), atol=1e-6)
    (slope,) = torch.autograd.grad(score.sum(), events)
    assert (slope[~mask] == 0).all()
    assert (slope[mask].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("kind", ["neural", "two_tower"])
def test_a_users_own_candidates_score_as_shared_ones_do(kind: str) -> None:
    torch.manual_seed(0)
    scorer = make_scorer(SMALL.model_copy(update={"kind": kind}), 20)
    vectors, mask = scorer.event_vectors(torch.from_numpy(random_events(3, 20, 6, np.random.default_rng(2))))
    shared = scorer(vectors, mask, scorer.table[:9])
    own = scorer(vectors, mask, scorer.table[:9].expand(3, 9, 8).contiguous())
    assert shared.shape == (3, 9)
    assert torch.allclose(shared, own, atol=1e-5)


def test_the_neural_score_depends_on_the_target_beyond_an_inner_product() -> None:
    """A bilinear score has no mixed second difference in the candidate; target attention has."""
    torch.manual_seed(0)
    events, mask = torch.randn(1, 6, 8), torch.ones(1, 6, dtype=torch.bool)
    a, b = torch.randn(2, 8)
    corners = torch.stack([torch.zeros(8), a, b, a + b])
    bends = []
    for kind in (TwoTowerScorer, NeuralScorer):
        scorer = kind(SMALL, 20)
        with torch.no_grad():
            for parameter in scorer.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        score = scorer(events, mask, corners)[0]
        bends.append(abs(float((score[3] - score[1] - score[2] + score[0]).detach())))
    assert bends[0] < 1e-5
    assert bends[1] > 1e-3


def test_a_neural_score_starts_as_its_twin() -> None:
    torch.manual_seed(0)
    twin, scorer = TwoTowerScorer(SMALL, 20), NeuralScorer(SMALL, 20)
    scorer.start_from(twin)
    events = torch.from_numpy(random_events(3, 20, 6, np.random.default_rng(2)))
    expected, found = (each(*each.event_vectors(events), each.table) for each in (twin, scorer))
    assert torch.allclose(expected, found, atol=1e-6)


def test_age_counts_the_events_that_came_after() -> None:
    mask = torch.tensor([[False, True, False, True, True]])
    assert ages(mask)[0, [1, 3, 4]].tolist() == [2, 1, 0]


def test_given_vectors_start_the_table_with_their_geometry() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.standard_normal((30, 5)) @ rng.standard_normal((5, 20))).astype(np.float32)
    assert np.allclose(reduced(vectors, 8) @ reduced(vectors, 8).T, vectors @ vectors.T, atol=1e-3)
    table = make_scorer(SMALL, 30, vectors).entity_vectors()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.corrcoef((table @ table.T).ravel(), (unit @ unit.T).ravel())[0, 1] > 0.97


# adversarial training


def test_the_perturbation_raises_every_score_by_at_most_epsilon_a_coordinate() -> None:
    torch.manual_seed(0)
    scorer = NeuralScorer(SMALL, 20)
    vectors, mask = scorer.event_vectors(torch.from_numpy(random_events(4, 20, 6, np.random.default_rng(2))))
    candidates = scorer.table[:9]
    changed = perturbed(scorer, vectors, mask, candidates, 1e-3)
    assert changed.shape == (4, 9, 8)
    assert float((changed - candidates).detach().abs().max()) == pytest.approx(1e-3, rel=1e-3)
    assert (scorer(vectors, mask, changed) > scorer(vectors, mask, candidates)).all()


def test_flatness_is_the_divergence_of_each_label_changed_alone() -> None:
    logits = torch.tensor([[0.3, -1.0, 2.0, -1e9]])
    assert float(flatness_loss(logits, logits)) == pytest.approx(0, abs=1e-6)
    change = torch.tensor([[0.0, 1.0, -0.5, 0.0]])
    expected = 0.0
    for label in range(3):
        alone = logits.clone()
        alone[0, label] += change[0, label]
        p, q = (float(torch.softmax(each[0], 0)[label]) for each in (logits, alone))
        expected += p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert float(flatness_loss(logits, logits + change)) == pytest.approx(expected, rel=1e-4)


def test_adversarial_training_flattens_the_score() -> None:
    known = grouped()
    bends = []
    for strength in (0.0, 0.5):
        update = {"adversarial": strength, "adversarial_scale": "relative", "steps": 50, "learning_rate": 0.02}
        settings = SMALL.model_copy(update=update)
        scorer = fit_scorer(known, np.arange(100), 40, settings).scorer
        vectors, mask = scorer.event_vectors(torch.from_numpy(questions(known, np.arange(100, 120), 6, each=1).events))
        root = float(scorer.table.detach().square().mean().sqrt())
        with torch.no_grad():
            before = scorer(vectors, mask, scorer.table)
            after = scorer(vectors, mask, perturbed(scorer, vectors, mask, scorer.table, 0.5 * root))
        bends.append(float(flatness_loss(before, after).detach()))
    assert bends[1] < 0.5 * bends[0]


# training


@pytest.mark.parametrize("kind", ["neural", "two_tower"])
def test_training_finds_the_groups(kind: str) -> None:
    known = grouped()
    fitted = fit_scorer(known, np.arange(100), 40, SMALL.model_copy(update={"kind": kind}))
    asked = questions(known, np.arange(100, 120), 6, each=1)
    # Three entities of the group are left that the user has not seen: chance is 5 in 33.
    assert task_recall(fitted.scorer, asked, at=5).mean() > 0.8


def test_a_neural_score_goes_on_from_its_trained_twin() -> None:
    settings = SMALL.model_copy(update={"steps": 61, "twin_steps": 60})
    fitted = fit_scorer(grouped(), np.arange(100), 40, settings)
    twin = fit_scorer(grouped(), np.arange(100), 40, SMALL.model_copy(update={"kind": "two_tower", "steps": 60}))
    assert fitted.metrics["steps"] == 61
    assert np.abs(fitted.scorer.entity_vectors() - twin.scorer.entity_vectors()).max() < 0.03


def test_the_same_seed_gives_the_same_scorer_and_another_does_not() -> None:
    settings = SMALL.model_copy(update={"steps": 5, "adversarial": 0.01})
    first, again, other = (
        fit_scorer(grouped(), np.arange(100), 40, settings.model_copy(update={"seed": seed})).scorer.entity_vectors()
        for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert not np.allclose(first, other)


def test_training_goes_on_from_its_checkpoint_to_the_same_end(tmp_path: Path) -> None:
    whole = SMALL.model_copy(update={"steps": 8, "checkpoint_every": 3})
    expected = fit_scorer(grouped(), np.arange(100), 40, whole).scorer.entity_vectors()

    class Stop(Exception):
        pass

    class StoppingProgress:
        def __init__(self) -> None:
            self.steps = 0

        def task(self, description: str, total: int | None = None, unit: str = "rows") -> StoppingProgress:
            return self

        def __enter__(self) -> StoppingProgress:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def advance(self, steps: int = 1, **fields: object) -> None:
            self.steps += steps
            if self.steps == 5:
                raise Stop

    file = tmp_path / "checkpoint.pt"
    with pytest.raises(Stop):
        fit_scorer(grouped(), np.arange(100), 40, whole, checkpoint=file, progress=StoppingProgress())
    assert torch.load(file, weights_only=True)["step"] == 3
    resumed = fit_scorer(grouped(), np.arange(100), 40, whole, checkpoint=file)
    assert (resumed.scorer.entity_vectors() == expected).all()


def test_a_checkpoint_of_other_settings_is_not_resumed(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    fit_scorer(grouped(), np.arange(100), 40, SMALL.model_copy(update={"steps": 2}), checkpoint=file)
    settings = SMALL.model_copy(update={"steps": 2, "learning_rate": 1e-4})
    found = fit_scorer(grouped(), np.arange(100), 40, settings, checkpoint=file).scorer.entity_vectors()
    assert (found == fit_scorer(grouped(), np.arange(100), 40, settings).scorer.entity_vectors()).all()


# graph and search


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    return np.random.default_rng(5).standard_normal((1500, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def graph(vectors: NDArray[np.float32]) -> NeighbourGraph:
    return build_graph(vectors, GraphSettings(neighbours=6, candidates=30, seed=1))


def test_layers_are_nested_and_neighbours_are_near(graph: NeighbourGraph, vectors: NDArray[np.float32]) -> None:
    assert len(graph.layers) >= 3
    for below, above in zip(graph.layers, graph.layers[1:], strict=False):
        assert np.isin(above.nodes, below.nodes).all()
        assert np.isin(above.indices, above.nodes).all()
    ground = graph.layers[0]
    distances = np.square(vectors[:, None] - vectors[None]).sum(-1)
    np.fill_diagonal(distances, np.inf)
    first = distances.argmin(1)
    has_nearest = [first[row] in ground.neighbours_of(np.array([row])) for row in range(1500)]
    assert np.mean(has_nearest) > 0.98
    # Pruned edges come back one by one where a node would be out of reach, and only there.
    assert np.diff(ground.indptr).max() <= 2 * 6 + 3


def test_the_same_seed_gives_the_same_graph(graph: NeighbourGraph, vectors: NDArray[np.float32]) -> None:
    again = build_graph(vectors, GraphSettings(neighbours=6, candidates=30, seed=1))
    other = build_graph(vectors, GraphSettings(neighbours=6, candidates=30, seed=2))
    assert all((a.indices == b.indices).all() for a, b in zip(graph.layers, again.layers, strict=True))
    assert again.entry == graph.entry
    assert len(other.layers[1].nodes) != len(graph.layers[1].nodes) or other.entry != graph.entry


@pytest.mark.parametrize("kind", ["one", "twins", "two far groups"])
def test_every_entity_is_in_reach(kind: str) -> None:
    rng = np.random.default_rng(0)
    vectors = {
        "one": np.zeros((1, 3)),
        "twins": np.repeat(rng.standard_normal((3, 3)), 40, axis=0),
        "two far groups": np.concatenate([rng.standard_normal((90, 3)), rng.standard_normal((90, 3)) + 1e3]),
    }[kind].astype(np.float32)
    graph = build_graph(vectors, GraphSettings(neighbours=3, candidates=5))
    count = len(vectors)
    settings = SearchSettings(beam=count, upper_beam=1, scored_whole=1)
    found = beam_search(graph, lambda rows: rows.astype(np.float32), k=count, settings=settings)
    assert found.entities.tolist() == list(range(count))[::-1]


@pytest.mark.parametrize("width", [None, 16])
def test_search_without_limits_is_brute_force(
    graph: NeighbourGraph, vectors: NDArray[np.float32], width: int | None
) -> None:
    torch.manual_seed(2)
    scorer = NeuralScorer(SMALL.model_copy(update={"dimension": 6, "heads": 1}), 1500, vectors)
    events = random_events(3, 1500, 6, np.random.default_rng(0))
    exact = exact_best(scorer, events, 100)
    found = agreement(scorer, graph, events, exact, SearchSettings(beam=1500, width=width, scored_whole=20))
    assert (found.overlap == 1).all()
    assert (found.evaluations == 1500).all()
    for row, each in enumerate(found.found):
        assert each.entities.tolist() == exact[row].tolist()
        assert np.allclose(each.scores, UserScore(scorer, events[row])(exact[row]), atol=1e-5)


def test_search_finds_the_planted_optimum_with_few_evaluations(
    graph: NeighbourGraph, vectors: NDArray[np.float32]
) -> None:
    rng = np.random.default_rng(3)
    for planted in rng.integers(1500, size=20):
        seen: list[int] = []

        def score(rows: NDArray[np.int64], planted: int = planted, seen: list[int] = seen) -> NDArray[np.float32]:
            seen.extend(rows.tolist())
            return -np.square(vectors[rows] - vectors[planted]).sum(1)

        found = beam_search(graph, score, k=5, settings=SearchSettings(beam=20, upper_beam=5, width=4, scored_whole=50))
        assert found.entities[0] == planted
        assert len(seen) == len(set(seen)) == found.evaluations < 400


def test_a_budget_is_kept_and_rounds_are_counted(graph: NeighbourGraph, vectors: NDArray[np.float32]) -> None:
    calls: list[int] = []

    def score(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        calls.append(len(rows))
        return vectors[rows, 0]

    found = beam_search(graph, score, k=10, settings=SearchSettings(beam=300, budget=123, scored_whole=50))
    assert found.evaluations == sum(calls) == 123
    assert found.rounds == len(calls)
    assert (np.diff(found.scores) <= 0).all()


def test_starts_are_where_the_search_begins(graph: NeighbourGraph, vectors: NDArray[np.float32]) -> None:
    """A needle that no slope leads to is found from a neighbour of it alone."""
    needle = 700
    near = graph.layers[0].indices[graph.layers[0].indices != needle]
    parents = [row for row in range(1500) if needle in graph.layers[0].neighbours_of(np.array([row]))]
    assert len(near)

    def score(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.where(rows == needle, 1e6, vectors[rows, 0]).astype(np.float32)

    settings = SearchSettings(beam=10, upper_beam=3, width=20, scored_whole=20)
    without = beam_search(graph, score, k=1, settings=settings)
    with_ = beam_search(graph, score, k=1, settings=replace(settings, beam=1500), starts=np.array(parents[:1]))
    assert with_.entities[0] == needle
    assert without.evaluations < 300


def test_a_saved_graph_is_the_same(graph: NeighbourGraph, tmp_path: Path) -> None:
    graph.save(tmp_path)
    loaded = NeighbourGraph.load(tmp_path)
    assert loaded.entry == graph.entry
    for a, b in zip(loaded.layers, graph.layers, strict=True):
        assert (a.nodes == b.nodes).all()
        assert (a.indptr == b.indptr).all()
        assert (a.indices == b.indices).all()
    (tmp_path / "0.indices.npy").unlink()
    with pytest.raises(BundleCorrupt, match="no similarity graph"):
        NeighbourGraph.load(tmp_path)
