"""PinSage: what does importance pooling give over mean pooling, what the curriculum of hard negatives, what each loss?

    python benchmarks/pinsage.py catalogue --work FOLDER
    python benchmarks/pinsage.py amazon-beauty --data FOLDER_WRITTEN_BY_PREPARE --work FOLDER
    python benchmarks/pinsage.py lastfm --data FOLDER_OF_LASTFM --work FOLDER

The encoder of the space ``similar`` alone (signals = 0), neighbours by random walks, all in the same frame with the
same pairs, steps and seeds. Each question is one row beside one other that differs in it alone; gains by paired
bootstrap over the queries, each query's figure being the mean over the training seeds. Tuned is the learning rate, with
the same two trials for each form, on the judgements' queries for tuning; reported are the others. ``catalogue`` is the
generated one: 2,000 films, 1,500 users, seed 1, the planted truth.

The forms: ``importance`` (shared negatives, softmax, no hard ones), ``mean pooling``, ``uniform sampler`` (neighbours
drawn from the declared relations in place of walks), ``curriculum`` (up to 6 hard negatives a pair from ranks 100 to
500 of personalised PageRank), ``max margin`` and ``max margin, curriculum`` (PinSage's own loss), ``in-batch`` and
``mixed negatives``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._results import Results
from benchmarks._similar import gain, judged, opened, packed, project_at, train_encoder, unpacked
from graph_store.settings import SpaceSettings
from training.fit_features import fit_features
from training.objectives import similar_tasks

WIDTH = 64
RATES = (5e-3, 1e-2)
SHARED = {"in_batch": False, "negatives": 500}
HARD = {"hard_negatives": 6, "hard_band": [100, 500]}
MARGIN = {"loss": "max_margin", "margin": 0.1}
FORMS: dict[str, dict[str, Any]] = {
    "importance": SHARED,
    "mean pooling": {**SHARED, "pooling": "mean"},
    "curriculum": {**SHARED, **HARD},
    "max margin": {**SHARED, **MARGIN},
    "max margin, curriculum": {**SHARED, **MARGIN, **HARD},
    "in-batch": {"in_batch": True},
    "mixed negatives": {"in_batch": True, "negatives": 500},
    "uniform sampler": {**SHARED, "sampler": "uniform"},
}
QUESTIONS = (
    ("importance", "mean pooling"),
    ("curriculum", "importance"),
    ("max margin, curriculum", "max margin"),
    ("max margin", "importance"),
    ("mixed negatives", "importance"),
    ("mixed negatives", "in-batch"),
    ("importance", "uniform sampler"),
)
"""What is asked of, and what it is compared with."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", choices=("catalogue", "amazon-beauty", "lastfm"))
    parser.add_argument("--data", type=Path, help="folder of the files (not for catalogue)")
    parser.add_argument(
        "--work", type=Path, default=Path(".kithkin-benchmarks"), help="where store and snapshot are made"
    )
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument(
        "--rates", nargs="+", type=float, default=RATES, help="learning rates tried; one: nothing is tuned"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--again", action="store_true", help="measure anew what is there already")
    arguments = parser.parse_args()
    if arguments.data is None and arguments.graph != "catalogue":
        parser.error("--data is needed")
    results = Results(f"pinsage_{arguments.graph}", again=arguments.again)
    project = project_at(arguments.graph, arguments.data, arguments.work)
    graph = opened(project)
    answers = judged(project, graph)
    node_type = project.settings.evaluation.judged[0].node
    transforms = fit_features(graph, dimension=WIDTH, seed=1)
    tasks = similar_tasks(graph, balance=0.5, concept_share=0.15)
    base: dict[str, Any] = {
        "encoder": "pin_sage",
        "sampler": "random_walk",
        "dimension": 64,
        "hidden": 64,
        "signals": 0.0,
        "steps": arguments.steps,
        "batch_size": 512,
        "fan_out": 10,
        "sampled_fan_out": 10,
    }

    def measured(settings: dict[str, Any], seed: int, *, tuning: bool) -> dict[str, Any]:
        trained = train_encoder(
            graph, transforms, tasks, SpaceSettings(**{"layers": 1, **settings}), node_type=node_type, seed=seed
        )
        found = answers.values(trained.vectors, tuning=tuning)
        means = {"ndcg": float(found[:, 0].mean()), "recall": float(found[:, 1].mean()), "seconds": trained.seconds}
        return means if tuning else {**means, "queries": packed(found[:, 0])}

    named = {"graph": arguments.graph, "input_dimension": WIDTH}
    kept: dict[str, Any] = {}
    for form in arguments.forms:
        own = {**base, **FORMS[form]}
        trials = {}
        for rate in arguments.rates if len(arguments.rates) > 1 else ():
            settings = {**own, "learning_rate": rate}
            row = results.row(
                {**named, "form": form, "tuning": True, **settings},
                lambda settings=settings: measured(settings, 0, tuning=True),
            )
            trials[rate] = row["ndcg"]
        settings = {**own, "learning_rate": max(trials, key=lambda rate: trials[rate], default=arguments.rates[0])}
        values = []
        for seed in range(1, arguments.seeds + 1):
            row = results.row(
                {**named, "form": form, "tuning": False, "seed": seed, **settings},
                lambda settings=settings, seed=seed: measured(settings, seed, tuning=False),
            )
            values.append(unpacked(row["queries"]))
            rate = settings["learning_rate"]
            print(f"{form:24} seed {seed} rate {rate:g}: NDCG {row['ndcg']:.4f} recall {row['recall']:.4f}", flush=True)
        kept[form] = np.mean(values, axis=0)
    for form, other in QUESTIONS:
        if form in kept and other in kept:
            mean, low, high = gain(kept[form], kept[other])
            print(
                f"{form} ({kept[form].mean():.4f}) over {other} ({kept[other].mean():.4f}): "
                f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
            )


if __name__ == "__main__":
    main()
