"""The strongest evidence of many pairs at once, as ``Explainer.between`` would rank it first, at microseconds a pair.

The lists of one node are spread over an array as long as the neighbours' type, and the lists of the nodes it is
compared with are read past it: the cost is the length of their lists, and nothing is sorted or copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.bundle import Bundle
from model_store.compiled import compiled
from model_store.csr import Csr, EdgeType
from server.index.vector_index import Rows
from server.model.catalogue import Catalogue, NodeKey
from server.model.neighbourhoods import Neighbourhoods
from server.reasons import phrases

_NO_WEIGHTS = np.empty(0, np.float32)
_SHARED, _DIRECT, _TOGETHER = range(3)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Channel:
    """One way in which two nodes of the type can belong together."""

    kind: int
    edge_type: EdgeType
    other: EdgeType | None = None
    """Of the target, where two lists are compared."""

    @property
    def order(self) -> tuple[tuple[str, ...], str]:
        """What ranks evidence of equal strength, before the row of a shared neighbour."""
        name = self.edge_type.triple.name
        return ((name, name), self.edge_type.neighbour_type) if self.kind == _SHARED else ((name,), "")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """A channel's number, and where it stands among evidence of equal strength."""

    channel: np.int32
    order: np.int32


@dataclass(kw_only=True, slots=True)
class _Best:
    """What is known of each pair so far, all ``[sources, n]``."""

    strength: NDArray[np.float64]
    channel: NDArray[np.int32]
    """-1: no evidence."""
    order: NDArray[np.int32]
    row: NDArray[np.int64]
    """Of the shared neighbour; of direct edges whether the target points at the source."""
    users: NDArray[np.int64]
    """How many users engaged with both; -1: not known."""
    joined: NDArray[np.bool_]
    """Whether a co-engagement edge joins them."""


class StrongestEvidence:
    """Reasons between entities of one type."""

    def __init__(self, bundle: Bundle, catalogue: Catalogue, neighbourhoods: Neighbourhoods, node_type: str) -> None:
        self._bundle = bundle
        self._catalogue = catalogue
        self._neighbourhoods = neighbourhoods
        self._type = node_type
        self._scale = neighbourhoods.scale(node_type)
        self._engagement = neighbourhoods.engagements_with(node_type)
        semantic = neighbourhoods.semantic(node_type)
        # In the order in which Explainer finds evidence: of what is equal in every way, the first is told.
        self._channels = [_Channel(kind=_SHARED, edge_type=each) for each in semantic]
        self._channels += [
            _Channel(kind=_DIRECT, edge_type=each)
            for each in semantic
            if not each.reversed and each.neighbour_type == node_type
        ]
        self._channels += [
            _Channel(kind=_TOGETHER, edge_type=each)
            for each in neighbourhoods.co_engagements(node_type)
            if each.neighbour_type == node_type
        ]
        if self._engagement is not None:
            self._channels.append(_Channel(kind=_TOGETHER, edge_type=self._engagement))
        orders = sorted({channel.order for channel in self._channels})
        self._order = [orders.index(channel.order) for channel in self._channels]

    def texts(self, sources: Rows, targets: NDArray[np.int64]) -> list[str | None]:
        """A sentence for each pair of ``sources [S]`` and their ``targets [S, n]`` (-1: none), row by row.

        None where the bundle holds no evidence, and where there is no target.
        """
        best = _Best(
            strength=np.zeros(targets.shape),
            channel=np.full(targets.shape, -1, np.int32),
            order=np.zeros(targets.shape, np.int32),
            row=np.zeros(targets.shape, np.int64),
            users=np.full(targets.shape, -1, np.int64),
            joined=np.zeros(targets.shape, np.bool_),
        )
        for number, channel in enumerate(self._channels):
            place = _Place(channel=np.int32(number), order=np.int32(self._order[number]))
            if channel.kind == _SHARED:
                self._compare(channel.edge_type, sources, targets, place, best)
            elif channel.edge_type is not self._engagement:
                self._follow(channel, sources, targets, place, best)
            else:
                self._count(channel.edge_type, sources, targets, place, best)
        return self._told(sources, targets, best)

    def _compare(self, edge_type: EdgeType, sources: Rows, targets: Rows, at: _Place, best: _Best) -> None:
        csr = self._bundle.neighbours(edge_type)
        count = self._bundle.node_types[edge_type.neighbour_type].count
        rarity = self._neighbourhoods.rarities(edge_type)
        own = edge_type.neighbour_type == self._type
        held, stamp = np.zeros(count), np.full(count, -1, np.int64)
        _shared(
            csr.indptr, csr.indices, _weights(csr), rarity, own, sources, targets, at.channel, at.order,
            held, stamp, best.strength, best.channel, best.order, best.row,
        )  # fmt: skip

    def _follow(self, channel: _Channel, sources: Rows, targets: Rows, at: _Place, best: _Best) -> None:
        """Edges between the two, either way."""
        csr = self._bundle.neighbours(channel.edge_type)
        together = channel.kind == _TOGETHER
        _joined(
            csr.indptr, csr.indices, _weights(csr), self._scale, together, sources, targets, at.channel, at.order,
            best.strength, best.channel, best.order, best.row, best.joined,
        )  # fmt: skip

    def _count(self, edge_type: EdgeType, sources: Rows, targets: Rows, at: _Place, best: _Best) -> None:
        users = self._neighbourhoods.users_of(edge_type)
        if users is not None:
            stamp = np.full(self._bundle.node_types[edge_type.node_type].count, -1, np.int64)
            _together(
                users.indptr, users.indices, self._scale, sources, targets, at.channel, at.order,
                stamp, best.strength, best.channel, best.order, best.joined, best.users,
            )  # fmt: skip

    def _told(self, sources: Rows, targets: Rows, best: _Best) -> list[str | None]:
        texts: dict[tuple[int, ...], str] = {}
        told: list[str | None] = []
        width = targets.shape[1]
        rows, users, ends = best.row.ravel().tolist(), best.users.ravel().tolist(), targets.ravel().tolist()
        for number, place in enumerate(best.channel.ravel().tolist()):
            if place < 0:
                told.append(None)
                continue
            channel = self._channels[place]
            if channel.kind == _SHARED:
                key: tuple[int, ...] = (place, rows[number])
            elif channel.kind == _TOGETHER:
                key = (place, users[number])
            else:
                key = (place, rows[number], int(sources[number // width]), ends[number])
            text = texts.get(key)
            if text is None:
                text = texts[key] = phrases.sentence(self._text(channel, key))
            told.append(text)
        return told

    def _text(self, channel: _Channel, key: tuple[int, ...]) -> str:
        edge_type = channel.edge_type
        relation = edge_type.triple.name
        if channel.kind == _SHARED:
            name = self._catalogue.name(NodeKey(edge_type.neighbour_type, key[1]))
            return phrases.shared(relation, edge_type.neighbour_type, name, reverse=edge_type.reversed)
        if channel.kind == _DIRECT:
            names = [self._catalogue.name(NodeKey(self._type, row)) for row in key[2:]]
            start, end = reversed(names) if key[1] else names
            return phrases.direct(start, relation, end)
        if key[1] < 0 or self._engagement is None:
            return phrases.together(None, None)
        return phrases.together(key[1], self._engagement.triple.name)


def _weights(csr: Csr) -> NDArray[np.float32]:
    return _NO_WEIGHTS if csr.weight is None else csr.weight


@compiled
def _heaviest(weights: Any, low: int, high: int) -> Any:
    """The weight that all of a list are relative to; 0: they are all alike."""
    most = 0.0
    if len(weights):
        for place in range(low, high):
            most = max(most, np.float64(weights[place]))
    return most


@compiled
def _take(strength: Any, channel: Any, order: Any, row: Any, number: Any, at: Any, s: int, t: int, value: Any) -> None:
    """Keep evidence that is stronger than what is known of a pair; of equals the first by order, then by row."""
    strong, where = value
    if strong <= 0 or strong < strength[s, t]:
        return
    equal = strong == strength[s, t] and channel[s, t] >= 0
    if equal and (at > order[s, t] or (at == order[s, t] and where >= row[s, t])):
        return
    strength[s, t], channel[s, t], order[s, t], row[s, t] = strong, number, at, where


@compiled
def _shared(
    indptr: Any, indices: Any, weights: Any, rarity: Any, own: bool, sources: Any, targets: Any, number: Any, at: Any,
    held: Any, stamp: Any, strength: Any, channel: Any, order: Any, row: Any,
) -> None:  # fmt: skip
    for s in range(len(sources)):
        low, high = indptr[sources[s]], indptr[sources[s] + 1]
        most = _heaviest(weights, low, high)
        for place in range(low, high):
            weight = np.float64(weights[place]) / most if most > 0 else 1.0
            if weight > 0:
                held[indices[place]], stamp[indices[place]] = weight, s
        for t in range(targets.shape[1]):
            target = targets[s, t]
            if target < 0:
                continue
            low, high = indptr[target], indptr[target + 1]
            most = _heaviest(weights, low, high)
            for place in range(low, high):
                middle = indices[place]
                if stamp[middle] != s or (own and (middle == sources[s] or middle == target)):
                    continue
                weight = np.float64(weights[place]) / most if most > 0 else 1.0
                if weight > 0:
                    value = rarity[middle] * np.sqrt(held[middle] * weight), np.int64(middle)
                    _take(strength, channel, order, row, number, at, s, t, value)


@compiled
def _weight_of(indptr: Any, indices: Any, weights: Any, node: int, other: int) -> Any:
    """Relative weight of an edge; negative where there is none."""
    low, high = indptr[node], indptr[node + 1]
    for place in range(low, high):
        if indices[place] == other:
            most = _heaviest(weights, low, high)
            return np.float64(weights[place]) / most if most > 0 else 1.0
    return -1.0


@compiled
def _joined(
    indptr: Any, indices: Any, weights: Any, scale: float, together: bool, sources: Any, targets: Any,
    number: Any, at: Any, strength: Any, channel: Any, order: Any, row: Any, joined: Any,
) -> None:  # fmt: skip
    for s in range(len(sources)):
        for t in range(targets.shape[1]):
            target = targets[s, t]
            if target < 0:
                continue
            there = _weight_of(indptr, indices, weights, sources[s], target)
            back = _weight_of(indptr, indices, weights, target, sources[s])
            if together:
                if there > 0 or back > 0:
                    joined[s, t] = True
                    value = scale * max(there, back), np.int64(0)
                    _take(strength, channel, order, row, number, at, s, t, value)
            else:
                _take(strength, channel, order, row, number, at, s, t, (scale * there, np.int64(0)))
                _take(strength, channel, order, row, number, at, s, t, (scale * back, np.int64(1)))


@compiled
def _together(
    indptr: Any, indices: Any, scale: float, sources: Any, targets: Any, number: Any, at: Any,
    stamp: Any, strength: Any, channel: Any, order: Any, joined: Any, users: Any,
) -> None:  # fmt: skip
    row = np.zeros(strength.shape, np.int64)
    for s in range(len(sources)):
        own = indptr[sources[s] + 1] - indptr[sources[s]]
        for place in range(indptr[sources[s]], indptr[sources[s] + 1]):
            stamp[indices[place]] = s
        for t in range(targets.shape[1]):
            target = targets[s, t]
            if target < 0:
                continue
            count, others = 0, indptr[target + 1] - indptr[target]
            for place in range(indptr[target], indptr[target + 1]):
                if stamp[indices[place]] == s:
                    count += 1
            users[s, t] = count
            if count and not joined[s, t]:
                cosine = count / max((own * others) ** 0.5, 1.0)
                _take(strength, channel, order, row, number, at, s, t, (scale * cosine, np.int64(0)))
