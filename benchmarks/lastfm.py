"""Similar artists on Last.FM: the vectors by cosine against experts' lists, cold artists, and what each part adds.

    python -m benchmarks.lastfm --data FOLDER_OF_LASTFM

``final``: the declared settings, three seeds, beside the baselines; the queries for tuning are left out. ``cold``: a
fifth of the judged artists lose all plays before training. Both with blocks of 128 columns (the default) and of 256.
``ablation``: one thing changed at a time in the default, on the same queries as ``final``; none of it was chosen by
these figures.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._results import Results
from benchmarks._similar import opened, project_at
from graph_store.project import Project
from training.evaluate import evaluate_cold_entities
from training.evaluation.cold import similar_alone
from training.evaluation.judged import cosine_scores, evaluate_judged, load_judgements, query_metrics
from training.evaluation.metrics import paired_bootstrap
from training.graph import Graph
from training.inference import embed
from training.train import train

SEEDS = (1, 2, 3)
WIDTHS = (128, 256)
"""Columns of a feature block; rows without a width have the default."""
ABLATIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("signals beside an untrained encoder", {"similar": {"steps": 0}}),
    ("encoder alone", {"similar": {"signals": 0.0}}),
    ("without context blocks", {"context_dimension": 0}),
    ("pairs of relations as they come", {"similar": {"balance": 1.0}}),
    ("all relations alike", {"similar": {"balance": 0.0}}),
    ("no pairs with concepts", {"similar": {"concept_share": 0.0}}),
    ("no log-Q correction", {"similar": {"log_q": 0.0}}),
    ("layers: 1, relation-aware attention", {"similar": {"layers": 1}}),
    ("layers: 1, plain means", {"similar": {"layers": 1, "encoder": "mean"}}),
)


class LastFM:
    """The data set, ingested once into a temporary store and exported."""

    def __init__(self, data: Path, work: Path) -> None:
        self.project = project_at("lastfm", data, work)
        self.snapshot = opened(self.project).snapshot

    def changed(self, seed: int, change: Mapping[str, Any]) -> Project:
        """The project with other training settings."""
        training = self.project.settings.training
        own = {name: value for name, value in change.items() if name != "similar"}
        similar = training.similar.model_copy(update=change.get("similar", {}))
        training = training.model_copy(update={"seed": seed, "similar": similar, **own})
        return similar_alone(
            replace(self.project, settings=self.project.settings.model_copy(update={"training": training}))
        )

    def vectors(self, seed: int, change: Mapping[str, Any]) -> tuple[NDArray[np.float32], float]:
        """Vectors of all artists, and the seconds the steps took."""
        with tempfile.TemporaryDirectory() as folder:
            model = train(self.changed(seed, change), self.snapshot, folder=Path(folder), resume=False)
        space = model.spaces["similar"]
        found = embed(space, model.transforms, Graph(self.snapshot), node_types=("Artist",))
        return np.asarray(found.vectors["Artist"]), model.metrics["similar"]["seconds"]

    def per_query(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """NDCG of each reported query."""
        judged = self.project.settings.evaluation.judged[0]
        found = load_judgements(judged, self.project.data, self.snapshot.ids("Artist"))
        rows = found.candidates[found.queries]
        scores = cosine_scores(vectors, rows, found.candidates)
        return query_metrics(found, scores, np.flatnonzero(~found.tuning), judged)[:, 2]

    def final(self, seed: int, width: int) -> dict[str, Any]:
        """Every scorer's figures on the reported queries."""
        vectors, seconds = self.vectors(seed, {"input_dimension": width})
        judged, resamplings = self.project.settings.evaluation.judged[0], self.project.settings.evaluation.bootstrap
        protocol = evaluate_judged(
            judged,
            self.project.data,
            Graph(self.snapshot),
            vectors,
            resamplings=resamplings,
            baselines=seed == SEEDS[0],
        )
        return {
            **protocol.to_json(),
            "training seconds": seconds,
            "per query": [round(float(each), 4) for each in self.per_query(vectors)],
        }

    def cold(self, seed: int, width: int) -> dict[str, Any]:
        """The protocol of cold entities."""
        project = self.changed(seed, {"input_dimension": width})
        with tempfile.TemporaryDirectory() as folder:
            return evaluate_cold_entities(project, self.snapshot, folder=Path(folder))[0].to_json()

    def ablation(self, change: Mapping[str, Any], final: NDArray[np.float64]) -> dict[str, Any]:
        """NDCG with one thing changed, and what it gains over the final settings, query by query."""
        vectors, seconds = self.vectors(SEEDS[0], {"input_dimension": 128, **change})
        found = self.per_query(vectors)
        gain = paired_bootstrap(found, final, self.project.settings.evaluation.bootstrap)
        return {
            "NDCG@200": round(float(found.mean()), 4),
            "gain": [round(gain.mean, 4), round(gain.low, 4), round(gain.high, 4)],
            "training seconds": seconds,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the files of Last.FM")
    parser.add_argument("--only", choices=("final", "cold", "ablation"), help="one part alone")
    parser.add_argument("--again", action="store_true", help="measure anew what the results already have")
    arguments = parser.parse_args()
    results = Results("lastfm", again=arguments.again)

    with tempfile.TemporaryDirectory() as work:
        data = LastFM(arguments.data, Path(work))
        wanted = [arguments.only] if arguments.only else ["final", "cold", "ablation"]
        for part, measure in (("final", data.final), ("cold", data.cold)):
            for width, seed in product(WIDTHS, SEEDS) if part in wanted else ():
                found = results.row(_of(part, seed, width), partial(measure, seed, width))
                for scorer, each in found["scores"].items():
                    figures = "  ".join(f"{name} {value[0]:.3f}" for name, value in each.items())
                    print(f"{part} {width} {seed}  {scorer:28} {figures}", flush=True)
        if "ablation" in wanted:
            kept = results.row(_of("final", SEEDS[0], 128), lambda: data.final(SEEDS[0], 128))
            final = np.array(kept["per query"])
            for name, change in ABLATIONS:
                settings = {"part": "ablation", "change": change}
                found = results.row(settings, lambda change=change: data.ablation(change, final))
                print(
                    f"{name:40} {found['NDCG@200']:.3f}  {found['gain']}  {found['training seconds']:.0f} s", flush=True
                )


def _of(part: str, seed: int, width: int) -> dict[str, Any]:
    """A row's settings."""
    return {"part": part, "seed": seed, **({} if width == 128 else {"input_dimension": width})}


if __name__ == "__main__":
    main()
