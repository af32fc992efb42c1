"""One worker: trains one space on its own part, in step with the others.

Started by torchrun::

    torchrun --nproc-per-node 2 -m training.distributed.worker .kithkin/checkpoints/similar/plan.json

``kithkin train --workers 2`` writes the plan and starts it.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from graph_store.progress import NoProgress
from training.batches import Batcher
from training.distributed.group import Group
from training.distributed.parts import Part
from training.distributed.plan import INITIAL, STEPS, Plan, StepsFile
from training.graph import Graph
from training.objectives import Objective, SimilarLoss, UserLoss, similar_tasks
from training.space_model import SpaceModel
from training.train import fit, resolved_steps

_SEEDS_APART = 1_000_003


def main() -> None:
    """Train as the plan on the command line says; torchrun's environment says which worker this is."""
    plan = Plan.read(Path(sys.argv[1]))
    local, together = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    device, backend = _device(plan.settings.device, local, together)
    torch.set_num_threads(plan.settings.threads or max((os.cpu_count() or 1) // together, 1))
    dist.init_process_group(backend)
    group, modules = Group(device), _peak_mib()
    part = Part.open(plan.parts / str(group.rank), parent=plan.parent, part=group.rank, parts=group.size)
    _train(plan, group, part, modules)
    dist.destroy_process_group()
    # Everything is written. Threads of PyTorch that still run now and then abort the interpreter's own way out
    # ("terminate called without an active exception"), which torchrun would take for a failure and start all anew.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _train(plan: Plan, group: Group, part: Part, modules: float) -> None:
    # Dropout and draws differ between the workers; the weights they start from do not.
    settings = plan.settings.model_copy(update={"seed": seed_of(plan.settings.seed, group.rank)})
    own = settings.similar if plan.shape.name == "similar" else settings.user
    model = SpaceModel(plan.shape, own)
    model.load_state_dict(torch.load(plan.folder / INITIAL, weights_only=True, map_location="cpu"))
    model = model.to(group.device)
    model.whole_rows = {name: torch.from_numpy(rows).to(group.device) for name, rows in part.rows.items()}
    objective = objective_of(plan, part, settings.seed)
    told = StepsFile(plan.folder / STEPS)
    pids = group.gather(float(os.getpid()))
    if group.is_first:
        told.say(event="begin", pids=[int(each[0]) for each in pids])
    progress = told if group.is_first else NoProgress()
    fit(model, objective, plan.edges, settings, plan.folder, plan.start, True, progress, group=group)
    memory = group.gather(_peak_mib(), modules)
    if group.is_first:
        peak, before = ([round(each[number], 1) for each in memory] for number in (0, 1))
        told.say(event="end", peak_mib=peak, modules_mib=before)


def seed_of(seed: int, rank: int) -> int:
    """The seed of one worker."""
    return seed + _SEEDS_APART * rank


def objective_of(plan: Plan, part: Part, seed: int) -> Objective:
    """The objective of the plan's space over one part."""
    settings, shape = plan.settings, plan.shape
    own = settings.similar if shape.name == "similar" else settings.user
    steps = resolved_steps(shape.name, own, plan.edges)
    if shape.name == "user":
        return UserLoss(
            part.training_graph(),
            part.transforms,
            shape,
            own,
            limit=plan.max_neighbours,
            seed=seed,
            steps=steps,
            memory_mib=settings.memory_mib,
        )
    graph = Graph(part.snapshot)
    batcher = Batcher(
        graph,
        part.transforms,
        shape,
        own,
        max_neighbours=plan.max_neighbours,
        seed=seed,
        memory_mib=0,
    )
    batcher.features = part.node_features()
    tasks = similar_tasks(graph, balance=own.balance, concept_share=own.concept_share)
    return SimilarLoss(batcher, tasks, own, seed, steps=steps)


def _device(wanted: str, local: int, together: int) -> tuple[torch.device, str]:
    """This worker's device and the backend: NCCL needs a GPU for each worker."""
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu"), "gloo"
    gpus = torch.cuda.device_count()
    device = torch.device("cuda", local % gpus)
    torch.cuda.set_device(device)
    return device, "nccl" if gpus >= together else "gloo"


def _peak_mib() -> float:
    """The most memory this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main()
