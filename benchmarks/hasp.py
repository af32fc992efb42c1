"""Do two workers with HASP parts train as good vectors as one worker, each holding half of the graph?

    python -m benchmarks.hasp

The generated catalogue (docs/synthetic.md), with so many views that 96 % of the edges are (co-)engagements; its truth
is planted. In every row the same number of examples is trained on: two workers take as many steps as one with half the
batch each, or (``--half-steps``) half the steps. Quality is NDCG@200 of similar films against the truth; ``cold``: of
the films that nobody has engaged with. ``cut``: of the edges among films and users, those that lie between parts;
``company``: the largest share of engagements and co-engagements that a worker holds; ``edges``: of all edges. Memory is
the peak of each worker's process, and what it was before the part was opened; the first row's is that of one worker
which holds the whole graph in one part.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks._results import Results
from cli.steps import Pipeline
from graph_store.progress import NoProgress
from graph_store.project import load_project
from graph_store.synthetic import generate
from training.distributed.launch import Workers
from training.distributed.parts import describe, written_parts
from training.distributed.plan import STEPS as STEPS_FILE
from training.evaluate import evaluate_similar
from training.export import Snapshot
from training.fit_features import fit_features
from training.graph import Graph
from training.holdout import split_newest
from training.inference import embed
from training.node_features import NodeFeatures
from training.space_model import SpaceModel, SpaceShape
from training.train import train

STEPS, BATCH = 120, 512
RUNS: list[dict[str, Any]] = [
    {"workers": 1, "steps": STEPS, "batch": BATCH},
    {"workers": 2, "partition": "hasp", "steps": STEPS, "batch": BATCH // 2},
    {"workers": 2, "partition": "random", "steps": STEPS, "batch": BATCH // 2},
]
HALF_STEPS: list[dict[str, Any]] = [
    {"workers": 2, "partition": "hasp", "steps": STEPS // 2, "batch": BATCH},
    {"workers": 2, "partition": "random", "steps": STEPS // 2, "batch": BATCH},
]


def overrides(run: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Settings of a run: the space of similar films alone, small enough for two cores."""
    found: dict[str, Any] = {
        "training.seed": seed,
        "training.threads": 1,
        "training.device": "cpu",
        "training.workers": run["workers"],
        "training.input_dimension": 64,
        "training.similar.layers": 1,
        "training.similar.dimension": 128,
        "training.similar.hidden": 64,
        "training.similar.steps": run["steps"],
        "training.similar.batch_size": run["batch"],
        "training.user.steps": 0,
    }
    if "partition" in run:
        found["training.distributed.partition"] = run["partition"]
    return found


def measure(catalogue: Path, run: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Train and measure one row."""
    project = load_project(catalogue, overrides=overrides(run, seed))
    snapshot = Pipeline(project, NoProgress()).snapshot()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = train(project, snapshot, folder=folder)
        trained = model.metrics["similar"]
        found = embed(model.spaces["similar"], model.transforms, Graph(snapshot), node_types=("Film",)).vectors
        vectors = {"Film": (snapshot.ids("Film"), found["Film"])}
        protocols = evaluate_similar(project, snapshot, vectors)
        figures: dict[str, Any] = {
            each.name: each.scores["kithkin"][each.headline].mean for each in protocols if each.kind == "judged"
        }
        figures |= {"seconds": trained["seconds"], "loss": trained.get("loss")}
        if run["workers"] > 1:
            figures |= _parts(folder, snapshot)
    return figures


def _parts(folder: Path, snapshot: Snapshot) -> dict[str, Any]:
    parts = next((folder / "parts").iterdir())
    document = written_parts(parts, snapshot.content_hash)
    assert document is not None
    return {
        **describe(document),
        "cut by relation": {
            name: round(count / max(document["edges"][name], 1), 4) for name, count in document["cut"].items()
        },
        "nodes": [each["nodes"] for each in document["parts"]],
        "shares": [each["shares"] for each in document["parts"]],
        **_memory(folder),
    }


def _memory(folder: Path) -> dict[str, Any]:
    end = json.loads((folder / "similar" / STEPS_FILE).read_text().splitlines()[-1])
    return {"peak MiB": end["peak_mib"], "modules MiB": end["modules_mib"]}


def one_part(catalogue: Path, seed: int) -> dict[str, Any]:
    """Memory of a worker that holds the whole graph: the same process as in the other rows, a few steps long."""
    project = load_project(catalogue, overrides=overrides({**RUNS[0], "steps": 10}, seed))
    snapshot = Pipeline(project, NoProgress()).snapshot()
    settings = project.settings.training
    split = split_newest(snapshot, settings.holdout)
    transforms = fit_features(split.graph, dimension=settings.input_dimension, seed=seed)
    shape = SpaceShape.of("similar", Graph(snapshot), transforms, settings.similar, inner_product=False)
    with tempfile.TemporaryDirectory() as place:
        workers = Workers(
            settings,
            snapshot,
            split,
            transforms,
            max_neighbours=project.settings.publish.max_neighbours,
            folder=Path(place),
            start="one part, whole graph",
            resume=False,
            progress=NoProgress(),
        )
        features = NodeFeatures(Graph(snapshot), transforms, memory_mib=settings.memory_mib)
        workers.fit(SpaceModel(shape, settings.similar), 1, features)
        return _memory(Path(place))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=2000)
    parser.add_argument("--users", type=int, default=3000)
    parser.add_argument("--views", type=int, default=200, help="views per user, the mean asked for")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--half-steps", action="store_true", help="two workers with half the steps, whole batches, too")
    parser.add_argument("--catalogue", type=Path, help="folder to keep the catalogue in, for the next run")
    parser.add_argument("--again", action="store_true", help="measure anew what is there already")
    arguments = parser.parse_args()

    results = Results("hasp", again=arguments.again)
    size = {"films": arguments.films, "users": arguments.users, "views": arguments.views}
    with tempfile.TemporaryDirectory() as place:
        catalogue = made(arguments.catalogue or Path(place), **size)
        memory = results.row({**size, "run": "one part", "seed": 1}, lambda: one_part(catalogue, 1))
        print(f"one worker with the whole graph: peak {memory['peak MiB']} MiB, modules {memory['modules MiB']}")
        print(
            f"{'workers':26} {'seed':>4} {'NDCG':>7} {'cold':>7} {'cut':>6} {'company':>8} {'edges':>6} {'s':>6}  MiB"
        )
        for seed in arguments.seeds:
            for run in [*RUNS, *(HALF_STEPS if arguments.half_steps else [])]:
                figures = results.row(
                    {**size, **run, "seed": seed}, lambda run=run, seed=seed: measure(catalogue, run, seed)
                )
                _say(run, seed, figures)


def made(folder: Path, *, films: int, users: int, views: int) -> Path:
    """The catalogue in a folder, ingested and exported; made where it is not there."""
    if not (folder / "kithkin.toml").exists():
        generate(folder, entities=films, users=users, seed=1, events_per_user=float(views))
    pipeline = Pipeline(load_project(folder), NoProgress())
    pipeline.ingest()
    pipeline.export()
    return folder


def _say(run: Mapping[str, Any], seed: int, figures: Mapping[str, Any]) -> None:
    name = f"{run['workers']} {run.get('partition', '')} {run['steps']} x {run['batch']}"
    line = f"{name:26} {seed:4} {figures['truth']:7.4f} {figures['truth_untouched']:7.4f}"
    if run["workers"] > 1:
        line += f" {figures['cut']:6.1%} {figures['engagement_and_co_engagement']:8.1%} {figures['edges']:6.1%}"
        print(f"{line} {figures['seconds']:6.1f}  {figures['peak MiB']} of which modules {figures['modules MiB']}")
    else:
        print(f"{line} {'':6} {'':8} {'':6} {figures['seconds']:6.1f}")


if __name__ == "__main__":
    main()
