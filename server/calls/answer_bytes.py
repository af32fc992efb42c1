"""Answers of searches as the bytes that gRPC sends, without building messages that would only be taken apart again.

A message's bytes are those of its fields one after the other, so an answer is put together from what each node's part
was encoded to once, its score, and ``info``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from google.rpc import status_pb2

from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from server.index.vector_index import Vectors

M = TypeVar("M", bound=Message)

_MOST_PARTS = 100_000


def _tag(message: type[Message], field: str, wire_type: int) -> bytes:
    number = message.DESCRIPTOR.fields_by_name[field].number
    assert number < 16, "one byte holds the tag"
    return bytes([number << 3 | wire_type])


_FIXED32, _LENGTH = 5, 2
_NODE, _SCORE = _tag(types_pb2.ScoredNode, "node", _LENGTH), _tag(types_pb2.ScoredNode, "score", _FIXED32)
# All search responses hold their results and their info in the same fields, all batches their items.
_RESULTS = _tag(pb.SearchSimilarEntitiesResponse, "results", _LENGTH)
_INFO = _tag(pb.SearchSimilarEntitiesResponse, "info", _LENGTH)
_ITEMS = _tag(pb.BatchSearchSimilarEntitiesResponse, "items", _LENGTH)
_RESPONSE = _tag(pb.BatchSearchSimilarEntitiesItem, "response", _LENGTH)
_ERROR = _tag(pb.BatchSearchSimilarEntitiesItem, "error", _LENGTH)


class Parts(dict[int, bytes]):
    """A node's part of a result, all but the four bytes of its score, by row; encoded when first asked for."""

    def __init__(self, node: Callable[[int], types_pb2.Node]) -> None:
        super().__init__()
        self._node = node

    def __missing__(self, row: int) -> bytes:
        body = self._node(row).SerializeToString()
        body = b"".join((_NODE, length(len(body)), body, _SCORE))
        if len(self) >= _MOST_PARTS:
            self.clear()
        part = self[row] = b"".join((_RESULTS, length(len(body) + 4), body))
        return part


class EncodedAnswer(Generic[M]):
    """A search's response as bytes; it reads as the message where somebody wants to look into it."""

    __slots__ = ("_message", "_results", "_type", "info")

    def __init__(self, kind: type[M], parts: Parts, rows: Sequence[int], scores: Vectors) -> None:
        """``info`` is filled by the caller before the answer is sent."""
        self._type = kind
        self._results = results_bytes(parts, rows, scores)
        self._message: M | None = None
        self.info = types_pb2.ResponseInfo()

    def SerializeToString(self) -> bytes:  # noqa: N802
        """The response's bytes."""
        info = self.info.SerializeToString()
        return b"".join((self._results, _INFO, length(len(info)), info))

    @property
    def message(self) -> M:
        """The response as a message."""
        if self._message is None:
            self._message = self._type.FromString(self.SerializeToString())
        return self._message

    @property
    def results(self) -> Any:
        """The results as messages."""
        return self.message.results  # type: ignore[attr-defined]


def results_bytes(parts: Parts, rows: Sequence[int], scores: Vectors) -> bytes:
    """Nodes with their scores as the field ``results``."""
    packed = scores.astype("<f4", copy=False).tobytes()
    pieces = [packed[place : place + 4] for place in range(0, len(packed), 4)]
    return b"".join(chain.from_iterable(zip([parts[row] for row in rows], pieces, strict=True)))


class EncodedBatch:
    """A batch's response as bytes, from its items: searches' responses (encoded or messages), and statuses."""

    def __init__(self, kind: type[Message], outcomes: Sequence[Any]) -> None:
        """``info`` is filled by the caller before the answer is sent."""
        self._type, self._outcomes = kind, outcomes
        self.info = types_pb2.ResponseInfo()

    @property
    def infos(self) -> list[types_pb2.ResponseInfo]:
        """Of the items that were answered."""
        return [each.info for each in self._outcomes if not isinstance(each, status_pb2.Status)]

    def SerializeToString(self) -> bytes:  # noqa: N802
        """The response's bytes."""
        found = []
        for outcome in self._outcomes:
            body = outcome.SerializeToString()
            head = (_ERROR if isinstance(outcome, status_pb2.Status) else _RESPONSE) + length(len(body))
            found += [_ITEMS, length(len(head) + len(body)), head, body]
        info = self.info.SerializeToString()
        return b"".join((*found, _INFO, length(len(info)), info))

    @property
    def message(self) -> Any:
        """The response as a message."""
        return self._type.FromString(self.SerializeToString())

    @property
    def items(self) -> Any:
        """The items as messages."""
        return self.message.items


def length(number: int) -> bytes:
    """A length as a varint."""
    if number < 128:
        return bytes((number,))
    if number < 16_384:
        return bytes((number & 127 | 128, number >> 7))
    found = bytearray()
    while number >= 128:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)
