"""Users' vectors around a context: without one what was published, with one what leans to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
import torch

from graph_store.settings import PublishSettings, ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from model_store.bundle import Bundle
from model_store.bundle_store import BundleStore
from model_store.writer import BundleWriter
from server.fresh.delta import Delta, TypeDelta
from server.fresh.model import with_delta
from server.index.publish import build_indexes
from server.model.catalogue import NodeKey
from server.model.focal import relevances
from server.model.served_model import ServedModel
from server.wire.local import serve_in_thread
from tests.bundles import write_toy_bundle
from tests.integration.test_server import Asker, ref, refused
from tests.memory_snapshot import project_of, themes_document, themes_snapshot
from training.evaluate import evaluate
from training.publish import write_contents
from training.train import train

SMALL: dict[str, Any] = {
    "training.preset": "zoomer",
    "training.threads": 1,
    "training.similar.steps": 1,
    "training.similar.hidden": 16,
    "training.input_dimension": 8,
    "training.user.hidden": 16,
    "training.user.dimension": 16,
    "training.user.batch_size": 128,
    "training.user.steps": 40,
    "training.user.fan_out": 4,
    "training.user.sampled_fan_out": 4,
}
USERS = 60


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors are too small here for threads, which wait for each other where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=[1, 2], ids=["one layer", "two layers"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("focal")
    project = project_of(themes_document(), folder, {**SMALL, "training.user.layers": request.param})
    snapshot = themes_snapshot(people=USERS)
    model = train(project, snapshot, folder=folder / "ck")
    with BundleWriter(folder, "themes") as writer:
        write_contents(writer, project, snapshot, model, evaluate(project, snapshot, model))
        build_indexes(writer, PublishSettings())
        return Bundle.load(folder / writer.commit())


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> ServedModel:
    return ServedModel.load(bundle)


@pytest.fixture(scope="module")
def asker(bundle: Bundle) -> Iterator[Asker]:
    with serve_in_thread(bundle, ServingSettings()) as port:
        yield Asker(port)


def film(number: int) -> types_pb2.NodeRef:
    return ref(f"f{number:04}", "Film")


def context(*films: int, genres: tuple[int, ...] = ()) -> types_pb2.Context:
    return types_pb2.Context(
        entity=film(films[0]) if films else None, concepts=[ref(f"g{each}", "Genre") for each in genres]
    )


def test_without_context_the_online_vector_is_the_published_one(bundle: Bundle, model: ServedModel) -> None:
    focal = model.focal("Person", "context")
    published = bundle.vectors("user", "Person")
    assert bundle.spaces["user"].focal.encoders[0].max_difference < 1e-5
    for row in range(USERS):
        found = focal.of_user(NodeKey("Person", row), [])
        assert np.abs(found - published[row]).max() <= 1e-5 * max(1.0, float(np.linalg.norm(published[row])))


def test_the_region_holds_the_neighbours_most_relevant_to_user_and_context(bundle: Bundle, model: ServedModel) -> None:
    """Of the ten or so films a person watched, four are read: another context, other ones."""
    focal = model.focal("Person", "context")
    (watched,) = [each for each in bundle.edge_types if each.node_type == "Person"]
    relevance = {name: bundle.relevance("user", name) for name in ("Person", "Film")}
    changed = 0
    for row in range(USERS):
        lists = bundle.neighbours(watched).take(np.array([row]))
        for point in (relevance["Person"][row], relevance["Person"][row] + relevance["Film"][1]):
            places = focal._region(watched, lists, point)
            films = relevance["Film"][lists.indices]
            dot, square = films @ point, float(point @ point)
            by_hand = dot / (square + np.square(films).sum(1) - dot)
            assert len(places) == min(4, len(films))
            assert sorted(by_hand[places])[0] >= np.sort(by_hand)[-len(places)] - 1e-6
        alone = focal._region(watched, lists, relevance["Person"][row])
        changed += set(alone) != set(places)
    assert changed > USERS / 3


def test_relevance_of_nothing_is_zero() -> None:
    nothing, some = np.zeros(3, np.float32), np.ones((2, 3), np.float32)
    for tanimoto in (True, False):
        assert relevances(nothing, some, tanimoto=tanimoto).tolist() == [0.0, 0.0]
        assert relevances(some[0], np.zeros((1, 3), np.float32), tanimoto=tanimoto).tolist() == [0.0]
    assert relevances(some[0], some, tanimoto=True) == pytest.approx([1.0, 1.0])


def test_a_context_moves_the_vector_towards_its_own(bundle: Bundle, model: ServedModel) -> None:
    """Films of the context's theme gain against those of the others, for people of any theme."""
    focal = model.focal("Person", "context")
    films = bundle.vectors("user", "Film")
    gains = []
    for row in range(USERS):
        person = NodeKey("Person", row)
        before = films @ focal.of_user(person, [])
        for theme in range(4):
            looked_at = NodeKey("Film", 20 + theme)
            after = films @ focal.of_user(person, [looked_at])
            assert not np.allclose(after, before, atol=1e-5)
            own = np.arange(len(films)) % 4 == theme
            moved = after - before
            gains.append(moved[own].mean() - moved[~own].mean())
    assert np.mean(gains) > 0


def test_requests_take_a_context(asker: Asker, bundle: Bundle, model: ServedModel) -> None:
    person = ref("p003", "Person")
    plain = asker.user(user=person, target_type="Film", top_k=10)
    around = asker.user(user=person, target_type="Film", top_k=10, context=context(1))
    row = bundle.row("Person", "p003")
    looked_at = NodeKey("Film", bundle.row("Film", "f0001") or 0)
    vector = model.focal("Person", "context").of_user(NodeKey("Person", row or 0), [looked_at])
    scores = {result.node.ref.id: result.score for result in around.results}
    for node_id, score in scores.items():
        expected = bundle.vectors("user", "Film")[bundle.row("Film", node_id) or 0] @ vector
        assert score == pytest.approx(float(expected), abs=1e-4)
    assert [each.score for each in plain.results] != [each.score for each in around.results]
    pairs = [pb.NodePair(source=person, target=film(int(node_id[1:]))) for node_id in scores]
    answered = asker.retrieval.ScorePairs(pb.ScorePairsRequest(pairs=pairs, context=context(1)), timeout=10)
    assert [item.score for item in answered.items] == pytest.approx(list(scores.values()), abs=1e-4)
    genres = asker.user(user=person, target_type="Film", top_k=10, context=context(genres=(1, 2)))
    assert [each.score for each in genres.results] != [each.score for each in around.results]


def test_a_told_user_has_a_context_too(asker: Asker) -> None:
    events = types_pb2.EventList(events=[types_pb2.Event(entity=film(number)) for number in (0, 1, 2, 3, 5, 9)])
    found = [
        [
            (result.node.ref.id, round(result.score, 4))
            for result in asker.user(events=events, target_type="Film", top_k=5, context=context(number)).results
        ]
        for number in (20, 21)
    ]
    assert found[0] != found[1]


def test_contexts_go_on_with_a_delta(model: ServedModel) -> None:
    """A film that nobody watched is gone: rows move, and every vector stays."""
    nothing = pa.table({"id": pa.array([], pa.string())})
    fresh = with_delta(model, Delta(types={"Film": TypeDelta(nodes=nothing, deleted=frozenset({"f0076"}))}))
    assert fresh.bundle.row("Film", "f0079") == 78
    for row in (0, 3, 7):
        person = NodeKey("Person", row)
        for film_id in ("f0001", "f0079"):
            before, after = (
                each.focal("Person", "context").of_user(
                    person, [NodeKey("Film", each.bundle.row("Film", film_id) or 0)]
                )
                for each in (model, fresh)
            )
            assert after == pytest.approx(before, abs=1e-5)


def test_what_cannot_be_a_context_is_refused(asker: Asker) -> None:
    person = ref("p003", "Person")
    for given, field in (
        (types_pb2.Context(), "context"),
        (types_pb2.Context(entity=ref("g1", "Genre")), "context.entity.type"),
        (types_pb2.Context(concepts=[film(1)]), "context.concepts[0].type"),
        (types_pb2.Context(concepts=[ref("g1", "Genre")] * 101), "context.concepts"),
    ):
        told = refused(asker.user, user=person, target_type="Film", top_k=3, context=given)
        assert (told.code, told.field) == (grpc.StatusCode.INVALID_ARGUMENT, field)
    nowhere = refused(asker.user, user=person, target_type="Film", top_k=3, context=context(999))
    assert nowhere.reason == "NODE_NOT_FOUND"
    vector = types_pb2.Vector(values=[0.0] * 16)
    told = refused(asker.user, vector=vector, target_type="Film", top_k=3, context=context(1))
    assert (told.code, told.field) == (grpc.StatusCode.INVALID_ARGUMENT, "context")


def test_a_bundle_of_another_encoder_refuses_a_context(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    with serve_in_thread(store.open(write_toy_bundle(store)), ServingSettings()) as port:
        asker = Asker(port)
        given = types_pb2.Context(entity=ref("1", "Artist"))
        told = refused(asker.user, user=ref("u1", "User"), top_k=3, context=given)
        assert (told.code, told.field) == (grpc.StatusCode.INVALID_ARGUMENT, "context")
        assert "zoomer" in told.status.message
