"""The service over a real socket, in this process: answers of the toy bundle, and every error there is."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from graph_store.settings import ServingSettings
from kithkin.v1 import model_service_pb2, model_service_pb2_grpc, retrieval_service_pb2_grpc, types_pb2
from kithkin.v1 import retrieval_service_pb2 as pb
from model_store.bundle_store import BundleStore
from server.calls.retrieval import Retrieval
from server.wire.local import serve_in_thread
from tests.bundles import YEARS, write_toy_bundle

ROOT = "/kithkin.v1.RetrievalService/"
SETTINGS = ServingSettings(max_top_k=50, max_message_bytes=20_000)


class Asker:
    """Stubs of one channel, and the details of the error of a call."""

    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.retrieval = retrieval_service_pb2_grpc.RetrievalServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        self.port = port

    def raw(self, method: str, data: bytes, **options: Any) -> bytes:
        answer: bytes = self.channel.unary_unary(method)(data, timeout=10, **options)
        return answer

    def similar(self, **fields: Any) -> pb.SearchSimilarEntitiesResponse:
        return self.retrieval.SearchSimilarEntities(pb.SearchSimilarEntitiesRequest(**fields), timeout=10)

    def user(self, **fields: Any) -> pb.RetrieveEntitiesForUserResponse:
        return self.retrieval.RetrieveEntitiesForUser(pb.RetrieveEntitiesForUserRequest(**fields), timeout=10)

    def embed(self, **fields: Any) -> pb.EmbedEntitiesResponse:
        return self.retrieval.EmbedEntities(pb.EmbedEntitiesRequest(**fields), timeout=10)

    def explain(self, source: str, target: str, **fields: Any) -> pb.ExplainSimilarityResponse:
        request = pb.ExplainSimilarityRequest(source=ref(source), target=ref(target), **fields)
        return self.retrieval.ExplainSimilarity(request, timeout=10)

    def get(self, **fields: Any) -> pb.GetEntityResponse:
        return self.retrieval.GetEntity(pb.GetEntityRequest(**fields), timeout=10)


class Refusal:
    """What a refused call was told."""

    def __init__(self, error: Any) -> None:
        self.code: grpc.StatusCode = error.code()
        self.trailers = dict(error.trailing_metadata())
        self.status = status_pb2.Status.FromString(self.trailers["grpc-status-details-bin"])
        assert self.status.code == self.code.value[0]
        assert self.status.message == error.details()
        self.info = self._detail(error_details_pb2.ErrorInfo)
        assert self.info.domain == "kithkin"
        self.reason = self.info.reason

    def _detail(self, kind: Any) -> Any:
        for packed in self.status.details:
            if packed.Is(kind.DESCRIPTOR):
                detail = kind()
                packed.Unpack(detail)
                return detail
        return None

    @property
    def field(self) -> str:
        bad = self._detail(error_details_pb2.BadRequest)
        return bad.field_violations[0].field if bad else ""

    @property
    def resource(self) -> tuple[str, str]:
        info = self._detail(error_details_pb2.ResourceInfo)
        return (info.resource_type, info.resource_name) if info else ("", "")

    @property
    def retry_after_s(self) -> float:
        info = self._detail(error_details_pb2.RetryInfo)
        return info.retry_delay.ToTimedelta().total_seconds() if info else 0.0


def refused(call: Any, *args: Any, **fields: Any) -> Refusal:
    with pytest.raises(grpc.RpcError) as raised:
        call(*args, **fields)
    return Refusal(raised.value)


def ref(node_id: str, node_type: str = "") -> types_pb2.NodeRef:
    return types_pb2.NodeRef(type=node_type, id=node_id)


def events(*ids: str) -> types_pb2.EventList:
    return types_pb2.EventList(events=[types_pb2.Event(entity=ref(each)) for each in ids])


def described(**fields: Any) -> types_pb2.DescribedEntity:
    return types_pb2.DescribedEntity(**fields)


def link(relation: str, node_id: str, node_type: str = "", weight: float = 0.0) -> types_pb2.DescribedLink:
    return types_pb2.DescribedLink(relation=relation, node=ref(node_id, node_type), weight=weight)


def vector(*values: float, **fields: Any) -> types_pb2.Vector:
    return types_pb2.Vector(values=values, **fields)


def found(response: Any) -> list[str]:
    return [result.node.ref.id for result in response.results]


@pytest.fixture(scope="module")
def version_and_asker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Asker]]:
    store = BundleStore(tmp_path_factory.mktemp("models"))
    version = write_toy_bundle(store)
    with serve_in_thread(store.open(version), SETTINGS) as port:
        asker = Asker(port)
        with asker.channel:
            yield version, asker


@pytest.fixture(scope="module")
def asker(version_and_asker: tuple[str, Asker]) -> Asker:
    return version_and_asker[1]


@pytest.fixture(scope="module")
def version(version_and_asker: tuple[str, Asker]) -> str:
    return version_and_asker[0]


# ------------------------------------------------------------------- similar


def test_similar_by_entity_leaves_it_out_and_orders_by_cosine(asker: Asker, version: str) -> None:
    response = asker.similar(entity=ref("1"), top_k=3)
    assert found(response) == ["10", "5", "2"]
    expected = [math.cos(math.radians(angle)) for angle in (10, 12, 15)]
    assert [result.score for result in response.results] == pytest.approx(expected, abs=1e-6)
    info = response.info
    assert (info.bundle_version, info.exact, info.candidates_scored, info.truncated) == (version, True, 6, False)
    assert (info.fallback, info.shortfall_reason) == (types_pb2.FALLBACK_UNSPECIFIED, "")
    assert info.server_time.ToNanoseconds() > 0


def test_answers_carry_the_shown_properties(asker: Asker) -> None:
    node = asker.similar(entity=ref("1"), top_k=1).results[0].node
    assert (node.ref.type, node.ref.id, node.name) == ("Artist", "10", "Ride")
    assert set(node.properties) == {"name", "year", "born"}, "styles has no value, secret is not shown"
    assert node.properties["year"].int_value == 1990
    assert node.properties["born"].time_value.ToJsonString() == "1990-01-01T00:00:00Z"
    slayer = asker.get(ref=ref("3")).nodes[0]
    assert list(slayer.properties["styles"].strings_value.values) == ["loud"]


def test_fewer_than_asked_comes_with_the_reason(asker: Asker) -> None:
    response = asker.similar(entity=ref("1"), top_k=50)
    assert found(response) == ["10", "5", "2", "4", "3"], "Blank has no vector"
    assert "only 5" in response.info.shortfall_reason


def test_similar_leaves_out_what_it_is_told_to(asker: Asker) -> None:
    left_out = [ref("10"), ref("2", "Artist"), ref("not there")]
    assert found(asker.similar(entity=ref("1"), top_k=2, exclude=left_out)) == ["5", "4"]


def test_similar_by_vector_finds_the_entity_of_that_vector(asker: Asker, version: str) -> None:
    given = asker.embed(items=[pb.EmbedEntityItem(entity=ref("3"))]).vectors[0]
    assert (given.space, given.bundle_version) == ("similar", version)
    response = asker.similar(vector=given, top_k=2)
    assert found(response) == ["3", "4"]
    assert response.results[0].score == pytest.approx(1)
    # Any length will do under cosine, also one whose square overflows.
    assert found(asker.similar(vector=vector(0, 3e38, 0, 0), top_k=1)) == ["3"]


def test_a_concept_leads_to_entities(asker: Asker) -> None:
    assert found(asker.similar(entity=ref("t3", "Tag"), target_type="Artist", top_k=2)) == ["3", "4"]
    refusal = refused(asker.similar, entity=ref("t3", "Tag"), top_k=2)
    assert (refusal.reason, refusal.field) == ("NO_SUCH_SPACE", "target_type")


def test_a_described_entity_gets_the_neighbours_of_its_links(asker: Asker) -> None:
    response = asker.similar(described=described(links=[link("HAS_TAG", "t3")]), top_k=2, reasons=2)
    assert found(response) == ["3", "4"]
    reason = response.results[0].reasons[0]
    assert reason.text == "Both have the tag metal"
    assert [(node.ref.type, node.ref.id) for node in reason.path] == [("Artist", ""), ("Tag", "t3"), ("Artist", "3")]
    assert reason.path[0].name == "the described artist"
    both = described(
        type="Artist",
        links=[link("HAS_TAG", "t1", "Tag", 3), link("HAS_TAG", "t3", weight=1)],
        properties={"year": types_pb2.PropertyValue(int_value=1995)},
    )
    given = asker.embed(items=[pb.EmbedEntityItem(described=both)]).vectors[0].values
    # (3 shoegaze + 1 metal) / 4, and a hundredth of the year's standardised quarter.
    raw = [0.75, 0.25, 0, 0.01 * ((1995 - 1990) / 5 / 4)]
    assert list(given) == pytest.approx([each / math.hypot(*raw) for each in raw], abs=1e-5)


def test_an_entity_that_links_forward_wins_over_backward(asker: Asker) -> None:
    # INFLUENCED_BY joins artists with artists: the described one is the source.
    response = asker.similar(described=described(links=[link("INFLUENCED_BY", "4")]), top_k=1)
    assert found(response) == ["4"]


# ---------------------------------------------------------------------- user


def test_a_user_gets_what_they_have_not_touched(asker: Asker) -> None:
    response = asker.user(user=ref("u1"), top_k=3)
    assert found(response) == ["2", "5", "4"]
    assert [result.score for result in response.results] == pytest.approx([0.8, 0.7, 0.1])
    assert not response.info.fallback


def test_a_user_gets_everything_where_asked(asker: Asker) -> None:
    assert found(asker.user(user=ref("u1", "User"), top_k=3, include_engaged=True)) == ["1", "10", "2"]


def test_events_stand_for_a_user(asker: Asker) -> None:
    response = asker.user(events=events("3", "4"), top_k=2)
    # The mean of (0, 1) and (0.1, 0.9): shoegaze by its trace of metal.
    assert found(response) == ["10", "1"]
    assert [result.score for result in response.results] == pytest.approx([0.9 * 0.05 + 0.1 * 0.95, 0.05], abs=1e-5)
    weighed = types_pb2.EventList(
        events=[types_pb2.Event(entity=ref("3"), weight=1), types_pb2.Event(entity=ref("1"), weight=9)]
    )
    response = asker.user(events=weighed, top_k=1, include_engaged=True)
    assert found(response) == ["1"]
    assert response.results[0].score == pytest.approx(0.9)


def test_a_vector_stands_for_a_user(asker: Asker) -> None:
    given = asker.embed(items=[pb.EmbedEntityItem(entity=ref("u3", "User"))], space="user").vectors[0]
    assert list(given.values) == [0, 1, 0, 0]
    assert found(asker.user(vector=given, top_k=2)) == ["3", "4"], "a vector has touched nothing"
    # Under inner product zeros are a vector like any other; ties go by id.
    assert found(asker.user(vector=vector(0, 0, 0, 0), top_k=3)) == ["1", "10", "2"]


@pytest.mark.parametrize("user", ["nobody", "u4"])
def test_the_most_engaged_where_the_request_allows_it(asker: Asker, user: str) -> None:
    response = asker.user(user=ref(user), top_k=4, fallback=types_pb2.FALLBACK_POPULAR, exclude=[ref("2")])
    assert found(response) == ["1", "10", "3", "4"], "by plays, ties by id"
    assert [result.score for result in response.results] == [2, 2, 1, 1]
    assert response.info.fallback == types_pb2.FALLBACK_POPULAR
    assert response.info.exact
    everything = asker.user(user=ref(user), top_k=9, fallback=types_pb2.FALLBACK_POPULAR, exclude=[ref("1"), ref("6")])
    assert found(everything) == ["10", "2", "3", "4", "5"]
    assert everything.info.shortfall_reason == "only 5 of this type are not left out (asked for 9)"


def test_a_known_user_needs_no_fallback(asker: Asker) -> None:
    response = asker.user(user=ref("u3"), top_k=1, fallback=types_pb2.FALLBACK_POPULAR)
    assert found(response) == ["10"]
    assert response.info.fallback == types_pb2.FALLBACK_UNSPECIFIED


def test_reasons_lead_from_what_the_user_touched(asker: Asker) -> None:
    result = asker.user(user=ref("u1"), top_k=1, reasons=5).results[0]
    assert result.node.name == "Lush"
    assert [reason.text for reason in result.reasons] == [
        "Played Slowdive, and both have the tag shoegaze",
        "Played Slowdive, and both have the tag dream pop",
    ]
    path = [node.ref.id for node in result.reasons[0].path]
    assert path == ["1", "t1", "2"]
    assert sum(reason.contribution for reason in result.reasons) == pytest.approx(1)
    told = asker.user(events=events("1"), top_k=1, reasons=1).results[0]
    assert (told.node.name, told.reasons[0].contribution) == ("Ride", 1)
    assert told.reasons[0].text == "Played Slowdive, and 2 users played both"


# -------------------------------------------------------------- explain, get


def test_reasons_of_results_weigh_their_evidence(asker: Asker) -> None:
    result = asker.similar(entity=ref("1"), top_k=3, reasons=10).results[2]
    assert result.node.ref.id == "2"
    # Of 7 artists 3 have shoegaze and 2 dream pop; weights relative to each one's heaviest; no co-played edge is kept,
    # so the two sets of users count by their cosine.
    users = math.log(1 + 7) * 1 / math.sqrt(2 * 1)
    shoegaze = math.log(1 + 7 / 3) * math.sqrt(1 * 1)
    dream_pop = math.log(1 + 7 / 2) * math.sqrt(0.5 * 1)
    total = users + shoegaze + dream_pop
    assert [reason.text for reason in result.reasons] == [
        "1 user played both",
        "Both have the tag shoegaze",
        "Both have the tag dream pop",
    ]
    shares = [reason.contribution for reason in result.reasons]
    assert shares == pytest.approx([users / total, shoegaze / total, dream_pop / total], abs=1e-6)
    assert list(result.reasons[1].relations) == ["HAS_TAG", "HAS_TAG"]
    assert not any(reason.HasField("score_part") for reason in result.reasons)


def test_an_explanation_tells_what_the_score_loses_without_its_evidence(asker: Asker) -> None:
    response = asker.explain("3", "4")
    assert (response.source.name, response.target.name) == ("Slayer", "Opeth")
    assert response.score == pytest.approx(math.cos(math.radians(10)))
    # The toy's encoder reads tags and influences: a vector is the weighted mean of theirs.
    described = [("HAS_TAG", "t3", "Tag", 9.0), ("INFLUENCED_BY", "4", "Artist", 1.0)]
    target = np.array(asker.embed(items=[pb.EmbedEntityItem(entity=ref("4"))]).vectors[0].values)

    def score(links: list[tuple[str, str, str, float]]) -> float:
        item = pb.EmbedEntityItem(described=types_pb2.DescribedEntity(type="Artist"))
        item.described.properties["year"].int_value = YEARS["3"] or 0
        for relation, node, node_type, weight in links:
            item.described.links.add(relation=relation, node=ref(node, node_type), weight=weight)
        return float(np.array(asker.embed(items=[item]).vectors[0].values) @ target)

    whole, nothing = score(described), score([])
    losses = {link[0]: max(whole - score([each for each in described if each != link]), 0.0) for link in described}
    assert response.explained_score == pytest.approx(whole - nothing, abs=1e-5)
    parts = {reason.relations[0]: reason.score_part for reason in response.reasons}
    for relation, loss in losses.items():
        part = (whole - nothing) * loss / sum(losses.values())
        assert parts[relation] == pytest.approx(part, abs=1e-5), relation
    assert parts["PLAYED"] == 0, "this encoder does not read who played"
    assert sum(reason.score_part for reason in response.reasons) == pytest.approx(response.explained_score, abs=1e-5)
    assert sum(reason.contribution for reason in response.reasons) == pytest.approx(1)
    assert [reason.score_part for reason in response.reasons] == sorted(parts.values(), reverse=True)
    assert response.rest


def test_an_explanation_tells_direct_edges_whichever_way_they_point(asker: Asker) -> None:
    for source, target in (("3", "4"), ("4", "3")):
        response = asker.explain(source, target)
        texts = [reason.text for reason in response.reasons]
        assert "Slayer is influenced by Opeth" in texts
        assert "1 user played both" in texts
        direct = response.reasons[texts.index("Slayer is influenced by Opeth")]
        assert [node.ref.id for node in direct.path] == [source, target]


def test_an_explanation_gives_as_many_reasons_as_asked(asker: Asker) -> None:
    response = asker.explain("1", "2", max_reasons=1)
    assert [reason.contribution for reason in response.reasons] == [1]


def test_a_user_and_an_entity_can_be_explained(asker: Asker) -> None:
    request = pb.ExplainSimilarityRequest(source=ref("u1", "User"), target=ref("2"))
    explained = asker.retrieval.ExplainSimilarity(request)
    result = asker.user(user=ref("u1"), top_k=1, reasons=5).results[0]
    assert {reason.text for reason in explained.reasons} == {reason.text for reason in result.reasons}
    assert explained.reasons
    assert explained.score == pytest.approx(result.score), "of the space `user`"
    assert sum(reason.contribution for reason in explained.reasons) == pytest.approx(1)


def test_reasons_for_what_was_touched_lead_from_something_else(asker: Asker) -> None:
    results = asker.user(user=ref("u1"), top_k=2, include_engaged=True, reasons=5).results
    assert [result.node.name for result in results] == ["Slowdive", "Ride"]
    assert [[node.name for node in reason.path] for reason in results[0].reasons] == [
        ["Ride", "Slowdive"],
        ["Ride", "shoegaze", "Slowdive"],
    ]


def test_no_connection_is_no_reason_and_no_vector_no_score(asker: Asker) -> None:
    response = asker.explain("1", "6")
    assert not response.reasons
    assert not response.HasField("score")
    assert asker.explain("1", "3").HasField("score")


def test_the_same_evidence_comes_with_search_results(asker: Asker) -> None:
    result = asker.similar(entity=ref("1"), top_k=3, reasons=10).results[2]
    assert result.node.ref.id == "2"
    explained = asker.explain("1", "2", max_reasons=10)
    assert {reason.text for reason in result.reasons} == {reason.text for reason in explained.reasons}


def test_get_by_reference(asker: Asker) -> None:
    assert asker.get(ref=ref("t2", "Tag")).nodes[0].name == "dream pop"
    assert asker.get(ref=ref("u1", "User")).nodes[0].name == "u1"


@pytest.mark.parametrize(
    ("name", "node_type", "ids"),
    [
        ("Ride", "", ["10"]),
        ("ride", "", ["5"]),
        ("RIDE", "", ["10", "5"]),
        ("  slow  ", "", None),
        (" SLOWDIVE ", "Artist", ["1"]),
        ("Dream  Pop", "Tag", ["t2"]),
    ],
)
def test_get_by_name_is_exact_first_then_without_regard_to_case(
    asker: Asker, name: str, node_type: str, ids: list[str] | None
) -> None:
    query = pb.GetEntityRequest(name=pb.NameQuery(name=name, type=node_type))
    if ids is None:
        refusal = refused(asker.retrieval.GetEntity, query)
        assert (refusal.reason, refusal.resource) == ("NODE_NOT_FOUND", ("Artist", name))
    else:
        assert [node.ref.id for node in asker.retrieval.GetEntity(query).nodes] == ids


def test_embed_answers_in_order(asker: Asker) -> None:
    items = [
        pb.EmbedEntityItem(entity=ref("3")),
        pb.EmbedEntityItem(described=described(links=[link("HAS_TAG", "t1")])),
        pb.EmbedEntityItem(entity=ref("t3", "Tag")),
    ]
    response = asker.embed(items=items)
    assert [list(each.values) for each in response.vectors] == [
        pytest.approx([0, 1, 0, 0], abs=1e-6),
        pytest.approx([1, 0, 0, 0], abs=1e-6),
        pytest.approx([0, 1, 0, 0], abs=1e-6),
    ]


def test_status_tells_what_is_loaded(asker: Asker, version: str) -> None:
    status = asker.model.GetStatus(model_service_pb2.GetStatusRequest())
    assert status.bundle.version == version
    assert status.bundle.snapshot_hash == "toy"
    assert dict(status.bundle.nodes) == {"Artist": 7, "Tag": 4, "User": 4}
    similar, user = status.bundle.spaces
    assert (similar.name, similar.metric, similar.dimension) == ("similar", model_service_pb2.COSINE, 4)
    assert (user.indexes[0].kind, user.indexes[0].vectors, user.indexes[0].recall_at_10) == ("exact", 6, 1)
    assert "fewer than 10000" in user.indexes[0].exact_reason
    assert status.server_version
    assert status.worker_pid
    assert status.uptime.ToNanoseconds() > 0
    assert status.refused_bundle == ""


# -------------------------------------------------------------------- errors

NAN = float("nan")
FAR_AWAY = {"born": types_pb2.PropertyValue(time_value=Timestamp(seconds=10**15))}
YEAR_TEXT = {"year": types_pb2.PropertyValue(string_value="1990")}
WRONG: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "no query": ("similar", {"top_k": 1}, "INVALID_FIELD", "query"),
    "no id": ("similar", {"entity": ref(""), "top_k": 1}, "INVALID_FIELD", "entity.id"),
    "no events": ("user", {"events": events(), "top_k": 1}, "INVALID_FIELD", "events.events"),
    "no items": ("embed", {}, "INVALID_FIELD", "items"),
    "an empty item": ("embed", {"items": [pb.EmbedEntityItem()]}, "INVALID_FIELD", "items[0]"),
    "too many items": ("embed", {"items": [pb.EmbedEntityItem()] * 101}, "INVALID_FIELD", "items"),
    "too many reasons": ("similar", {"entity": ref("1"), "top_k": 1, "reasons": 11}, "INVALID_FIELD", "reasons"),
    "negative reasons": ("user", {"user": ref("u1"), "top_k": 1, "reasons": -1}, "INVALID_FIELD", "reasons"),
    "an unknown fallback": ("user", {"user": ref("u1"), "top_k": 1, "fallback": 9}, "INVALID_FIELD", "fallback"),
    "exclude without id": (
        "similar",
        {"entity": ref("1"), "top_k": 1, "exclude": [ref("")]},
        "INVALID_FIELD",
        "exclude[0].id",
    ),
    "a user as target": (
        "user",
        {"user": ref("u1"), "top_k": 1, "target_type": "User"},
        "INVALID_FIELD",
        "target_type",
    ),
    "a tag as user": ("user", {"user": ref("t1", "Tag"), "top_k": 1}, "INVALID_FIELD", "user.type"),
    "nothing described": ("similar", {"described": described(), "top_k": 1}, "INVALID_FIELD", "described"),
    "a text for a number": (
        "similar",
        {"described": described(properties=YEAR_TEXT), "top_k": 1},
        "INVALID_FIELD",
        "described.properties['year']",
    ),
    "a negative weight": (
        "similar",
        {"described": described(links=[link("HAS_TAG", "t1", weight=-1)]), "top_k": 1},
        "INVALID_FIELD",
        "described.links[0].weight",
    ),
    "an immense weight": (
        "similar",
        {"described": described(links=[link("HAS_TAG", "t1", weight=1e300)]), "top_k": 1},
        "INVALID_FIELD",
        "described.links[0].weight",
    ),
    "too large a number": (
        "similar",
        {"described": described(properties={"year": types_pb2.PropertyValue(int_value=2**63 - 1)}), "top_k": 1},
        "INVALID_FIELD",
        "described.properties['year']",
    ),
    "a date past the last year": (
        "similar",
        {"described": described(properties=FAR_AWAY), "top_k": 1},
        "INVALID_FIELD",
        "described.properties['born']",
    ),
    "nothing told that is a feature": (
        "similar",
        {"described": described(properties={"year": types_pb2.PropertyValue()}), "top_k": 1},
        "INVALID_FIELD",
        "described",
    ),
    "too many links": (
        "similar",
        {"described": described(links=[link("HAS_TAG", "t1")] * 1001), "top_k": 1},
        "INVALID_FIELD",
        "described.links",
    ),
    "too many events": (
        "user",
        {"events": events(*["1"] * 1001), "top_k": 1},
        "INVALID_FIELD",
        "events.events",
    ),
    "inner products that overflow": (
        "user",
        {"vector": vector(3e38, -3e38, 0, 0), "top_k": 1},
        "INVALID_FIELD",
        "vector.values",
    ),
    "a link to another type": (
        "similar",
        {"described": described(links=[link("HAS_TAG", "u1", "User")]), "top_k": 1},
        "INVALID_FIELD",
        "described.links[0].node.type",
    ),
    "a vector of the other space": (
        "similar",
        {"vector": vector(1, 0, 0, 0, space="user"), "top_k": 1},
        "INVALID_FIELD",
        "vector.space",
    ),
    "top_k missing": ("similar", {"entity": ref("1")}, "TOP_K_OUT_OF_RANGE", "top_k"),
    "top_k negative": ("user", {"user": ref("u1"), "top_k": -3}, "TOP_K_OUT_OF_RANGE", "top_k"),
    "top_k too large": ("user", {"user": ref("u1"), "top_k": 51}, "TOP_K_OUT_OF_RANGE", "top_k"),
    "a short vector": ("similar", {"vector": vector(1, 0), "top_k": 1}, "WRONG_DIMENSION", "vector.values"),
    "a long vector": ("user", {"vector": vector(1, 0, 0, 0, 0), "top_k": 1}, "WRONG_DIMENSION", "vector.values"),
    "NaN": ("similar", {"vector": vector(1, NAN, 0, 0), "top_k": 1}, "VECTOR_NOT_FINITE", "vector.values"),
    "infinite": ("user", {"vector": vector(math.inf, 0, 0, 0), "top_k": 1}, "VECTOR_NOT_FINITE", "vector.values"),
    "zeros under cosine": ("similar", {"vector": vector(0, 0, 0, 0), "top_k": 1}, "VECTOR_NOT_FINITE", "vector.values"),
    "an unknown type": ("similar", {"entity": ref("1", "Band"), "top_k": 1}, "NOT_DECLARED", "entity.type"),
    "an unknown target": (
        "similar",
        {"entity": ref("1"), "target_type": "X", "top_k": 1},
        "NOT_DECLARED",
        "target_type",
    ),
    "an unknown relation": (
        "similar",
        {"described": described(links=[link("HAS_MOOD", "t1")]), "top_k": 1},
        "NOT_DECLARED",
        "described.links[0].relation",
    ),
    "an unknown property": (
        "similar",
        {"described": described(properties={"colour": types_pb2.PropertyValue(string_value="red")}), "top_k": 1},
        "NOT_DECLARED",
        "described.properties['colour']",
    ),
    "no such space": (
        "embed",
        {"items": [pb.EmbedEntityItem(entity=ref("1"))], "space": "x"},
        "NO_SUCH_SPACE",
        "space",
    ),
    "a vector of no space": ("similar", {"vector": vector(1, space="x"), "top_k": 1}, "NO_SUCH_SPACE", "vector.space"),
    "a type that the space lacks": (
        "embed",
        {"items": [pb.EmbedEntityItem(entity=ref("u1", "User"))]},
        "NO_SUCH_SPACE",
        "items[0].entity",
    ),
    "no encoder": (
        "embed",
        {"items": [pb.EmbedEntityItem(described=described(links=[link("HAS_TAG", "t1")]))], "space": "user"},
        "NO_SUCH_SPACE",
        "items[0].described",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field_is_named(asker: Asker, case: str) -> None:
    call, fields, reason, field = WRONG[case]
    refusal = refused(getattr(asker, call), **fields)
    assert (refusal.code, refusal.reason, refusal.field) == (grpc.StatusCode.INVALID_ARGUMENT, reason, field)


MISSING: dict[str, tuple[str, dict[str, Any], str, str, tuple[str, str]]] = {
    "entity": ("similar", {"entity": ref("99"), "top_k": 1}, "NODE_NOT_FOUND", "entity", ("Artist", "99")),
    "user": ("user", {"user": ref("u9"), "top_k": 1}, "NODE_NOT_FOUND", "user", ("User", "u9")),
    "an event's entity, fallback or not": (
        "user",
        {"events": events("1", "99"), "top_k": 1, "fallback": types_pb2.FALLBACK_POPULAR},
        "NODE_NOT_FOUND",
        "events.events[1].entity",
        ("Artist", "99"),
    ),
    "a described link's concept": (
        "similar",
        {"described": described(links=[link("HAS_TAG", "t1"), link("HAS_TAG", "t9")]), "top_k": 1},
        "NODE_NOT_FOUND",
        "described.links[1].node",
        ("Tag", "t9"),
    ),
    "a reference": ("get", {"ref": ref("t9", "Tag")}, "NODE_NOT_FOUND", "ref", ("Tag", "t9")),
    "an entity of which nothing is known": (
        "similar",
        {"entity": ref("6"), "top_k": 1},
        "NODE_WITHOUT_VECTOR",
        "entity",
        ("Artist", "6"),
    ),
    "a user of which nothing is known": (
        "user",
        {"user": ref("u4"), "top_k": 1},
        "NODE_WITHOUT_VECTOR",
        "user",
        ("User", "u4"),
    ),
    "one item": (
        "embed",
        {"items": [pb.EmbedEntityItem(entity=ref("1")), pb.EmbedEntityItem(entity=ref("6"))]},
        "NODE_WITHOUT_VECTOR",
        "items[1].entity",
        ("Artist", "6"),
    ),
}


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_node_is_named(asker: Asker, case: str) -> None:
    call, fields, reason, field, resource = MISSING[case]
    refusal = refused(getattr(asker, call), **fields)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, reason)
    assert (refusal.info.metadata["field"], refusal.resource) == (field, resource)


def test_other_errors_of_get_and_explain(asker: Asker) -> None:
    assert refused(asker.get).reason == "INVALID_FIELD"
    assert refused(asker.get, name=pb.NameQuery(name=" ")).field == "name.name"
    assert refused(asker.get, name=pb.NameQuery(name="Ride", type="Band")).reason == "NOT_DECLARED"
    assert refused(asker.explain, "1", "1").field == "target"
    assert refused(asker.explain, "1", "2", max_reasons=51).field == "max_reasons"
    assert refused(asker.explain, "1", "99").resource == ("Artist", "99")


@pytest.mark.parametrize("letter", ["x", "\N{CJK UNIFIED IDEOGRAPH-4E2D}", "\0", "\N{SMILING FACE WITH SUNGLASSES}"])
def test_names_of_any_length_are_refused_with_details(asker: Asker, letter: str) -> None:
    long = letter * 4000
    missing = refused(asker.similar, entity=ref(long), top_k=1)
    assert (missing.code, missing.reason) == (grpc.StatusCode.NOT_FOUND, "NODE_NOT_FOUND")
    assert missing.resource[1].startswith(letter * 10)
    assert len(missing.resource[1].encode()) <= 203
    undeclared = refused(asker.similar, entity=ref("1", long), top_k=1)
    assert (undeclared.reason, undeclared.field) == ("NOT_DECLARED", "entity.type")
    properties = {long: types_pb2.PropertyValue(int_value=1)}
    described_so = refused(asker.similar, described=described(properties=properties), top_k=1)
    assert described_so.reason == "NOT_DECLARED"
    assert described_so.field.startswith("described.properties['")


def test_a_vector_of_another_bundle(asker: Asker) -> None:
    refusal = refused(asker.similar, vector=vector(1, 0, 0, 0, bundle_version="old"), top_k=1)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OTHER_BUNDLE")
    assert "EmbedEntities" in refusal.status.message


@pytest.mark.parametrize(
    "method",
    [f"{ROOT}SearchSimilarEntities", "/kithkin.v1.ModelService/GetStatus", "/grpc.health.v1.Health/Check"],
)
def test_undecodable_bytes_are_no_unknown(asker: Asker, method: str) -> None:
    refusal = refused(asker.raw, method, b"\xff\xff\xff\xff")
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE_REQUEST")
    assert found(asker.similar(entity=ref("1"), top_k=1)) == ["10"], "and it serves on"


def test_undecodable_bytes_in_a_stream(asker: Asker) -> None:
    for method, stub in (
        ("/grpc.health.v1.Health/Watch", asker.channel.unary_stream),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", None),
    ):
        if stub is not None:
            call = stub(method)(b"\xff\xff", timeout=10)
        else:
            call = asker.channel.stream_stream(method)(iter([b"\xff\xff"]), timeout=10)
        assert refused(list, call).reason == "UNDECODABLE_REQUEST"


def test_a_message_that_is_too_large(asker: Asker) -> None:
    refusal = refused(asker.similar, entity=ref("1"), top_k=1, exclude=[ref("x" * 1000)] * 30)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert "serving.max_message_bytes" in refusal.status.message


def test_an_unknown_method_is_unimplemented(asker: Asker) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        asker.raw(f"{ROOT}Guess", b"")
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_a_fault_of_ours_tells_only_the_request_id_and_logs_the_trace(
    asker: Asker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(Retrieval, "get_entity", fail)
    with caplog.at_level(logging.ERROR, "kithkin.server"):
        request = pb.GetEntityRequest(ref=ref("1"))
        refusal = refused(asker.retrieval.GetEntity, request, metadata=[("x-request-id", "mine-7")])
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL_ERROR")
    assert "secret" not in refusal.status.message
    assert "mine-7" in refusal.status.message
    assert refusal.info.metadata["request_id"] == "mine-7"
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError
    assert record.fields["request_id"] == "mine-7"  # type: ignore[attr-defined]


def test_the_request_id_comes_back(asker: Asker) -> None:
    stub = asker.retrieval.GetEntity
    for sent, accepted in (("abc-1", True), ("x" * 129, False), ("with space", False)):
        _, call = stub.with_call(pb.GetEntityRequest(ref=ref("1")), metadata=[("x-request-id", sent)])
        echoed = dict(call.trailing_metadata())["x-request-id"]
        assert (echoed == sent) is accepted
        assert echoed
    _, first = stub.with_call(pb.GetEntityRequest(ref=ref("1")))
    _, second = stub.with_call(pb.GetEntityRequest(ref=ref("1")))
    assert dict(first.trailing_metadata()) != dict(second.trailing_metadata())


# ------------------------------------------------------- health, reflection


def test_health_is_serving(asker: Asker) -> None:
    for service in ("", "kithkin.v1.RetrievalService", "kithkin.v1.ModelService"):
        answer = asker.health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as raised:
        asker.health.Check(health_pb2.HealthCheckRequest(service="another"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    watching = asker.health.Watch(health_pb2.HealthCheckRequest(), timeout=10)
    assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
    watching.cancel()


def test_reflection_lists_the_services_and_their_types(asker: Asker) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(asker.channel)
    request = reflection_pb2.ServerReflectionRequest
    listed, described_file = stub.ServerReflectionInfo(
        iter([request(list_services=""), request(file_containing_symbol="kithkin.v1.RetrievalService")]), timeout=10
    )
    assert {service.name for service in listed.list_services_response.service} == {
        "kithkin.v1.RetrievalService",
        "kithkin.v1.ModelService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert described_file.file_descriptor_response.file_descriptor_proto


def test_reflection_can_be_turned_off(tmp_path: Path) -> None:
    with serve_in_thread(None, SETTINGS.model_copy(update={"reflection": False})) as port:
        asker = Asker(port)
        stub = reflection_pb2_grpc.ServerReflectionStub(asker.channel)
        with asker.channel, pytest.raises(grpc.RpcError) as raised:
            list(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5))
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


# ------------------------------------------------------------- other bundles


def test_without_a_bundle_the_server_is_there_and_says_so() -> None:
    with serve_in_thread(None, SETTINGS) as port:
        asker = Asker(port)
        with asker.channel:
            refusal = refused(asker.similar, entity=ref("1"), top_k=1)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_BUNDLE")
            assert refusal.retry_after_s == 1
            not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
            for service in ("", "kithkin.v1.RetrievalService"):
                assert asker.health.Check(health_pb2.HealthCheckRequest(service=service)).status == not_serving
            status = asker.model.GetStatus(model_service_pb2.GetStatusRequest())
            assert not status.HasField("bundle")


def test_with_several_entity_types_one_must_be_named(tmp_path: Path) -> None:
    store = BundleStore(tmp_path)
    bundle = store.open(write_toy_bundle(store, albums=True, encoders=False))
    with serve_in_thread(bundle, SETTINGS) as port:
        asker = Asker(port)
        with asker.channel:
            for call, fields, field in (
                (asker.similar, {"entity": ref("1"), "top_k": 1}, "entity.type"),
                (asker.similar, {"vector": vector(1, 0, 0, 0), "top_k": 1}, "target_type"),
                (asker.user, {"user": ref("u1"), "top_k": 1}, "target_type"),
            ):
                refusal = refused(call, **fields)
                assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TYPE_NEEDED")
                assert refusal.field == field
                assert "Artist, Album" in refusal.status.message
            response = asker.similar(entity=ref("1", "Artist"), target_type="Album", top_k=3)
            assert [(each.node.ref.type, each.node.ref.id) for each in response.results] == [("Album", "a1")]
            assert found(asker.similar(entity=ref("a1", "Album"), target_type="Artist", top_k=1)) == ["1"]
            names = asker.get(name=pb.NameQuery(name="souvlaki")).nodes
            assert [node.ref.type for node in names] == ["Album"]
            # Nobody engages with albums: such an event is refused, not passed over.
            touched = [types_pb2.Event(entity=ref("1", "Artist")), types_pb2.Event(entity=ref("a1", "Album"))]
            refusal = refused(asker.user, events=types_pb2.EventList(events=touched), target_type="Artist", top_k=1)
            assert (refusal.reason, refusal.field) == ("INVALID_FIELD", "events.events[1].entity")
            refusal = refused(asker.user, vector=vector(1, 0, 0, 0), target_type="Album", top_k=1)
            assert refusal.reason == "NO_SUCH_SPACE"


def test_event_times_are_accepted(asker: Asker) -> None:
    stamped = types_pb2.EventList(events=[types_pb2.Event(entity=ref("1"), time=Timestamp(seconds=1))])
    assert found(asker.user(events=stamped, top_k=1)) == ["10"]
