"""The nearest of every entity, by the bundle's own index: what a search for each of them would answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kithkin.v1 import model_service_pb2
from model_store.bundle import Bundle
from server.index.publish import open_index
from server.index.vector_index import Rows, VectorIndex, Vectors, known_rows, unit_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearest:
    """A batch of nodes and what is most like each."""

    rows: Rows
    """int64 ``[batch]``."""
    neighbours: NDArray[np.int64]
    """int64 ``[batch, n]``, best first, never the node itself; -1 where there are fewer."""
    scores: Vectors
    """float32 ``[batch, n]``."""


class NearestOfAll:
    """The nodes of one type in one space whose vector is known, batch by batch."""

    def __init__(self, bundle: Bundle, space: str, node_type: str) -> None:
        """Open the index. Raises KeyError where the space does not search this type."""
        index = next((each for each in bundle.spaces[space].indexes if each.node_type == node_type), None)
        if index is None:
            raise KeyError(f"{space}/{node_type}")
        self._index: VectorIndex = open_index(bundle, space, index)
        vectors = bundle.vectors(space, node_type)
        cosine = bundle.spaces[space].metric == model_service_pb2.COSINE
        self.vectors: Vectors = unit_rows(vectors) if cosine else vectors
        """As they are searched: of length 1 where the score is a cosine."""
        known = known_rows(vectors)
        self.rows: Rows = np.arange(len(vectors)) if known is None else known

    def batches(self, n: int, size: int) -> Iterator[Nearest]:
        """The ``n`` nearest of ``size`` nodes at a time, in the order of their rows."""
        for start in range(0, len(self.rows), size):
            rows = self.rows[start : start + size]
            found = self._index.search(self.vectors[rows], n, exclude=list(rows[:, None]))
            neighbours = np.full((len(rows), n), -1, np.int64)
            scores = np.zeros((len(rows), n), np.float32)
            for number, each in enumerate(found):
                neighbours[number, : len(each.rows)] = each.rows
                scores[number, : len(each.rows)] = each.scores
            yield Nearest(rows=rows, neighbours=neighbours, scores=scores)
