"""Filters, least scores, diversity, pages and bundles by name, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from graph_store.settings import ServingSettings
from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from kithkin.v1.types_pb2 import Filter, FilterList, LinkedTo, PropertyEquals, PropertyRange, PropertyValue
from model_store.bundle_store import BundleStore
from model_store.csr import EdgeType
from server.wire.local import serve_in_thread
from tests.films import FILMS, LIKED, USERS, Films, write_films
from tests.integration.test_server import ROOT, Asker, found, ref, refused, vector


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Films, Films, Asker]]:
    """The active bundle, one beside it, and who asks."""
    store = BundleStore(tmp_path_factory.mktemp("models"))
    active, other = write_films(store), write_films(store, seed=8)
    settings = ServingSettings(beside=(other.version,))
    with serve_in_thread(store.open(active.version), settings, beside=[store.open(other.version)]) as port:
        asker = Asker(port)
        with asker.channel:
            yield active, other, asker


@pytest.fixture(scope="module")
def films(served: tuple[Films, Films, Asker]) -> Films:
    return served[0]


@pytest.fixture(scope="module")
def asker(served: tuple[Films, Films, Asker]) -> Asker:
    return served[2]


COLOUR = Filter(equals=PropertyEquals(property="colour", value=PropertyValue(bool_value=True)))
NOTHING = Filter(any_of=FilterList())
OF_GENRE = Filter(linked=LinkedTo(relation="HAS_GENRE", nodes=[types_pb2.NodeRef(id="g1")]))


def in_colour(films: Films) -> list[int]:
    return [row for row in range(FILMS) if films.properties[row]["colour"] is True]


def best(films: Films, scores: Any, rows: list[int], k: int) -> list[str]:
    """Ids of the k best of some rows, ties by id."""
    known = [row for row in rows if films.vectors[row].any()]
    return [films.ids[row] for row in sorted(known, key=lambda row: (-float(scores[row]), row))[:k]]


def cosines(films: Films, row: int) -> Any:
    lengths = np.maximum(np.linalg.norm(films.vectors, axis=1), 1e-9)
    units = (films.vectors / lengths[:, None]).astype(np.float64)
    return np.round(units @ units[row], 6)


# ------------------------------------------------------------------- filters


def test_similar_entities_that_pass(films: Films, asker: Asker) -> None:
    answer = asker.similar(entity=ref("f09"), top_k=5, filter=COLOUR)
    rows = [row for row in in_colour(films) if row != 9]
    assert found(answer) == best(films, cosines(films, 9), rows, 5)
    assert answer.info.filter_passed == len(in_colour(films))
    assert answer.info.exact
    assert answer.info.shortfall_reason == ""


def test_a_filter_goes_with_exclusions(films: Films, asker: Asker) -> None:
    rows = [row for row in in_colour(films) if row != 9]
    first = best(films, cosines(films, 9), rows, 3)
    answer = asker.similar(entity=ref("f09"), top_k=4, filter=COLOUR, exclude=[ref(each) for each in first])
    assert found(answer) == best(films, cosines(films, 9), [row for row in rows if films.ids[row] not in first], 4)


def test_entities_for_a_user_that_pass_and_are_not_engaged_with(films: Films, asker: Asker) -> None:
    liked = films.links[EdgeType(LIKED)][3]
    scores = films.tastes.astype(np.float64) @ films.users[3].astype(np.float64)
    rows = [row for row in in_colour(films) if row not in liked]
    assert found(asker.user(user=ref("u03"), top_k=6, filter=COLOUR)) == best(films, scores, rows, 6)
    both = asker.user(user=ref("u03"), top_k=6, filter=COLOUR, include_engaged=True)
    assert found(both) == best(films, scores, in_colour(films), 6)
    assert set(liked) & set(in_colour(films))


def test_the_popular_that_pass(films: Films, asker: Asker) -> None:
    answer = asker.user(user=ref("nobody"), top_k=4, filter=COLOUR, fallback=types_pb2.FALLBACK_POPULAR)
    assert found(answer) == [films.ids[row] for row in in_colour(films)[:4]]
    assert answer.info.fallback == types_pb2.FALLBACK_POPULAR
    assert answer.info.filter_passed == len(in_colour(films))


def test_users_that_pass(films: Films, asker: Asker) -> None:
    old = Filter(range=PropertyRange(property="age", min=PropertyValue(int_value=26)))
    request = pb.RetrieveUsersForEntityRequest(entity=ref("f07"), top_k=3, filter=old, include_engaged=True)
    answer = asker.retrieval.RetrieveUsersForEntity(request, timeout=10)
    scores = films.users.astype(np.float64) @ films.tastes[7].astype(np.float64)
    rows = [row for row in range(6, USERS) if row % 5]
    assert found(answer) == [f"u{row:02}" for row in sorted(rows, key=lambda row: -scores[row])[:3]]
    assert answer.info.filter_passed == len(rows)


def test_fewer_than_asked_are_told_with_why(films: Films, asker: Asker) -> None:
    passing = in_colour(films)
    known = [row for row in passing if films.vectors[row].any()]
    answer = asker.similar(vector=vector(*[1.0] * 8), top_k=50, filter=COLOUR)
    assert len(answer.results) == len(known)
    assert answer.info.shortfall_reason == (
        f"only {len(known)} of this type have a vector, pass the filter ({len(passing)} do) and are not left out "
        "(asked for 50)"
    )
    nothing = asker.similar(entity=ref("f09"), top_k=2, filter=NOTHING)
    assert (len(nothing.results), nothing.info.HasField("filter_passed"), nothing.info.filter_passed) == (0, True, 0)
    assert not asker.similar(entity=ref("f09"), top_k=2).info.HasField("filter_passed")


def test_a_wrong_filter_is_refused_by_its_path(asker: Asker) -> None:
    wrong = Filter(all_of=FilterList(filters=[COLOUR, Filter(range=PropertyRange(property="colour"))]))
    refusal = refused(asker.similar, entity=ref("f09"), top_k=2, filter=wrong)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert refusal.field == "filter.all_of.filters[1].range.property"
    unknown = Filter(present="budget")
    for call in (asker.similar, asker.user):
        query = {"entity": ref("f09")} if call == asker.similar else {"user": ref("u03")}
        refusal = refused(call, top_k=2, filter=unknown, **query)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "NOT_DECLARED")
        assert refusal.field == "filter.present"
        assert "country, year, rating" in refusal.status.message


def test_a_filter_as_deep_as_messages_go_is_refused_and_does_not_fail(asker: Asker) -> None:
    deep = COLOUR
    for _ in range(30):
        deep = Filter(negated=deep)
    assert refused(asker.similar, entity=ref("f09"), top_k=2, filter=deep).field == "filter"
    # Deeper than messages are read: no library would even build it.
    raw = COLOUR.SerializeToString()
    for _ in range(300):
        raw = b"\x1a" + _varint(len(raw)) + raw
    request = pb.SearchSimilarEntitiesRequest(entity=ref("f09"), top_k=2).SerializeToString()
    refusal = refused(asker.raw, ROOT + "SearchSimilarEntities", request + b"\x42" + _varint(len(raw)) + raw)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNDECODABLE_REQUEST")


def _varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def test_items_of_a_batch_have_filters_of_their_own(films: Films, asker: Asker) -> None:
    fields: list[dict[str, Any]] = [
        {"filter": COLOUR},
        {},
        {"filter": NOTHING},
        {"filter": OF_GENRE},
        {"filter": Filter()},
        {"filter": COLOUR, "min_score": 0.2},
        {"diversity": 0.6},
        {"diversity": 0.6, "filter": COLOUR},
    ]
    requests = [pb.SearchSimilarEntitiesRequest(entity=ref("f09"), top_k=3, **each) for each in fields]
    answer = asker.retrieval.BatchSearchSimilarEntities(pb.BatchSearchSimilarEntitiesRequest(requests=requests))
    for request, item in zip(requests, answer.items, strict=True):
        if request.HasField("filter") and request.filter == Filter():
            assert item.error.message.startswith("filter: is not set")
            continue
        alone = asker.retrieval.SearchSimilarEntities(request)
        for each in (alone, item.response):
            each.info.ClearField("server_time")
        assert item.response == alone
    assert found(answer.items[0].response) != found(answer.items[1].response)


# ------------------------------------------------- least scores and diversity


def test_results_below_the_least_score_are_left_out(films: Films, asker: Asker) -> None:
    everything = asker.similar(entity=ref("f09"), top_k=50)
    scores = [result.score for result in everything.results]
    least = scores[7]
    answer = asker.similar(entity=ref("f09"), top_k=50, min_score=least)
    assert found(answer) == found(everything)[:8]
    assert answer.info.shortfall_reason == (
        f"only 8 of this type have a vector, reach the score {least:g} and are not left out (asked for 50)"
    )
    assert found(asker.similar(entity=ref("f09"), top_k=3, min_score=-2.0)) == found(everything)[:3]
    assert not asker.similar(entity=ref("f09"), top_k=3, min_score=1.5).results
    # Zero is a least score like any other.
    assert len(asker.similar(entity=ref("f09"), top_k=50, min_score=0.0).results) == sum(score >= 0 for score in scores)
    refusal = refused(asker.similar, entity=ref("f09"), top_k=3, min_score=float("nan"))
    assert refusal.field == "min_score"


@pytest.mark.parametrize("diversity", [0.2, 0.5, 1.0])
def test_diversity_chooses_out_of_four_times_as_many(films: Films, asker: Asker, diversity: float) -> None:
    k = 4
    pool = asker.similar(entity=ref("f09"), top_k=4 * k)
    rows = [films.ids.index(each) for each in found(pool)]
    units = films.vectors[rows].astype(np.float64)
    units /= np.linalg.norm(units, axis=1)[:, None]
    scores = [result.score for result in pool.results]
    place = {each: row for row, each in enumerate(found(pool))}
    answer = asker.similar(entity=ref("f09"), top_k=k, diversity=diversity)
    chosen: list[int] = []
    for result in answer.results:
        worth = {
            each: (1 - diversity) * scores[each]
            - diversity * max((float(units[each] @ units[other]) for other in chosen), default=0.0)
            for each in range(4 * k)
            if each not in chosen
        }
        # Not which it is: two of the same vector are worth the same, but for float32's last digits.
        chosen.append(place[result.node.ref.id])
        assert worth[chosen[-1]] == pytest.approx(max(worth.values()), abs=1e-5)
    assert len(set(chosen)) == k
    assert [result.score for result in answer.results] == [scores[each] for each in chosen]


def test_diversity_parts_two_of_a_kind(films: Films, asker: Asker) -> None:
    """Films 30 and 31 are the same as film 9: by score alone both come first."""
    assert found(asker.similar(entity=ref("f09"), top_k=2)) == ["f30", "f31"]
    assert "f31" not in found(asker.similar(entity=ref("f09"), top_k=2, diversity=0.7))
    for wrong in (-0.1, 1.1, float("nan")):
        assert refused(asker.similar, entity=ref("f09"), top_k=2, diversity=wrong).field == "diversity"
    liked = films.links[EdgeType(LIKED)][3]
    diverse = asker.user(user=ref("u03"), top_k=5, diversity=0.5, filter=COLOUR)
    assert {films.ids.index(each) for each in found(diverse)} <= set(in_colour(films)) - set(liked)
    assert len(diverse.results) == 5


# ----------------------------------------------------------- bundles by name


def test_a_request_is_answered_from_the_bundle_it_names(served: tuple[Films, Films, Asker]) -> None:
    active, other, asker = served
    for films in (active, other):
        answer = asker.similar(entity=ref("f09"), top_k=5, bundle_version=films.version)
        assert found(answer) == best(films, cosines(films, 9), [row for row in range(FILMS) if row != 9], 5)
        assert answer.info.bundle_version == films.version
        for_user = asker.user(user=ref("u03"), top_k=2, bundle_version=films.version)
        assert for_user.info.bundle_version == films.version
        users = pb.RetrieveUsersForEntityRequest(entity=ref("f07"), top_k=2, bundle_version=films.version)
        assert asker.retrieval.RetrieveUsersForEntity(users).info.bundle_version == films.version
        embedded = asker.embed(items=[pb.EmbedEntityItem(entity=ref("f07"))], bundle_version=films.version)
        assert embedded.info.bundle_version == embedded.vectors[0].bundle_version == films.version
        assert np.allclose(embedded.vectors[0].values, films.vectors[7] / np.linalg.norm(films.vectors[7]), atol=1e-6)
        embedded = asker.retrieval.EmbedUsers(
            pb.EmbedUsersRequest(items=[pb.EmbedUserItem(user=ref("u03"))], bundle_version=films.version)
        )
        assert np.allclose(embedded.vectors[0].values, films.users[3])
        pair = pb.NodePair(source=ref("u03", "User"), target=ref("f07"))
        scored = asker.retrieval.ScorePairs(pb.ScorePairsRequest(pairs=[pair], bundle_version=films.version))
        assert scored.items[0].score == pytest.approx(float(films.users[3] @ films.tastes[7]), rel=1e-5)
    assert asker.similar(entity=ref("f09"), top_k=1).info.bundle_version == active.version


def test_a_bundle_that_is_not_loaded_is_refused_with_those_that_are(served: tuple[Films, Films, Asker]) -> None:
    active, other, asker = served
    absent = "20200101T000000.000000Z"
    calls: list[tuple[Any, dict[str, Any]]] = [
        (asker.similar, {"entity": ref("f09"), "top_k": 1}),
        (asker.user, {"user": ref("u03"), "top_k": 1}),
        (asker.embed, {"items": [pb.EmbedEntityItem(entity=ref("f09"))]}),
    ]
    for call, fields in calls:
        refusal = refused(call, bundle_version=absent, **fields)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "BUNDLE_NOT_LOADED")
        assert active.version in refusal.status.message
        assert other.version in refusal.status.message


def test_items_of_a_batch_are_answered_from_the_bundles_they_name(served: tuple[Films, Films, Asker]) -> None:
    active, other, asker = served
    versions = ["", other.version, "20200101T000000.000000Z", active.version, ""]
    requests = [pb.SearchSimilarEntitiesRequest(entity=ref("f09"), top_k=3, bundle_version=each) for each in versions]
    answer = asker.retrieval.BatchSearchSimilarEntities(pb.BatchSearchSimilarEntitiesRequest(requests=requests))
    answered = [item.response.info.bundle_version for item in answer.items]
    assert answered == [active.version, other.version, "", active.version, active.version]
    assert answer.items[2].error.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert found(answer.items[0].response) == found(answer.items[3].response) != found(answer.items[1].response)
    assert answer.info.bundle_version == "", "several answered"
    for part, version in ((requests[1:2], other.version), (requests[:1], active.version)):
        one = asker.retrieval.BatchSearchSimilarEntities(pb.BatchSearchSimilarEntitiesRequest(requests=part))
        assert one.info.bundle_version == version
    users = [
        pb.RetrieveEntitiesForUserRequest(user=ref("u03"), top_k=1, bundle_version=each)
        for each in (other.version, active.version)
    ]
    batch = asker.retrieval.BatchRetrieveEntitiesForUser(pb.BatchRetrieveEntitiesForUserRequest(requests=users))
    assert [item.response.info.bundle_version for item in batch.items] == [other.version, active.version]


# --------------------------------------------------------------------- pages


def pages(asker: Asker, **fields: Any) -> list[list[str]]:
    """Ids of every page of a listing."""
    found: list[list[str]] = []
    token = ""
    while True:
        request = pb.ListEntitiesRequest(page_token=token, **fields)
        answer = asker.retrieval.ListEntities(request, timeout=10)
        found.append([node.ref.id for node in answer.nodes])
        token = answer.next_page_token
        if not token:
            return found


@pytest.mark.parametrize("size", [1, 7, 20, 59, 60, 61])
def test_pages_give_every_node_once_by_id(films: Films, asker: Asker, size: int) -> None:
    listed = pages(asker, page_size=size)
    assert [each for page in listed for each in page] == films.ids
    assert [len(page) for page in listed[:-1]] == [size] * (len(listed) - 1)
    assert len(listed[-1]) > 0


@pytest.mark.parametrize("size", [1, 4, 100])
def test_pages_of_what_passes(films: Films, asker: Asker, size: int) -> None:
    listed = [each for page in pages(asker, page_size=size, filter=COLOUR) for each in page]
    assert listed == [films.ids[row] for row in in_colour(films)]
    named = [each for page in pages(asker, page_size=size, name_contains="FILM 3") for each in page]
    assert named == [
        films.ids[row] for row in range(FILMS) if "film 3" in (films.properties[row]["title"] or "").lower()
    ]
    both = [each for page in pages(asker, page_size=size, name_contains="film 3", filter=COLOUR) for each in page]
    assert both == [each for each in named if each in listed] != []
    assert pages(asker, page_size=size, filter=NOTHING) == [[]]


def test_concepts_are_listed_and_names_are_found_in_part(asker: Asker) -> None:
    answer = asker.retrieval.ListEntities(pb.ListEntitiesRequest(type="Genre", name_contains="dRaM"))
    assert [node.name for node in answer.nodes] == ["Drama", "drama of old"]
    assert not answer.info.HasField("filter_passed")
    # Without a name a node is called by its id.
    answer = asker.retrieval.ListEntities(pb.ListEntitiesRequest(type="Genre", name_contains="g3"))
    assert [node.ref.id for node in answer.nodes] == ["g3"]
    long = pb.ListEntitiesRequest(name_contains="x" * 1001)
    assert refused(asker.retrieval.ListEntities, long).field == "name_contains"
    assert not asker.retrieval.ListEntities(pb.ListEntitiesRequest(name_contains="x" * 1000)).nodes
    refusal = refused(asker.retrieval.ListEntities, pb.ListEntitiesRequest(type="User"))
    assert (refusal.field, refusal.reason) == ("type", "INVALID_FIELD")


def test_a_page_is_a_hundred_unless_told_and_a_thousand_at_most(asker: Asker) -> None:
    assert len(asker.retrieval.ListEntities(pb.ListEntitiesRequest()).nodes) == FILMS
    assert len(asker.retrieval.ListEntities(pb.ListEntitiesRequest(page_size=10**9)).nodes) == FILMS
    assert refused(asker.retrieval.ListEntities, pb.ListEntitiesRequest(page_size=-1)).field == "page_size"


def test_a_token_is_good_for_its_own_listing_alone(films: Films, asker: Asker) -> None:
    first = asker.retrieval.ListEntities(pb.ListEntitiesRequest(page_size=5, filter=COLOUR))
    token = first.next_page_token
    # The size of pages may change on the way.
    more = asker.retrieval.ListEntities(pb.ListEntitiesRequest(page_size=50, filter=COLOUR, page_token=token))
    ids = [node.ref.id for node in [*first.nodes, *more.nodes]]
    assert ids == [films.ids[row] for row in in_colour(films)]
    assert more.info.filter_passed == len(ids)
    others: list[dict[str, Any]] = [
        {},
        {"filter": NOTHING},
        {"filter": COLOUR, "name_contains": "film"},
        {"filter": COLOUR, "type": "Genre"},
    ]
    for fields in others:
        refusal = refused(asker.retrieval.ListEntities, pb.ListEntitiesRequest(page_token=token, **fields))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_PAGE_TOKEN"), fields
        assert refusal.field == "page_token"
    cut = [token[:-4], token[4:], token[::-1], "x", "é", "A" * 10_000, f"{'A' if token[0] != 'A' else 'B'}{token[1:]}"]
    for wrong in cut:
        request = pb.ListEntitiesRequest(page_token=wrong, filter=COLOUR)
        assert refused(asker.retrieval.ListEntities, request).reason == "BAD_PAGE_TOKEN", wrong


def test_a_listing_goes_on_in_its_own_bundle_while_that_is_loaded(
    served: tuple[Films, Films, Asker], tmp_path_factory: pytest.TempPathFactory
) -> None:
    active, _, asker = served
    store = BundleStore(tmp_path_factory.mktemp("later"))
    later = write_films(store, seed=9)
    token = asker.retrieval.ListEntities(pb.ListEntitiesRequest(page_size=5, filter=COLOUR)).next_page_token
    request = pb.ListEntitiesRequest(page_size=100, filter=COLOUR, page_token=token)
    with serve_in_thread(store.open(later.version), ServingSettings()) as port:
        elsewhere = Asker(port)
        with elsewhere.channel:
            refusal = refused(elsewhere.retrieval.ListEntities, request)
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OTHER_BUNDLE")
            assert active.version in refusal.status.message
    rest = asker.retrieval.ListEntities(request)
    assert rest.info.bundle_version == active.version
    assert [node.ref.id for node in rest.nodes] == [active.ids[row] for row in in_colour(active)[5:]]
