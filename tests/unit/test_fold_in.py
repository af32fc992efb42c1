"""Users told by events: the events of a user of the graph give the vector that training published for that user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from graph_store.schema import Triple
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from model_store.bundle import Bundle
from model_store.writer import BundleWriter
from server.calls.embeddings import embed_users
from server.deadline import Deadline
from server.index.publish import build_indexes
from server.model.served_model import ServedModel
from tests.memory_snapshot import MemorySnapshot, project_of, themes_document
from training.evaluate import evaluate
from training.publish import write_contents
from training.train import train

PEOPLE, FILMS, READ = 24, 30, 4
"""An encoder reads four events of each person, who have between one and twelve."""
WATCHED = Triple("Person", "WATCHED", "Film")
Watched = tuple[str, str, float, int]


def document(*, timed: bool) -> dict[str, Any]:
    """The declaration of ``themes_document``, with or without times."""
    found = themes_document()
    watched = next(each for each in found["relations"] if each["triple"][1] == "WATCHED")
    if not timed:
        del watched["time"], watched["properties"]["at"]
    return found


def engagements() -> list[Watched]:
    """With ties of time and of weight, and more than are read."""
    random = np.random.default_rng(4)
    found: list[Watched] = []
    for person in range(PEOPLE):
        for film in random.choice(FILMS, 1 + person % 12, replace=False):
            weight, time = float(random.integers(1, 6)), 10**6 * int(random.integers(1, 5))
            found.append((f"p{person:02}", f"f{int(film):02}", weight, time))
    return found


@pytest.fixture(scope="module", params=["timed", "weighed", "timed, two layers"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, ServedModel]:
    """Whether the relation has time, and a bundle trained for a few steps."""
    timed = request.param != "weighed"
    folder: Path = tmp_path_factory.mktemp("trained")
    settings = {
        "training.threads": 1,
        "training.input_dimension": 8,
        "training.similar.dimension": 8,
        "training.similar.hidden": 8,
        "training.similar.steps": 3,
        "training.user.dimension": 16,
        "training.user.hidden": 16,
        "training.user.steps": 12,
        "training.user.layers": 2 if "two layers" in request.param else 1,
        "training.user.fan_out": READ,
    }
    declared = project_of(document(timed=timed), folder, settings)
    nodes = {
        "Film": [{"id": f"f{number:02}", "title": f"film {number % 7}"} for number in range(FILMS)],
        "Genre": [{"id": f"g{number}"} for number in range(3)],
        "Person": [{"id": f"p{number:02}"} for number in range(PEOPLE)],
    }
    watched = [each if timed else each[:3] for each in engagements()]
    genres = [(f"f{number:02}", f"g{number % 3}") for number in range(FILMS)]
    snapshot = MemorySnapshot(declared.schema, nodes, {WATCHED: watched, Triple("Film", "HAS_GENRE", "Genre"): genres})
    model = train(declared, snapshot, folder=folder / "checkpoints")
    with BundleWriter(folder, "fold") as writer:
        write_contents(writer, declared, snapshot, model, evaluate(declared, snapshot, model))
        build_indexes(writer, declared.settings.publish)
        version = writer.commit()
    return timed, ServedModel.load(Bundle.load(folder / version))


def event(watched: Watched, *, timed: bool) -> types_pb2.Event:
    _, film, weight, time = watched
    stamp = Timestamp(seconds=time // 10**6) if timed else None
    return types_pb2.Event(entity=types_pb2.NodeRef(type="Film", id=film), weight=weight, time=stamp)


def vectors(model: ServedModel, histories: list[list[types_pb2.Event]]) -> np.ndarray:
    items = [pb.EmbedUserItem(events=types_pb2.EventList(events=each)) for each in histories]
    found = embed_users(model, pb.EmbedUsersRequest(items=items), Deadline())
    return np.array([each.values for each in found.vectors], np.float32)


def test_the_events_of_a_known_user_give_that_users_vector(served: tuple[bool, ServedModel]) -> None:
    timed, model = served
    published = np.asarray(model.bundle.vectors("user", "Person"))
    random = np.random.default_rng(6)
    histories = []
    for person in range(PEOPLE):
        own = [each for each in engagements() if each[0] == f"p{person:02}"]
        # By their times, however they are listed; without times oldest first, of one weight the first id last.
        ordered = random.permutation(len(own)) if timed else np.argsort([each[1] for each in own])[::-1]
        histories.append([event(own[place], timed=timed) for place in ordered])
    assert max(map(len, histories)) > READ
    assert np.abs(vectors(model, histories) - published).max() < 1e-5
    assert published.std(axis=0).max() > 1e-2, "the users do differ"


def test_times_and_weights_tell(served: tuple[bool, ServedModel]) -> None:
    """What decides is read: another weight, or another order of times, is another user."""
    timed, model = served
    own = [each for each in engagements() if each[0] == "p23"]
    assert len(own) > READ + 2
    heavier = [(*each[:2], 5.5 if place == 0 else each[2], each[3]) for place, each in enumerate(own)]
    told, changed = vectors(model, [[event(each, timed=timed) for each in history] for history in (own, heavier)])
    assert np.abs(told - changed).max() > 1e-5
    if timed:
        reordered = [(*each[:3], 10**7 - each[3]) for each in own]
        backwards = vectors(model, [[event(each, timed=True) for each in reordered]])[0]
        assert np.abs(told - backwards).max() > 1e-4
