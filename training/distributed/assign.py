"""Which part each entity and user belongs to: balanced parts with few edges between them.

Restreaming linear deterministic greedy (Stanton and Kliot 2012; Nishimura and Ugander 2013): nodes are put one after
the other into the part that holds most of their neighbours, the fuller the part the less it counts; the stream is
repeated over the last assignment. It reads the edges where they lie and holds nothing but the assignment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.compiled import compiled
from model_store.csr import Csr, EdgeType

Owners = dict[str, NDArray[np.int32]]
"""Part of every node, by type ``[nodes]``."""

_PASSES = 30
_PATIENCE = 5
"""Passes without fewer cut edges after which it ends."""
_ROOM = 0.03
"""A part may hold so much more than its even share of each type's nodes and of their edges."""


def random_owners(sizes: Mapping[str, int], parts: int, seed: int) -> Owners:
    """Parts of equal size, drawn at random."""
    rng = np.random.default_rng(seed)
    return {name: (rng.permutation(count) % parts).astype(np.int32) for name, count in sizes.items()}


def restreamed_owners(sizes: Mapping[str, int], edges: Mapping[EdgeType, Csr], parts: int, seed: int) -> Owners:
    """Balanced parts that cut few of ``edges``, all between types of ``sizes`` and given from both ends.

    Types are streamed in the order of ``sizes``: give those first whose edges say most. The same input gives the same
    parts. Linear in the edges, a pass; the pass with the fewest cut edges counts.
    """
    rng = np.random.default_rng(seed)
    owners = {name: np.full(count, -1, np.int32) for name, count in sizes.items()}
    orders = {name: rng.permutation(count) for name, count in sizes.items()}
    seen = {name: [each for each in edges if each.node_type == name] for name in sizes}
    loads = {name: _loads(count, [edges[each] for each in seen[name]]) for name, count in sizes.items()}
    best, fewest, since = owners, np.inf, 0
    for _ in range(_PASSES):
        for name in sizes:
            near = seen[name]
            if not near:
                owners[name][orders[name]] = np.arange(sizes[name]) % parts
                continue
            _stream(
                orders[name],
                tuple(np.asarray(edges[each].indptr) for each in near),
                tuple(np.asarray(edges[each].indices) for each in near),
                tuple(owners[each.neighbour_type] for each in near),
                owners[name],
                loads[name],
                (1.0 + _ROOM) / parts,
                parts,
            )
        cut = cut_edges(owners, edges)
        if cut < fewest:
            best, fewest, since = {name: each.copy() for name, each in owners.items()}, cut, 0
        else:
            since += 1
        if since == _PATIENCE or not fewest:
            break
    return best


def cut_edges(owners: Mapping[str, NDArray[np.int32]], edges: Mapping[EdgeType, Csr]) -> int:
    """Edges whose ends are in different parts; a relation counts once, where it is given from its source."""
    total = 0
    for edge_type, csr in edges.items():
        if not edge_type.reversed:
            total += int(
                _cut(
                    np.asarray(csr.indptr),
                    np.asarray(csr.indices),
                    owners[edge_type.node_type],
                    owners[edge_type.neighbour_type],
                )
            )
    return total


def _loads(count: int, edges: Sequence[Csr]) -> NDArray[np.float64]:
    """What each node of a type weighs ``[nodes]``: half as a node, half by its edges; adds up to 1."""
    degree = np.zeros(count, np.float64)
    for csr in edges:
        degree += np.diff(csr.indptr)
    even = np.full(count, 1.0 / max(count, 1))
    return 0.5 * even + 0.5 * degree / degree.sum() if degree.sum() > 0 else even


@compiled
def _stream(
    order: NDArray[np.int64],
    indptrs: Any,
    indices: Any,
    neighbour_owners: Any,
    own: NDArray[np.int32],
    loads: NDArray[np.float64],
    capacity: float,
    parts: int,
) -> None:
    filled = np.zeros(parts)
    count = np.zeros(parts)
    for node in order:
        count[:] = 0.0
        for relation in range(len(indptrs)):
            owner = neighbour_owners[relation]
            for position in range(indptrs[relation][node], indptrs[relation][node + 1]):
                part = owner[indices[relation][position]]
                if part >= 0:
                    count[part] += 1.0
        chosen, highest = -1, 0.0
        for part in range(parts):
            if filled[part] + loads[node] <= capacity:
                score = count[part] * (1.0 - filled[part] / capacity)
                # Ties go to the emptier part.
                if chosen < 0 or score > highest or (score == highest and filled[part] < filled[chosen]):
                    chosen, highest = part, score
        if chosen < 0:  # No part has room for a node this heavy.
            chosen = int(np.argmin(filled))
        own[node] = chosen
        filled[chosen] += loads[node]


@compiled
def _cut(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], own: NDArray[np.int32], other: NDArray[np.int32]
) -> int:
    total = 0
    for node in range(len(indptr) - 1):
        for position in range(indptr[node], indptr[node + 1]):
            if own[node] != other[indices[position]]:
                total += 1
    return total
