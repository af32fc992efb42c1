"""The fitted blocks as vectors of their own: how much each block says, and all of them reduced to one vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from graph_store.schema import NodeRole, RelationRole
from model_store.csr import EdgeType
from model_store.features import Block, FeatureTransforms, LinkBlock
from training.factorise import right_factors
from training.graph import Graph
from training.objectives.pairs import PairTasks

_PAIRS = 20_000
_FITTED_ROWS = 20_000
_POWER = 0.75


def block_weights(
    blocks: tuple[Block, ...], features: NDArray[np.float32], first: int, tasks: PairTasks, seed: int
) -> NDArray[np.float64]:
    """Weight of each block ``[blocks]``, the largest 1: how well its cosine tells company from chance.

    A block's d' (difference of the mean cosines of positive and of random pairs over the spread within them) is
    measured on pairs that share company; the engagement block, which these pairs come from, counts like the best of the
    others. Where there is no company, every source of pairs is asked. ``features`` are those of one entity type, whose
    first node has the number ``first`` in the column of all nodes.
    """
    rng = np.random.default_rng(seed)
    company = [each for each in tasks.sources if not each.is_concept and each.is_company]
    sources = company or [each for each in tasks.sources if not each.is_concept]
    found = np.full((len(sources), len(blocks)), np.nan)
    for row, source in enumerate(sources):
        left, right = source.draw(_PAIRS, rng)
        inside = (left >= first) & (left < first + len(features)) & (right >= first) & (right < first + len(features))
        inside &= left != right
        left, right = left[inside] - first, right[inside] - first
        if len(left) < 2:
            continue
        other = rng.permutation(right)
        for column, (block, begin) in enumerate(zip(blocks, starts(blocks), strict=True)):
            if company and isinstance(block, LinkBlock) and block.role != RelationRole.SEMANTIC.value:
                continue
            part = features[:, begin : begin + block.direction]
            positive = np.einsum("nd,nd->n", part[left], part[right])
            chance = np.einsum("nd,nd->n", part[left], part[other])
            spread = np.sqrt((positive.var() + chance.var()) / 2.0)
            found[row, column] = max(float(positive.mean() - chance.mean()) / max(float(spread), 1e-6), 0.0)
    known = np.isfinite(found)
    mean = np.where(known.any(axis=0), np.where(known, found, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1), -1.0)
    largest = mean.max(initial=0.0)
    mean = np.where(mean < 0, largest if largest > 0 else 1.0, mean)
    return (mean / mean.max()) ** _POWER if mean.max(initial=0.0) > 0 else np.ones(len(blocks))


def starts(blocks: tuple[Block, ...]) -> list[int]:
    """First column of each block."""
    return [0, *np.cumsum([block.width for block in blocks]).tolist()][:-1]


def signal_matrix(
    transforms: FeatureTransforms,
    node_type: str,
    features: NDArray[np.float32],
    weights: NDArray[np.float64],
    width: int,
    seed: int,
) -> NDArray[np.float32]:
    """Matrix ``[feature width, width]`` from features to the weighted directions, reduced by their SVD."""
    blocks = transforms.blocks[node_type]
    scale = np.zeros(features.shape[1], np.float32)
    for block, begin, weight in zip(blocks, starts(blocks), weights, strict=True):
        scale[begin : begin + block.direction] = weight
    rows = features
    if len(rows) > _FITTED_ROWS:
        rows = rows[np.sort(np.random.default_rng(seed).permutation(len(rows))[:_FITTED_ROWS])]
    factors = right_factors(rows * scale, width, seed)
    out = np.zeros((features.shape[1], width), np.float32)
    out[:, : factors.shape[1]] = scale[:, None] * factors
    return out


def mean_of_entities(
    graph: Graph, node_type: str, signals: dict[str, NDArray[np.float32]], width: int
) -> NDArray[np.float32]:
    """Signals of nodes that have none of their own: the mean of the entities they are linked with, to unit length."""
    total = np.zeros((graph.num_nodes(node_type), width), np.float32)
    for edge_type in graph.edge_types:
        if (
            edge_type.node_type != node_type
            or graph.schema.node_type(edge_type.neighbour_type).role is not NodeRole.ENTITY
        ):
            continue
        total += _sum(graph, edge_type, signals[edge_type.neighbour_type])
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-12, total / np.maximum(length, 1e-12), 0.0).astype(np.float32)


def _sum(graph: Graph, edge_type: EdgeType, values: NDArray[np.float32]) -> NDArray[np.float32]:
    import scipy.sparse as sp

    csr = graph.csr(edge_type)
    ones = np.ones(csr.num_edges, np.float32)
    shape = (csr.num_rows, len(values))
    return np.asarray(sp.csr_matrix((ones, np.asarray(csr.indices), np.asarray(csr.indptr)), shape=shape) @ values)
