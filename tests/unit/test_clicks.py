"""Clicks given views: the split, what the graph of a part holds, the columns, the areas, and a planted taste found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from graph_store.schema import Triple
from graph_store.settings import ClickEvaluation, ClickNetworkSettings, EvaluationSettings
from model_store.csr import EdgeType
from tests.memory_snapshot import MemorySnapshot, project_of
from training.clicks.area import auc_interval, roc_auc
from training.clicks.batches import ClickBatcher
from training.clicks.click_models import BOOSTED_TREES, LOGISTIC_REGRESSION, fit_click_model
from training.clicks.data import ClickFrame, Clicks, newest, split_by_time
from training.clicks.fit import build_network, fit_network
from training.clicks.protocol import NETWORK, WITH, WITHOUT, evaluate_clicks
from training.clicks.tabular import tabular
from training.errors import GraphTooSmall, TrainingError

SAW = Triple("User", "SAW", "Film")
DOCUMENT: dict[str, Any] = {
    "nodes": {
        "Film": {
            "role": "entity",
            "properties": {
                "year": {"type": "int", "feature": "number"},
                "genres": {"type": "strings", "feature": "categories"},
            },
        },
        "User": {"role": "user", "properties": {"gender": {"type": "string", "feature": "category"}}},
    },
    "relations": [
        {
            "triple": [*SAW],
            "role": "engagement",
            "weight": "stars",
            "time": "at",
            "properties": {"stars": {"type": "float"}, "at": {"type": "timestamp"}},
        },
        {"triple": ["Film", "CO_SEEN", "Film"], "role": "co_engagement", "derive": {"via": "SAW"}},
    ],
}
GENRES = ("comedy", "drama")
STARS = ClickEvaluation(relation=SAW, least_weight=4)


def rows(*each: tuple[int, int, int, bool]) -> Clicks:
    """(user, entity, time, clicked)."""
    users, entities, time, clicked = zip(*each, strict=True)
    return Clicks(
        users=np.array(users),
        entities=np.array(entities),
        time=np.array(time),
        weight=np.ones(len(each)),
        clicked=np.array(clicked),
        place=np.zeros(len(each), np.int64),
    )


def tastes(users: int = 48, films: int = 40, views: int = 30, seed: int = 0) -> MemorySnapshot:
    """User u likes dramas, the films with an odd number, exactly if u is odd, nine times in ten.

    Everybody clicks about half of what they see, every film is clicked by about half of those who see it: no column
    tells who likes dramas, only what a user clicked before.
    """
    rng = np.random.default_rng(seed)
    schema = project_of(DOCUMENT, Path("tastes")).schema
    edges = []
    for user in range(users):
        for turn, film in enumerate(rng.permutation(films)[:views]):
            liked = (user % 2 == film % 2) == (rng.random() < 0.9)
            edges.append((f"u{user:03}", f"f{film:03}", 5.0 if liked else 2.0, 1_000_000 * turn + user))
    return MemorySnapshot(
        schema,
        {
            "Film": [
                {"id": f"f{each:03}", "year": 1990 + each // 2, "genres": [("comedy", "drama")[each % 2]]}
                for each in range(films)
            ],
            "User": [{"id": f"u{each:03}", "gender": "FM"[each // 2 % 2]} for each in range(users)],
        },
        {SAW: edges},
    )


def test_each_users_newest_are_the_test_and_no_pair_is_in_two_parts() -> None:
    events = [(user, film, 100 * user + film, film % 3 == 0) for user in (0, 1) for film in range(10 * (user + 1))]
    again = [(0, 0, 999, False)]  # seen first of all, and once more after everything
    split = split_by_time(rows(*events, *again), 0.2, 0.3, "per_user")
    of = {0: split.message, 1: split.supervision, 2: split.test}
    pairs = [set(zip(part.users.tolist(), part.entities.tolist(), strict=True)) for part in of.values()]
    assert [len(each) for each in pairs] == [15, 7, 8]  # 11 and 20 events: 5 + 10, 3 + 4, 3 + 6, less the pair again
    assert not pairs[0] & (pairs[1] | pairs[2])
    assert not pairs[1] & pairs[2]
    assert (0, 0) in pairs[0]
    assert {film for user, film in pairs[2] if user == 1} == set(range(14, 20))
    assert {film for user, film in pairs[1] if user == 1} == set(range(10, 14))
    own = split.message.users == 1
    assert split.message.place[own].tolist() == [50_000 * film for film in range(10)]
    assert split.supervision.place[split.supervision.users == 1].min() == 500_000


def test_a_global_split_leaves_users_that_nobody_knows() -> None:
    events = [(film // 5, film, film, film % 2 == 0) for film in range(20)]
    split = split_by_time(rows(*events), 0.25, 0.25, "global")
    assert split.message.entities.tolist() == list(range(10))
    assert split.test.entities.tolist() == list(range(15, 20))
    assert split.new_users().all()
    assert split.new_entities().all()
    split = split_by_time(rows(*events), 0.25, 0.1, "global")
    assert split.test.users.tolist() == [3, 3]
    assert not split.new_users().any()


def test_several_events_of_a_pair_are_one_row_a_click_if_one_is() -> None:
    events = rows((0, 7, 5, False), (0, 7, 3, False), (0, 7, 9, True), (0, 1, 4, False))
    part = split_by_time(events, 0.001, 0.001, "per_user").message
    assert part.entities.tolist() == [7, 1]
    assert part.time.tolist() == [3, 4]
    assert part.clicked.tolist() == [True, False]


def test_the_newest_share_is_of_each_user_or_of_all() -> None:
    events = rows(*[(user, film, film + 100 * user, True) for user in range(3) for film in range(10)])
    of_each = newest(events, 0.2, "per_user")
    assert [events.entities[of_each & (events.users == user)].tolist() for user in range(3)] == [[8, 9]] * 3
    of_all = newest(events, 0.2, "global")
    assert set(events.users[of_all].tolist()) == {2}
    assert of_all.sum() == 6


def test_the_graph_of_a_part_holds_its_links_alone() -> None:
    frame = ClickFrame.of(tastes(), STARS)
    message = frame.split.message
    graph = frame.graph(message)
    assert [each.triple for each in frame.schema.relations] == [frame.clicked, frame.passed]  # no derived co-engagement
    for triple, wanted in ((frame.clicked, message.clicked), (frame.passed, ~message.clicked)):
        csr = graph.csr(EdgeType(triple))
        users = np.repeat(np.arange(csr.num_rows), np.diff(csr.indptr))
        found = set(zip(users.tolist(), csr.indices.tolist(), strict=True))
        assert found == set(zip(message.users[wanted].tolist(), message.entities[wanted].tolist(), strict=True))
        back = graph.csr(EdgeType(triple, True))
        films = np.repeat(np.arange(back.num_rows), np.diff(back.indptr))
        assert found == set(zip(back.indices.tolist(), films.tolist(), strict=True))
    places = frame.graph(message, clock="place").csr(EdgeType(frame.clicked)).time
    assert places is not None
    assert sorted(places.tolist()) == sorted(message.place[message.clicked].tolist())
    assert frame.span_begins(2).tolist() == [400_000, 550_000]
    assert frame.span_begins(9)[0] > 0


class KindSnapshot(MemorySnapshot):
    """With the edges' own properties, as an exported snapshot has them."""

    def edges(self, triple: Triple) -> pa.Table:
        count = self.csr(EdgeType(triple)).num_edges
        return pa.table({"kind": ["clicked" if number % 3 == 0 else "viewed" for number in range(count)]})


def test_a_kind_says_what_a_click_is_where_there_is_one() -> None:
    document = {**DOCUMENT, "relations": [dict(DOCUMENT["relations"][0])]}
    relation = document["relations"][0]
    relation.pop("weight")
    relation["kind"] = "kind"
    relation["properties"] = {"at": {"type": "timestamp"}, "kind": {"type": "string"}}
    schema = project_of(document, Path("kinds")).schema
    edges = [(f"u{user}", f"f{film:02}", 1000 * film) for user in range(4) for film in range(20)]
    snapshot = KindSnapshot(
        schema,
        {"Film": [{"id": f"f{each:02}"} for each in range(20)], "User": [{"id": f"u{each}"} for each in range(4)]},
        {SAW: edges},
    )
    frame = ClickFrame.of(snapshot, ClickEvaluation(relation=SAW, kinds=("clicked",)))
    every = frame.split.earlier + frame.split.test
    number = every.users * 20 + every.entities
    assert np.array_equal(every.clicked, number % 3 == 0)
    with pytest.raises(TrainingError, match="no weight"):
        ClickFrame.of(snapshot, STARS)


def test_what_cannot_be_a_protocol_is_named() -> None:
    snapshot = tastes(users=4)
    with pytest.raises(TrainingError, match="no declared relation"):
        ClickFrame.of(snapshot, ClickEvaluation(relation=("User", "HEARD", "Film"), least_weight=4))
    with pytest.raises(TrainingError, match="no engagement relation"):
        ClickFrame.of(snapshot, ClickEvaluation(relation=("Film", "CO_SEEN", "Film"), least_weight=4))
    with pytest.raises(GraphTooSmall, match="do not hold both clicks and views"):
        ClickFrame.of(snapshot, ClickEvaluation(relation=SAW, least_weight=1))
    with pytest.raises(ValueError, match="either kinds or least_weight"):
        ClickEvaluation(relation=SAW)


def test_columns_are_properties_and_counts_of_earlier_rows_only() -> None:
    frame = ClickFrame.of(tastes(), STARS)
    split = frame.split
    columns = tabular(frame, split.test, split.message)
    assert {"Film.genres=drama", "Film.genres=comedy", "User.gender=F"} < set(columns.names)
    values = dict(zip(columns.names, columns.values.T, strict=True))
    user, film = split.test.users[5], split.test.entities[5]
    assert values["Film.year"][5] == 1990 + film // 2
    own = split.message.users == user
    assert values["User: ln(1 + views)"][5] == pytest.approx(np.log1p(own.sum()))
    prior = split.message.clicked.mean()
    assert values["User: share of clicks"][5] == pytest.approx(
        (split.message.clicked[own].sum() + 5 * prior) / (own.sum() + 5)
    )
    seen = split.message.entities == film
    mean = split.message.weight.mean()
    assert values["Film: mean weight"][5] == pytest.approx(
        (split.message.weight[seen].sum() + 5 * mean) / (seen.sum() + 5)
    )


def test_the_area_is_sklearns_and_the_interval_holds_it() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    clicked = rng.random(400) < 0.4
    scores = np.round(clicked * 0.5 + rng.normal(size=400), 1)  # with ties
    other = rng.normal(size=400)
    users = rng.integers(40, size=400)
    assert roc_auc(clicked, scores) == pytest.approx(roc_auc_score(clicked, scores))
    counts = rng.integers(3, size=400)
    assert roc_auc(clicked, scores, counts) == pytest.approx(roc_auc_score(clicked, scores, sample_weight=counts))
    interval = auc_interval(clicked, scores, users, 200)
    assert interval.low < interval.mean < interval.high
    assert interval.mean == pytest.approx(roc_auc_score(clicked, scores))
    gain = auc_interval(clicked, scores, users, 200, less=other)
    assert gain.mean == pytest.approx(roc_auc_score(clicked, scores) - roc_auc_score(clicked, other))
    assert gain.low > 0
    nothing = auc_interval(clicked, scores, users, 100, less=scores)
    assert (nothing.low, nothing.mean, nothing.high) == (0, 0, 0)
    assert np.isnan(roc_auc(np.ones(3, bool), np.arange(3.0)))


def test_click_models_choose_by_the_newest_rows_and_read_missing_values() -> None:
    rng = np.random.default_rng(2)
    columns = rng.normal(size=(600, 3))
    clicked = columns[:, 0] + rng.normal(size=600) > 0
    columns[::7, 1] = np.nan
    for model in (LOGISTIC_REGRESSION, BOOSTED_TREES):
        found = fit_click_model(model, columns, clicked, np.arange(600) >= 480, columns[:50], seed=1)
        assert found.trials == 8
        assert found.scores.shape == (50,)
        assert found.validated > 0.75


def test_a_sampled_batch_of_all_neighbours_is_the_whole_graph() -> None:
    """Both forms of a batch give the same logits where nothing is drawn and no time forbids anything."""
    frame = ClickFrame.of(tastes(users=16, films=20, views=12), STARS)
    split = frame.split
    sampled = ClickNetworkSettings(layers=2, fan_out=(-1,), hidden=8, dimension=4)
    network = build_network(frame, sampled, seed=1).eval()
    batcher = ClickBatcher(frame, split.message, sampled, seed=1)
    asked = split.supervision  # in no link of the message part
    ever = np.full(len(asked), np.iinfo(np.int64).max)
    logits = network(batcher.sampled(asked, ever, key=0))
    assert np.allclose(logits.detach(), network(batcher.whole(asked)).detach(), atol=1e-5)
    early = network(batcher.sampled(asked, np.full(len(asked), 300_000), key=0))
    older = split.message.take(split.message.place < 300_000)
    # The prior of the share of clicks is that of the batcher's rows, so the older graph's is made to agree.
    cut = ClickBatcher(frame, older, sampled, seed=1)
    cut._rate = batcher._rate
    assert np.allclose(early.detach(), network(cut.whole(asked)).detach(), atol=1e-5)
    assert not np.allclose(early.detach(), logits.detach(), atol=1e-3)


@pytest.mark.parametrize("fan_out", [(), (5, 2)])
def test_the_network_finds_a_taste_that_no_column_tells(fan_out: tuple[int, ...]) -> None:
    frame = ClickFrame.of(tastes(), STARS)
    settings = ClickNetworkSettings(
        fan_out=fan_out,
        hidden=16,
        dimension=8,
        epochs=15,
        patience=15,
        batch_size=64,
        windows=3,
        learning_rate=0.01,
        dropout=0,
    )
    fitted = fit_network(frame, settings, seed=1)
    users, films, logits = fitted.vectors(frame, frame.split.earlier, frame.split.test)
    assert users.shape == films.shape == (len(frame.split.test), 8)
    assert roc_auc(frame.split.test.clicked, logits.astype(np.float64)) > 0.8
    same = fit_network(frame, settings, seed=1).vectors(frame, frame.split.earlier, frame.split.test)[2]
    np.testing.assert_allclose(same, logits, atol=1e-3)


def test_the_report_has_every_scorer_and_a_gain_above_zero() -> None:
    settings = EvaluationSettings(
        clicks=(STARS,),
        click_network=ClickNetworkSettings(
            hidden=16, dimension=8, epochs=15, batch_size=64, windows=3, learning_rate=0.01, dropout=0
        ),
        bootstrap=100,
    )
    report = evaluate_clicks(tastes(), settings, seed=1)[0]
    assert [(each.model, each.columns) for each in report.scored] == [
        (LOGISTIC_REGRESSION, WITHOUT),
        (BOOSTED_TREES, WITHOUT),
        (LOGISTIC_REGRESSION, WITH),
        (BOOSTED_TREES, WITH),
        (NETWORK, ""),
    ]
    assert max(each.auc.mean for each in report.scored if each.columns == WITHOUT) < 0.65
    assert report.gain.low > 0.1
    document = report.to_json()
    assert document["rows"]["test"] == len(ClickFrame.of(tastes(), STARS).split.test)
    assert document["trials"] == {LOGISTIC_REGRESSION: 8, BOOSTED_TREES: 8}
    assert len(report.table().rows) == 5
