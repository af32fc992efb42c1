"""The neural metric of a snapshot, top to bottom: histories, score, graph, evaluation, files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graph_store.progress import NoProgress, Progress
from graph_store.schema import Triple
from model_store.csr import EdgeType
from training.errors import GraphTooSmall
from training.graph import Snapshot, engagements
from training.neural_metric.evaluate import agreement, exact_best, task_recall
from training.neural_metric.export import export_scorer
from training.neural_metric.fit import fit_scorer
from training.neural_metric.graph import NeighbourGraph, build_graph
from training.neural_metric.histories import histories, questions, split_users
from training.neural_metric.scorer import NeuralScorer
from training.neural_metric.settings import GraphSettings, ScorerSettings, SearchSettings

_QUESTIONS = 20
"""Events asked for of each user kept for the report."""
_SEARCHES = 200
"""Users whose search is compared with brute force."""
_FEW = 4
"""Times ``k``: with fewer entities than this the best k say nothing of a search."""


@dataclass(frozen=True, kw_only=True)
class NeuralMetric:
    """What ``train_neural_metric`` leaves."""

    scorer: NeuralScorer
    graph: NeighbourGraph
    user_type: str
    entity_type: str
    metrics: dict[str, float]
    """``recall@100`` of brute force for users that training never saw; ``overlap@100`` of the search with brute force,
    ``evaluations`` and ``share`` of all entities it took, means a user; ``onnx_difference``; and what training said."""


def train_neural_metric(
    snapshot: Snapshot,
    *,
    folder: Path,
    settings: ScorerSettings | None = None,
    graph_settings: GraphSettings | None = None,
    search_settings: SearchSettings | None = None,
    relation: Triple | None = None,
    vectors: NDArray[np.float32] | None = None,
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
        search_settings: of the search that is measured.
        relation: which engagement relation; None: the only one.
        vectors: ``[entities, any]``, where the entities' vectors start, such as a bundle's space; None: at random.
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
    triple = _engagement(snapshot, relation)
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
    asked = questions(known, users.test, settings.events, each=_QUESTIONS)
    k = max(1, min(100, entities // _FEW))
    metrics = {**fitted.metrics, f"recall@{k}": float(task_recall(fitted.scorer, asked, at=k).mean())}
    events = questions(known, users.test[:_SEARCHES], settings.events, each=1).events
    found = agreement(fitted.scorer, graph, events, exact_best(fitted.scorer, events, k), search_settings)
    metrics[f"overlap@{k}"] = float(found.overlap.mean())
    metrics["evaluations"] = float(found.evaluations.mean())
    metrics["share"] = metrics["evaluations"] / entities

    # files
    metrics["onnx_difference"] = export_scorer(fitted.scorer, folder / "scorer.onnx")
    np.save(folder / "entities.npy", table, allow_pickle=False)
    graph.save(folder / "graph")
    report = {
        "relation": list(triple),
        "settings": settings.model_dump(mode="json"),
        "metrics": metrics,
        "snapshot": snapshot.content_hash,
    }
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return NeuralMetric(
        scorer=fitted.scorer, graph=graph, user_type=triple.source, entity_type=triple.target, metrics=metrics
    )


def _engagement(snapshot: Snapshot, relation: Triple | None) -> Triple:
    known = [each.triple for each in engagements(snapshot.schema)]
    names = ", ".join(each.key for each in known) or "none"
    if relation is None and len(known) == 1:
        return known[0]
    if relation is None:
        raise ValueError(f"name the engagement relation to learn from; there are: {names}")
    if relation not in known:
        raise ValueError(f"{Triple(*relation).key} is no engagement relation; there are: {names}")
    return relation
