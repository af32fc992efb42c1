"""The encoder of the space ``similar`` alone, trained and measured: what the benchmarks of methods share."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from graph_store.progress import NoProgress
from graph_store.project import Project
from graph_store.settings import SpaceSettings
from model_store.features import FeatureTransforms
from training.batches import Batcher
from training.evaluation.judged import load_judgements
from training.evaluation.metrics import ndcg, paired_bootstrap, ranking, recall
from training.graph import Graph
from training.inference import embed
from training.objectives import PairTasks, SimilarLoss
from training.space_model import SpaceModel, SpaceShape

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
LIMIT = 50
"""Neighbours considered per node and edge type."""
MOST_QUERIES = 2000
"""Of more judged queries so many are measured, at even distances."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Vectors of one node type, and what they cost."""

    vectors: Vectors
    seconds: float


def train_encoder(
    graph: Graph,
    transforms: FeatureTransforms,
    tasks: PairTasks,
    settings: SpaceSettings,
    *,
    node_type: str,
    seed: int,
) -> Trained:
    """Train on the pairs for ``settings.steps`` steps and make the vectors; one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    begun = time.perf_counter()
    assert settings.steps is not None
    shape = SpaceShape.of("similar", graph, transforms, settings, inner_product=False)
    batcher = Batcher(graph, transforms, shape, settings, max_neighbours=LIMIT, seed=seed)
    model = SpaceModel(shape, settings).train()
    loss = SimilarLoss(batcher, tasks, settings, seed, steps=settings.steps)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.1, cycle_momentum=False
    )
    for step in range(settings.steps):
        drawn = loss.draw(step)
        assert drawn is not None
        value = loss.loss(model, drawn)
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        schedule.step()
    seconds = time.perf_counter() - begun
    found = embed(model.eval(), transforms, graph, node_types=(node_type,)).vectors[node_type]
    return Trained(vectors=np.asarray(found), seconds=seconds)


def measures(
    vectors: Vectors, queries: Rows, candidates: Rows, relevant: Sequence[Rows], at: int
) -> NDArray[np.float64]:
    """NDCG and recall ``[queries, 2]`` of the ranking by cosine; a query is no answer to itself.

    ``queries`` and ``relevant`` are positions in ``candidates``, which are rows of ``vectors``.
    """
    unit = vectors[candidates] / np.maximum(np.linalg.norm(vectors[candidates], axis=1, keepdims=True), 1e-12)
    found = np.empty((len(queries), 2))
    for row, query in enumerate(queries):
        scores = (unit @ unit[query]).astype(np.float64)
        scores[query] = -np.inf
        order = ranking(scores)
        found[row] = ndcg(order, relevant[row], at), recall(order, relevant[row], at)
    return found


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Judgements of one project, its queries for tuning apart."""

    queries: Rows
    candidates: Rows
    relevant: tuple[Rows, ...]
    tuning: NDArray[np.bool_]
    at: int

    def values(self, vectors: Vectors, *, tuning: bool) -> NDArray[np.float64]:
        """NDCG and recall of the queries for tuning, or of the others."""
        chosen = np.flatnonzero(self.tuning == tuning)
        if len(chosen) > MOST_QUERIES:
            chosen = chosen[np.arange(MOST_QUERIES) * len(chosen) // MOST_QUERIES]
        relevant = [self.relevant[each] for each in chosen]
        return measures(vectors, self.queries[chosen], self.candidates, relevant, self.at)


def judged(project: Project, graph: Graph) -> Judged:
    """What the project's first judgements say; where no queries are declared to be for tuning, a fifth is."""
    declared = project.settings.evaluation.judged[0]
    declared = declared.model_copy(update={"tune_modulo": declared.tune_modulo or 5})
    found = load_judgements(declared, project.data, graph.snapshot.ids(declared.node))
    return Judged(
        queries=found.queries,
        candidates=found.candidates,
        relevant=found.similar,
        tuning=found.tuning,
        at=declared.ndcg_at,
    )


def opened(project: Project) -> Graph:
    """The project's files as a graph: ingested and exported into its work folder, where that has not been done."""
    from cli.steps import Pipeline
    from training.export import Snapshot

    pipeline = Pipeline(project, NoProgress())
    with pipeline.alone():
        pipeline.ingest()
        content_hash = pipeline.export().outcome["content_hash"]
    return Graph(Snapshot.open(project.work / "snapshots" / content_hash))


def packed(values: NDArray[np.float64]) -> str:
    """Figures of many queries as text: float16, base64."""
    return base64.b64encode(values.astype(np.float16).tobytes()).decode()


def unpacked(text: str) -> NDArray[np.float64]:
    """What ``packed`` was given."""
    return np.frombuffer(base64.b64decode(text), np.float16).astype(np.float64)


def gain(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> list[float]:
    """Mean gain per query with its 95 % interval by paired bootstrap (2,000 resamplings)."""
    found = paired_bootstrap(ours, theirs, 2000)
    return [round(each, 5) for each in (found.mean, found.low, found.high)]


def project_at(graph: str, data: Path | None, work: Path) -> Project:
    """An example's project over the files in ``data``, or the generated ``catalogue``, made in ``work``."""
    from graph_store.project import load_project
    from graph_store.synthetic import generate

    folder = Path(__file__).parent.parent / "examples" / graph
    if graph == "catalogue":
        folder = data = work / "catalogue"
        if not folder.exists():
            generate(folder, entities=2000, users=1500, seed=1)
    assert data is not None
    overrides = {
        "data": str(data.resolve()),
        "work": str(work.resolve()),
        "store.uri": str((work / "graph.lbug").resolve()),
    }
    return load_project(folder, overrides=overrides, environment={})
