"""The fitted blocks as vectors of their own: how much each block says, and all of them reduced to one vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from graph_store.schema import RelationRole
from model_store.csr import Csr, EdgeType
from model_store.features import Block, FeatureTransforms, LinkBlock
from training.factorise import right_factors
from training.objectives.pairs import PairTasks

_PAIRS = 20_000
_FITTED_ROWS = 20_000
_POWER = 0.75


def block_weights(
    blocks: tuple[Block, ...],
    features: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    nodes: int,
    first: int,
    tasks: PairTasks,
    seed: int,
) -> NDArray[np.float64]:
    """Weight of each block ``[blocks]``, the largest 1: how well its cosine tells company from chance.

    A block's d' (difference of the mean cosines of positive and of random pairs over the spread within them) is
    measured on pairs that share company; the engagement block, which these pairs come from, counts like the best of the
    others. Where there is no company, every source of pairs is asked. ``features`` gives those of the given of the
    ``nodes`` of one entity type, whose first has the number ``first`` in the column of all nodes.
    """
    rng = np.random.default_rng(seed)
    company = [each for each in tasks.sources if not each.is_concept and each.is_company]
    sources = company or [each for each in tasks.sources if not each.is_concept]
    found = np.full((len(sources), len(blocks)), np.nan)
    for row, source in enumerate(sources):
        left, right = source.draw(_PAIRS, rng)
        inside = (left >= first) & (left < first + nodes) & (right >= first) & (right < first + nodes)
        inside &= left != right
        left, right = left[inside] - first, right[inside] - first
        if len(left) < 2:
            continue
        other = rng.permutation(len(right))
        of_left, of_right = features(left), features(right)
        for column, (block, begin) in enumerate(zip(blocks, starts(blocks), strict=True)):
            if company and isinstance(block, LinkBlock) and block.role != RelationRole.SEMANTIC.value:
                continue
            part = slice(begin, begin + block.direction)
            positive = np.einsum("nd,nd->n", of_left[:, part], of_right[:, part])
            chance = np.einsum("nd,nd->n", of_left[:, part], of_right[other, part])
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
    features: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    nodes: int,
    weights: NDArray[np.float64],
    width: int,
    seed: int,
) -> NDArray[np.float32]:
    """Matrix ``[feature width, width]`` from features to the weighted directions, reduced by their SVD.

    ``features`` gives those of the given ``nodes`` of the type; of many a sample is read.
    """
    blocks = transforms.blocks[node_type]
    scale = np.zeros(transforms.width(node_type), np.float32)
    for block, begin, weight in zip(blocks, starts(blocks), weights, strict=True):
        scale[begin : begin + block.direction] = weight
    rows = np.arange(nodes)
    if nodes > _FITTED_ROWS:
        rows = np.sort(np.random.default_rng(seed).permutation(nodes)[:_FITTED_ROWS])
    factors = right_factors(features(rows) * scale, width, seed)
    out = np.zeros((len(scale), width), np.float32)
    out[:, : factors.shape[1]] = scale[:, None] * factors
    return out


def mean_of_entities(
    links: Mapping[EdgeType, Csr], signals: Mapping[str, NDArray[np.float32]], rows: int, width: int
) -> NDArray[np.float32]:
    """Signals ``[rows, width]`` of nodes that have none of their own: the mean of the entities they are linked with, to
    unit length. ``links`` are theirs, ``signals`` those of all entities by type.
    """
    total = np.zeros((rows, width), np.float32)
    for edge_type, csr in links.items():
        if edge_type.neighbour_type in signals:
            values = signals[edge_type.neighbour_type]
            total += added_up(csr, np.ones(csr.num_edges, np.float32), values)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    return np.where(length > 1e-12, total / np.maximum(length, 1e-12), 0.0).astype(np.float32)


def added_up(csr: Csr, weight: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Per row ``sum_j weight_j values[j]`` ``[rows, width]``; ``weight`` has a number for each edge."""
    import scipy.sparse as sp

    shape = (csr.num_rows, len(values))
    return np.asarray(sp.csr_matrix((weight, np.asarray(csr.indices), np.asarray(csr.indptr)), shape=shape) @ values)
