"""What one caller sends does not hold up the others, fill the memory, or change what somebody else is answered."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import generate_latest

from graph_store.settings import ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1.types_pb2 import Filter, FilterList, NodeRef, PropertyOneOf, PropertyRange, PropertyValue
from model_store.bundle import Bundle
from model_store.bundle_store import BundleStore
from server.calls import batches, listing
from server.calls.retrieval import Retrieval
from server.deadline import Deadline
from server.errors import BadPageToken, InvalidField, NodeNotFound
from server.filters import filters as filters_module
from server.index.exact_index import ExactIndex
from server.index.scann_index import ScannIndex, ScannParameters, scann_version
from server.index.selection import Selection
from server.index.vector_index import Found, Rows, Vectors, unit_row, unit_rows
from server.model.catalogue import Catalogue
from server.model.served_model import ServedModel
from server.observe.audit import RecallAudit
from server.observe.metrics import Metrics
from tests.films import FILMS, filters_of, write_films


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    store = BundleStore(tmp_path_factory.mktemp("models"))
    return store.open(write_films(store).version)


@pytest.fixture
def model(bundle: Bundle) -> ServedModel:
    return ServedModel.load(bundle)


# ------------------------------------------------------------------- vectors


@pytest.mark.parametrize("dimension", [1, 8, 31, 64, 130])
def test_a_row_is_scaled_to_the_same_bits_whichever_rows_are_beside_it(dimension: int) -> None:
    random = np.random.default_rng(5)
    rows = random.normal(size=(200, dimension)).astype(np.float32)
    # Some are as good as of length 1: nobody scales those, also where rows beside them are off.
    rows[::3] = unit_rows(rows)[::3] * np.float32(1 + 4e-6)
    rows[7] = 0
    together = unit_rows(rows)
    assert np.linalg.norm(np.delete(together, 7, axis=0).astype(np.float64), axis=1) == pytest.approx(1, abs=1e-5)
    for row, vector in enumerate(rows):
        assert unit_rows(vector[None])[0].tolist() == together[row].tolist(), row
        assert unit_row(vector).tolist() == together[row].tolist(), row
    some = random.permutation(200)[:50]
    assert unit_rows(rows[some]).tolist() == together[some].tolist()
    units = rows[::3].copy()
    assert unit_rows(units) is units


@pytest.mark.parametrize(("space", "node_type"), [("similar", "Film"), ("user", "User"), ("user", "Film")])
def test_a_node_s_vector_is_that_of_many_to_the_last_bit(model: ServedModel, space: str, node_type: str) -> None:
    rows = range(model.bundle.node_types[node_type].count)
    together = model.vectors(space, node_type, rows, "")
    for row in rows:
        alone = model.vector(space, node_type, row, "")
        assert (np.zeros(together.shape[1]) if alone is None else alone).tolist() == together[row].tolist(), row


@pytest.mark.skipif(scann_version() is None, reason="ScaNN has no wheel for this machine")
def test_a_filter_that_lets_nothing_pass_lets_nothing_pass_in_a_batch() -> None:
    vectors = unit_rows(np.random.default_rng(6).normal(size=(5000, 16)).astype(np.float32))
    index = ScannIndex.build(vectors, ScannParameters(leaves=50, leaves_to_search=10, reorder=50), spherical=True)
    nothing = Selection.of(np.empty(0, np.int64), 5000)
    for found in index.search(vectors[:3], 10, None, [nothing, nothing, nothing]):
        assert found.rows.tolist() == []
    both = index.search(vectors[:2], 10, None, [nothing, None])
    assert [len(found.rows) for found in both] == [0, 10]


class Blurred(ExactIndex):
    """Finds what exact search finds, and does not say so."""

    kind = "scann"

    def search(
        self,
        queries: Vectors,
        k: int,
        exclude: Sequence[Rows] | None = None,
        allowed: Sequence[Selection | None] | None = None,
    ) -> list[Found]:
        return [replace(found, exact=False) for found in super().search(queries, k, exclude, allowed)]


def test_the_audit_compares_by_the_metric_of_the_space(model: ServedModel) -> None:
    vectors = np.asarray(model.bundle.vectors("similar", "Film"))
    assert np.ptp(np.linalg.norm(vectors[vectors.any(axis=1)], axis=1)) > 0.5, "lengths tell them apart"
    model.indexes["similar", "Film"] = Blurred(unit_rows(vectors))
    audit = RecallAudit(1.0, Metrics(), seed=1)
    audit.watch(model)
    for row in (1, 2, 3, 5, 8):
        model.indexes["similar", "Film"].search(unit_rows(vectors[row][None]), 10)
    audit.close()
    page = generate_latest(audit.metrics.registry).decode()
    assert 'kithkin_audits_total{node_type="Film",space="similar"} 5.0' in page
    assert 'kithkin_online_recall{node_type="Film",space="similar"} 1.0' in page


# --------------------------------------------------------------------- names


def test_rows_are_remembered_of_what_there_is_alone(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    # An id of 256 bytes is short enough, one of 257 is not, and letters may take two.
    ids = {"f01": 1, "x" * 256: 2, "x" * 257: 3, "é" * 129: 4}

    def row(_: str, node_id: str) -> int | None:
        asked.append(node_id)
        return ids.get(node_id)

    monkeypatch.setattr(bundle, "row", row)
    catalogue = Catalogue(bundle)
    for _ in range(2):
        for node_id, number in ids.items():
            assert catalogue.resolve(NodeRef(type="Film", id=node_id), "entity").row == number
        with pytest.raises(NodeNotFound):
            catalogue.resolve(NodeRef(type="Film", id="none"), "entity")
    assert {node_id: asked.count(node_id) for node_id in (*ids, "none")} == {
        "f01": 1, "x" * 256: 1, "x" * 257: 2, "é" * 129: 2, "none": 2,
    }  # fmt: skip


# ------------------------------------------------------------------- filters


def wide(number: int) -> Filter:
    return Filter(range=PropertyRange(property="year", min=PropertyValue(int_value=-number)))


def ticking(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A clock that goes on by so much whenever it is looked at."""
    now = iter(range(10**9))
    monkeypatch.setattr(filters_module, "thread_time", lambda: seconds * next(now))


@pytest.mark.parametrize("kind", ["any_of", "all_of"])
def test_a_filter_that_computes_for_too_long_is_refused(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    ticking(monkeypatch, filters_module.BUDGET_S / 10)
    select = filters_of(bundle).select
    few, many = (Filter(**{kind: FilterList(filters=map(wide, range(count)))}) for count in (5, 999))
    select(few, "Film", Deadline())
    with pytest.raises(InvalidField, match=r"^filter: is too costly: it takes more than 0\.5 s"):
        select(many, "Film", Deadline())
    values = PropertyOneOf(property="year", values=[PropertyValue(int_value=1990)] * 1000)
    with pytest.raises(InvalidField, match=r"^filter: is too costly"):
        select(Filter(one_of=values), "Film", Deadline())


def test_what_a_filter_makes_for_all_later_ones_is_not_its_cost(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(filters_module, "thread_time", lambda: now)
    filters = filters_of(bundle)
    turned = filters._links._turn

    def slowly(edge_type: object) -> object:
        nonlocal now
        if edge_type not in filters._links._turned:
            now += 10
        return turned(edge_type)  # type: ignore[arg-type]

    monkeypatch.setattr(filters._links, "_turn", slowly)
    linked = Filter()
    linked.linked.relation = "HAS_GENRE"
    linked.linked.nodes.add(type="Genre", id="g1")
    filters.select(Filter(all_of=FilterList(filters=[linked, wide(1), wide(2)])), "Film", Deadline())
    assert now == 10


# ----------------------------------------------------------------- diversity


@pytest.mark.parametrize("call", ["similar", "user"])
def test_diversity_is_for_two_hundred_results(model: ServedModel, call: str) -> None:
    retrieval = Retrieval(model, ServingSettings())

    def ask(k: int, diversity: float) -> None:
        if call == "similar":
            retrieval.prepare_similar(
                pb.SearchSimilarEntitiesRequest(entity=NodeRef(id="f01"), top_k=k, diversity=diversity), Deadline()
            )
        else:
            retrieval.prepare_for_user(
                pb.RetrieveEntitiesForUserRequest(user=NodeRef(id="u01"), top_k=k, diversity=diversity), Deadline()
            )

    ask(200, 0.5)
    ask(1000, 0.0)
    with pytest.raises(InvalidField, match="diversity: is for at most 200 results, top_k is 201"):
        ask(201, 0.5)


async def test_others_have_their_turn_while_a_batch_is_made_diverse(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_TURN_S", -1.0)
    retrieval, deadline = Retrieval(model, ServingSettings()), Deadline()
    requests = [
        pb.SearchSimilarEntitiesRequest(entity=NodeRef(id=f"f{row:02}"), top_k=5, diversity=0.5) for row in range(5, 15)
    ]
    prepared = [retrieval.prepare_similar(request, deadline) for request in requests]
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    found = await batches.find(retrieval, prepared, deadline)
    task.cancel()
    assert turns >= len(requests)
    for each, one in zip(prepared, found, strict=True):
        (alone,) = retrieval.find([each], deadline)
        assert one.rows.tolist() == alone.rows.tolist()


# --------------------------------------------------------------------- pages


@pytest.mark.parametrize(
    "content",
    [b"\x00", b"\x00\x00\x00", b"\x00\x00\x00\x02\xff\xfe", b"\xff\xff\xff\xffb1", b"\x00\x00\x00\x03b1"],
    ids=["one byte", "a cut length", "no text", "a length beyond all", "a length beyond the end"],
)
def test_a_token_that_somebody_made_up_is_refused(content: bytes) -> None:
    request = pb.ListEntitiesRequest(type="Film")
    request.page_token = base64.urlsafe_b64encode(listing._seal(request, content) + content).decode()

    def serving(_: str) -> Retrieval:
        raise AssertionError("no bundle is asked for")

    with pytest.raises(BadPageToken, match="page_token: is not one of this listing"):
        listing.list_entities(serving, request, Deadline())


def test_a_made_up_id_in_a_token_is_a_place_in_the_list(model: ServedModel) -> None:
    request = pb.ListEntitiesRequest(type="Film", page_size=1000)
    content = b"\x00\x00\x00\x00f2\xff"
    request.page_token = base64.urlsafe_b64encode(listing._seal(request, content) + content).decode()
    answer = listing.list_entities(lambda _: Retrieval(model, ServingSettings()), request, Deadline())
    assert [node.ref.id for node in answer.nodes] == [f"f{row:02}" for row in range(30, FILMS)]
