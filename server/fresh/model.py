"""A served bundle with the delta in it, made beside the one that answers and swapped for it as a whole."""

from __future__ import annotations

from server.fresh.bundle import FreshBundle
from server.fresh.delta import Delta
from server.fresh.index import FreshIndex
from server.fresh.neural import FreshNeuralSearch
from server.index.vector_index import unit_rows
from server.model.served_model import ServedModel


def with_delta(base: ServedModel, delta: Delta) -> ServedModel:
    """The model of ``base`` as it is with the delta: its files, indexes and encoders, all that names rows made anew.

    It costs a pass over nodes and edges (about a second at 100,000 nodes and a million edges), and is best done in a
    thread.
    """
    bundle = FreshBundle(base.bundle, delta)
    transforms = bundle.features() if base.encoders else None
    indexes = {}
    for (space, node_type), index in base.indexes.items():
        if node_type not in delta.types:
            indexes[space, node_type] = index
            continue
        own = bundle.own_vectors(space, node_type)
        if base.metric_is_cosine(space):
            own = {row: unit_rows(vector[None])[0] for row, vector in own.items()}
        indexes[space, node_type] = FreshIndex(index, bundle.rows[node_type], own)
    encoders = {}
    for key, encoder in base.encoders.items():
        assert transforms is not None
        encoders[key] = encoder.over(bundle, transforms)
    neural = None if base.neural_search is None else FreshNeuralSearch(base.neural_search, bundle)
    focal = None if base.focal_space is None or transforms is None else base.focal_space.over(bundle, transforms)
    return ServedModel.of_parts(bundle, indexes, encoders, neural, focal)
