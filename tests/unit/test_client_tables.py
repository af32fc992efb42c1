"""Arrays and frames in and out; the libraries are used only where the caller has them."""

from __future__ import annotations

import subprocess
import sys
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import grpc
import numpy as np
import pandas as pd
import polars as pl
import pytest
from google.protobuf.message import Message

import kithkin
from kithkin import Batch, Node, NotFound, Page, Ref, ResponseInfo, Results, ScoredEntity, Scores, Vector, Vectors
from kithkin._floats import vector, vector_message
from kithkin.v1 import retrieval_service_pb2 as retrieval
from kithkin.v1 import types_pb2 as wire
from tests.both_clients import both
from tests.fake_server import FakeServer

INFO = ResponseInfo(bundle_version="b7")
WHEN = datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)
FIRST = ScoredEntity(Node(Ref("Film", "1"), "Toy", {"year": 1995, "genres": ("a", "b"), "rating": 4}), 0.75)
SECOND = ScoredEntity(Node(Ref("Film", "2"), "Heat", {"year": None, "rating": 3.5, "seen": WHEN, "item": 9}), 0.5)
RESULTS = Results((FIRST, SECOND), INFO)
EMPTY = Results((), INFO)
LOST = NotFound("no", code="NOT_FOUND", reason="NODE_NOT_FOUND")


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    running = fake.start()
    yield fake
    running.stop(None).wait()


@pytest.fixture(scope="module")
def clients(server: FakeServer) -> Iterator[dict[str, Any]]:
    with both(server.target) as clients:
        yield clients


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, clients: dict[str, Any]) -> Any:
    return clients[request.param]


ROWS = [[0.5, -1.0, 2.0], [0.1, 0.2, 0.3]]


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        iter,
        lambda row: array("f", row),
        lambda row: array("d", row),
        lambda row: np.array(row),
        lambda row: np.array(row, np.float32),
        lambda row: np.array(row, ">f4"),
        lambda row: np.array([*row, *row], np.float32)[:3],
        lambda row: np.array([[each, 9] for each in row], np.float32)[:, 0],
        lambda row: pd.Series(row),
        lambda row: pl.Series(row),
        lambda row: Vector(row),
    ],
)
@pytest.mark.parametrize("row", ROWS)
def test_every_kind_of_row_is_the_same_vector(make: Any, row: list[float]) -> None:
    assert vector_message(make(row)) == wire.Vector(values=row)


def test_whole_numbers_are_numbers() -> None:
    assert vector_message(np.array([1, 2])) == vector_message([1, 2]) == wire.Vector(values=[1.0, 2.0])


@pytest.mark.parametrize(
    ("values", "kind", "match"),
    [
        (np.ones((2, 3)), TypeError, r"flat list of numbers: an array of float64 with shape \[2, 3\]"),
        (np.array(["a"]), TypeError, "flat list of numbers: an array of <U1"),
        (np.array([True]), TypeError, "flat list of numbers: an array of bool"),
        (np.array([None]), TypeError, "flat list of numbers: an array of object"),
        (pl.Series(["a"]), TypeError, "flat list of numbers"),
        (np.array([1.0, np.nan]), ValueError, r"vector\[1\] is nan"),
        (np.array([1.0, np.inf, -np.inf]), ValueError, r"vector\[1\] is inf"),
        ([1.0, float("inf"), float("-inf")], ValueError, r"vector\[1\] is inf"),
        (np.array([1e39, 1.0]), ValueError, r"vector\[0\] is inf as float32"),
        (np.array([]), ValueError, "vector is empty"),
    ],
)
def test_what_is_no_vector(values: Any, kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        vector_message(values)


def test_large_values_are_finite() -> None:
    largest = float(np.finfo(np.float32).max)
    assert list(vector_message([largest] * 1000).values) == [largest] * 1000


def test_vectors_come_back_bit_by_bit() -> None:
    numbers = np.frombuffer(np.random.default_rng(3).bytes(400), np.float32)
    numbers = np.where(np.isfinite(numbers), numbers, np.float32(0))
    message = wire.Vector(values=numbers, space="user", bundle_version="b7")
    found = vector(wire.Vector.FromString(message.SerializeToString()))
    assert found == Vector(numbers, "user", "b7")
    assert found.to_numpy().tobytes() == numbers.tobytes()
    again = vector_message(found)
    assert again == message


def test_vectors_as_one_array() -> None:
    vectors = Vectors((Vector([1, 2]), Vector([3, 4]), Vector([5, 6])), INFO)
    matrix = vectors.to_numpy()
    assert (matrix.dtype, matrix.tolist()) == (np.float32, [[1, 2], [3, 4], [5, 6]])
    matrix[0] = 9
    assert vectors[0][0] == 1, "a copy"
    assert np.asarray(vectors, dtype=np.float64).dtype == np.float64
    assert Vectors((), INFO).to_numpy().shape == (0, 0)
    assert list(pd.DataFrame(matrix, index=["a", "b", "c"]).loc["b"]) == [3, 4]


def test_results_as_tables() -> None:
    rows = RESULTS.to_dicts()
    assert rows[1] == {
        "type": "Film", "id": "2", "name": "Heat", "score": 0.5, "year": None, "rating": 3.5, "seen": WHEN, "item": 9,
    }  # fmt: skip
    frame, polar = RESULTS.to_pandas(), RESULTS.to_polars()
    columns = ["type", "id", "name", "score", "year", "genres", "rating", "seen", "item"]
    assert list(frame.columns) == polar.columns == columns
    assert list(frame["score"]) == polar["score"].to_list() == [0.75, 0.5]
    assert polar["genres"].to_list() == [["a", "b"], None]
    assert polar["rating"].to_list() == [4.0, 3.5]
    assert polar["seen"].to_list() == [None, WHEN]
    assert RESULTS.to_numpy().dtype == np.float32
    assert RESULTS.to_numpy().tolist() == [0.75, 0.5]


@pytest.mark.parametrize(
    ("empty", "columns"),
    [
        (EMPTY, ["type", "id", "name", "score"]),
        (Batch((EMPTY, LOST), INFO), ["item", "rank", "type", "id", "name", "score"]),
        (Page((), INFO), ["type", "id", "name"]),
        (kithkin.Nodes((), INFO), ["type", "id", "name"]),
        (Scores((), INFO), ["score", "error"]),
    ],
)
def test_no_rows_have_their_columns_all_the_same(empty: Any, columns: list[str]) -> None:
    assert list(empty.to_pandas().columns) == empty.to_polars().columns == columns
    assert len(empty.to_pandas()) == len(empty.to_polars()) == len(empty.to_dicts()) == 0


def test_a_batch_as_a_table() -> None:
    batch = Batch((RESULTS, LOST, Results((FIRST,), INFO)), INFO)
    frame = batch.to_polars()
    assert frame.columns[:6] == ["item", "rank", "type", "id", "name", "score"]
    assert frame.select("item", "rank", "id").rows() == [(0, 1, "1"), (0, 2, "2"), (2, 1, "1")]
    assert list(batch.to_pandas()["item"]) == [0, 0, 2], "the place asked for hides a property of that name"


def test_scores_as_a_table() -> None:
    scores = Scores((0.5, LOST), INFO)
    assert scores.to_polars().rows() == [(0.5, None), (None, "NODE_NOT_FOUND")]
    assert list(scores.to_pandas()["score"].isna()) == [False, True]


def echo(request: Any, context: grpc.ServicerContext) -> Message:
    return retrieval.BatchSearchSimilarEntitiesResponse(items=[{"response": {}}] * len(request.requests))


def requests(server: FakeServer, method: str = "BatchSearchSimilarEntities") -> Any:
    return server.received[method][-1].request


def test_a_matrix_is_a_batch_of_vectors(server: FakeServer, client: Any) -> None:
    server.will("BatchSearchSimilarEntities", echo)
    for matrix in (np.array(ROWS), np.array(ROWS, np.float32), ROWS):
        client.similar_batch(matrix, target_type="Film")
        sent = [list(each.vector.values) for each in requests(server).requests]
        assert sent == [pytest.approx(row) for row in ROWS]


def test_columns_of_frames_are_ids(server: FakeServer, client: Any) -> None:
    server.will("BatchSearchSimilarEntities", echo)
    for column in (pd.Series([7, 8]), pd.Series(["7", "8"]), pl.Series([7, 8]), np.array([7, 8]), np.array(["7", "8"])):
        client.similar_batch(column)
        assert [each.entity.id for each in requests(server).requests] == ["7", "8"]


@pytest.mark.parametrize("library", [pd, pl])
def test_frames_are_batches_of_arguments(server: FakeServer, client: Any, library: Any) -> None:
    server.will("BatchSearchSimilarEntities", echo)
    client.similar_batch(library.DataFrame({"entity": ["1", "2"], "top_k": [3, 4], "min_score": [0.5, None]}))
    first, second = requests(server).requests
    assert (first.entity.id, first.top_k, first.min_score) == ("1", 3, 0.5)
    assert (second.entity.id, second.top_k, second.HasField("min_score")) == ("2", 4, False)


@pytest.mark.parametrize("library", [pd, pl])
def test_a_frame_of_two_columns_is_pairs(server: FakeServer, client: Any, library: Any) -> None:
    server.will("ScorePairs", retrieval.ScorePairsResponse(items=[{"score": 1}, {"score": 2}]))
    frame = library.DataFrame({"user": ["u1", "u2"], "film": [7, 8]})
    assert client.score_pairs(frame).to_numpy().tolist() == [1, 2]
    assert [(pair.source.id, pair.target.id) for pair in requests(server, "ScorePairs").pairs] == [
        ("u1", "7"), ("u2", "8"),
    ]  # fmt: skip
    with pytest.raises(TypeError, match="a frame of two columns"):
        client.score_pairs(library.DataFrame({"user": ["u1"]}))
    with pytest.raises(TypeError, match="is a whole frame; give one of its columns"):
        client.embed(frame)


def test_a_list_that_could_be_anything_is_refused(client: Any) -> None:
    with pytest.raises(TypeError, match=r"items\[0\]: of a list it cannot be told"):
        client.recommend_batch([["1", "7"]])


def test_without_the_libraries() -> None:
    code = """
import sys
for name in ("numpy", "pandas", "polars"):
    sys.modules[name] = None
from kithkin import Results, ResponseInfo, Vector, Client
from kithkin._floats import vector_message
assert vector_message([1.0, 2.0]).values == [1.0, 2.0] and list(Vector([1])) == [1.0]
results = Results((), ResponseInfo())
assert results.to_dicts() == []
for name in ("pandas", "polars"):
    try:
        getattr(results, f"to_{name}")()
    except ImportError as error:
        assert str(error) == (
            f"to_{name}() needs {name}, which is not installed here: pip install {name}. to_dicts() needs nothing."
        ), error
    else:
        raise AssertionError(name)
Client("localhost:1").close()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
