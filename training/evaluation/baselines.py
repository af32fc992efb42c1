"""Baselines of similarity, from the snapshot alone: nothing is learned, nothing is tuned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from graph_store.schema import NodeRole, RelationRole
from model_store.csr import EdgeType
from training.factorise import idf, right_factors, unit_rows
from training.fit_features import median_weight
from training.graph import Graph, engagements

Rows = NDArray[np.int64]
Scores = NDArray[np.float64]
_SVD = 64


def entity_popularity(graph: Graph, node_type: str) -> Scores:
    """Engagements per entity ``[nodes]``."""
    total = np.zeros(graph.num_nodes(node_type))
    for relation in engagements(graph.schema):
        if relation.triple.target == node_type:
            total += np.diff(graph.csr(EdgeType(relation.triple, True)).indptr)
    return total


def similarity_baselines(graph: Graph, node_type: str, queries: Rows, candidates: Rows) -> Iterator[tuple[str, Scores]]:
    """Scores ``[queries, candidates]`` of each baseline, by name.

    Popularity; ``co-engagement``: the cosine of users in common; by its name, the idf cosine of each concept type;
    ``links``: all unweighted ones together; half-and-half blends of these signals; their sum; the SVD of all side by
    side, alone and added to the sum.
    """
    popularity = entity_popularity(graph, node_type)[candidates]
    yield "popularity", np.broadcast_to(popularity, (len(queries), len(candidates)))
    signals: dict[str, Any] = {}
    company = _company(graph, node_type)
    if company is not None:
        signals["co-engagement"] = company
    weighted: list[tuple[str, Any]] = []
    plain: list[tuple[str, Any]] = []
    for name, matrix, has_weight in _concepts(graph, node_type):
        (weighted if has_weight else plain).append((name, matrix))
    signals |= dict(weighted)
    if len(plain) == 1:
        signals |= dict(plain)
    elif plain:
        for name, matrix in plain:
            yield name, _cosine(matrix, queries, candidates)
        signals["links"] = sp.hstack([matrix for _, matrix in plain]).tocsr()
    scores = {name: _cosine(matrix, queries, candidates) for name, matrix in signals.items()}
    yield from scores.items()
    names = list(scores)
    if len(names) > 2:
        for place, first in enumerate(names):
            for second in names[place + 1 :]:
                yield f"{first} + {second}", scores[first] + scores[second]
    if len(names) > 1:
        total = np.sum(list(scores.values()), axis=0)
        yield f"sum of {len(names)}", total
        side_by_side = sp.hstack([unit_rows(matrix) for matrix in signals.values()]).tocsr()
        reduced = np.asarray(side_by_side @ right_factors(side_by_side, _SVD, 0))
        svd = _cosine(reduced, queries, candidates)
        yield f"SVD-{_SVD}", svd
        yield f"sum of {len(names)} + SVD-{_SVD}", total + svd


def _company(graph: Graph, node_type: str) -> Any:
    found = []
    for relation in engagements(graph.schema):
        if relation.triple.target == node_type:
            matrix = _matrix(graph, EdgeType(relation.triple, True), weighted=False)
            found.append((matrix > 0).astype(np.float64))
    if not found:
        for relation in graph.schema.relations_of_role(RelationRole.CO_ENGAGEMENT):
            if relation.triple.source == relation.triple.target == node_type:
                forward = _matrix(graph, EdgeType(relation.triple), weighted=True)
                found.append(forward + forward.T)
    joined = sp.hstack(found).tocsr() if found else None
    return joined if joined is not None and joined.nnz else None


def _concepts(graph: Graph, node_type: str) -> Iterator[tuple[str, Any, bool]]:
    """Per concept type: name, idf-weighted incidence, whether its edges have weights."""
    groups: dict[str, list[EdgeType]] = {}
    for edge_type in graph.edge_types:
        relation = graph.schema.relation(edge_type.triple)
        if edge_type.node_type != node_type or relation.role is not RelationRole.SEMANTIC:
            continue
        if graph.schema.node_type(edge_type.neighbour_type).role is NodeRole.USER:
            continue
        groups.setdefault(edge_type.neighbour_type, []).append(edge_type)
    for name, edge_types in groups.items():
        has_weight = any(graph.csr(each).weight is not None for each in edge_types)
        matrix = _matrix(graph, edge_types[0], weighted=has_weight)
        for each in edge_types[1:]:
            matrix = matrix + _matrix(graph, each, weighted=has_weight)
        if matrix.nnz:
            yield name, (matrix @ sp.diags(idf(matrix))).tocsr(), has_weight


def _matrix(graph: Graph, edge_type: EdgeType, *, weighted: bool) -> Any:
    csr = graph.csr(edge_type)
    values = np.ones(csr.num_edges)
    if weighted and csr.weight is not None:
        median = median_weight(csr) or 1.0
        values = 1.0 + np.log(np.maximum(np.asarray(csr.weight, dtype=np.float64) / median, 1.0))
    shape = (csr.num_rows, graph.num_nodes(edge_type.neighbour_type))
    # A copy: the snapshot's arrays are read-only, and duplicates are summed in place.
    matrix = sp.csr_matrix((values, np.array(csr.indices), np.array(csr.indptr)), shape=shape)
    matrix.sum_duplicates()
    return matrix


def _cosine(matrix: Any, queries: Rows, candidates: Rows) -> Scores:
    unit = unit_rows(matrix)
    product = unit[queries] @ unit[candidates].T
    return np.asarray(product.todense() if sp.issparse(product) else product, dtype=np.float64)
