"""The neural scorer of a bundle: the score, the vectors it reads, and the graph it is searched in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graph_store.schema import Triple
from kithkin.v1 import bundle_pb2
from model_store import layout
from model_store.beam_search import SearchSettings
from model_store.bundle import Bundle
from model_store.csr import EdgeType
from model_store.errors import BundleCorrupt
from model_store.neighbour_graph import NeighbourGraph

SCORER, ENTITIES, GRAPH = "scorer.onnx", "entities.npy", "graph"
"""Names in the folder that a training leaves, and in the bundle's."""


@dataclass(frozen=True, kw_only=True)
class NeuralFiles:
    """What a server reads to search by the neural score."""

    scorer: Path
    """An ONNX file; ``model_store.onnx_scorer`` loads and checks it."""
    entities: NDArray[np.float32]
    """``[entities, d]``, row i is node i of the entity type; memory-mapped."""
    graph: NeighbourGraph
    events: EdgeType
    """The relation whose engagements tell a user, seen from the users."""
    max_events: int
    search: SearchSettings
    share_evaluated: float
    """Share of all entities that a search scored on average when it was audited."""


def open_neural(bundle: Bundle) -> NeuralFiles | None:
    """The neural scorer of a bundle; None where it has none. Raises BundleCorrupt."""
    manifest = bundle.manifest
    if not manifest.HasField("neural"):
        return None
    neural = manifest.neural
    folder = bundle.folder / layout.NEURAL
    events = EdgeType(Triple(neural.events.source, neural.events.name, neural.events.target))
    try:
        entities: NDArray[np.float32] = np.load(folder / ENTITIES, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BundleCorrupt(f"is not an array file: {error}", file=folder / ENTITIES) from None
    count = bundle.node_types[events.neighbour_type].count
    if entities.shape != (count, neural.dimension):
        raise BundleCorrupt(f"has the shape {entities.shape}, not {(count, neural.dimension)}", file=folder / ENTITIES)
    return NeuralFiles(
        scorer=bundle.folder / neural.scorer,
        entities=entities,
        graph=NeighbourGraph.load(folder / GRAPH),
        events=events,
        max_events=neural.max_events,
        search=SearchSettings(beam=neural.beam, width=neural.width),
        share_evaluated=neural.share_evaluated,
    )


def describe_inputs(neural: bundle_pb2.NeuralManifest, dimension: int) -> None:
    """Write what a scorer's file reads and gives into its manifest."""
    for name, kind, shape in (
        ("events", "float32", ("1", "T", str(dimension))),
        ("mask", "bool", ("1", "T")),
        ("candidates", "float32", ("N", str(dimension))),
        ("scores", "float32", ("N",)),
    ):
        neural.inputs.add(name=name, type=kind, shape=shape)
