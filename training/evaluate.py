"""Evaluation in the declared protocols: of a trained model before it is published, and of a bundle's own vectors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from google.protobuf import json_format
from numpy.typing import NDArray

from graph_store.progress import NoProgress, Progress
from graph_store.project import Project
from graph_store.schema import NodeRole
from model_store.bundle import Bundle
from training.embed import embed
from training.evaluation.judged import evaluate_judged
from training.evaluation.report import EvaluationReport, Protocol, Table
from training.evaluation.users import evaluate_users
from training.graph import Graph, Snapshot, engagements
from training.holdout import split_newest
from training.model import TrainedModel

__all__ = [
    "EvaluationReport",
    "Protocol",
    "Table",
    "evaluate",
    "evaluate_bundle",
    "evaluate_similar",
    "evaluate_users_of",
]

Vectors = Mapping[str, tuple[pa.StringArray, NDArray[np.float32]]]
"""Per node type: ids and vectors ``[ids, dimension]`` of one space."""


def evaluate(
    project: Project, snapshot: Snapshot, model: TrainedModel, *, progress: Progress | None = None
) -> EvaluationReport:
    """Measure a trained model: similar entities by judgements, users by their held-out engagements."""
    progress = progress or NoProgress()
    protocols: list[Protocol] = []
    notes = list(model.notes)
    judged = project.settings.evaluation.judged
    if judged:
        entities = tuple(node_type.name for node_type in snapshot.schema.of_role(NodeRole.ENTITY))
        embedding = embed(model.spaces["similar"], model.transforms, Graph(snapshot), node_types=entities)
        vectors = {name: (snapshot.ids(name), found) for name, found in embedding.vectors.items()}
        protocols += evaluate_similar(project, snapshot, vectors, progress=progress)
    else:
        notes.append("similar entities: no judgements are declared ([[evaluation.judged]])")
    found = evaluate_users_of(project, snapshot, model, progress=progress)
    if not found:
        notes.append("users: no engagements were held out")
    return EvaluationReport(protocols=(*protocols, *found), notes=tuple(notes))


def evaluate_bundle(
    project: Project, snapshot: Snapshot, bundle: Bundle, *, progress: Progress | None = None
) -> EvaluationReport:
    """Measure a bundle's vectors as they are served, judged similar entities now.

    Its users' vectors hold every engagement, so the users' protocols are those measured before it was published.
    """
    space = bundle.spaces.get("similar")
    vectors = {
        name: (bundle.nodes(name).column(0).combine_chunks(), np.asarray(bundle.vectors("similar", name)))
        for name in (space.node_types if space else ())
    }
    document = json_format.MessageToDict(bundle.manifest.evaluation)
    published = EvaluationReport.from_json(document) if document else EvaluationReport()
    return EvaluationReport(
        protocols=(
            *evaluate_similar(project, snapshot, vectors, progress=progress or NoProgress()),
            *(protocol for protocol in published.protocols if protocol.kind == "users"),
        ),
        notes=published.notes,
    )


def evaluate_similar(
    project: Project, snapshot: Snapshot, vectors: Vectors, *, progress: Progress | None = None
) -> list[Protocol]:
    """The judged protocols for vectors given with their ids (a snapshot's node without one scores zero)."""
    progress = progress or NoProgress()
    settings = project.settings.evaluation
    graph = Graph(snapshot)
    protocols = []
    with progress.task("evaluate similar entities", len(settings.judged), "protocols") as task:
        for each in settings.judged:
            ids, found = vectors[each.node]
            aligned = _aligned(snapshot.ids(each.node), ids, found)
            protocols.append(evaluate_judged(each, project.data, graph, aligned, resamplings=settings.bootstrap))
            task.advance()
    return protocols


def evaluate_users_of(
    project: Project, snapshot: Snapshot, model: TrainedModel, *, progress: Progress | None = None
) -> list[Protocol]:
    """The users' protocols: vectors are made from the graph without the held-out engagements."""
    progress = progress or NoProgress()
    if "user" not in model.spaces or not project.settings.training.holdout:
        return []
    settings = project.settings.evaluation
    split = split_newest(snapshot, project.settings.training.holdout)
    relations = engagements(snapshot.schema)
    types = tuple(dict.fromkeys(name for each in relations for name in (each.triple.source, each.triple.target)))
    protocols = []
    with progress.task("evaluate users", len(relations), "protocols") as task:
        vectors = embed(model.spaces["user"], model.transforms, split.graph, node_types=types).vectors
        for relation in relations:
            found = evaluate_users(
                split,
                relation,
                vectors[relation.triple.source],
                vectors[relation.triple.target],
                at=settings.users_at,
                max_users=settings.max_users,
                resamplings=settings.bootstrap,
            )
            protocols += [found] if found is not None else []
            task.advance()
    return protocols


def _aligned(wanted: pa.StringArray, ids: pa.StringArray, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    if wanted.equals(ids):
        return vectors
    row_of = {name: row for row, name in enumerate(ids.to_pylist())}
    rows = np.array([row_of.get(name, -1) for name in wanted.to_pylist()], dtype=np.int64)
    out = np.zeros((len(rows), vectors.shape[1]), np.float32)
    out[rows >= 0] = vectors[rows[rows >= 0]]
    return out
