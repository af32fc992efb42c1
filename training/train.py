"""Training of all spaces, top to bottom: setup, build, fit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch

from graph_store.progress import NoProgress, Progress
from graph_store.project import Project
from graph_store.schema import NodeRole
from graph_store.settings import SpaceSettings, TrainingSettings
from model_store.csr import EdgeType
from model_store.features import FeatureTransforms
from training.batches import Batcher
from training.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from training.embed import embed_parts
from training.errors import GraphTooSmall
from training.factorise import right_factors
from training.fit_features import fit_features
from training.graph import Graph, Snapshot, engagements
from training.holdout import split_newest
from training.model import TrainedModel
from training.objectives import Objective, PairTasks, SimilarLoss, UserLoss, similar_tasks
from training.sampling import prefetch
from training.signals import block_weights, signal_matrix
from training.space_model import SpaceModel, SpaceShape

_MIN_STEPS = 30
_MAX_STEPS = {"similar": 200, "user": 300}
_PASSES = 6
"""Passes over the edges that ``steps`` left open amounts to, within these bounds."""
_WARM_UP = 20
_FITTED_ROWS = 20_000


def train(
    project: Project,
    snapshot: Snapshot,
    *,
    folder: Path,
    progress: Progress | None = None,
    resume: bool = True,
) -> TrainedModel:
    """Train every space on a snapshot; checkpoints go to ``folder/<space>/``, the result to ``folder``.

    With ``resume`` a training that was cut short goes on from its last checkpoint, to the same result as one that was
    not (on CPU). Raises GraphTooSmall for a graph without entities.
    """
    progress = progress or NoProgress()
    settings = project.settings.training
    limit = project.settings.publish.max_neighbours

    # setup
    if not any(snapshot.num_nodes(each.name) for each in snapshot.schema.of_role(NodeRole.ENTITY)):
        raise GraphTooSmall("the graph has no entities", hint="Ingest the catalogue first: `kithkin ingest`.")
    device = _device(settings)
    split = split_newest(snapshot, settings.holdout)
    whole = Graph(snapshot)
    notes: list[str] = []
    spaces: dict[str, SpaceModel] = {}
    metrics: dict[str, dict[str, float]] = {}
    configuration = settings.model_dump(mode="json")

    with _reproducible(settings):
        transforms = fit_features(
            split.graph, dimension=settings.input_dimension, seed=settings.seed, progress=progress
        )
        start = fingerprint(snapshot.content_hash, configuration, limit, torch.__version__)

        # similar: build, fit
        tasks = similar_tasks(whole, balance=settings.similar.balance, concept_share=settings.similar.concept_share)
        torch.manual_seed(settings.seed)
        shape = SpaceShape.of("similar", whole, transforms, settings.similar, inner_product=False)
        batcher = Batcher(whole, transforms, shape, settings.similar, max_neighbours=limit, seed=settings.seed)
        model = SpaceModel(shape, settings.similar).to(device)
        _set_signals(model, whole, transforms, batcher, tasks, settings)
        if tasks.sources:
            loss = SimilarLoss(batcher, tasks, settings.similar, settings.seed)
            edges = sum(source.edges for source in tasks.sources)
            metrics["similar"] = _fit(model, loss, edges, settings, folder / "similar", start, resume, progress)
        else:
            notes.append("space similar: no edges say that entities are alike; vectors are of the properties alone")
        _fit_projection(model, transforms, whole, settings)
        spaces["similar"] = model.cpu().eval()
        del batcher

        # user: build, fit
        relations = engagements(snapshot.schema)
        edges = sum(split.graph.csr(EdgeType(relation.triple)).num_edges for relation in relations)
        if edges < 2:
            notes.append("space user: left out, there are no engagements to learn from")
        else:
            torch.manual_seed(settings.seed)
            shape = SpaceShape.of("user", split.graph, transforms, settings.user, inner_product=True)
            model = SpaceModel(shape, settings.user).to(device)
            user_loss = UserLoss(split.graph, transforms, shape, settings.user, limit=limit, seed=settings.seed)
            metrics["user"] = _fit(model, user_loss, edges, settings, folder / "user", start, resume, progress)
            spaces["user"] = model.cpu().eval()

    trained = TrainedModel(
        transforms=transforms, spaces=spaces, configuration=configuration, notes=tuple(notes), metrics=metrics
    )
    trained.save(folder)
    return trained


def resolved_steps(space: str, settings: SpaceSettings, edges: int) -> int:
    """The steps of a space's training over so many edges."""
    if settings.steps is not None:
        return settings.steps
    return int(np.clip(_PASSES * edges // settings.batch_size, _MIN_STEPS, _MAX_STEPS[space]))


def _fit(
    model: SpaceModel,
    objective: Objective,
    edges: int,
    settings: TrainingSettings,
    folder: Path,
    start: str,
    resume: bool,
    progress: Progress,
) -> dict[str, float]:
    """The loop. Each step's randomness follows from the seed and its number alone, so a resumed run is the same run."""
    own = model.settings
    steps = resolved_steps(model.shape.name, own, edges)
    optimiser = torch.optim.AdamW(model.parameters(), lr=own.learning_rate, weight_decay=own.weight_decay)
    done, last = load_checkpoint(folder, model, optimiser, start=start) if resume else (0, float("nan"))
    begun = time.monotonic()
    drawn = prefetch((partial(objective.draw, step) for step in range(done, steps)), threads=settings.sampler_threads)
    with progress.task(f"train {model.shape.name}", steps, "steps") as task, closing(drawn):
        task.advance(done)
        for step, asked in zip(range(done, steps), drawn, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = own.learning_rate * _schedule(step, steps)
            torch.manual_seed(_step_seed(settings.seed, step))
            model.train()
            if asked is not None:
                loss = objective.loss(model, asked)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimiser.step()
                last = float(loss.detach())
            task.advance(1, loss=round(last, 3))
            if (step + 1) % settings.checkpoint_every == 0 or step + 1 == steps:
                save_checkpoint(folder, model, optimiser, step=step + 1, loss=last, start=start)
    found = {"steps": float(steps), "seconds": round(time.monotonic() - begun, 3)}
    # No step, no loss: the manifest is JSON, which has no NaN.
    return found if np.isnan(last) else {**found, "loss": last}


def _set_signals(
    model: SpaceModel,
    graph: Graph,
    transforms: FeatureTransforms,
    batcher: Batcher,
    tasks: PairTasks,
    settings: TrainingSettings,
) -> None:
    """Weigh the blocks of every entity type and reduce them."""
    width = model.shape.signal_width
    if not width:
        return
    matrices = {}
    for node_type in graph.schema.of_role(NodeRole.ENTITY):
        name = node_type.name
        features = batcher.features[name].numpy()
        if not len(features):
            continue
        weights = block_weights(transforms.blocks[name], features, graph.offsets[name], tasks, settings.seed)
        matrices[name] = signal_matrix(transforms, name, features, weights, width, settings.seed)
    model.set_signals(matrices)


def _fit_projection(model: SpaceModel, transforms: FeatureTransforms, graph: Graph, settings: TrainingSettings) -> None:
    """The SVD that reduces encoder and signals of the entities to the published dimension."""
    if not model.shape.signal_width:
        return
    entities = tuple(each.name for each in graph.schema.of_role(NodeRole.ENTITY))
    joined = np.concatenate(list(embed_parts(model, transforms, graph, node_types=entities).values()))
    if len(joined) > _FITTED_ROWS:
        joined = joined[np.sort(np.random.default_rng(settings.seed).permutation(len(joined))[:_FITTED_ROWS])]
    factors = right_factors(joined, model.settings.dimension, settings.seed)
    projection = np.zeros(tuple(model.projection.shape), np.float32)
    projection[: factors.shape[1]] = factors.T
    model.projection.copy_(torch.from_numpy(projection))


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: up in a straight line, then down along a cosine."""
    warm_up = min(_WARM_UP, max(steps // 10, 1))
    return min(1.0, (step + 1) / warm_up) * 0.5 * (1.0 + float(np.cos(np.pi * step / max(steps, 1))))


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _device(settings: TrainingSettings) -> torch.device:
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(settings.device)


@contextmanager
def _reproducible(settings: TrainingSettings) -> Iterator[None]:
    """Threads as set; the caller's random state and thread count come back."""
    threads = torch.get_num_threads()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
