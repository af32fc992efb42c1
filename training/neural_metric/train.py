"""The neural metric of a snapshot, top to bottom: histories, score, graph, evaluation, files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graph_store.errors import ConfigError
from graph_store.neural_settings import NeuralSettings
from graph_store.progress import NoProgress, Progress
from graph_store.project import Project
from graph_store.schema import GraphSchema, Triple
from model_store.csr import Csr, EdgeType
from model_store.neighbour_graph import NeighbourGraph
from model_store.neural_files import ENTITIES, GRAPH, SCORER
from model_store.onnx_scorer import OnnxScorer
from training.errors import GraphTooSmall
from training.graph import engagements
from training.neural_metric.evaluate import task_recall
from training.neural_metric.export import export_scorer
from training.neural_metric.fit import fit_scorer
from training.neural_metric.graph import build_graph
from training.neural_metric.histories import histories, questions, split_users
from training.neural_metric.scorer import NeuralScorer
from training.neural_metric.settings import GraphSettings, ScorerSettings
from training.neural_metric.start import incidence_vectors

REPORT = "report.json"
_QUESTIONS = 20
"""Events asked for of each user kept for the report, at most."""
_PAIRS = 4_000_000
"""Pairs of question and entity that the report is made of, about; each user has one question at least."""
_LEAST_USERS = 20
_FEW = 4
"""Times ``k``: with fewer entities than this the best k say nothing of a search."""


class Engagements(Protocol):
    """What is read of a snapshot, or of one less some engagements."""

    @property
    def schema(self) -> GraphSchema: ...

    @property
    def content_hash(self) -> str: ...

    def num_nodes(self, node_type: str) -> int: ...

    def csr(self, edge_type: EdgeType) -> Csr: ...


@dataclass(frozen=True, kw_only=True)
class NeuralMetric:
    """What ``train_neural_metric`` leaves."""

    scorer: NeuralScorer
    graph: NeighbourGraph
    user_type: str
    entity_type: str
    metrics: dict[str, float]
    """``recall@100`` of brute force for users that training never saw, ``onnx_difference``, and what training said."""


def train_neural_metric(
    snapshot: Engagements,
    *,
    folder: Path,
    settings: ScorerSettings | None = None,
    graph_settings: GraphSettings | None = None,
    relation: Triple | None = None,
    vectors: NDArray[np.float32] | None = None,
    report_users: int = 200,
    progress: Progress | None = None,
    resume: bool = True,
) -> NeuralMetric:
    """Train a neural score on a snapshot's engagements, build its similarity graph, and write both to a folder.

    Args:
        snapshot: the graph; its engagement relation says what users did, in the order of its times where it has them.
        folder: gets ``scorer.onnx``, ``entities.npy`` (float32 ``[entities, d]``, row i is node i), ``graph/``,
            ``report.json`` and ``checkpoint.pt``.
        settings: of score and training; ``kind`` has to be ``neural``.
        graph_settings: of the similarity graph.
        relation: which engagement relation; None: the only one.
        vectors: ``[entities, any]``, where the entities' vectors start, such as a bundle's space; None: an SVD of the
            training users' engagements.
        report_users: users that the report's recall is of, at most; fewer where there are many entities.
        progress: where progress is told.
        resume: go on from the folder's checkpoint, where snapshot and settings are the same.

    Raises:
        GraphTooSmall: no user engaged with two entities, or there are too few users to keep some for the report.
        ValueError: there is no such relation, or more than one to choose from; vectors of another number of entities.
    """
    progress = progress or NoProgress()
    settings = settings or ScorerSettings()
    if settings.kind != "neural":
        raise ValueError(f"kind is {settings.kind!r}: only a neural score is exported and searched")

    # setup
    triple = engagement(snapshot.schema, relation)
    entities = snapshot.num_nodes(triple.target)
    if vectors is not None and len(vectors) != entities:
        raise ValueError(f"{len(vectors)} vectors were given for {entities} nodes of {triple.target}")
    known = histories(snapshot.csr(EdgeType(triple)), seed=settings.seed)
    users = split_users(known, seed=settings.seed)
    if not len(users.train) or not len(users.test):
        raise GraphTooSmall(
            f"{triple.key} has too few users with two engagements to learn from some and report on others",
            hint="A neural score needs dozens of users with a few engagements each.",
        )
    if vectors is None:
        vectors = incidence_vectors(known, users.train, entities, settings.dimension, settings.seed)

    # score
    checkpoint = folder / "checkpoint.pt"
    if not resume:
        checkpoint.unlink(missing_ok=True)
        checkpoint.with_name(f"twin-{checkpoint.name}").unlink(missing_ok=True)
    start = f"{snapshot.content_hash} {triple.key}"
    fitted = fit_scorer(
        known, users.train, entities, settings, vectors=vectors, checkpoint=checkpoint, start=start, progress=progress
    )
    assert isinstance(fitted.scorer, NeuralScorer)
    table = fitted.scorer.entity_vectors()

    # graph
    graph = build_graph(table, graph_settings, progress=progress)

    # evaluation
    asked_of = users.test[: min(report_users, max(_LEAST_USERS, _PAIRS // entities))]
    each = int(np.clip(_PAIRS // (entities * len(asked_of)), 1, _QUESTIONS))
    asked = questions(known, asked_of, settings.events, each=each)
    k = max(1, min(100, entities // _FEW))
    metrics = {**fitted.metrics, f"recall@{k}": float(task_recall(fitted.scorer, asked, at=k).mean())}

    # files
    metrics["onnx_difference"] = export_scorer(fitted.scorer, folder / SCORER)
    np.save(folder / ENTITIES, table, allow_pickle=False)
    graph.save(folder / GRAPH)
    report = {
        "relation": list(triple),
        "settings": settings.model_dump(mode="json"),
        "metrics": metrics,
        "snapshot": snapshot.content_hash,
    }
    (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return NeuralMetric(
        scorer=fitted.scorer, graph=graph, user_type=triple.source, entity_type=triple.target, metrics=metrics
    )


def prepare_neural(project: Project, schema: GraphSchema) -> dict[str, Any]:
    """What ``train_neural_metric`` is called with for ``[training.neural]``; looked at before anything is trained.

    Raises ConfigError where no relation can be chosen or the own scorer's file is not there, and ScorerMismatch where
    that file does not read these vectors.
    """
    training = project.settings.training
    own = training.neural
    given = None if own.relation is None else Triple(*own.relation)
    try:
        relation = engagement(schema, given)
    except ValueError as error:
        raise ConfigError(str(error), file=project.file, key="training.neural.relation", value=own.relation) from None
    file = scorer_file(project)
    if file is not None:
        OnnxScorer(file, own.dimension)
    shared = {name: getattr(own, name) for name in NeuralSettings.model_fields.keys() & ScorerSettings.model_fields}
    return {
        "settings": ScorerSettings(**shared, seed=training.seed, checkpoint_every=training.checkpoint_every),
        "graph_settings": GraphSettings(neighbours=own.neighbours, candidates=own.candidates, seed=training.seed),
        "relation": relation,
        "report_users": own.audit_users,
    }


def scorer_file(project: Project) -> Path | None:
    """The file of ``training.neural.scorer``; None where it is not set. Raises ConfigError where it is not there."""
    name = project.settings.training.neural.scorer
    if name is None:
        return None
    file = project.folder / name
    if not file.is_file():
        raise ConfigError(
            "no such file",
            file=project.file,
            key="training.neural.scorer",
            value=name,
            hint="Give the path of an ONNX file, from the folder of kithkin.toml.",
        )
    return file


def engagement(schema: GraphSchema, relation: Triple | None) -> Triple:
    """The engagement relation that is meant: the named one, else the only one. Raises ValueError."""
    known = [each.triple for each in engagements(schema)]
    names = ", ".join(each.key for each in known) or "none"
    if relation is None and len(known) == 1:
        return known[0]
    if relation is None:
        raise ValueError(f"name the engagement relation to learn from; there are: {names}")
    if relation not in known:
        raise ValueError(f"{Triple(*relation).key} is no engagement relation; there are: {names}")
    return relation
