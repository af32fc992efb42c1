"""One bundle, loaded to answer: its nodes, indexes, encoders and evidence."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from kithkin.v1 import model_service_pb2
from model_store.bundle import Bundle
from server.catalogue import Catalogue
from server.description import Describer
from server.encoder import OnlineEncoder
from server.errors import NoSuchSpace, SelfTestFailed
from server.explanation import Explainer
from server.neighbourhoods import Neighbourhoods
from server.publish import open_index
from server.vector_index import Rows, VectorIndex, Vectors, scores_of, unit_rows

SIMILAR, USER = "similar", "user"
"""Default spaces of the calls."""
_TESTED = 20
"""Queries of a self-test."""


class ServedModel:
    """Everything calls read, opened once; nothing in it changes after ``load``."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.catalogue = Catalogue(bundle)
        self.describer = Describer(bundle, self.catalogue)
        self.explainer = Explainer(self.catalogue, Neighbourhoods(bundle))
        self._indexes: dict[tuple[str, str], VectorIndex] = {}
        self._encoders: dict[tuple[str, str], OnlineEncoder] = {}
        self._popular: dict[str, Rows] = {}

    @classmethod
    def load(cls, bundle: Bundle) -> ServedModel:
        """Open indexes and encoders, count what explanations need, and test that it answers. Raises SelfTestFailed."""
        model = cls(bundle)
        features = bundle.features() if any(space.encoders for space in bundle.manifest.spaces) else None
        for space in bundle.manifest.spaces:
            for index in space.indexes:
                model._indexes[space.name, index.node_type] = open_index(bundle, space.name, index)
            for encoder in space.encoders:
                assert features is not None
                model._encoders[space.name, encoder.node_type] = OnlineEncoder(
                    bundle, space, encoder.node_type, features
                )
        model.catalogue.prepare_names()
        model.explainer.neighbourhoods.prepare()
        for node_type in model.catalogue.entity_types:
            model.popular(node_type)
        model.self_test()
        return model

    @property
    def version(self) -> str:
        return self.bundle.version

    @cached_property
    def indexes(self) -> dict[tuple[str, str], VectorIndex]:
        """Indexes by space and node type."""
        return self._indexes

    def metric_is_cosine(self, space: str) -> bool:
        return bool(self.bundle.spaces[space].metric == model_service_pb2.COSINE)

    def has_vectors(self, space: str, node_type: str) -> bool:
        return space in self.bundle.spaces and node_type in self.bundle.spaces[space].node_types

    def space(self, name: str, field: str) -> str:
        """The space of this name. Raises NoSuchSpace."""
        if name not in self.bundle.spaces:
            raise NoSuchSpace(
                field, f"the bundle has no space {name!r}", hint=f"There are {', '.join(self.bundle.spaces) or 'none'}."
            )
        return name

    def index(self, space: str, node_type: str, field: str) -> VectorIndex:
        """The index of a type in a space. Raises NoSuchSpace where that type is not searched."""
        try:
            return self._indexes[self.space(space, field), node_type]
        except KeyError:
            searched = ", ".join(kind for name, kind in self._indexes if name == space) or "none"
            raise NoSuchSpace(
                field, f"{node_type} is not searched in the space {space!r}", hint=f"Searched are: {searched}."
            ) from None

    def encoder(self, space: str, node_type: str, field: str) -> OnlineEncoder:
        """The online encoder of a type. Raises NoSuchSpace where the bundle has none."""
        try:
            return self._encoders[self.space(space, field), node_type]
        except KeyError:
            raise NoSuchSpace(
                field,
                f"the space {space!r} has no online encoder for {node_type}",
                hint="Ask by id or by vector, or publish a bundle with one.",
            ) from None

    def vector(self, space: str, node_type: str, row: int, field: str) -> Vectors | None:
        """The vector of a node (length 1 under cosine); None where nothing is known of it. Raises NoSuchSpace."""
        if not self.has_vectors(self.space(space, field), node_type):
            raise NoSuchSpace(field, f"the space {space!r} holds no vectors of {node_type}")
        vector = np.array(self.bundle.vectors(space, node_type)[row], dtype=np.float32)
        if not vector.any():
            return None
        return unit_rows(vector[None])[0] if self.metric_is_cosine(space) else vector

    def popular(self, node_type: str) -> Rows:
        """Rows of a type, the most engaged first, ties by id."""
        if node_type not in self._popular:
            popularity = np.nan_to_num(self.bundle.popularity(node_type))
            self._popular[node_type] = np.lexsort((np.arange(len(popularity)), -popularity))
        return self._popular[node_type]

    def self_test(self) -> None:
        """Ask every index and every encoder one question whose answer is known. Raises SelfTestFailed."""
        for (space, node_type), index in self._indexes.items():
            self._test_index(space, node_type, index)
        for (space, node_type), encoder in self._encoders.items():
            try:
                description = self.describer.empty(node_type)
                vector = encoder.encode(description.properties, description.links)
                if not np.isfinite(vector).all():
                    raise ValueError("a value of the vector is NaN or infinite")
            except Exception as error:
                raise SelfTestFailed(
                    f"bundle {self.version}: the encoder of {node_type} in the space {space!r} does not run: {error}",
                    hint="Publish again; the bundle that served before is kept.",
                ) from error

    def _test_index(self, space: str, node_type: str, index: VectorIndex) -> None:
        vectors = self.bundle.vectors(space, node_type)
        known = np.flatnonzero(vectors[:1000].any(axis=1))
        if not len(index) or not len(known):
            return
        cosine = self.metric_is_cosine(space)
        queries = np.array(vectors[known[:: max(len(known) // _TESTED, 1)][:_TESTED]], dtype=np.float32)
        if cosine:
            queries = unit_rows(queries)
        found = index.search(queries, 1)
        # Under cosine a vector finds itself (or its like); an approximate index may miss one, a broken one misses most.
        own = [scores_of(query[None], query)[0] for query in queries]
        right = [
            len(one.rows) > 0 and (not cosine or bool(one.scores[0] > score - 1e-3))
            for one, score in zip(found, own, strict=True)
        ]
        if sum(right) * 2 < len(right):
            raise SelfTestFailed(
                f"bundle {self.version}: the index of {node_type} in the space {space!r} does not find its own vectors",
                hint="Publish again; the bundle that served before is kept.",
            )
