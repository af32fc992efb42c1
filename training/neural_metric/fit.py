"""The training loop of a scorer: sampled softmax, log-Q corrected, and the adversarial loss beside it."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from graph_store.progress import NoProgress, Progress
from training.neural_metric.adversarial import flatness_loss, perturbed
from training.neural_metric.histories import Examples, ExampleSource, Histories
from training.neural_metric.scorer import NeuralScorer, Scorer, TwoTowerScorer, make_scorer
from training.neural_metric.settings import ScorerSettings

_NEVER = -1e9
_WARM_UP = 100


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A trained scorer and what its training said."""

    scorer: Scorer
    """In evaluation mode."""
    metrics: dict[str, float]
    """``steps``, ``seconds`` of this run, ``loss`` and ``flatness`` at the end (running means)."""


def fit_scorer(
    known: Histories,
    users: NDArray[np.int64],
    entities: int,
    settings: ScorerSettings,
    *,
    vectors: NDArray[np.float32] | None = None,
    checkpoint: Path | None = None,
    start: str = "",
    progress: Progress | None = None,
) -> Fitted:
    """Train a scorer on the events of some users.

    ``vectors`` ``[entities, any]`` is where the entities' vectors start. With ``checkpoint`` (a file) a training that
    was cut short goes on from it, where settings and ``start`` (a fingerprint of the data) are the same, to the same
    result as one that was not: each step's randomness follows from the seed and its number.
    """
    source = ExampleSource(known, users, settings.events)
    if not len(source):
        raise ValueError("no user has the two events that an example needs")
    twin = None
    if settings.twin_steps:
        twin = fit_scorer(
            known,
            users,
            entities,
            twin_of(settings),
            vectors=vectors,
            checkpoint=checkpoint.with_name(f"twin-{checkpoint.name}") if checkpoint else None,
            start=start,
            progress=progress,
        )
    steps = settings.steps - settings.twin_steps
    share = np.bincount(known.entities[source.positions], minlength=entities) / len(source)
    with torch.random.fork_rng(devices=[]), _threads(settings.threads):
        torch.manual_seed(settings.seed)
        scorer = make_scorer(settings, entities, vectors)
        if twin is not None and isinstance(scorer, NeuralScorer) and isinstance(twin.scorer, TwoTowerScorer):
            scorer.start_from(twin.scorer)
        optimiser = torch.optim.AdamW(
            scorer.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        mark = f"{settings.model_dump_json()} {start}"
        done, means = _resume(checkpoint, scorer, optimiser, mark)
        begun = time.monotonic()
        with (progress or NoProgress()).task(f"train {settings.kind} score", steps, "steps") as task:
            task.advance(done)
            for step in range(done, steps):
                rng = np.random.default_rng([settings.seed, step])
                torch.manual_seed(int(rng.integers(2**62)))
                for group in optimiser.param_groups:
                    group["lr"] = settings.learning_rate * _schedule(step, steps)
                batch = source.draw(settings.batch_size, rng)
                drawn = rng.integers(entities, size=settings.negatives)
                losses = _losses(scorer, batch, drawn, share, settings)
                optimiser.zero_grad(set_to_none=True)
                losses.sum().backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(scorer.parameters(), 5.0)
                optimiser.step()
                rate = max(0.01, 1.0 / (step + 1))
                means += rate * (losses.detach().numpy() - means)
                task.advance(1, loss=round(float(means[0]), 3))
                if checkpoint and ((step + 1) % settings.checkpoint_every == 0 or step + 1 == steps):
                    _save(checkpoint, scorer, optimiser, step + 1, means, mark)
    seconds = time.monotonic() - begun + (twin.metrics["seconds"] if twin else 0.0)
    metrics = {"steps": float(settings.steps), "seconds": round(seconds, 2)}
    metrics |= {"loss": float(means[0]), "flatness": float(means[1])}
    return Fitted(scorer=scorer.eval(), metrics=metrics)


def twin_of(settings: ScorerSettings) -> ScorerSettings:
    """Settings of the twin that a neural score with ``twin_steps`` starts from."""
    plain = ScorerSettings()
    return settings.model_copy(
        update={
            "kind": "two_tower",
            "steps": settings.twin_steps,
            "twin_steps": 0,
            "adversarial": plain.adversarial,
            "adversarial_scale": plain.adversarial_scale,
            "adversarial_weight": plain.adversarial_weight,
        }
    )


def _losses(
    scorer: Scorer, batch: Examples, drawn: NDArray[np.int64], share: NDArray[np.float64], settings: ScorerSettings
) -> Tensor:
    """The two losses, weighted, ``[2]``: sampled softmax of the targets, and flatness around every label's vector.

    The candidates are the batch's targets, which are drawn as often as they are asked for (the source's unigram
    noise), and evenly drawn entities; the expected number of times each is drawn is taken off (Yi et al. 2019, section
    3.2; Bengio and Senecal 2003). The target again, and the user's events, are no negatives.
    """
    candidates = np.concatenate([batch.targets, drawn])
    expected = len(batch.targets) * share[candidates] + len(drawn) / len(share)
    log_q = torch.from_numpy(np.log(expected).astype(np.float32))
    rows, events = torch.from_numpy(candidates), torch.from_numpy(batch.events)
    never = rows[None, :] == rows[: len(events), None]
    never |= (events[:, :, None] == rows).any(1)
    own = torch.arange(len(events))
    never[own, own] = False

    vectors, mask = scorer.event_vectors(events)
    if settings.dropout:
        mask = mask & (torch.rand(mask.shape) >= settings.dropout)
    entity = F.embedding(rows, scorer.table)
    logits = (scorer(vectors, mask, entity) - log_q).masked_fill(never, _NEVER)
    loss = F.cross_entropy(logits, own)
    flatness = torch.zeros(())
    if settings.adversarial and settings.adversarial_weight:
        epsilon = settings.adversarial
        if settings.adversarial_scale == "relative":
            epsilon *= float(scorer.table.detach().square().mean().sqrt())
        changed = scorer(vectors, mask, perturbed(scorer, vectors, mask, entity, epsilon))
        flatness = flatness_loss(logits, (changed - log_q).masked_fill(never, _NEVER))
    return torch.stack([loss, settings.adversarial_weight * flatness])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads for torch, then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: up in a straight line, then down along a cosine."""
    warm_up = min(_WARM_UP, max(steps // 10, 1))
    return min(1.0, (step + 1) / warm_up) * 0.5 * (1.0 + float(np.cos(np.pi * step / steps)))


def _save(
    file: Path, scorer: Scorer, optimiser: torch.optim.Optimizer, step: int, means: NDArray[np.float64], mark: str
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    torch.save(
        {
            "scorer": scorer.state_dict(),
            "optimiser": optimiser.state_dict(),
            "step": step,
            "means": means.tolist(),
            "mark": mark,
        },
        unfinished,
    )
    unfinished.replace(file)


def _resume(
    file: Path | None, scorer: Scorer, optimiser: torch.optim.Optimizer, mark: str
) -> tuple[int, NDArray[np.float64]]:
    """Restore a checkpoint of the same start: its step and means; (0, zeros) where there is none."""
    nothing = 0, np.zeros(2)
    if file is None:
        return nothing
    try:
        state = torch.load(file, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return nothing
    if state.get("mark") != mark:
        return nothing
    scorer.load_state_dict(state["scorer"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"]), np.array(state["means"])
