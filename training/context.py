"""What a node's neighbours are like: a second stage of features, in one space for all relations.

The blocks of the first stage describe a node by whom it is linked with, each relation in a space of its own. Here every
node gets a vector in one space of all blocks (an entity its signals, any other node the mean of its entities'), and
each link block a twin that adds up these vectors. That is one round of messages, made before training as in SIGN
(Frasca et al. 2020): it costs nothing in a training step, and a node that is not in the graph gets it from its links.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from graph_store.schema import NodeRole
from model_store.csr import Csr, EdgeType
from model_store.features import Block, FeatureTransforms, LinkBlock
from training.factorise import unit_rows
from training.graph import Graph
from training.node_features import NodeFeatures
from training.objectives.pairs import PairTasks
from training.signals import block_weights, mean_of_entities, signal_matrix

Floats = NDArray[np.float32]
_NODES_AT_ONCE = 65_536
_ROLE = "context"


@dataclass(frozen=True, kw_only=True)
class Stages:
    """The features of both stages, and the signals they give."""

    transforms: FeatureTransforms
    signals: dict[str, Floats]
    """Per entity type a matrix ``[feature width, signal width]`` from features to signals."""


def fit_context(
    transforms: FeatureTransforms,
    graph: Graph,
    tasks: PairTasks,
    *,
    signal_width: int,
    dimension: int,
    weight: float,
    seed: int,
    memory_mib: float,
) -> Stages:
    """Weigh and reduce the blocks of every entity type, and add the second stage, ``dimension`` long (0: none).

    ``graph`` is the one that ``transforms`` were fitted on. The signals of a node are its weighted blocks plus
    ``weight`` times its neighbours' vectors, blocks weighted by the root of what they weigh themselves.
    """
    features = NodeFeatures(graph, transforms, memory_mib=memory_mib)
    width = max(signal_width, dimension)
    weights: dict[str, NDArray[np.float64]] = {}
    matrices: dict[str, Floats] = {}
    for node_type in graph.schema.of_role(NodeRole.ENTITY):
        name, count = node_type.name, graph.num_nodes(node_type.name)
        if width and count:
            take, first = partial(features.take, name), graph.offsets[name]
            weights[name] = block_weights(transforms.blocks[name], take, count, first, tasks, seed)
            matrices[name] = signal_matrix(transforms, name, take, count, weights[name], width, seed)
    if not dimension or not matrices:
        return Stages(transforms=transforms, signals={name: each[:, :signal_width] for name, each in matrices.items()})

    vectors = _vectors(graph, features, matrices, dimension)
    context = {
        name: [_twin(block, vectors[block.neighbour_type]) for block in blocks if isinstance(block, LinkBlock)]
        for name, blocks in transforms.blocks.items()
    }
    both = FeatureTransforms({name: [*blocks, *context[name]] for name, blocks in transforms.blocks.items()})
    signals = {}
    for name, matrix in matrices.items():
        linked = [place for place, block in enumerate(transforms.blocks[name]) if isinstance(block, LinkBlock)]
        rows = [matrix[:-1, :signal_width]]
        for place, block in zip(linked, context[name], strict=True):
            part = np.zeros((block.width, signal_width), np.float32)
            np.fill_diagonal(part[: block.direction], weight * np.sqrt(weights[name][place]))
            rows.append(part)
        signals[name] = np.concatenate([*rows, matrix[-1:, :signal_width]])
    return Stages(transforms=both, signals=signals)


def _vectors(graph: Graph, features: NodeFeatures, matrices: dict[str, Floats], dimension: int) -> dict[str, Floats]:
    """Vectors ``[nodes, dimension]`` of all nodes in the space of the signals."""
    vectors: dict[str, Floats] = {}
    for name, matrix in matrices.items():
        count = graph.num_nodes(name)
        vectors[name] = np.empty((count, dimension), np.float32)
        for first in range(0, count, _NODES_AT_ONCE):
            last = min(first + _NODES_AT_ONCE, count)
            vectors[name][first:last] = unit_rows(features.part(name, first, last) @ matrix[:, :dimension])
    of_entities = dict(vectors)
    for node_type in graph.schema.node_types:
        name, count = node_type.name, graph.num_nodes(node_type.name)
        if name not in vectors:
            links: dict[EdgeType, Csr] = graph.links(name)
            vectors[name] = mean_of_entities(links, of_entities, count, dimension)
    return vectors


def _twin(block: LinkBlock, vectors: Floats) -> LinkBlock:
    return LinkBlock(
        neighbour_type=block.neighbour_type,
        role=f"{_ROLE}:{block.role}",
        edge_types=block.edge_types,
        medians=block.medians,
        bounds=block.bounds,
        factors=vectors,
    )


def is_context(block: Block) -> bool:
    """Whether a block is of the second stage."""
    return isinstance(block, LinkBlock) and block.role.startswith(f"{_ROLE}:")
