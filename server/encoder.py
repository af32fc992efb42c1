"""The online encoder: vectors of what is described but not in the graph, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from graph_store.schema import Triple
from kithkin.v1 import bundle_pb2
from model_store.bundle import Bundle
from model_store.csr import Csr, EdgeType
from server.errors import InternalError
from server.vector_index import Vectors

if TYPE_CHECKING:
    from model_store.features import FeatureTransforms


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A link of what is described to a node of the graph."""

    row: int
    """Row of that node in its type."""
    weight: float = 1.0


Links = Mapping[EdgeType, Sequence[Link]]


class OnlineEncoder:
    """Encodes one node type into one space, from properties, links and the neighbours' published states."""

    def __init__(
        self, bundle: Bundle, space: bundle_pb2.SpaceManifest, node_type: str, features: FeatureTransforms
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # A query is one small batch: threads would cost more than they give, and outlive the worker's drain.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(
            str(bundle.encoder_path(space.name, node_type)), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {each.name: each.shape for each in self._session.get_inputs()}
        self._bundle = bundle
        self._space = space
        self._features = features
        self.node_type = node_type
        self.edge_types = tuple(
            EdgeType(Triple(each.source, each.name, each.target), each.reversed) for each in space.edge_types
        )

    def encode(self, properties: pa.Table, links: Links) -> Vectors:
        """The vector ``[dimension]`` of one node: its properties (one row), and its links in the order they count.

        Features are made of all links; attention reads the first ``max_neighbours`` of an edge type. What is described
        by immense numbers may give a vector that is not finite.
        """
        own = {edge_type: tuple(each) for edge_type, each in links.items() if edge_type.node_type == self.node_type}
        features = self._features.apply(self.node_type, properties, {key: _csr(each) for key, each in own.items()})
        most = self._space.max_neighbours or None
        kept = {edge_type: each[:most] for edge_type, each in own.items()}
        feed: dict[str, Any] = {"features": np.asarray(features, dtype=np.float32)}
        if self._space.layers:
            feed |= self._neighbourhood(kept)
        vector = np.asarray(
            self._session.run(["vector"], {key: value for key, value in feed.items() if key in self._inputs})[0][0],
            dtype=np.float32,
        )
        if len(vector) != self._space.dimension:
            raise InternalError(
                f"the encoder of {self.node_type} gave {len(vector)} values, not {self._space.dimension}"
            )
        return vector

    def _neighbourhood(self, links: Mapping[EdgeType, Sequence[Link]]) -> dict[str, Any]:
        slots = [
            (number, edge_type.neighbour_type, link)
            for number, edge_type in enumerate(self.edge_types)
            for link in links.get(edge_type, ())
        ]
        # One empty slot where there is no neighbour: attention over no slots at all is not defined.
        count = max(len(slots), 1)
        edge_type_ids = np.zeros((1, count), np.int64)
        weight, mask = np.zeros((1, count), np.float32), np.zeros((1, count), np.bool_)
        states: list[Vectors] = []
        for layer in range(self._space.layers):
            width = self._inputs[f"states_{layer}"][2]
            states.append(np.zeros((1, count, width), np.float32))
        for slot, (number, neighbour_type, link) in enumerate(slots):
            edge_type_ids[0, slot], weight[0, slot], mask[0, slot] = number, link.weight, True
            for layer, state in enumerate(states):
                state[0, slot] = self._bundle.states(self._space.name, layer, neighbour_type)[link.row]
        feed: dict[str, Any] = {"edge_type": edge_type_ids, "weight": weight, "mask": mask}
        return feed | {f"states_{layer}": state for layer, state in enumerate(states)}


def _csr(links: Sequence[Link]) -> Csr:
    return Csr(
        indptr=np.array([0, len(links)], dtype=np.int64),
        indices=np.array([link.row for link in links], dtype=np.int32),
        weight=np.array([link.weight for link in links], dtype=np.float32),
    )
