"""Answers put together as bytes are those that messages give."""

from __future__ import annotations

import numpy as np
import pytest
from google.rpc import status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from server.calls.answer_bytes import EncodedAnswer, EncodedBatch, Parts, length


def node(row: int, size: int = 10) -> types_pb2.Node:
    found = types_pb2.Node(ref=types_pb2.NodeRef(type="Film", id=str(row)), name="x" * size)
    found.properties["year"].int_value = 1900 + row
    return found


def answer(rows: list[int], scores: list[float], size: int) -> EncodedAnswer[pb.SearchSimilarEntitiesResponse]:
    parts = Parts(lambda row: node(row, size))
    found = EncodedAnswer(pb.SearchSimilarEntitiesResponse, parts, rows, np.array(scores, np.float32))
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
    assert encoded.infos == [first.info, second.info]
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
    monkeypatch.setattr("server.calls.answer_bytes._MOST_PARTS", 2)

    def one(row: int) -> types_pb2.Node:
        asked.append(row)
        return node(row)

    parts = Parts(one)
    assert parts[1] == parts[1]
    assert asked == [1]
    _ = parts[2], parts[3]
    assert len(parts) == 1, "emptied when it is full"
