"""Evaluation in the declared protocols: of a trained model before it is published, and of a bundle's own vectors."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from google.protobuf import json_format
from numpy.typing import NDArray

from graph_store.progress import NoProgress, Progress
from graph_store.project import Project
from graph_store.schema import NodeRole
from model_store.bundle import Bundle
from training.evaluation.cold import ColdSnapshot, similar_alone, trained_once
from training.evaluation.judged import evaluate_cold, evaluate_judged, load_judgements
from training.evaluation.report import EvaluationReport, Protocol, Table
from training.evaluation.users import next_protocol, rank_users, users_protocol
from training.graph import Graph, Snapshot, engagements
from training.holdout import split_newest
from training.inference import embed
from training.model import TrainedModel

MEASURED_BEFORE = ("users", "next")
"""Kinds of protocols that a bundle's own vectors cannot be measured in: its manifest has the figures."""

__all__ = [
    "MEASURED_BEFORE",
    "EvaluationReport",
    "Protocol",
    "Table",
    "evaluate",
    "evaluate_bundle",
    "evaluate_cold_entities",
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
        space, memory_mib = model.spaces["similar"], project.settings.training.memory_mib
        embedding = embed(space, model.transforms, Graph(snapshot), node_types=entities, memory_mib=memory_mib)
        vectors = {name: (snapshot.ids(name), found) for name, found in embedding.vectors.items()}
        protocols += evaluate_similar(project, snapshot, vectors, progress=progress)
    else:
        notes.append("similar entities: no judgements are declared ([[evaluation.judged]])")
    found = evaluate_users_of(project, snapshot, model, progress=progress)
    if not found:
        notes.append("users: no engagements were held out")
    return EvaluationReport(protocols=(*protocols, *found), notes=tuple(notes))


def evaluate_bundle(
    project: Project, snapshot: Snapshot, bundle: Bundle, *, kind: str | None = None, progress: Progress | None = None
) -> EvaluationReport:
    """Measure a bundle's vectors as they are served, judged similar entities now; ``kind``: only such protocols.

    Its users' vectors hold every engagement, so the users' protocols are those measured before it was published.
    """
    space = bundle.spaces.get("similar")
    document = json_format.MessageToDict(bundle.manifest.evaluation)
    published = EvaluationReport.from_json(document) if document else EvaluationReport()
    similar: list[Protocol] = []
    if kind in (None, "judged"):
        vectors = {
            name: (bundle.nodes(name).column(0).combine_chunks(), np.asarray(bundle.vectors("similar", name)))
            for name in (space.node_types if space else ())
        }
        similar = evaluate_similar(project, snapshot, vectors, progress=progress)
    kept = tuple(each for each in published.protocols if each.kind in MEASURED_BEFORE and kind in (None, each.kind))
    return EvaluationReport(protocols=(*similar, *kept), notes=published.notes)


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
    """The protocols of users and of next entities: vectors are made from the graph without the held-out engagements."""
    progress = progress or NoProgress()
    if "user" not in model.spaces or not project.settings.training.holdout:
        return []
    settings = project.settings.evaluation
    split = split_newest(snapshot, project.settings.training.holdout)
    relations = engagements(snapshot.schema)
    types = tuple(dict.fromkeys(name for each in relations for name in (each.triple.source, each.triple.target)))
    protocols: list[Protocol | None] = []
    with progress.task("evaluate users", len(relations), "protocols") as task:
        space, memory_mib = model.spaces["user"], project.settings.training.memory_mib
        vectors = embed(space, model.transforms, split.graph, node_types=types, memory_mib=memory_mib).vectors
        for relation in relations:
            ranked = rank_users(
                split,
                relation,
                vectors[relation.triple.source],
                vectors[relation.triple.target],
                at=max(settings.users_at, *settings.next_at),
                max_users=settings.max_users,
            )
            if ranked is not None:
                protocols.append(users_protocol(ranked, at=settings.users_at, resamplings=settings.bootstrap))
                protocols.append(next_protocol(ranked, at=settings.next_at, resamplings=settings.bootstrap))
            task.advance()
    return [each for each in protocols if each is not None]


def evaluate_cold_entities(
    project: Project, snapshot: Snapshot, *, folder: Path, tuning: bool = False, progress: Progress | None = None
) -> list[Protocol]:
    """The judged protocols that declare cold entities; a model is trained without their engagements for each.

    The models stay in ``folder``, and are used again while snapshot and settings are the same. With ``tuning`` the
    queries for tuning are measured: ``cold_remainder`` has to draw some of them.
    """
    progress = progress or NoProgress()
    alone = similar_alone(project)
    protocols, used = [], set()
    for settings in project.settings.evaluation.judged:
        if settings.cold_modulo is None:
            continue
        judgements = load_judgements(settings, project.data, snapshot.ids(settings.node))
        view = ColdSnapshot(snapshot, settings.node, judgements.candidates[judgements.cold])
        used.add(view.content_hash)
        model = trained_once(alone, view, folder / view.content_hash, progress=progress)
        graph = Graph(view)
        found = embed(
            model.spaces["similar"],
            model.transforms,
            graph,
            node_types=(settings.node,),
            memory_mib=project.settings.training.memory_mib,
            progress=progress,
        )
        with progress.task("evaluate cold entities", 1, "protocols") as task:
            protocols.append(
                evaluate_cold(
                    settings,
                    project.data,
                    graph,
                    found.vectors[settings.node],
                    resamplings=project.settings.evaluation.bootstrap,
                    tuning=tuning,
                )
            )
            task.advance()
    for old in folder.glob("[0-9a-f]*"):
        if old.name not in used:
            shutil.rmtree(old, ignore_errors=True)
    return protocols


def _aligned(wanted: pa.StringArray, ids: pa.StringArray, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    if wanted.equals(ids):
        return vectors
    row_of = {name: row for row, name in enumerate(ids.to_pylist())}
    rows = np.array([row_of.get(name, -1) for name in wanted.to_pylist()], dtype=np.int64)
    out = np.zeros((len(rows), vectors.shape[1]), np.float32)
    out[rows >= 0] = vectors[rows[rows >= 0]]
    return out
