"""Fits the feature transforms on a graph: quantiles, token factors, and the factors of every relation."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from numpy.typing import NDArray

from graph_store.progress import NoProgress, Progress
from graph_store.schema import FeatureKind, GraphSchema, NodeRole, Relation, RelationRole
from model_store.csr import Csr, EdgeType
from model_store.features import (
    Block,
    FeatureTransforms,
    LinkBlock,
    NumberBlock,
    TokenBlock,
    VectorBlock,
    numbers,
    token_counts,
    vectors,
)
from training.edge_kernels import row_spans
from training.factorise import idf, right_factors, unit_rows
from training.graph import Graph
from training.link_matrix import LinkMatrix

_BUCKETS = 1 << 18
_KNOTS = 16
_MIN_TEXT_ROWS = 2
"""A word of a text counts where at least so many nodes have it."""
_MAX_PAIRS = 40_000_000
"""Pairs of entities counted at most for co-engagement; heavier logs are thinned by user."""
_MAX_PER_USER = 500
_ROWS_AT_ONCE, _COLUMNS_AT_ONCE, _PAIRS_AT_ONCE = 65_536, 32, 1 << 21

_ENGAGEMENT_BOUNDS = (0.5, 1.5)
"""A light engagement counts half the usual one, the heaviest three times the lightest: that it happened says most."""

_RANK = {NodeRole.ENTITY: 0, NodeRole.USER: 1, NodeRole.CONCEPT: 2}


def fit_features(graph: Graph, *, dimension: int, seed: int, progress: Progress | None = None) -> FeatureTransforms:
    """Fit every block: ``dimension`` is the longest a block's direction gets.

    A semantic relation's factors are the right singular vectors of its incidence, weighted by log weight times the root
    of idf, rows to unit length; the other end gets the mean of its neighbours' blocks, so both ends share one space. An
    engagement relation's are those of the positive pointwise mutual information of entities that share users (Levy and
    Goldberg 2014), a user's factor being the mean of their entities'. Relations between the same two types, in the
    same role, are one block.
    """
    progress = progress or NoProgress()
    blocks: dict[str, list[Block]] = {node_type.name: [] for node_type in graph.schema.node_types}
    for node_type in graph.schema.node_types:
        for name, declared in node_type.properties.items():
            if declared.feature is None:
                continue
            column = graph.properties(node_type.name)[name]
            block = _property_block(name, declared.feature, column, declared.dimension or 0, dimension, seed)
            if block is not None:
                blocks[node_type.name].append(block)
    groups = relation_groups(graph.schema)
    with progress.task("fit features", len(groups), "blocks") as task:
        for (near, far, role), relations in groups.items():
            _fit_links(graph, blocks, near, far, role, relations, dimension, seed)
            task.advance()
    return FeatureTransforms(blocks)


def relation_groups(schema: GraphSchema) -> dict[tuple[str, str, RelationRole], list[Relation]]:
    """Relations that share a link block, by (near type, far type, role); entities come before users and concepts.

    A derived co-engagement relation says what its engagements say, and is left out.
    """
    groups: dict[tuple[str, str, RelationRole], list[Relation]] = defaultdict(list)
    for relation in schema.relations:
        if relation.derive is not None:
            continue
        ends = sorted({relation.triple.source, relation.triple.target}, key=lambda name: _order(schema, name))
        near, far = ends[0], ends[-1]
        groups[near, far, relation.role].append(relation)
    return dict(groups)


def _order(schema: GraphSchema, name: str) -> tuple[int, int]:
    names = [node_type.name for node_type in schema.node_types]
    return _RANK[schema.node_type(name).role], names.index(name)


def _property_block(
    name: str, kind: FeatureKind, column: pa.ChunkedArray, length: int, dimension: int, seed: int
) -> Block | None:
    if kind in (FeatureKind.NUMBER, FeatureKind.DATE):
        return _number_block(name, column)
    if kind is FeatureKind.VECTOR:
        values, known = vectors(column, length)
        mean = values[known].mean(axis=0) if known.any() else np.zeros(length, np.float32)
        return VectorBlock(column=name, mean=mean.astype(np.float32))
    return _token_block(name, column, kind is FeatureKind.TEXT, dimension, seed)


def _number_block(name: str, column: pa.ChunkedArray) -> Block | None:
    values = numbers(column)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    distinct = np.unique(values)
    quantiles = np.unique(np.quantile(values, np.linspace(0.0, 1.0, _KNOTS)))
    knots = distinct if len(distinct) <= _KNOTS else quantiles
    deviation = float(values.std())
    return NumberBlock(
        column=name,
        knots=tuple(float(knot) for knot in knots),
        mean=float(values.mean()),
        deviation=deviation if deviation > 0 else 1.0,
    )


def _token_block(name: str, column: pa.ChunkedArray, text: bool, dimension: int, seed: int) -> Block | None:
    row, bucket, count = token_counts(column, text, _BUCKETS)
    columns, place = np.unique(bucket, return_inverse=True)
    matrix = sp.csr_matrix((1.0 + np.log(count), (row, place)), shape=(len(column), len(columns)))
    if text:
        shared = np.flatnonzero(np.diff(matrix.tocsc().indptr) >= _MIN_TEXT_ROWS)
        columns, matrix = columns[shared], matrix[:, shared].tocsr()
    if not len(columns):
        return None
    scale = np.sqrt(idf(matrix))
    if len(columns) <= dimension:
        factors = np.eye(len(columns), dtype=np.float32)
    else:
        factors = right_factors(unit_rows(matrix @ sp.diags(scale)), dimension, seed)
    return TokenBlock(
        column=name,
        text=text,
        buckets=_BUCKETS,
        columns=columns.astype(np.int64),
        factors=(factors * scale[:, None]).astype(np.float32),
    )


def _fit_links(
    graph: Graph,
    blocks: dict[str, list[Block]],
    near: str,
    far: str,
    role: RelationRole,
    relations: list[Relation],
    dimension: int,
    seed: int,
) -> None:
    seen_near = [
        EdgeType(relation.triple, reverse)
        for relation in relations
        for reverse in (False, True)
        if EdgeType(relation.triple, reverse).node_type == near and (near == far or _reaches(relation, reverse, far))
    ]
    medians = tuple(median_weight(graph.csr(edge_type)) for edge_type in seen_near)
    bounds = _ENGAGEMENT_BOUNDS if role is RelationRole.ENGAGEMENT else (0.0, 0.0)
    incidence = LinkMatrix.of(
        [graph.csr(each) for each in seen_near],
        medians,
        graph.num_nodes(far),
        weighted=role is not RelationRole.ENGAGEMENT,
    )
    if incidence.nnz == 0:
        return
    if role is RelationRole.ENGAGEMENT:
        far_factors, near_factors = _co_engagement_factors(incidence, dimension, seed)
    else:
        far_factors, near_factors = _incidence_factors(incidence, near == far, dimension, seed)
    blocks[near].append(
        LinkBlock(
            neighbour_type=far,
            role=role.value,
            edge_types=tuple(seen_near),
            medians=medians,
            bounds=bounds,
            factors=far_factors,
        )
    )
    if near != far:
        seen_far = tuple(EdgeType(each.triple, not each.reversed) for each in seen_near)
        blocks[far].append(
            LinkBlock(
                neighbour_type=near,
                role=role.value,
                edge_types=seen_far,
                medians=medians,
                bounds=bounds,
                factors=near_factors,
            )
        )


def _reaches(relation: Relation, reverse: bool, far: str) -> bool:
    return EdgeType(relation.triple, reverse).neighbour_type == far


def median_weight(csr: Csr) -> float:
    """Median of the positive weights of an edge type; 0 where it has none."""
    if csr.weight is None or not csr.num_edges:
        return 0.0
    weight = np.asarray(csr.weight)
    weight = weight[np.isfinite(weight) & (weight > 0)]
    return float(np.median(weight)) if len(weight) else 0.0


def _incidence_factors(
    incidence: LinkMatrix, square: bool, dimension: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    scale = np.sqrt(idf(incidence))
    # With itself among its neighbours a node lies near those it is linked with, not only near those alike.
    weighted = replace(incidence, column_scale=scale, diagonal=square).of_unit_rows()
    factors = right_factors(weighted, dimension, seed) * scale[:, None]
    near = np.empty((incidence.shape[0], factors.shape[1]), np.float32)
    for first in range(0, len(near), _ROWS_AT_ONCE):
        last = min(first + _ROWS_AT_ONCE, len(near))
        near[first:last] = unit_rows(incidence.times(factors, first, last))
    return factors.astype(np.float32), near


def _co_engagement_factors(
    present: LinkMatrix, dimension: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Factors of the users and of the entities, from who engaged, ``present`` ``[entities, users]``."""
    per_user = present.column_counts()
    counts = _shared_users(present, per_user, seed)
    if not counts.nnz:
        ones = np.ones(present.nnz)
        matrix = sp.csr_matrix((ones, present.indices, present.indptr), shape=present.shape)
        entities = right_factors(unit_rows(matrix).T.tocsr(), dimension, seed)
    else:
        information = _mutual_information(counts)
        factors = right_factors(information, dimension, seed).astype(np.float64)
        entities = information.times(factors)
    entities = unit_rows(entities).astype(np.float32)
    users = np.empty((present.shape[1], entities.shape[1]), np.float32)
    share = 1.0 / np.maximum(per_user, 1.0)
    for first in range(0, users.shape[1], _COLUMNS_AT_ONCE):
        some = slice(first, first + _COLUMNS_AT_ONCE)
        users[:, some] = share[:, None] * present.transposed_times(entities[:, some].astype(np.float64))
    return users, entities


def _shared_users(present: LinkMatrix, degree: NDArray[np.int64], seed: int) -> Any:
    """How many users each pair of entities shares (CSR, without the diagonal); ``degree`` is the users'."""
    order = np.random.default_rng(seed).permutation(len(degree))
    pairs = np.cumsum(np.minimum(degree[order], _MAX_PER_USER).astype(np.float64) ** 2)
    chosen = np.sort(order[: max(1, int(np.searchsorted(pairs, _MAX_PAIRS, side="right")))])
    thinned = present.chosen_columns(chosen)
    heavy = np.diff(thinned.indptr) > _MAX_PER_USER
    if heavy.any():
        rng = np.random.default_rng(seed)
        for user in np.flatnonzero(heavy):
            row = slice(thinned.indptr[user], thinned.indptr[user + 1])
            drop = rng.permutation(row.stop - row.start)[_MAX_PER_USER:]
            thinned.data[row.start + drop] = 0.0
        thinned.eliminate_zeros()
    counts = (thinned.T @ thinned).tocsr()
    counts.sort_indices()
    for first, last in row_spans([counts.indptr], _PAIRS_AT_ONCE):
        run = slice(counts.indptr[first], counts.indptr[last])
        rows = np.repeat(np.arange(first, last), np.diff(counts.indptr[first : last + 1]))
        counts.data[run][counts.indices[run] == rows] = 0.0
    counts.eliminate_zeros()
    return counts


def _mutual_information(counts: Any) -> LinkMatrix:
    """Positive pointwise mutual information of the pairs, in place of their counts."""
    marginal = np.asarray(counts.sum(axis=1)).ravel()
    total = marginal.sum()
    for first, last in row_spans([counts.indptr], _PAIRS_AT_ONCE):
        run = slice(counts.indptr[first], counts.indptr[last])
        expected = np.repeat(marginal[first:last], np.diff(counts.indptr[first : last + 1]))
        expected *= marginal[counts.indices[run]]
        counts.data[run] = np.maximum(np.log(counts.data[run] * total / expected), 0.0)
    counts.eliminate_zeros()
    return LinkMatrix(
        indptr=counts.indptr.astype(np.int64),
        indices=counts.indices.astype(np.int32, copy=False),
        weight=counts.data,
        columns=counts.shape[1],
    )
