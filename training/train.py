"""Training of all spaces, top to bottom: setup, build, fit."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from graph_store.progress import NoProgress, Progress
from graph_store.project import Project
from graph_store.schema import NodeRole
from graph_store.settings import SpaceSettings, TrainingSettings
from model_store.csr import EdgeType
from model_store.features import FeatureTransforms
from training.batches import Batcher
from training.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from training.context import fit_context
from training.errors import GraphTooSmall
from training.export import Snapshot as StoredSnapshot
from training.factorise import right_factors
from training.fit_features import fit_features
from training.graph import Graph, Snapshot, engagements
from training.holdout import split_newest
from training.inference import embed_parts
from training.model import NEURAL, TrainedModel
from training.neural_metric.train import prepare_neural, train_neural_metric
from training.objectives import Objective, SimilarLoss, UserLoss, similar_tasks
from training.run_log import RunLog
from training.sampling import prefetch
from training.space_model import SpaceModel, SpaceShape
from training.transductive.factor_model import TRANSDUCTIVE
from training.transductive.fit import FactorTraining
from training.warm_start import warm_fingerprint, warm_start

if TYPE_CHECKING:
    from training.distributed.group import Group

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
    warm: Path | None = None,
) -> TrainedModel:
    """Train every space on a snapshot; checkpoints go to ``folder/<space>/``, the result to ``folder``.

    ``warm``: the folder of an earlier training, whose weights this one starts from where shapes match.

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
    neural = prepare_neural(project, snapshot.schema) if settings.neural.enabled else None

    with _reproducible(settings):
        first_stage = fit_features(
            split.graph, dimension=settings.input_dimension, seed=settings.seed, progress=progress
        )
        tasks = similar_tasks(whole, balance=settings.similar.balance, concept_share=settings.similar.concept_share)
        stages = fit_context(
            first_stage,
            split.graph,
            tasks,
            signal_width=settings.similar.dimension if settings.similar.signals else 0,
            dimension=settings.context_dimension,
            weight=settings.similar.context,
            seed=settings.seed,
            memory_mib=settings.memory_mib,
        )
        transforms = stages.transforms
        earlier = [] if warm is None else [warm_fingerprint(warm)]
        # The spaces do not depend on the neural scorer: their checkpoints are those of either setting.
        of_spaces = {key: value for key, value in configuration.items() if key != "neural"}
        start = fingerprint(snapshot.content_hash, of_spaces, limit, torch.__version__, *earlier)
        workers = None
        if settings.workers > 1 and isinstance(snapshot, StoredSnapshot):
            from training.distributed.launch import Workers

            workers = Workers(
                settings,
                snapshot,
                split,
                transforms,
                max_neighbours=limit,
                folder=folder,
                start=start,
                resume=resume,
                progress=progress,
            )
        elif settings.workers > 1:
            notes.append("trained by one worker: parts are made of exported snapshots alone")

        # similar: build, fit
        torch.manual_seed(settings.seed)
        shape = SpaceShape.of("similar", whole, transforms, settings.similar, inner_product=False)
        batcher = Batcher(
            whole,
            transforms,
            shape,
            settings.similar,
            max_neighbours=limit,
            seed=settings.seed,
            memory_mib=settings.memory_mib,
            folder=folder / "similar",
        )
        model = SpaceModel(shape, settings.similar).to(device)
        taken = {"similar": warm_start(model, warm / "similar") if warm is not None else 0}
        model.set_signals(stages.signals)
        if tasks.sources:
            edges = sum(source.edges for source in tasks.sources)
            if workers is not None:
                metrics["similar"] = workers.fit(model, edges, batcher.features)
            else:
                steps = resolved_steps("similar", settings.similar, edges)
                loss = SimilarLoss(batcher, tasks, settings.similar, settings.seed, steps=steps)
                metrics["similar"] = fit(model, loss, edges, settings, folder / "similar", start, resume, progress)
        else:
            notes.append("space similar: no edges say that entities are alike; vectors are of the properties alone")
        _fit_projection(model, transforms, whole, settings, folder / "similar" / "inference")
        spaces["similar"] = model.cpu().eval()
        del batcher

        # user: build, fit
        relations = engagements(snapshot.schema)
        edges = sum(split.graph.csr(EdgeType(relation.triple)).num_edges for relation in relations)
        if edges < 2:
            notes.append("space user: left out, there are no engagements to learn from")
        elif settings.user.encoder in TRANSDUCTIVE:
            factors = FactorTraining(split.graph, transforms, settings)
            factors.model.to(device)
            metrics["user"] = fit(
                factors.model, factors.objective, edges, settings, folder / "user", start, resume, progress
            )
            spaces["user"] = factors.finish()
        else:
            torch.manual_seed(settings.seed)
            shape = SpaceShape.of("user", split.graph, transforms, settings.user, inner_product=True)
            model = SpaceModel(shape, settings.user).to(device)
            taken["user"] = warm_start(model, warm / "user") if warm is not None else 0
            if workers is not None:
                metrics["user"] = workers.fit(model, edges)
            else:
                steps = resolved_steps("user", settings.user, edges)
                user_loss = UserLoss(
                    split.graph,
                    transforms,
                    shape,
                    settings.user,
                    limit=limit,
                    seed=settings.seed,
                    steps=steps,
                    memory_mib=settings.memory_mib,
                    folder=folder / "user",
                )
                metrics["user"] = fit(model, user_loss, edges, settings, folder / "user", start, resume, progress)
            spaces["user"] = model.cpu().eval()

    # neural: a score of events and entities beside the spaces
    if neural is not None:
        trained_score = train_neural_metric(
            split.graph, folder=folder / NEURAL, progress=progress, resume=resume, **neural
        )
        metrics[NEURAL] = trained_score.metrics

    if warm is not None:
        for name in taken.keys() & metrics.keys():
            metrics[name]["warm_tensors"] = float(taken[name])
    if workers is not None:
        notes += workers.notes()
    trained = TrainedModel(
        transforms=transforms,
        spaces=spaces,
        configuration=configuration,
        notes=tuple(notes),
        metrics=metrics,
        neural=folder / NEURAL if neural is not None else None,
    )
    trained.save(folder)
    return trained


def resolved_steps(space: str, settings: SpaceSettings, edges: int) -> int:
    """The steps of a space's training over so many edges."""
    if settings.steps is not None:
        return settings.steps
    return int(np.clip(_PASSES * edges // settings.batch_size, _MIN_STEPS, _MAX_STEPS[space]))


def fit(
    model: SpaceModel,
    objective: Objective,
    edges: int,
    settings: TrainingSettings,
    folder: Path,
    start: str,
    resume: bool,
    progress: Progress,
    *,
    group: Group | None = None,
) -> dict[str, float]:
    """The loop. Each step's randomness follows from the seed and its number alone, so a resumed run is the same run.

    ``group``: the workers that take these steps together.
    """
    own = model.settings
    steps = resolved_steps(model.shape.name, own, edges)
    optimiser = torch.optim.AdamW(model.parameters(), lr=own.learning_rate, weight_decay=own.weight_decay)
    done, last = load_checkpoint(folder, model, optimiser, start=start) if resume else (0, float("nan"))
    compute: Callable[[Any], Tensor] = partial(objective.loss, model)
    if group is not None:
        group.agree(done)
        compute = group.averaged_loss(model, objective)
    begun = time.monotonic()
    drawn = prefetch((partial(objective.draw, step) for step in range(done, steps)), threads=settings.sampler_threads)
    log = RunLog(folder.parent, tensorboard=settings.tensorboard) if group is None or group.is_first else None
    with progress.task(f"train {model.shape.name}", steps, "steps") as task, closing(drawn), log or nullcontext():
        task.advance(done)
        if log is not None:
            log.resume(model.shape.name, done)
        then = begun
        for step, asked in zip(range(done, steps), drawn, strict=True):
            for parameters in optimiser.param_groups:
                parameters["lr"] = own.learning_rate * learning_rate_share(step, steps)
            torch.manual_seed(step_seed(settings.seed, step))
            model.train()
            if asked is not None or group is not None:
                loss = compute(asked)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
                optimiser.step()
                last = float(loss.detach())
            task.advance(1, loss=round(last, 3))
            if log is not None:
                before, then = then, time.monotonic()
                log.step(
                    model.shape.name,
                    step + 1,
                    loss=last,
                    learning_rate=optimiser.param_groups[0]["lr"],
                    examples_per_second=own.batch_size / max(then - before, 1e-9),
                    seconds=then - begun,
                )
            due = (step + 1) % settings.checkpoint_every == 0 or step + 1 == steps
            if due and (group is None or group.is_first):
                save_checkpoint(folder, model, optimiser, step=step + 1, loss=last, start=start)
    found = {"steps": float(steps), "seconds": round(time.monotonic() - begun, 3)}
    # No step, no loss: the manifest is JSON, which has no NaN.
    return found if np.isnan(last) else {**found, "loss": last}


def _fit_projection(
    model: SpaceModel, transforms: FeatureTransforms, graph: Graph, settings: TrainingSettings, folder: Path
) -> None:
    """The SVD that reduces encoder and signals of the entities to the published dimension."""
    if not model.shape.signal_width:
        return
    entities = tuple(each.name for each in graph.schema.of_role(NodeRole.ENTITY))
    memory_mib = settings.memory_mib
    parts = embed_parts(model, transforms, graph, node_types=entities, folder=folder, memory_mib=memory_mib).values()
    total = sum(map(len, parts))
    fitted = np.zeros(total, bool)
    fitted[np.random.default_rng(settings.seed).permutation(total)[:_FITTED_ROWS]] = True
    ends = np.cumsum([len(part) for part in parts])[:-1]
    joined = np.concatenate([part[kept] for part, kept in zip(parts, np.split(fitted, ends), strict=True)])
    shutil.rmtree(folder, ignore_errors=True)
    factors = right_factors(joined, model.settings.dimension, settings.seed)
    projection = np.zeros(tuple(model.projection.shape), np.float32)
    projection[: factors.shape[1]] = factors.T
    model.projection.copy_(torch.from_numpy(projection))


def learning_rate_share(step: int, steps: int) -> float:
    """Share of the learning rate: up in a straight line, then down along a cosine."""
    warm_up = min(_WARM_UP, max(steps // 10, 1))
    return min(1.0, (step + 1) / warm_up) * 0.5 * (1.0 + float(np.cos(np.pi * step / max(steps, 1))))


def step_seed(seed: int, step: int) -> int:
    """Seed of torch in one step."""
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
