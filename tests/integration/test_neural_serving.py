"""The neural score over a real socket: what brute force under it finds, with filters, deadlines and refusals."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from graph_store.settings import ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from model_store.bundle import Bundle
from model_store.bundle_store import BundleStore
from server.calls.retrieval import Retrieval
from server.errors import DeadlinePassed, SelfTestFailed
from server.index.selection import Selection
from server.model.served_model import ServedModel
from server.wire.local import serve_in_thread
from tests.bundles import write_toy_bundle
from tests.integration.test_server import Asker, events, ref, refused
from tests.neural_bundle import ITEMS, expected, write_neural_bundle

NEURAL = types_pb2.NEURAL
NONE = np.empty(0, np.int64)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    store = BundleStore(tmp_path_factory.mktemp("models"))
    return store.open(write_neural_bundle(store))


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> ServedModel:
    return ServedModel.load(bundle)


@pytest.fixture(scope="module")
def asker(bundle: Bundle) -> Iterator[Asker]:
    with serve_in_thread(bundle, ServingSettings()) as port:
        yield Asker(port)


def rows(response: pb.RetrieveEntitiesForUserResponse) -> list[int]:
    return [int(result.node.ref.id[1:]) for result in response.results]


def best(scores: np.ndarray, k: int, allowed: np.ndarray | None = None) -> list[int]:
    order = np.lexsort((np.arange(len(scores)), -scores))
    return [int(row) for row in order if allowed is None or allowed[row]][:k]


def shelf(number: int) -> types_pb2.Filter:
    value = types_pb2.PropertyValue(int_value=number)
    return types_pb2.Filter(equals=types_pb2.PropertyEquals(property="shelf", value=value))


def test_a_user_gets_what_brute_force_finds_with_a_part_of_its_work(asker: Asker) -> None:
    found: list[float] = []
    for user in range(10):
        response = asker.user(user=ref(f"u{user:04}", "User"), target_type="Item", top_k=50, score=NEURAL)
        # The scorer reads two events at most, the last ones; all three are left out of the answer.
        scores = expected([user + 1, user + 2])
        allowed = np.ones(ITEMS, bool)
        allowed[user : user + 3] = False
        answered = rows(response)
        found.append(float(np.isin(best(scores, 50, allowed), answered).mean()))
        assert not set(answered) & set(range(user, user + 3))
        assert [result.score for result in response.results] == pytest.approx(scores[answered], abs=1e-5)
        assert np.all(np.diff([result.score for result in response.results]) <= 0)
        info = response.info
        assert not info.exact
        assert not info.truncated
        assert info.candidates_scored < 0.5 * ITEMS
        assert 1 < info.network_calls < info.candidates_scored / 8
    assert np.mean(found) > 0.9


def test_events_are_read_as_told_the_last_ones(asker: Asker) -> None:
    touched = types_pb2.EventList(events=[types_pb2.Event(entity=ref(f"i{row:04}", "Item")) for row in (9, 4, 7)])
    response = asker.user(events=touched, target_type="Item", top_k=5, score=NEURAL, include_engaged=True)
    assert rows(response) == best(expected([4, 7]), 5)


@pytest.mark.parametrize(("limit", "exact"), [(None, True), (25, False)])
def test_only_what_the_filter_lets_pass_is_answered(asker: Asker, limit: int | None, exact: bool) -> None:
    """Few that pass are all scored; of many the walk passes through the others."""
    if limit is None:
        wanted, allowed = shelf(3), np.arange(ITEMS) % 50 == 3
    else:
        bound = types_pb2.PropertyValue(int_value=limit)
        wanted = types_pb2.Filter(range=types_pb2.PropertyRange(property="shelf", min=bound))
        allowed = np.arange(ITEMS) % 50 >= limit
    response = asker.user(
        user=ref("u0002", "User"), target_type="Item", top_k=20, score=NEURAL, filter=wanted, include_engaged=True
    )
    answered = rows(response)
    assert allowed[answered].all()
    assert len(answered) == 20
    assert response.info.exact is exact
    assert response.info.filter_passed == allowed.sum()
    scores = expected([3, 4])
    if exact:
        assert answered == best(scores, 20, allowed)
        assert response.info.candidates_scored == allowed.sum()
    else:
        assert np.isin(best(scores, 20, allowed), answered).mean() >= 0.9
        assert response.info.candidates_scored < ITEMS


def test_a_least_score_and_exclusions_hold(asker: Asker) -> None:
    scores = expected([3, 4])
    order = best(scores, 10)
    least = float(scores[order[6]]) - 1e-4
    response = asker.user(
        user=ref("u0002", "User"),
        target_type="Item",
        top_k=10,
        score=NEURAL,
        include_engaged=True,
        min_score=least,
        exclude=[ref(f"i{order[1]:04}", "Item")],
    )
    assert rows(response) == [row for row in order[:7] if row != order[1]]
    assert "reach the score" in response.info.shortfall_reason


def test_a_batch_answers_as_its_calls_do(asker: Asker) -> None:
    requests = [
        pb.RetrieveEntitiesForUserRequest(user=ref(f"u{user:04}", "User"), target_type="Item", top_k=5, score=score)
        for user, score in ((1, NEURAL), (1, types_pb2.SCORE_UNSPECIFIED), (2, NEURAL), (99, NEURAL))
    ]
    batch = asker.retrieval.BatchRetrieveEntitiesForUser(
        pb.BatchRetrieveEntitiesForUserRequest(requests=requests), timeout=10
    )
    for request, item in zip(requests[:3], batch.items, strict=False):
        alone = asker.retrieval.RetrieveEntitiesForUser(request, timeout=10)
        assert rows(item.response) == rows(alone)
        assert item.response.info.network_calls == alone.info.network_calls
    assert batch.items[3].error.code == grpc.StatusCode.NOT_FOUND.value[0]


def test_a_user_without_events_is_unknown_to_it(asker: Asker) -> None:
    nobody = ref("u0010", "User")
    told = refused(asker.user, user=nobody, target_type="Item", top_k=3, score=NEURAL)
    assert (told.code, told.reason) == (grpc.StatusCode.NOT_FOUND, "NODE_WITHOUT_VECTOR")
    popular = asker.user(user=nobody, target_type="Item", top_k=3, score=NEURAL, fallback=types_pb2.FALLBACK_POPULAR)
    assert popular.info.fallback == types_pb2.FALLBACK_POPULAR
    assert popular.info.network_calls == 0


def test_pairs_have_the_score_of_the_search(asker: Asker) -> None:
    def pair(source: tuple[str, str], target: tuple[str, str]) -> pb.NodePair:
        return pb.NodePair(source=ref(*source), target=ref(*target))

    asked = [
        pair(("u0002", "User"), ("i0500", "Item")),
        pair(("i0700", "Item"), ("u0001", "User")),
        pair(("u0002", "User"), ("i0600", "Item")),
        pair(("i0700", "Item"), ("i0701", "Item")),
        pair(("u0002", "User"), ("s0000", "Shop")),
        pair(("u0010", "User"), ("i0600", "Item")),
    ]
    response = asker.retrieval.ScorePairs(pb.ScorePairsRequest(pairs=asked, score=NEURAL), timeout=10)
    scores = [item.score for item in response.items[:3]]
    assert scores == pytest.approx([expected([3, 4])[500], expected([2, 3])[700], expected([3, 4])[600]], abs=1e-5)
    codes = [item.error.code for item in response.items[3:]]
    wanted = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)
    assert codes == [code.value[0] for code in wanted]
    assert (response.info.network_calls, response.info.candidates_scored) == (2, 3)


def test_what_the_scorer_does_not_read_is_refused(asker: Asker) -> None:
    user = ref("u0001", "User")
    shop = refused(asker.user, user=user, target_type="Shop", top_k=3, score=NEURAL)
    assert (shop.code, shop.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_SCORER")
    vector = types_pb2.Vector(values=[0.0] * 8)
    given = refused(asker.user, vector=vector, target_type="Item", top_k=3, score=NEURAL)
    assert (given.code, given.field) == (grpc.StatusCode.INVALID_ARGUMENT, "score")
    unknown = refused(asker.user, user=user, target_type="Item", top_k=3, score=7)
    assert (unknown.code, unknown.field) == (grpc.StatusCode.INVALID_ARGUMENT, "score")


def test_a_bundle_without_a_scorer_says_so(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    with serve_in_thread(store.open(write_toy_bundle(store)), ServingSettings()) as port:
        asker = Asker(port)
        for call, fields in (
            (asker.user, {"user": ref("u1", "User"), "top_k": 3}),
            (asker.user, {"events": events("1"), "top_k": 3}),
        ):
            told = refused(call, score=NEURAL, **fields)
            assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_SCORER")
        pairs = pb.ScorePairsRequest(pairs=[pb.NodePair(source=ref("u1", "User"), target=ref("1"))], score=NEURAL)
        assert refused(asker.retrieval.ScorePairs, pairs, timeout=10).reason == "NO_SCORER"


class Clock:
    """A deadline that a number of looks at it uses up."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def left(self) -> float:
        self.looks -= 1
        return 100.0 if self.looks >= 0 else -1.0


def test_at_the_deadline_the_best_so_far_is_answered(model: ServedModel) -> None:
    neural = model.neural("score")
    calls = []
    for looks in (2, 6, 12, 100_000):
        found = neural.search(np.array([3, 4]), 10, exclude=NONE, allowed=None, deadline=Clock(looks))  # type: ignore[arg-type]
        assert found.truncated is (looks < 100_000)
        assert not found.exact
        assert len(found.rows) == 10
        calls.append((found.network_calls, found.scored))
        assert found.scores == pytest.approx(expected([3, 4])[found.rows], abs=1e-5)
    assert calls == sorted(calls)
    assert len(set(calls)) == 4
    some = Selection.of(np.arange(0, ITEMS, 60), ITEMS)
    whole = neural.search(np.array([3, 4]), 10, exclude=NONE, allowed=some, deadline=Clock(5))  # type: ignore[arg-type]
    assert whole.exact
    assert not whole.truncated
    with pytest.raises(DeadlinePassed):
        neural.search(np.array([3, 4]), 10, exclude=NONE, allowed=None, deadline=Clock(0))  # type: ignore[arg-type]


def test_the_event_loop_is_free_while_the_network_is_asked(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one search waits in its network, another call is answered."""
    entered, let_go = threading.Event(), threading.Event()
    original = Retrieval.find

    def held(self: Retrieval, prepared: object, deadline: object) -> object:
        if prepared[0].neural is not None:  # type: ignore[index]
            entered.set()
            assert let_go.wait(20)
        return original(self, prepared, deadline)  # type: ignore[arg-type]

    monkeypatch.setattr(Retrieval, "find", held)
    request = pb.RetrieveEntitiesForUserRequest(user=ref("u0001", "User"), target_type="Item", top_k=3)
    slow = pb.RetrieveEntitiesForUserRequest()
    slow.CopyFrom(request)
    slow.score = NEURAL
    waiting = asker.retrieval.RetrieveEntitiesForUser.future(slow, timeout=30)
    assert entered.wait(20)
    assert len(asker.retrieval.RetrieveEntitiesForUser(request, timeout=10).results) == 3
    assert not waiting.done()
    let_go.set()
    assert len(waiting.result().results) == 3


def test_a_scorer_that_does_not_run_is_refused_before_it_serves(tmp_path: Path) -> None:
    from model_store.errors import ScorerMismatch
    from tests.neural_bundle import write_scorer

    write_scorer(tmp_path / "narrow.onnx", dimension=5)
    store = BundleStore(tmp_path / "models")
    version = write_neural_bundle(store, scorer=(tmp_path / "narrow.onnx").read_bytes())
    with pytest.raises(
        (ScorerMismatch, SelfTestFailed), match="'events' takes vectors of length 5, the entities' have 8"
    ):
        ServedModel.load(store.open(version))
