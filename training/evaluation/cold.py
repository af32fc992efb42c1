"""Cold entities: a model trained on the graph as it would be had nobody engaged with some of its entities yet."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph_store.progress import Progress
from graph_store.project import Project
from graph_store.schema import GraphSchema, RelationRole
from model_store.csr import Csr, EdgeType
from training.errors import CheckpointError
from training.graph import Snapshot, kept_edges
from training.model import TrainedModel

_DONE = "trained.json"


class ColdSnapshot:
    """A snapshot in which some entities have no engagements and no co-engagement edges; all else is as it was.

    Derived co-engagement among the other entities is not counted anew: where a weight depends on the engagements of
    both ends alone (count, cosine), only the places that the cold ones held among the heaviest stay free.
    """

    def __init__(self, snapshot: Snapshot, node_type: str, rows: NDArray[np.int64]) -> None:
        """``rows`` are the entities of ``node_type`` that become cold."""
        self._snapshot = snapshot
        self._node_type = node_type
        self._cold = np.zeros(snapshot.num_nodes(node_type), bool)
        self._cold[rows] = True
        self._csr: dict[EdgeType, Csr] = {}
        digest = hashlib.sha256(f"{snapshot.content_hash} without engagements: {node_type}".encode())
        digest.update(np.flatnonzero(self._cold).astype("<i8").tobytes())
        self._content_hash = digest.hexdigest()

    @property
    def schema(self) -> GraphSchema:
        return self._snapshot.schema

    @property
    def content_hash(self) -> str:
        """Another for other cold entities; never that of a snapshot."""
        return self._content_hash

    @property
    def edge_types(self) -> tuple[EdgeType, ...]:
        return self._snapshot.edge_types

    def num_nodes(self, node_type: str) -> int:
        return self._snapshot.num_nodes(node_type)

    def ids(self, node_type: str) -> pa.StringArray:
        return self._snapshot.ids(node_type)

    def nodes(self, node_type: str) -> pa.Table:
        return self._snapshot.nodes(node_type)

    def csr(self, edge_type: EdgeType) -> Csr:
        """The snapshot's neighbours, for engagements and co-engagement less the edges at cold entities."""
        role = self.schema.relation(edge_type.triple).role
        ends = (edge_type.node_type, edge_type.neighbour_type)
        if role is RelationRole.SEMANTIC or self._node_type not in ends:
            return self._snapshot.csr(edge_type)
        if edge_type not in self._csr:
            csr = self._snapshot.csr(edge_type)
            keep = np.ones(csr.num_edges, bool)
            if edge_type.node_type == self._node_type:
                keep &= ~np.repeat(self._cold, np.diff(csr.indptr))
            if edge_type.neighbour_type == self._node_type:
                keep &= ~self._cold[np.asarray(csr.indices)]
            self._csr[edge_type] = kept_edges(csr, keep)
        return self._csr[edge_type]


def similar_alone(project: Project) -> Project:
    """The project with settings under which only the space of similar entities is trained."""
    training = project.settings.training
    untrained = training.user.model_copy(update={"steps": 0})
    settings = project.settings.model_copy(update={"training": training.model_copy(update={"user": untrained})})
    return replace(project, settings=settings)


def trained_once(project: Project, snapshot: Snapshot, folder: Path, *, progress: Progress) -> TrainedModel:
    """The model in ``folder``, trained now unless it was already on this snapshot with these settings."""
    from training.train import train

    settings = project.settings
    inputs = [
        version("kithkin-service"),
        snapshot.content_hash,
        settings.training.model_dump(mode="json"),
        settings.publish.max_neighbours,
    ]
    done = folder / _DONE
    try:
        if json.loads(done.read_text(encoding="utf-8")) == inputs:
            return TrainedModel.load(folder)
    except (OSError, ValueError, CheckpointError):
        pass  # not trained, or not to the end
    done.unlink(missing_ok=True)
    model = train(project, snapshot, folder=folder, progress=progress)
    done.write_text(json.dumps(inputs), encoding="utf-8")
    return model
