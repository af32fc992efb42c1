"""What a request may ask for at once: more is refused with the field and the limit, before anything is computed."""

from __future__ import annotations

from pathlib import Path

import pytest

from graph_store.settings import ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1.types_pb2 import NodeRef
from model_store.bundle_store import BundleStore
from server.calls.queries import MOST_WITH_REASONS
from server.calls.retrieval import Retrieval
from server.deadline import Deadline
from server.errors import InvalidField
from server.model.served_model import ServedModel
from tests.bundles import write_toy_bundle

SIMILAR, FOR_USER = pb.SearchSimilarEntitiesRequest, pb.RetrieveEntitiesForUserRequest


@pytest.fixture(scope="module")
def retrieval(tmp_path_factory: pytest.TempPathFactory) -> Retrieval:
    folder: Path = tmp_path_factory.mktemp("models")
    store = BundleStore(folder)
    return Retrieval(ServedModel.load(store.open(write_toy_bundle(store, encoders=False))), ServingSettings())


def test_reasons_come_with_so_many_results_and_no_more(retrieval: Retrieval) -> None:
    similar = SIMILAR(entity=NodeRef(id="1"), top_k=MOST_WITH_REASONS + 1, reasons=1)
    for_user = FOR_USER(user=NodeRef(id="u1"), top_k=MOST_WITH_REASONS + 1, reasons=1)
    for ask, request in (
        (lambda: retrieval.prepare_similar(similar, Deadline()), similar),
        (lambda: retrieval.prepare_for_user(for_user, Deadline()), for_user),
    ):
        with pytest.raises(InvalidField) as raised:
            ask()  # type: ignore[no-untyped-call]
        assert raised.value.field == "reasons"
        assert "at most 100 results, top_k is 101" in raised.value.message
        request.top_k = MOST_WITH_REASONS
        ask()  # type: ignore[no-untyped-call]


def test_without_reasons_there_may_be_as_many_results_as_the_server_takes(retrieval: Retrieval) -> None:
    most = ServingSettings().max_top_k
    assert most > MOST_WITH_REASONS
    found = retrieval.search_similar_entities(SIMILAR(entity=NodeRef(id="1"), top_k=most), Deadline())
    assert found.info.shortfall_reason
