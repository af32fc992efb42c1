"""Does attention that knows relations help, and where? SemanticGNN beside GAT, R-GCN, the plain mean and no neighbours.

    python benchmarks/relations.py generated
    python benchmarks/relations.py catalogue --work FOLDER
    python benchmarks/relations.py lastfm --data FOLDER_OF_LASTFM --work FOLDER
    python benchmarks/relations.py amazon-beauty --data FOLDER_WRITTEN_BY_PREPARE --work FOLDER

Only the encoder of the space ``similar`` is measured (signals = 0), each in the same frame, with the same pairs, steps
and seeds; the learning rate is tuned for each, two trials. Ranking by cosine; gains of SemanticGNN by paired
bootstrap over the queries, each query's figure being the mean over the training seeds.

``generated``: entities belong to 30 hidden themes. Their links lead to 3,000 tags, whose vectors show their theme with
noise; an entity's own features say nothing of it. Two links of an entity are of a rare relation, up to a thousand times
as many of a common one, which lead anywhere. Trained on pairs of one theme among half of the entities, measured on the
other half; tuned on another graph. In the form ``plain`` the rare links lead to the entity's theme. In ``kind`` there
are two rare relations; which of them leads to the theme depends on the entity's kind, which its features show, and the
other one leads anywhere.

``catalogue`` (the generated one: 2,000 films, 1,500 users, seed 1, the planted truth), ``lastfm``, ``amazon-beauty``:
every relation gives pairs, as in training. Tuned on the judgements' queries for tuning, reported on the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks._results import Results
from benchmarks._similar import Judged, gain, judged, measures, opened, packed, project_at, train_encoder, unpacked
from graph_store.project import parse_project
from graph_store.schema import GraphSchema, Triple
from graph_store.settings import SpaceSettings
from model_store.csr import Csr, EdgeType
from model_store.features import FeatureTransforms, LinkBlock
from training.export.order import counting_order
from training.fit_features import fit_features
from training.graph import Graph
from training.objectives import PairTasks, similar_tasks
from training.objectives.pairs import LinkedPairs

ENCODERS: dict[str, dict[str, Any]] = {
    "semantic_gnn": {},
    "gat": {"encoder": "gat"},
    "r_gcn": {"encoder": "r_gcn"},
    "mean": {"encoder": "mean"},
    "no neighbours": {"layers": 0},
}
RATES = {"generated": (1e-2, 3e-2), "files": (5e-3, 1e-2)}
THEMES, ENTITIES, TAGS, WIDTH = 30, 1200, 3000, 16


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A generated graph as training reads it, and the theme of every entity."""

    schema: GraphSchema
    tables: dict[str, pa.Table]
    adjacency: dict[EdgeType, Csr]
    theme: NDArray[np.int64]
    content_hash: str = ""

    @property
    def edge_types(self) -> tuple[EdgeType, ...]:
        return tuple(self.adjacency)

    def num_nodes(self, node_type: str) -> int:
        return self.tables[node_type].num_rows

    def ids(self, node_type: str) -> pa.StringArray:
        return self.tables[node_type]["id"].combine_chunks()

    def nodes(self, node_type: str) -> pa.Table:
        return self.tables[node_type]

    def csr(self, edge_type: EdgeType) -> Csr:
        return self.adjacency[edge_type]


def generated(form: str, ratio: int, seed: int) -> Generated:
    """``form``: plain or kind; ``ratio``: common links for each rare one."""
    rng = np.random.default_rng(seed)
    theme = rng.integers(THEMES, size=ENTITIES)
    kind = rng.integers(2, size=ENTITIES)
    tag_theme = rng.integers(THEMES, size=TAGS)
    centres = rng.standard_normal((THEMES, WIDTH))
    tag_vectors = centres[tag_theme] + 0.7 * rng.standard_normal((TAGS, WIDTH))
    by_theme = [np.flatnonzero(tag_theme == each) for each in range(THEMES)]

    def of_theme(each: int, count: int) -> NDArray[np.int64]:
        return rng.choice(by_theme[each], size=count, replace=False)

    def anywhere(count: int) -> NDArray[np.int64]:
        return rng.choice(TAGS, size=count, replace=False)

    links: dict[str, list[NDArray[np.int64]]] = {"COMMON": [], "RARE": []}
    if form == "kind":
        links["RARE_TOO"] = []
    for entity in range(ENTITIES):
        right = rng.choice(by_theme[theme[entity]], size=2, replace=False)
        if form == "kind":
            wrong = rng.choice(TAGS, size=2, replace=False)
            links["RARE"].append(right if kind[entity] == 0 else wrong)
            links["RARE_TOO"].append(wrong if kind[entity] == 0 else right)
        else:
            links["RARE"].append(right)
        links["COMMON"].append(rng.choice(TAGS, size=2 * ratio, replace=False))

    vector = {"type": "vector", "dimension": WIDTH, "feature": "vector"}
    category = {"type": "string", "feature": "category"}
    document = {
        "nodes": {
            "Entity": {"role": "entity", "properties": {"noise": vector, "kind": category}},
            "Tag": {"role": "concept", "properties": {"vector": vector}},
        },
        "relations": [{"triple": ["Entity", name, "Tag"], "role": "semantic"} for name in links],
    }
    schema = parse_project(document, file=Path("kithkin.toml"), environment={}).schema
    noise_vectors = rng.standard_normal((ENTITIES, WIDTH))
    tables = {
        "Entity": pa.table(
            {
                "id": [f"{each:06}" for each in range(ENTITIES)],
                "noise": pa.array(list(noise_vectors.astype(np.float32))),
                "kind": [f"k{each}" for each in kind],
            }
        ),
        "Tag": pa.table(
            {"id": [f"{each:06}" for each in range(TAGS)], "vector": pa.array(list(tag_vectors.astype(np.float32)))}
        ),
    }
    adjacency: dict[EdgeType, Csr] = {}
    for name, rows in links.items():
        near = np.repeat(np.arange(ENTITIES), [len(tags) for tags in rows]).astype(np.int32)
        far = np.concatenate(rows).astype(np.int32)
        triple = Triple("Entity", name, "Tag")
        for reverse, left, right, size in ((False, near, far, ENTITIES), (True, far, near, TAGS)):
            order, indptr = counting_order(left, size)
            adjacency[EdgeType(triple, reverse)] = Csr(indptr=indptr, indices=right[order])
    return Generated(schema=schema, tables=tables, adjacency=adjacency, theme=theme)


class Planted:
    """A generated graph ready to be trained on: features of properties alone, pairs of one theme, held-out entities."""

    def __init__(self, form: str, ratio: int, seed: int) -> None:
        snapshot = generated(form, ratio, seed)
        self.graph = Graph(snapshot)
        fitted = fit_features(self.graph, dimension=WIDTH, seed=seed)
        self.transforms = FeatureTransforms(
            {
                name: [block for block in blocks if not isinstance(block, LinkBlock)]
                for name, blocks in fitted.blocks.items()
            }
        )
        rng = np.random.default_rng(seed)
        half = rng.permutation(ENTITIES)
        known, self.held_out = np.sort(half[: ENTITIES // 2]), np.sort(half[ENTITIES // 2 :])
        left, right = np.meshgrid(known, known)
        same = (snapshot.theme[left] == snapshot.theme[right]) & (left != right)
        pairs = LinkedPairs(
            name="of one theme",
            left=left[same].astype(np.int64),
            right=right[same].astype(np.int64),
            cumulative=np.cumsum(np.ones(int(same.sum()))),
            is_company=True,
        )
        self.tasks = PairTasks(sources=(pairs,), shares=(1.0,), total_nodes=self.graph.total_nodes)
        theme = snapshot.theme[self.held_out]
        self.relevant = [np.flatnonzero((theme == each) & (np.arange(len(theme)) != i)) for i, each in enumerate(theme)]

    def values(self, settings: SpaceSettings, seed: int) -> tuple[NDArray[np.float64], float]:
        """NDCG@20 and Recall@20 of every held-out entity among them, and the seconds of training."""
        trained = train_encoder(self.graph, self.transforms, self.tasks, settings, node_type="Entity", seed=seed)
        queries = np.arange(len(self.held_out))
        return measures(trained.vectors, queries, self.held_out, self.relevant, 20), trained.seconds


def compare(
    results: Results,
    named: dict[str, Any],
    tune: Callable[[SpaceSettings], float],
    run: Callable[[SpaceSettings, int], tuple[NDArray[np.float64], float]],
    base: dict[str, Any],
    seeds: tuple[int, ...],
    rates_tried: Sequence[float],
) -> None:
    """Tune each encoder's learning rate, run it with every seed; keep the figures and the gains of SemanticGNN."""
    kept: dict[str, NDArray[np.float64]] = {}
    for encoder, own in ENCODERS.items():
        rates = {}
        for rate in rates_tried if len(rates_tried) > 1 else ():
            settings = SpaceSettings(**{"layers": 1, **base, **own, "learning_rate": rate})
            measured = results.row(
                {**named, "encoder": encoder, "tuning": rate, **base},
                lambda settings=settings: {"ndcg": tune(settings)},
            )
            rates[rate] = measured["ndcg"]
        best = max(rates, key=lambda rate: rates[rate], default=rates_tried[0])
        settings = SpaceSettings(**{"layers": 1, **base, **own, "learning_rate": best})
        values = []
        for seed in seeds:

            def measured_run(settings: SpaceSettings = settings, seed: int = seed) -> dict[str, Any]:
                found, seconds = run(settings, seed)
                return {
                    "ndcg": float(found[:, 0].mean()),
                    "recall": float(found[:, 1].mean()),
                    "seconds": round(seconds, 1),
                    "queries": packed(found[:, 0]),
                }

            row = results.row({**named, "encoder": encoder, "rate": best, "seed": seed, **base}, measured_run)
            values.append(unpacked(row["queries"]))
            print(
                f"{named} {encoder:14} seed {seed} rate {best:g}: NDCG {row['ndcg']:.4f} recall {row['recall']:.4f}",
                flush=True,
            )
        kept[encoder] = np.mean(values, axis=0)
    ours = kept["semantic_gnn"]
    print(f"{named} semantic_gnn {ours.mean():.4f}; gains:")
    for encoder, theirs in kept.items():
        if encoder != "semantic_gnn":
            mean, low, high = gain(ours, theirs)
            print(f"  above {encoder:14} ({theirs.mean():.4f}): {mean:+.4f} [{low:+.4f}, {high:+.4f}]")


def on_generated(results: Results, arguments: argparse.Namespace) -> None:
    base = {
        "dimension": 32,
        "hidden": 32,
        "signals": 0.0,
        "block_dropout": 0.0,
        "steps": arguments.steps or 300,
        "batch_size": 128,
        "fan_out": 10,
        "sampled_fan_out": 10,
    }
    for form, ratio in (("kind", 1000), ("plain", 1000)):
        made: dict[int, Planted] = {}

        def planted(seed: int, form: str = form, ratio: int = ratio, made: dict[int, Planted] = made) -> Planted:
            if seed not in made:
                made[seed] = Planted(form, ratio, seed)
            return made[seed]

        compare(
            results,
            {"graph": "generated", "form": form, "common links per rare one": ratio},
            lambda settings, planted=planted: float(planted(0).values(settings, 0)[0][:, 0].mean()),
            lambda settings, seed, planted=planted: planted(1).values(settings, seed),
            base,
            tuple(range(1, arguments.seeds + 1)),
            arguments.rates or RATES["generated"],
        )


def on_files(results: Results, arguments: argparse.Namespace) -> None:
    project = project_at(arguments.graph, arguments.data, arguments.work)
    graph = opened(project)
    answers: Judged = judged(project, graph)
    node_type = project.settings.evaluation.judged[0].node
    width = 64
    transforms = fit_features(graph, dimension=width, seed=1)
    base = {
        "dimension": 64,
        "hidden": 64,
        "signals": 0.0,
        "steps": arguments.steps or 60,
        "batch_size": 512,
    }
    tasks = similar_tasks(graph, balance=0.5, concept_share=0.15)

    def trained(settings: SpaceSettings, seed: int) -> Any:
        return train_encoder(graph, transforms, tasks, settings, node_type=node_type, seed=seed)

    def run(settings: SpaceSettings, seed: int) -> tuple[NDArray[np.float64], float]:
        found = trained(settings, seed)
        return answers.values(found.vectors, tuning=False), found.seconds

    compare(
        results,
        {"graph": arguments.graph, "input_dimension": width},
        lambda settings: float(answers.values(trained(settings, 0).vectors, tuning=True)[:, 0].mean()),
        run,
        base,
        tuple(range(1, arguments.seeds + 1)),
        arguments.rates or RATES["files"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", choices=("generated", "catalogue", "amazon-beauty", "lastfm"))
    parser.add_argument("--data", type=Path, help="folder of the files (not for what is generated)")
    parser.add_argument(
        "--work", type=Path, default=Path(".kithkin-benchmarks"), help="where store and snapshot are made"
    )
    parser.add_argument("--rates", nargs="+", type=float, help="learning rates tried; one: nothing is tuned")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="optimiser steps; generated 300, files 60")
    parser.add_argument("--again", action="store_true", help="measure anew what is there already")
    arguments = parser.parse_args()
    results = Results(f"relations_{arguments.graph}", again=arguments.again)
    if arguments.graph == "generated":
        on_generated(results, arguments)
    elif arguments.data is None and arguments.graph != "catalogue":
        parser.error("--data is needed")
    else:
        on_files(results, arguments)


if __name__ == "__main__":
    main()
