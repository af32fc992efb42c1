"""Answers put together as bytes are those that messages give."""

from __future__ import annotations

import numpy as np
import pytest
from google.rpc import status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from server.calls.answer_bytes import EncodedAnswer, EncodedBatch, EncodedItems, Parts, length


def node(row: int, size: int = 10) -> types_pb2.Node:
    found = types_pb2.Node(ref=types_pb2.NodeRef(type="Film", id=str(row)), name="x" * size)
    found.properties["year"].int_value = 1900 + row
    return found


def answer(rows: list[int], scores: list[float], size: int) -> EncodedAnswer[pb.SearchSimilarEntitiesResponse]:
    parts = Parts(lambda row: node(row, size), 100)
    found = EncodedAnswer(
        pb.SearchSimilarEntitiesResponse, parts, np.array(rows, np.int64), np.array(scores, np.float32)
    )
    found.info.bundle_version = "one"
    found.info.candidates_scored = 300
    return found


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 99), st.floats(width=32, allow_nan=False)), max_size=30),
    st.sampled_from([0, 60, 100, 130, 20_000, 3_000_000]),
)
def test_bytes_read_as_the_message(found: list[tuple[int, float]], size: int) -> None:
    size = size if len(found) < 4 else min(size, 20_000)
    encoded = answer([row for row, _ in found], [score for _, score in found], size)
    message = pb.SearchSimilarEntitiesResponse.FromString(encoded.SerializeToString())
    assert [each.node for each in message.results] == [node(row, size) for row, _ in found]
    assert [each.score for each in message.results] == [score for _, score in found]
    assert message.info == encoded.info
    assert encoded.message == message
    assert list(encoded.results) == list(message.results)


def test_a_batch_holds_answers_and_errors_in_their_order() -> None:
    first, second = answer([1, 2], [0.5, 0.25], 3), answer([], [], 3)
    error = status_pb2.Status(code=5, message="no such node")
    encoded = EncodedBatch(pb.BatchSearchSimilarEntitiesResponse, [first, error, second.message])
    encoded.info.bundle_version = "one"
    batch = pb.BatchSearchSimilarEntitiesResponse.FromString(encoded.SerializeToString())
    assert batch.items[0].response == first.message
    assert batch.items[1].error == error
    assert batch.items[2].response == second.message
    assert batch.items[2].HasField("response")
    assert batch.info == encoded.info
    assert encoded.infos == [(first.info, 1), (second.info, 1)]
    assert encoded.message == batch


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 16_383, 16_384, 2_097_151, 2_097_152, 2**31])
def test_lengths_are_varints(number: int) -> None:
    value, shift = 0, 0
    for byte in length(number):
        value |= (byte & 127) << shift
        shift += 7
    assert value == number
    assert length(number)[-1] < 128


def test_parts_are_kept_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("server.calls.answer_bytes._MOST_BYTES", 100)

    def one(row: int) -> types_pb2.Node:
        asked.append(row)
        return node(row, 20)

    parts = Parts(one, 9)

    def shown(*rows: int) -> list[str]:
        results = parts.results(np.array(rows, np.int64), np.zeros(len(rows), np.float32))
        return [each.node.ref.id for each in pb.SearchSimilarEntitiesResponse.FromString(results).results]

    assert shown(1) == shown(1) == ["1"]
    assert asked == [1]
    assert shown(2, 3, 1, 2) == ["2", "3", "1", "2"], "more than there is room for"
    asked.clear()
    assert shown(1, 4) == ["1", "4"]
    assert asked, "emptied when it was full"


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=8),
    st.sampled_from([0, 90, 130, 20_000]),
    st.integers(0, 2**32 - 1),
)
def test_items_are_those_of_answers_made_one_by_one(counts: list[int], size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, scores = rng.integers(0, 30, (len(counts), 5)), rng.standard_normal((len(counts), 5)).astype(np.float32)
    infos = [types_pb2.ResponseInfo(bundle_version="x" * size, candidates_scored=count) for count in counts]
    parts = Parts(lambda row: node(row, size), 30)
    found = parts.items(rows, scores, np.array(counts), [info.SerializeToString() for info in infos])
    items = EncodedItems(*found, infos)
    encoded = EncodedBatch(pb.BatchSearchSimilarEntitiesResponse, items)
    assert EncodedBatch(pb.BatchSearchSimilarEntitiesResponse, list(items)).SerializeToString() == (
        encoded.SerializeToString()
    ), "one by one as together"
    assert encoded.infos == [(info, 1) for info in infos]
    assert EncodedItems(*found, [infos[0]] * len(infos)).infos == [(infos[0], len(infos))]
    batch = encoded.message
    for number, (item, count) in enumerate(zip(batch.items, counts, strict=True)):
        alone = EncodedAnswer(pb.SearchSimilarEntitiesResponse, parts, rows[number, :count], scores[number, :count])
        alone.info = infos[number]
        assert item.response == alone.message
