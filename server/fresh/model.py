"""A served bundle with the delta in it, made beside the one that answers and swapped for it as a whole."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from server.fresh.bundle import FreshBundle, OwnVectors
from server.fresh.delta import Delta
from server.fresh.index import Compacted, FreshIndex
from server.fresh.neural import FreshNeuralSearch
from server.index.vector_index import unit_rows
from server.model.served_model import ServedModel

Place = tuple[str, str]
"""Space and node type of an index."""


def with_delta(base: ServedModel, delta: Delta, compacted: Mapping[Place, Compacted] | None = None) -> ServedModel:
    """The model of ``base`` as it is with the delta: its files, indexes and encoders, all that names rows made anew.

    ``compacted``: indexes that take the place of published ones. It costs a pass over nodes and edges (about half a
    second at 100,000 nodes and a million edges), and is best done in a thread.
    """
    bundle = FreshBundle(base.bundle, delta)
    transforms = bundle.features() if base.encoders else None
    indexes = {}
    for place, index in base.indexes.items():
        if place[1] not in delta.types:
            indexes[place] = index
            continue
        below = (compacted or {}).get(place)
        own = bundle.own_vectors(*place) if below is None else _since(bundle, place, delta, below.number)
        if base.metric_is_cosine(place[0]):
            own = OwnVectors(own.rows, unit_rows(own.vectors))
        indexes[place] = FreshIndex.over(below or index, bundle.rows[place[1]], own)
    encoders = {}
    for key, encoder in base.encoders.items():
        assert transforms is not None
        encoders[key] = encoder.over(bundle, transforms)
    neural = None if base.neural_search is None else FreshNeuralSearch(base.neural_search, bundle)
    focal = None if base.focal_space is None or transforms is None else base.focal_space.over(bundle, transforms)
    return ServedModel.of_parts(bundle, indexes, encoders, neural, focal)


def _since(bundle: FreshBundle, place: Place, delta: Delta, number: int) -> OwnVectors:
    """Vectors of the nodes that a later record tells of, whether it changed them or not."""
    space, node_type = place
    rows = np.sort(bundle.rows[node_type].now[delta.types[node_type].numbers > number])
    return OwnVectors(rows, np.asarray(bundle.vectors(space, node_type)[rows], np.float32))
