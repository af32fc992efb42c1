"""The online encoder: vectors of what is described but not in the graph, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from graph_store.schema import Triple
from kithkin.v1 import bundle_pb2
from model_store.bundle import Bundle
from model_store.csr import Csr, EdgeType
from server.errors import InternalError
from server.index.vector_index import Vectors

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

    def over(self, bundle: Bundle, features: FeatureTransforms) -> OnlineEncoder:
        """The same encoder for links by the rows of another view of its bundle."""
        other = copy(self)
        other._bundle, other._features = bundle, features
        return other

    def encode(self, properties: pa.Table, links: Links) -> Vectors:
        """The vector ``[dimension]`` of one node: its properties (one row), and its links in the order they count.

        Features are made of all links; attention reads the first ``max_neighbours`` of an edge type. What is described
        by immense numbers may give a vector that is not finite.
        """
        vector: Vectors = self.encode_variants(properties, [links])[0]
        return vector

    def encode_variants(self, properties: pa.Table, variants: Sequence[Links]) -> Vectors:
        """Vectors ``[variants, dimension]`` of one node as it would be with other links, by one run of the graph."""
        own = [
            {edge_type: tuple(each) for edge_type, each in links.items() if edge_type.node_type == self.node_type}
            for links in variants
        ]
        table = pa.concat_tables([properties] * len(own)).combine_chunks()
        edge_types = dict.fromkeys(edge_type for links in own for edge_type in links)
        return self.encode_rows(table, {each: _csr([links.get(each, ()) for links in own]) for each in edge_types})

    def encode_rows(self, properties: pa.Table, lists: Mapping[EdgeType, Csr]) -> Vectors:
        """Vectors ``[N, dimension]`` of N nodes, ``properties`` a row each and ``lists`` in the order links count."""
        features = self._features.apply(self.node_type, properties, lists)
        feed: dict[str, Any] = {"features": np.asarray(features, dtype=np.float32)}
        if self._space.layers:
            feed |= self._neighbourhoods(properties.num_rows, lists)
        vectors = np.asarray(
            self._session.run(["vector"], {key: value for key, value in feed.items() if key in self._inputs})[0],
            dtype=np.float32,
        )
        if vectors.shape != (properties.num_rows, self._space.dimension):
            raise InternalError(
                f"the encoder of {self.node_type} gave {vectors.shape[-1]} values, not {self._space.dimension}"
            )
        return vectors

    def _neighbourhoods(self, count: int, lists: Mapping[EdgeType, Csr]) -> dict[str, Any]:
        """The first ``max_neighbours`` of each list, side by side in the order of the edge types."""
        most = self._space.max_neighbours or None
        kept = [(number, each, lists[each]) for number, each in enumerate(self.edge_types) if each in lists]
        taken = [np.minimum(np.diff(csr.indptr), most or len(csr.indices)) for _, _, csr in kept]
        filled = np.sum(taken, axis=0) if taken else np.zeros(count, np.int64)
        # One empty slot where there is no neighbour: attention over no slots at all is not defined.
        shape = count, max(1, int(filled.max(initial=0)))
        edge_type_ids = np.zeros(shape, np.int64)
        weight, mask = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
        states = [
            np.zeros((*shape, self._inputs[f"states_{layer}"][2]), np.float32) for layer in range(self._space.layers)
        ]
        first = np.zeros(count, np.int64)
        for (number, edge_type, csr), each in zip(kept, taken, strict=True):
            row = np.repeat(np.arange(count), each)
            place = np.arange(len(row)) - np.repeat(np.cumsum(each) - each, each)
            slot, link = first[row] + place, csr.indptr[:-1][row] + place
            edge_type_ids[row, slot], mask[row, slot] = number, True
            weight[row, slot] = 1.0 if csr.weight is None else csr.weight[link]
            for layer, state in enumerate(states):
                published = self._bundle.states(self._space.name, layer, edge_type.neighbour_type)
                state[row, slot] = published[csr.indices[link]]
            first += each
        feed: dict[str, Any] = {"edge_type": edge_type_ids, "weight": weight, "mask": mask}
        return feed | {f"states_{layer}": state for layer, state in enumerate(states)}


def _csr(lists: Sequence[Sequence[Link]]) -> Csr:
    return Csr(
        indptr=np.cumsum([0, *(len(links) for links in lists)]).astype(np.int64),
        indices=np.array([link.row for links in lists for link in links], dtype=np.int32),
        weight=np.array([link.weight for links in lists for link in links], dtype=np.float32),
    )
