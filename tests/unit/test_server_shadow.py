"""The shadow bundle is asked its share, compared, and dropped where there is other work."""

from __future__ import annotations

from pathlib import Path

import pytest

from graph_store.settings import ServingSettings, ShadowSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from model_store.bundle_store import BundleStore
from server.calls.retrieval import Retrieval
from server.deadline import Deadline
from server.model.served_model import ServedModel
from server.processes.shadow import Shadow
from server.processes.state import State
from tests.bundles import write_toy_bundle

SLOWDIVE = types_pb2.NodeRef(type="Artist", id="1")


@pytest.fixture(scope="module")
def retrieval(tmp_path_factory: pytest.TempPathFactory) -> Retrieval:
    store = BundleStore(tmp_path_factory.mktemp("models"))
    return Retrieval(ServedModel.load(store.open(write_toy_bundle(store, encoders=False))), ServingSettings())


def calm() -> float:
    """The clock of an event loop without other work, however busy the machine."""
    return 0.0


def similar(retrieval: Retrieval, **fields: object) -> tuple[pb.SearchSimilarEntitiesRequest, ...]:
    request = pb.SearchSimilarEntitiesRequest(entity=SLOWDIVE, top_k=2, **fields)
    return request, retrieval.search_similar_entities(request, Deadline())


async def test_the_shadow_is_compared(retrieval: Retrieval) -> None:
    shadow = Shadow(retrieval, 1.0, clock=calm)
    request, response = similar(retrieval, reasons=3)
    shadow.offer_similar(request, response)
    await shadow.idle()
    # One of the two results is another's.
    response.results[1].node.ref.id = "elsewhere"
    shadow.offer_similar(request, response)
    await shadow.idle()
    user = pb.RetrieveEntitiesForUserRequest(user=types_pb2.NodeRef(type="User", id="u1"), top_k=1)
    shadow.offer_for_user(user, retrieval.retrieve_entities_for_user(user, Deadline()))
    await shadow.idle()
    counters = shadow.counters
    assert (counters.sampled, counters.compared, counters.dropped, counters.failed) == (3, 3, 0, 0)
    assert counters.overlap == 1 + 0.5 + 1
    assert counters.seconds > 0
    assert counters.served_seconds > 0
    assert request.reasons == 3, "the request is not touched"


async def test_only_its_share_is_asked(retrieval: Retrieval) -> None:
    drawn = iter([0.29, 0.3, 0.9, 0.0])
    shadow = Shadow(retrieval, 0.3, draw=lambda: next(drawn), clock=calm)
    request, response = similar(retrieval)
    for _ in range(4):
        shadow.offer_similar(request, response)
        await shadow.idle()
    assert shadow.counters.sampled == 2
    request.bundle_version = shadow.version
    shadow.offer_similar(request, response)
    assert shadow.counters.sampled == 2, "who names a bundle is not asked of another"


async def test_while_one_is_asked_others_are_dropped(retrieval: Retrieval) -> None:
    shadow = Shadow(retrieval, 1.0, clock=calm)
    request, response = similar(retrieval)
    for _ in range(5):
        shadow.offer_similar(request, response)
    await shadow.idle()
    assert (shadow.counters.sampled, shadow.counters.dropped, shadow.counters.compared) == (5, 4, 1)


async def test_a_busy_event_loop_drops(retrieval: Retrieval) -> None:
    # Asked for at 1 s, back at 1.05 s.
    times = iter([1.0, 1.05])
    shadow = Shadow(retrieval, 1.0, clock=lambda: next(times))
    request, response = similar(retrieval)
    shadow.offer_similar(request, response)
    await shadow.idle()
    assert (shadow.counters.dropped, shadow.counters.compared) == (1, 0)


async def test_what_the_shadow_does_not_know_is_counted(retrieval: Retrieval) -> None:
    shadow = Shadow(retrieval, 1.0, clock=calm)
    _, response = similar(retrieval)
    unknown = pb.SearchSimilarEntitiesRequest(entity=types_pb2.NodeRef(type="Artist", id="99"), top_k=2)
    shadow.offer_similar(unknown, response)
    await shadow.idle()
    assert (shadow.counters.failed, shadow.counters.compared) == (1, 0)


def test_a_worker_takes_bundles_beside_as_the_settings_say(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    beside, shadow = (write_toy_bundle(store, encoders=False) for _ in range(2))
    state = State(settings=ServingSettings(beside=(beside,), shadow=ShadowSettings(version=shadow, share=0.5)))
    for version in (beside, shadow):
        state.take_beside(ServedModel.load(store.open(version)))
    assert set(state.beside) == {beside}
    assert state.shadow is not None
    assert state.shadow.version == shadow
    assert state.version is None
