"""What do time and memory do from one million edges to a hundred million?

    python -m benchmarks.scale --edges 1000000 10000000 100000000 --folder generated

Each stage runs in its own process on a generated snapshot (``_generated``: items, tags and users, a hundred edges a
node, skewed degrees), so that its peak memory is its own: opening it, fitting the features, sampling, training steps of
``semantic_gnn`` in the space ``similar`` (features in memory, in files, made for each batch), inference of all items
and tags, training steps in the space ``user`` (its setup holds out the newest engagements, splits the others into the
parts that take turns, and makes each part's features and neighbour lists). ``resident`` counts pages of memory-mapped
files too, which the system takes back when it needs them; ``own`` does not. Of more than ten million edges training is
measured with features in memory alone. Rates are by processor seconds of all threads. A stage that asks for more than
``--limit-gib`` of its own memory fails. The slope is that of log processor time and log memory over log edges: 1 is
linear. A stage that is in ``results/scale.json`` is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._generated import generated_snapshot
from benchmarks._results import Results
from benchmarks._watch import Clock, Figures, PeakMemory

STAGES = ("open", "fit", "sample", "train", "train, features in files", "train, features per batch", "infer", "user")
STAGES_OF_MORE = ("open", "fit", "sample", "train", "infer", "user")
MEAN_DEGREE = 100
SEEDS = 1024
FAN_OUT = (10, 10)
SPACE = {"hidden": 64, "dimension": 64, "signals": 0.0}
USER_SPACE = {"hidden": 64, "dimension": 64}
INPUT_DIMENSION = 32
MOST_IN_ALL_FORMS = 10_000_000
INFERENCE_MIB = 1024
RATES = ("messages_per_processor_second", "edges_per_processor_second", "nodes_per_processor_second")


def opened(folder: Path, edges: int, amount: int) -> Figures:
    """Manifest, and every array mapped."""
    clock = Clock()
    snapshot = generated_snapshot(folder / "snapshot", nodes=edges // MEAN_DEGREE, edges=edges)
    found = sum(snapshot.csr(each).num_edges for each in snapshot.edge_types)
    return {**clock.figures(), "edges_both_ways": found}


def fitted(folder: Path, edges: int, amount: int) -> Figures:
    """The feature transforms, saved for the next stages."""
    from training.fit_features import fit_features

    graph = _graph(folder, edges)
    clock = Clock()
    transforms = fit_features(graph, dimension=INPUT_DIMENSION, seed=1)
    figures = clock.figures(edges=edges)
    transforms.save(folder / "features")
    return figures


def sampled(folder: Path, edges: int, amount: int) -> Figures:
    """Uniform neighbourhoods over all edges, one thread."""
    from training.neighbourhoods import sizes
    from training.sampling import UniformSampler

    graph = _graph(folder, edges)
    adjacency = {each: graph.csr(each) for each in graph.edge_types}
    sampler = UniformSampler(adjacency, sizes(graph), fan_out=FAN_OUT)
    rng = np.random.default_rng(2)
    batches = [rng.integers(0, graph.num_nodes("Item"), SEEDS) for _ in range(amount)]
    sampler.sample({"Item": batches[0]}, key=10**6)  # compiles
    clock, drawn = Clock(), 0
    for key, batch in enumerate(batches):
        subgraph = sampler.sample({"Item": batch}, key=key)
        drawn += sum(index.shape[1] for index in subgraph.edge_index.values())
    return clock.figures(edges=drawn)


def trained(folder: Path, edges: int, amount: int, *, memory_mib: float = 0, in_files: bool = False) -> Figures:
    """Optimiser steps, batches drawn ahead in one thread; messages are the edges that the layers read."""
    import torch

    from graph_store.settings import SpaceSettings
    from model_store.features import FeatureTransforms
    from training.batches import Batcher
    from training.model import TrainedModel
    from training.objectives import SimilarLoss, similar_tasks
    from training.sampling import prefetch
    from training.space_model import SpaceModel, SpaceShape

    torch.set_num_threads(1)
    graph, settings = _graph(folder, edges), SpaceSettings(layers=1, **SPACE)
    transforms = FeatureTransforms.load(folder / "features")
    clock = Clock()
    tasks = similar_tasks(graph, balance=settings.balance, concept_share=settings.concept_share)
    shape = SpaceShape.of("similar", graph, transforms, settings, inner_product=False)
    batcher = Batcher(
        graph,
        transforms,
        shape,
        settings,
        max_neighbours=50,
        seed=1,
        memory_mib=memory_mib,
        folder=folder if in_files else None,
    )
    objective = SimilarLoss(batcher, tasks, settings, 1, steps=amount)
    model = SpaceModel(shape, settings).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)
    setup = {f"setup_{name}": value for name, value in clock.figures().items()}
    warm_up, messages = 3, 0
    steps = prefetch((partial(objective.draw, step) for step in range(warm_up + amount)), threads=1)
    for step, drawn in enumerate(steps):
        if step == warm_up:
            clock = Clock()
        assert drawn is not None
        loss = objective.loss(model, drawn)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step >= warm_up:
            messages += sum(len(layer.type) for layer in drawn.batch.edges)
    figures = clock.figures(messages=messages, pairs=amount * settings.batch_size, steps=amount)
    TrainedModel(transforms=transforms, spaces={"similar": model}).save(folder / "model")
    return {**setup, **figures, "last_loss": float(loss.detach())}


def trained_for_users(folder: Path, edges: int, amount: int) -> Figures:
    """Optimiser steps of the space ``user``, every part at least once."""
    import torch

    from graph_store.settings import UserSpaceSettings
    from model_store.features import FeatureTransforms
    from training.holdout import split_newest
    from training.objectives import UserLoss
    from training.sampling import prefetch
    from training.space_model import SpaceModel, SpaceShape

    torch.set_num_threads(1)
    snapshot = _graph(folder, edges).snapshot
    settings = UserSpaceSettings(layers=1, **USER_SPACE)
    transforms = FeatureTransforms.load(folder / "features")
    clock = Clock()
    graph = split_newest(snapshot, 0.1).graph
    split = {f"split_{name}": value for name, value in clock.figures().items()}
    shape = SpaceShape.of("user", graph, transforms, settings, inner_product=True)
    objective = UserLoss(graph, transforms, shape, settings, limit=50, seed=1, steps=amount, memory_mib=4096)
    model = SpaceModel(shape, settings).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate)
    setup = {f"setup_{name}": value for name, value in clock.figures().items()}
    warm_up, messages = len(objective.parts), 0
    steps = prefetch((partial(objective.draw, step) for step in range(warm_up + amount)), threads=1)
    for step, drawn in enumerate(steps):
        if step == warm_up:
            clock = Clock()
        assert drawn is not None
        loss = objective.loss(model, drawn)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step >= warm_up:
            messages += sum(len(layer.type) for layer in drawn.batch.edges)
    figures = clock.figures(messages=messages, pairs=amount * settings.batch_size, steps=amount)
    return {**split, **setup, **figures, "parts": len(objective.parts), "last_loss": float(loss.detach())}


def inferred(folder: Path, edges: int, amount: int) -> Figures:
    """Vectors of all items and tags; states in files where they are larger than ``INFERENCE_MIB``."""
    import torch

    from training.inference import embed
    from training.model import TrainedModel

    torch.set_num_threads(1)
    graph, trained_model = _graph(folder, edges), TrainedModel.load(folder / "model")
    work = folder / "inference"
    shutil.rmtree(work, ignore_errors=True)
    clock = Clock()
    found = embed(
        trained_model.spaces["similar"],
        trained_model.transforms,
        graph,
        node_types=("Item", "Tag"),
        folder=work,
        memory_mib=INFERENCE_MIB,
    )
    figures = {**clock.figures(nodes=graph.total_nodes), "in_files": work.exists()}
    assert all(np.isfinite(vectors).all() for vectors in found.vectors.values())
    shutil.rmtree(work, ignore_errors=True)
    return figures


WORK: dict[str, Callable[[Path, int, int], Figures]] = {
    "open": opened,
    "fit": fitted,
    "sample": sampled,
    "train": partial(trained, memory_mib=4096),
    "train, features in files": partial(trained, in_files=True),
    "train, features per batch": trained,
    "infer": inferred,
    "user": trained_for_users,
}
AMOUNT = {"sample": 50, "train": 10, "train, features in files": 10, "train, features per batch": 5, "user": 10}
"""Batches or steps."""


def in_its_own_process(stage: str, folder: Path, edges: int, limit_gib: float) -> Figures:
    """Run one stage as a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--stage", stage, "--folder", str(folder)]
    command += ["--edges", str(edges), "--limit-gib", str(limit_gib)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{stage} at {edges} edges failed:\n{ended.stderr}")
    found: Figures = json.loads(ended.stdout.splitlines()[-1])
    return found


def run_stage(stage: str, folder: Path, edges: int, limit_gib: float) -> None:
    """Inside that process: measure, print JSON."""
    limit = int(limit_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with PeakMemory() as memory:
        figures = WORK[stage](folder, edges, AMOUNT.get(stage, 1))
    print(json.dumps({**figures, **memory.figures()}))


def slopes(rows: dict[int, Figures], figure: str) -> str:
    """Slope of log figure over log edges between the sizes that are there."""
    sizes = sorted(rows)
    found = [
        math.log(max(rows[b][figure], 1e-9) / max(rows[a][figure], 1e-9)) / math.log(b / a) for a, b in pairwise(sizes)
    ]
    return " ".join(f"{each:.2f}" for each in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edges", type=int, nargs="+", default=[1_000_000, 10_000_000, 100_000_000])
    parser.add_argument("--folder", type=Path, help="where to keep what is generated; nothing: a temporary folder")
    parser.add_argument("--limit-gib", type=float, default=24.0, help="own memory that a stage may have")
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    parser.add_argument("--stages", nargs="+", choices=STAGES, help="only these")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        run_stage(arguments.stage, arguments.folder, arguments.edges[0], arguments.limit_gib)
        return

    results = Results("scale", again=arguments.again)
    measured: dict[str, dict[int, Figures]] = {stage: {} for stage in STAGES}
    columns = f"{'seconds':>9} {'processor':>9} {'setup':>7} {'rate':>12} {'resident':>9} {'own MiB':>8}"
    print(f"{'stage':26} {'edges':>12} {columns}")
    for edges in arguments.edges:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (arguments.folder or Path(temporary)) / str(edges)
            for stage in STAGES if edges <= MOST_IN_ALL_FORMS else STAGES_OF_MORE:
                if arguments.stages and stage not in arguments.stages:
                    continue
                settings = {
                    "edges": edges,
                    "nodes": edges // MEAN_DEGREE,
                    "stage": stage,
                    "amount": AMOUNT.get(stage, 1),
                    "space": USER_SPACE if stage == "user" else SPACE,
                    "input_dimension": INPUT_DIMENSION,
                }

                def measure(stage: str = stage, edges: int = edges, folder: Path = folder) -> Figures:
                    generated_snapshot(folder / "snapshot", nodes=edges // MEAN_DEGREE, edges=edges)
                    _prepare(stage, folder, edges, arguments.limit_gib)
                    return in_its_own_process(stage, folder, edges, arguments.limit_gib)

                row = measured[stage][edges] = results.row(settings, measure)
                rate = next((row[name] for name in RATES if name in row), 0.0)
                print(
                    f"{stage:26} {edges:12,} {row['seconds']:9.1f} {row['processor_seconds']:9.1f} "
                    f"{row.get('setup_processor_seconds', 0.0):7.1f} {rate:12,.0f} "
                    f"{row['peak_resident_mib']:9,} {row['peak_own_mib']:8,}",
                    flush=True,
                )
    for stage, rows in measured.items():
        if len(rows) < 2:
            continue
        print(f"slope of {stage}: time {slopes(rows, 'processor_seconds')}; own memory {slopes(rows, 'peak_own_mib')}")


def _prepare(stage: str, folder: Path, edges: int, limit_gib: float) -> None:
    """What an earlier stage leaves, where that stage was measured in another run."""
    if stage.startswith(("train", "user")) and not (folder / "features" / "features.json").exists():
        in_its_own_process("fit", folder, edges, limit_gib)
    if stage == "infer" and not (folder / "model" / "model.json").exists():
        _prepare("train", folder, edges, limit_gib)
        in_its_own_process("train", folder, edges, limit_gib)


def _graph(folder: Path, edges: int) -> Any:
    from training.graph import Graph

    return Graph(generated_snapshot(folder / "snapshot", nodes=edges // MEAN_DEGREE, edges=edges))


if __name__ == "__main__":
    main()
