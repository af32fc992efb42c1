"""Vectors of all nodes in one space, by which a region of interest tells how relevant a neighbour is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graph_store.schema import NodeRole
from model_store.csr import Csr
from training.factorise import right_factors, unit_rows
from training.graph import Graph

_DIMENSION = 32


def relevance_vectors(graph: Graph, *, dimension: int = _DIMENSION, seed: int = 1) -> dict[str, NDArray[np.float32]]:
    """Vectors ``[nodes, dimension]`` of every node type, in one space, from the links alone.

    The links of all entities stand side by side, relation by relation, each divided by the square roots of the degrees
    of its two ends, so that a rare relation counts like a frequent one. Entities get their coordinates along the first
    singular directions, less the mean of all entities, at unit length: two with the same neighbours point the same way.
    All other nodes get the mean of the entities they are linked with: the more these differ, the shorter it is. A node
    without such links gets zeros.
    """
    import scipy.sparse as sp

    entities = tuple(each.name for each in graph.schema.of_role(NodeRole.ENTITY))
    parts: dict[str, list[Any]] = {name: [] for name in entities}
    # A column of blocks an edge type: the rows of other entity types are empty there.
    for edge_type in graph.edge_types:
        if edge_type.node_type not in parts:
            continue
        columns = graph.num_nodes(edge_type.neighbour_type)
        for name, found in parts.items():
            own = name == edge_type.node_type
            found.append(
                _normalised(graph.csr(edge_type), columns) if own else sp.csr_matrix((graph.num_nodes(name), columns))
            )
    vectors = {name: np.zeros((graph.num_nodes(name), dimension), np.float32) for name in entities}
    if any(parts.values()):
        links = sp.vstack([sp.hstack(found) for found in parts.values()]).tocsr()
        points = unit_rows(np.asarray(links @ right_factors(links, dimension, seed), np.float32))
        linked = np.any(points != 0, axis=1)
        if linked.any():
            points[linked] = unit_rows(points[linked] - points[linked].mean(axis=0))
        first = 0
        for vector in vectors.values():
            vector[:, : points.shape[1]] = points[first : first + len(vector)]
            first += len(vector)
    for node_type in graph.schema.node_types:
        if node_type.name not in entities:
            vectors[node_type.name] = _mean_of_entities(graph, node_type.name, vectors, entities, dimension)
    return vectors


def _normalised(csr: Csr, columns: int) -> Any:
    """The links, each 1 over the square roots of its ends' degrees, as a sparse matrix."""
    import scipy.sparse as sp

    matrix = sp.csr_matrix(
        (np.ones(csr.num_edges, np.float32), np.asarray(csr.indices), np.asarray(csr.indptr)),
        shape=(csr.num_rows, columns),
    )
    rows, cols = (np.asarray(matrix.sum(axis=axis)).ravel() for axis in (1, 0))
    return sp.diags(np.maximum(rows, 1.0) ** -0.5) @ matrix @ sp.diags(np.maximum(cols, 1.0) ** -0.5)


def _mean_of_entities(
    graph: Graph, node_type: str, vectors: Mapping[str, NDArray[np.float32]], entities: tuple[str, ...], dimension: int
) -> NDArray[np.float32]:
    import scipy.sparse as sp

    total = np.zeros((graph.num_nodes(node_type), dimension), np.float32)
    degree = np.zeros(len(total), np.float32)
    for edge_type in graph.edge_types:
        if edge_type.node_type != node_type or edge_type.neighbour_type not in entities:
            continue
        csr, others = graph.csr(edge_type), vectors[edge_type.neighbour_type]
        ones = np.ones(csr.num_edges, np.float32)
        shape = (csr.num_rows, len(others))
        total += sp.csr_matrix((ones, np.asarray(csr.indices), np.asarray(csr.indptr)), shape=shape) @ others
        degree += np.diff(csr.indptr)
    return np.asarray(total / np.maximum(degree, 1.0)[:, None], dtype=np.float32)
