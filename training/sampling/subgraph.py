"""What a sampler returns: the nodes and edges that a batch's vectors depend on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.csr import EdgeType


@dataclass(frozen=True, kw_only=True, slots=True)
class Subgraph:
    """Sampled nodes by type and edges by edge type.

    Only types with nodes and edge types that were looked at are there; an edge type without edges has empty arrays.
    """

    node_ids: dict[str, NDArray[np.int64]]
    """Node indices of the snapshot ``[n]``: first the seeds as given (a seed may repeat), then each found node once."""
    num_seeds: dict[str, int]
    """How many of them are seeds."""
    edge_index: dict[EdgeType, NDArray[np.int64]]
    """``[2, e]``: row 0 the neighbour, who sends (position in ``node_ids`` of the neighbour type); row 1 the node whose
    neighbour it is, who receives (position in ``node_ids`` of the edge type's node type). By hop, then by receiver."""
    edge_weight: dict[EdgeType, NDArray[np.float32] | None]
    """The graph's weights ``[e]``; None where the relation has none, and for a metapath."""
    importance: dict[EdgeType, NDArray[np.float32]]
    """How much the sampler makes of each edge ``[e]``; adds up to 1 over the edges of one type into one node."""
    edge_position: dict[EdgeType, NDArray[np.int64]]
    """Position of each edge in the edge type's ``Csr`` ``[e]`` (for times, and to know an edge again).
    Not there for a metapath, whose edges are no edges of the graph."""
    nodes_per_hop: dict[str, tuple[int, ...]]
    """Nodes added before the first hop (the seeds) and by each hop: the last layer needs the seeds only."""
    edges_per_hop: dict[EdgeType, tuple[int, ...]]
    """Edges added by each hop: the last layer needs those of the first hop only."""

    def num_nodes(self, node_type: str) -> int:
        """Nodes of a type; 0 where none was sampled."""
        return len(self.node_ids.get(node_type, ()))
