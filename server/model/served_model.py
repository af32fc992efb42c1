"""One bundle, loaded to answer: its nodes, indexes, encoders and evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from graph_store.schema import NodeRole
from kithkin.v1 import model_service_pb2
from model_store.bundle import Bundle
from server.errors import InvalidField, NoScorer, NoSuchSpace, SelfTestFailed
from server.filters.filters import Filters
from server.index.publish import open_index
from server.index.rescoring import scores_of
from server.index.vector_index import Rows, VectorIndex, Vectors, unit_row, unit_rows
from server.model.catalogue import Catalogue
from server.model.description import Describer
from server.model.encoder import OnlineEncoder
from server.model.focal import FocalSpace
from server.model.neighbourhoods import Neighbourhoods
from server.reasons.explanation import Explainer

if TYPE_CHECKING:
    from server.model.neural_search import NeuralSearch

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
        self.explainer = Explainer(bundle, self.catalogue, Neighbourhoods(bundle))
        self.filters = Filters(bundle, self.catalogue, self.describer)
        self._indexes: dict[tuple[str, str], VectorIndex] = {}
        self._encoders: dict[tuple[str, str], OnlineEncoder] = {}
        self._popular: dict[str, Rows] = {}
        self._neural: NeuralSearch | None = None
        self._focal: FocalSpace | None = None

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
        model._neural = _neural(bundle)
        user_space = bundle.spaces.get(USER)
        if user_space is not None and user_space.focal.encoders:
            assert features is not None
            model._focal = FocalSpace(bundle, user_space, features)
        model._prepare()
        model.self_test()
        return model

    @classmethod
    def of_parts(
        cls,
        bundle: Bundle,
        indexes: Mapping[tuple[str, str], VectorIndex],
        encoders: Mapping[tuple[str, str], OnlineEncoder],
        neural: NeuralSearch | None,
        focal: FocalSpace | None,
    ) -> ServedModel:
        """A model of parts that are loaded and tested already (``server.fresh.model``)."""
        model = cls(bundle)
        model._indexes, model._encoders, model._neural = dict(indexes), dict(encoders), neural
        model._focal = focal
        model._prepare()
        return model

    def _prepare(self) -> None:
        """Make what the first calls would wait for."""
        self.catalogue.prepare()
        self.explainer.neighbourhoods.prepare()
        for node_type in self.catalogue.entity_types:
            self.popular(node_type)
        for node_type in self.bundle.node_types:
            self.filters.prepare(node_type)

    @property
    def version(self) -> str:
        return self.bundle.version

    @cached_property
    def indexes(self) -> dict[tuple[str, str], VectorIndex]:
        """Indexes by space and node type."""
        return self._indexes

    @property
    def encoders(self) -> Mapping[tuple[str, str], OnlineEncoder]:
        """Online encoders by space and node type."""
        return self._encoders

    @property
    def focal_space(self) -> FocalSpace | None:
        """What encodes users around contexts, if anything does."""
        return self._focal

    @property
    def neural_search(self) -> NeuralSearch | None:
        """The neural scorer, if there is one."""
        return self._neural

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

    def has_encoder(self, space: str, node_type: str) -> bool:
        """Whether a node's vector can be computed anew; not a concept's, in which something of its own was learned."""
        return (space, node_type) in self._encoders and self.catalogue.role(node_type) is not NodeRole.CONCEPT

    def vectors(self, space: str, node_type: str, rows: Sequence[int], field: str) -> Vectors:
        """Vectors ``[rows, dimension]`` as ``vector`` gives them, zeros where nothing is known. Raises NoSuchSpace."""
        if not self.has_vectors(self.space(space, field), node_type):
            raise NoSuchSpace(field, f"the space {space!r} holds no vectors of {node_type}")
        vectors = np.asarray(self.bundle.vectors(space, node_type)[rows], dtype=np.float32)
        return unit_rows(vectors) if self.metric_is_cosine(space) else vectors

    def vector(self, space: str, node_type: str, row: int, field: str) -> Vectors | None:
        """The vector of a node (length 1 under cosine); None where nothing is known of it. Raises NoSuchSpace."""
        if not self.has_vectors(self.space(space, field), node_type):
            raise NoSuchSpace(field, f"the space {space!r} holds no vectors of {node_type}")
        vector = np.array(self.bundle.vectors(space, node_type)[row], dtype=np.float32)
        # One value tells of nearly every vector that something is known.
        if not vector[0] and not vector.any():
            return None
        return unit_row(vector) if self.metric_is_cosine(space) else vector

    def neural(self, field: str) -> NeuralSearch:
        """The neural scorer. Raises NoScorer where the bundle has none."""
        if self._neural is None:
            raise NoScorer(
                f"{field}: the bundle has no neural scorer",
                hint="Publish one (`enabled = true` in [training.neural]), or leave `score` out.",
            )
        return self._neural

    def focal(self, user_type: str, field: str) -> FocalSpace:
        """What encodes users of a type around a context. Raises InvalidField where the bundle cannot."""
        if self._focal is None or user_type not in self._focal.user_types:
            raise InvalidField(
                field,
                f"this bundle has no vectors of {user_type} around a context",
                hint="Its space `user` has to be trained with the encoder zoomer: docs/methods/zoomer.md.",
            )
        return self._focal

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
        if self._neural is not None:
            self._neural.self_test(self.version)
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
        # Both ways, which has what they compile ready before the first call.
        each = index.search_each(queries, 1, np.full(len(queries), -1))
        found = [index.search_one(queries[0], 1, np.empty(0, np.int64)), *map(each.one, range(1, len(queries)))]
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


def _neural(bundle: Bundle) -> NeuralSearch | None:
    """The neural search of a bundle, if it has a scorer."""
    if not bundle.manifest.HasField("neural"):
        return None
    # Numba is loaded where it is needed alone: it takes 60 MB.
    from model_store.neural_files import open_neural
    from server.model.neural_search import NeuralSearch

    files = open_neural(bundle)
    return None if files is None else NeuralSearch(bundle, files)
