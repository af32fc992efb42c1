"""Users' vectors around a context: what a user looks at now decides which of their neighbours count.

ZOOMER (Jiang et al. 2022, arXiv 2203.12596): user and context are the focal point; of each list of neighbours the
region of interest holds the ``fan_out`` most relevant to it, so that a request costs as much for a user of ten thousand
engagements as for one of ten, but for one inner product each. docs/methods/zoomer.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from graph_store.schema import Triple
from kithkin.v1 import bundle_pb2
from model_store.bundle import Bundle
from model_store.csr import Csr, EdgeType
from server.index.vector_index import Rows, Vectors
from server.model.catalogue import NodeKey
from server.model.description import Description

if TYPE_CHECKING:
    from model_store.features import FeatureTransforms


class FocalSpace:
    """Encodes users of one space around contexts."""

    def __init__(self, bundle: Bundle, space: bundle_pb2.SpaceManifest, features: FeatureTransforms) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._sessions: dict[str, Any] = {
            encoder.node_type: onnxruntime.InferenceSession(
                str(bundle.folder / encoder.onnx), options, providers=["CPUExecutionProvider"]
            )
            for encoder in space.focal.encoders
        }
        self._inputs = {name: {each.name for each in session.get_inputs()} for name, session in self._sessions.items()}
        self._bundle, self._space, self._features = bundle, space, features
        self._tanimoto = space.focal.relevance == "tanimoto"
        self._edge_types = [
            EdgeType(Triple(each.source, each.name, each.target), each.reversed) for each in space.edge_types
        ]

    def over(self, bundle: Bundle, features: FeatureTransforms) -> FocalSpace:
        """The same for the rows of another view of its bundle."""
        other = copy(self)
        other._bundle, other._features = bundle, features
        return other

    @property
    def user_types(self) -> tuple[str, ...]:
        """Types that can be encoded."""
        return tuple(self._sessions)

    def of_user(self, user: NodeKey, context: Sequence[NodeKey]) -> Vectors:
        """The vector ``[dimension]`` of a user of the graph; without context the published one to 1e-5."""
        bundle = self._bundle
        lists = {each: bundle.neighbours(each).take(np.array([user.row])) for each in self._lists_of(user.type)}
        declared = bundle.node_types[user.type].properties
        columns = {each.name: bundle.property(user.type, each.name).slice(user.row, 1) for each in declared}
        table = pa.table(columns) if columns else pa.table({"id": pa.nulls(1, pa.string())})
        own = np.asarray(bundle.relevance(self._space.name, user.type)[user.row])
        return self._encoded(user.type, table, lists, own if own.any() else self._relevance_of(lists), context)

    def of_description(self, described: Description, context: Sequence[NodeKey]) -> Vectors:
        """The vector ``[dimension]`` of a user who is told by events: the mean of what these are relevant to."""
        lists = {}
        for edge_type, links in described.links.items():
            rows = np.array([link.row for link in links], np.int32)
            lists[edge_type] = Csr(
                indptr=np.array([0, len(rows)], np.int64),
                indices=rows,
                weight=np.array([link.weight for link in links], np.float32),
            )
        return self._encoded(described.node_type, described.properties, lists, self._relevance_of(lists), context)

    def _relevance_of(self, lists: Mapping[EdgeType, Csr]) -> Vectors:
        """The relevance vector ``[d]`` of a user whom training did not know: the mean of the neighbours'."""
        relevant = [
            np.asarray(self._bundle.relevance(self._space.name, edge_type.neighbour_type)[csr.indices])
            for edge_type, csr in lists.items()
        ]
        width = self._bundle.relevance(self._space.name, self.user_types[0]).shape[1]
        found = np.concatenate([np.empty((0, width), np.float32), *relevant])
        return np.asarray(found.mean(axis=0) if len(found) else np.zeros(width), np.float32)

    def _encoded(
        self,
        user_type: str,
        properties: pa.Table,
        lists: Mapping[EdgeType, Csr],
        own: Vectors,
        context: Sequence[NodeKey],
    ) -> Vectors:
        space, bundle = self._space.name, self._bundle
        point = np.array(own, np.float32)
        for key in context:
            point = point + bundle.relevance(space, key.type)[key.row]
        region = {
            edge_type: self._region(edge_type, lists[edge_type], point)
            for edge_type in self._edge_types
            if edge_type in lists
        }
        feed = self._neighbourhood(region, lists)
        feed["features"] = np.asarray(self._features.apply(user_type, properties, lists), np.float32)
        for name, part in (("context_vector", self._plain), ("context_state", self._state)):
            # A context of nothing adds nothing.
            found = [part(key) for key in context] or [np.zeros_like(part(NodeKey(user_type, 0)))]
            feed[name] = np.sum(found, axis=0, dtype=np.float32, keepdims=True)
        given = {name: value for name, value in feed.items() if name in self._inputs[user_type]}
        vector: Vectors = self._sessions[user_type].run(["vector"], given)[0][0]
        return vector

    def _region(self, edge_type: EdgeType, csr: Csr, point: Vectors) -> Rows:
        """Places in the list ``[at most fan_out]`` of the neighbours most relevant to the point, the best first."""
        rows = np.asarray(csr.indices)
        vectors = np.asarray(self._bundle.relevance(self._space.name, edge_type.neighbour_type)[rows])
        relevance = relevances(point, vectors, tanimoto=self._tanimoto)
        return np.lexsort((rows, -relevance))[: self._space.focal.fan_out]

    def _neighbourhood(self, region: Mapping[EdgeType, Rows], lists: Mapping[EdgeType, Csr]) -> dict[str, Any]:
        # One empty slot where there is no neighbour: attention over no slots at all is not defined.
        count = max(sum(map(len, region.values())), 1)
        kinds = np.zeros((1, count), np.int64)
        weight, mask = np.zeros((1, count), np.float32), np.zeros((1, count), np.bool_)
        states: list[Vectors] = []
        for layer in range(self._space.layers):
            width = self._bundle.states(self._space.name, layer, self.user_types[0]).shape[1]
            states.append(np.zeros((1, count, width), np.float32))
        first = 0
        for number, edge_type in enumerate(self._edge_types):
            places = region.get(edge_type)
            if places is None or not len(places):
                continue
            csr, here = lists[edge_type], slice(first, first + len(places))
            kinds[0, here], mask[0, here] = number, True
            weight[0, here] = 1.0 if csr.weight is None else csr.weight[places]
            for layer, state in enumerate(states):
                published = self._bundle.states(self._space.name, layer, edge_type.neighbour_type)
                state[0, here] = published[csr.indices[places]]
            first = here.stop
        feed: dict[str, Any] = {"edge_type": kinds, "weight": weight, "mask": mask}
        return feed | {f"states_{layer}": state for layer, state in enumerate(states)}

    def _lists_of(self, user_type: str) -> list[EdgeType]:
        return [each for each in self._bundle.edge_types if each.node_type == user_type]

    def _plain(self, key: NodeKey) -> Vectors:
        return np.asarray(self._bundle.focal(self._space.name, key.type)[key.row])

    def _state(self, key: NodeKey) -> Vectors:
        return np.asarray(self._bundle.states(self._space.name, 0, key.type)[key.row])


def relevances(point: Vectors, vectors: Vectors, *, tanimoto: bool) -> Vectors:
    """Relevance ``[n]`` of vectors ``[n, d]`` to a focal vector; 0 where there is nothing to divide by."""
    products, square = vectors @ point, np.float32(point @ point)
    others = np.einsum("nd,nd->n", vectors, vectors)
    below = square + others - products if tanimoto else np.sqrt(square * others)
    return np.asarray(np.divide(products, below, out=np.zeros_like(products), where=below > 0), np.float32)
