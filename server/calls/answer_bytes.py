"""Answers of searches as the bytes that gRPC sends, without building messages that would only be taken apart again.

A message's bytes are those of its fields one after the other, so an answer is put together from what each node's part
was encoded to once, its score, and ``info``.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from google.protobuf.message import Message
from google.rpc import status_pb2
from numpy.typing import NDArray

from kithkin.v1 import retrieval_service_pb2 as pb
from kithkin.v1 import types_pb2
from model_store.compiled import compiled
from server.index.vector_index import Rows, Vectors

M = TypeVar("M", bound=Message)

_FIRST_BYTES, _MOST_BYTES = 1 << 16, 64 << 20
"""Room for the parts of a type's nodes: at first, and at most (twice as much while it grows)."""
_AT_ONCE = 64
"""Nodes encoded between two takings of the lock."""


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
_ITEMS_BYTE, _RESPONSE_BYTE = _ITEMS[0], _RESPONSE[0]
_HEADS = 22
"""Bytes of an item's two tags and lengths at most."""


class Parts:
    """What answers show of the nodes of a type, encoded when first asked for and laid into answers by compiled code.

    A node's part is a result of a search, all but the four bytes of its score. Threads may share it.
    """

    def __init__(self, node: Callable[[int], types_pb2.Node], count: int) -> None:
        """``count``: the nodes of the type."""
        self._node = node
        self._lock = threading.Lock()
        self._starts, self._lengths = np.full(count, -1, np.int64), np.zeros(count, np.int64)
        self._kept, self._used = np.empty(_FIRST_BYTES, np.uint8), 0

    def prepare(self) -> None:
        """Compile what lays answers out, if no process before did."""
        rows, scores = np.empty((1, 0), np.int64), np.empty((1, 0), np.float32)
        self.results(rows[0], scores[0])
        self.items(rows, scores, np.zeros(1, np.int64), [b""])

    def results(self, rows: Rows, scores: Vectors) -> bytes:
        """Nodes ``[N]`` with their scores ``[N]`` as the field ``results``."""
        if _size_of(self._starts, self._lengths, rows) < 0:
            self._make_ready(rows)
        with self._lock:
            size = self._size(rows)
            found = np.empty(size + 4 * len(rows), np.uint8)
            _lay_results(self._starts, self._lengths, self._kept, rows, _bytes_of(scores), found, 0)
            self._make_room(0)
        return found.tobytes()

    def items(self, rows: Rows, scores: Vectors, counts: Rows, infos: Sequence[bytes]) -> tuple[bytes, list[int]]:
        """Answers to the queries of a batch as its field ``items``, each with its encoded ``info``.

        ``rows`` and ``scores`` are ``[B, k]``, of which the first ``counts [B]`` are results. Returns the bytes, and
        where in them each item begins, and the last one ends.
        """
        tails = {each: b"".join((_INFO, length(len(each)), each)) for each in dict.fromkeys(infos)}
        tail = [tails[each] for each in infos]
        ends = np.cumsum([len(each) for each in tail])
        tail_bytes = np.frombuffer(b"".join(tail), np.uint8)
        shown = rows[np.arange(rows.shape[1]) < counts[:, None]]
        if _size_of(self._starts, self._lengths, shown) < 0:
            self._make_ready(shown)
        with self._lock:
            size = self._size(shown)
            found = np.empty(size + 4 * rows.size + len(tail_bytes) + _HEADS * len(rows), np.uint8)
            places = np.empty(len(rows) + 1, np.int64)
            _lay_items(
                self._starts,
                self._lengths,
                self._kept,
                rows,
                _bytes_of(scores),
                counts,
                tail_bytes,
                ends,
                found,
                places,
            )
            self._make_room(0)
        return found[: places[-1]].tobytes(), places.tolist()

    def _make_ready(self, rows: Rows) -> None:
        """Encode what is missing without the lock: a search that waits for it holds the event loop."""
        missing = np.unique(rows[self._starts[rows] < 0])
        for start in range(0, len(missing), _AT_ONCE):
            new = [(row, self._encoded(row)) for row in missing[start : start + _AT_ONCE].tolist()]
            with self._lock:
                self._make_room(sum(len(part) for _, part in new))
                self._keep(new)

    def _size(self, rows: Rows) -> int:
        """Bytes of the parts of these rows together, all of which are there afterwards; under the lock."""
        size = _size_of(self._starts, self._lengths, rows)
        if size < 0:
            # Others have emptied the book meanwhile, or it cannot hold so many.
            missing = np.unique(rows[self._starts[rows] < 0])
            self._keep([(row, self._encoded(row)) for row in missing.tolist()])
            size = _size_of(self._starts, self._lengths, rows)
        return size

    def _make_room(self, size: int) -> None:
        """Forget all parts where so many bytes more are too many: rather all anew than a book of who was asked for."""
        if self._used and self._used + size > _MOST_BYTES:
            self._starts.fill(-1)
            self._kept, self._used = np.empty(_FIRST_BYTES, np.uint8), 0

    def _keep(self, new: Sequence[tuple[int, bytes]]) -> None:
        for row, part in new:
            if self._starts[row] >= 0:
                continue
            end = self._used + len(part)
            if end > len(self._kept):
                self._kept = np.concatenate([self._kept[: self._used], np.empty(end, np.uint8)])
            self._kept[self._used : end] = np.frombuffer(part, np.uint8)
            self._starts[row], self._lengths[row], self._used = self._used, len(part), end

    def _encoded(self, row: int) -> bytes:
        body = self._node(row).SerializeToString()
        body = b"".join((_NODE, length(len(body)), body, _SCORE))
        return b"".join((_RESULTS, length(len(body) + 4), body))


class EncodedAnswer(Generic[M]):
    """A search's response as bytes; it reads as the message where somebody wants to look into it."""

    __slots__ = ("_message", "_results", "_type", "info")

    def __init__(self, kind: type[M], parts: Parts, rows: Rows, scores: Vectors) -> None:
        """``info`` is filled by the caller before the answer is sent."""
        self._type = kind
        self._results = parts.results(rows, scores)
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


class EncodedItem:
    """A search's response within a batch, as the bytes of its item; the batch reads its ``info``."""

    __slots__ = ("encoded", "info")

    def __init__(self, encoded: bytes, info: types_pb2.ResponseInfo) -> None:
        self.encoded, self.info = encoded, info


class EncodedItems(Sequence[EncodedItem]):
    """Searches' responses within a batch, which were encoded together."""

    def __init__(self, body: bytes, cuts: Sequence[int], infos: Sequence[types_pb2.ResponseInfo]) -> None:
        """``body`` and ``cuts`` as ``Parts.items`` gives them; many of the ``infos`` may be one object."""
        self.body, self._cuts, self._infos = body, cuts, infos

    def __len__(self) -> int:
        return len(self._infos)

    def __getitem__(self, number: Any) -> Any:
        return EncodedItem(self.body[self._cuts[number] : self._cuts[number + 1]], self._infos[number])

    @property
    def infos(self) -> list[tuple[types_pb2.ResponseInfo, int]]:
        """Those that differ, each with the number of items that have it."""
        same = {id(info): info for info in self._infos}
        return [(same[one], count) for one, count in Counter(map(id, self._infos)).items()]


class EncodedBatch:
    """A batch's response as bytes, from its items: searches' responses (encoded or messages), and statuses."""

    def __init__(self, kind: type[Message], outcomes: Sequence[Any]) -> None:
        """``info`` is filled by the caller before the answer is sent."""
        self._type, self._outcomes = kind, outcomes
        self.info = types_pb2.ResponseInfo()

    @property
    def infos(self) -> list[tuple[types_pb2.ResponseInfo, int]]:
        """Of the items that were answered, each with the number of items that have it."""
        if isinstance(self._outcomes, EncodedItems):
            return self._outcomes.infos
        return [(each.info, 1) for each in self._outcomes if not isinstance(each, status_pb2.Status)]

    def SerializeToString(self) -> bytes:  # noqa: N802
        """The response's bytes."""
        found = []
        if isinstance(self._outcomes, EncodedItems):
            found.append(self._outcomes.body)
        for outcome in () if found else self._outcomes:
            if isinstance(outcome, EncodedItem):
                found.append(outcome.encoded)
                continue
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


def _bytes_of(scores: Vectors) -> NDArray[np.uint8]:
    return np.ascontiguousarray(scores, "<f4").view(np.uint8)


@compiled
def _size_of(starts: Any, lengths: Any, rows: Any) -> int:
    """Bytes of the parts of these rows together; -1: one is not there."""
    size = 0
    for row in rows:
        if starts[row] < 0:
            return -1
        size += lengths[row]
    return size


@compiled
def _lay_results(starts: Any, lengths: Any, kept: Any, rows: Any, scores: Any, found: Any, place: int) -> int:
    for number in range(len(rows)):
        start, size = starts[rows[number]], lengths[rows[number]]
        found[place : place + size] = kept[start : start + size]
        place += size
        found[place : place + 4] = scores[4 * number : 4 * number + 4]
        place += 4
    return place


@compiled
def _lay_length(number: int, found: Any, place: int) -> int:
    while number >= 128:
        found[place] = number & 127 | 128
        number >>= 7
        place += 1
    found[place] = number
    return place + 1


@compiled
def _lay_items(
    starts: Any,
    lengths: Any,
    kept: Any,
    rows: Any,
    scores: Any,
    counts: Any,
    tails: Any,
    ends: Any,
    found: Any,
    places: Any,
) -> None:
    place = 0
    for item in range(len(rows)):
        places[item] = place
        count = counts[item]
        start = ends[item - 1] if item else 0
        size = ends[item] - start + 4 * count
        for number in range(count):
            size += lengths[rows[item, number]]
        head = 2
        rest = size
        while rest >= 128:
            rest >>= 7
            head += 1
        found[place] = _ITEMS_BYTE
        place = _lay_length(size + head, found, place + 1)
        found[place] = _RESPONSE_BYTE
        place = _lay_length(size, found, place + 1)
        place = _lay_results(starts, lengths, kept, rows[item, :count], scores[item], found, place)
        found[place : place + ends[item] - start] = tails[start : ends[item]]
        place += ends[item] - start
    places[len(rows)] = place
