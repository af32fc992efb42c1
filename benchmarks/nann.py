"""Does a neural score beat an inner product, and does graph search find what brute force under it finds?

    python -m benchmarks.nann --data ../shared/data

Three parts. ``ml-1m-time``: Recall@100 of a user's next film by the neural score and by its inner-product twin, for
users that training never saw; as many steps and examples for both; settings chosen on the validation users.
``gowalla``: overlap@100 of beam search with brute force under the same score, against evaluations of the score, over
beam widths and adversarial strengths. ``generated``: the same on clustered vectors and an untrained score, of any size.
Rows measured before are kept. Trained scores lie in ``--work``, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from benchmarks._results import Results
from model_store.beam_search import SearchSettings
from model_store.csr import Csr
from training.evaluation.metrics import paired_bootstrap
from training.neural_metric.evaluate import agreement, brute_force, exact_best, task_recall
from training.neural_metric.fit import Fitted, fit_scorer, twin_of
from training.neural_metric.graph import build_graph
from training.neural_metric.histories import Histories, UserSplit, histories, questions, split_users
from training.neural_metric.scorer import NeuralScorer, Scorer
from training.neural_metric.settings import GraphSettings, ScorerSettings

FILMS = {
    "neural": ScorerSettings(kind="neural", batch_size=64, negatives=32, learning_rate=3e-3, steps=1200),
    "two_tower": ScorerSettings(kind="two_tower", batch_size=64, negatives=32, learning_rate=1e-2, steps=1200),
}
"""The same number of examples for both; the learning rate of each is the better of 3e-3 and 1e-2, on the training and
validation users. With ``--patience 4`` the twin, whose steps cost a quarter, gets four times as many."""
PLACES = ScorerSettings(batch_size=64, negatives=192, learning_rate=1e-2, steps=1700, twin_steps=1500)
STRENGTHS: tuple[tuple[float, str], ...] = (
    (0.0, "absolute"),
    (1e-5, "absolute"),
    (3e-5, "absolute"),
    (1e-4, "absolute"),
    (0.1, "relative"),
    (0.3, "relative"),
)
KINDS = ("neural", "two_tower")
BEAMS = (50, 100, 200, 300, 350, 400)
WIDTH = 8
NEIGHBOURS = 16


def ml_1m_time(data: Path) -> tuple[Histories, int]:
    """Positive ratings with times: events of users, and the number of films."""
    with gzip.open(data / "ml-1m-time" / "positives.tsv.gz", "rt") as file:
        rows = np.loadtxt(file, dtype=np.int64)
    _, users = np.unique(rows[:, 0], return_inverse=True)
    films, columns = np.unique(rows[:, 1], return_inverse=True)
    order = np.lexsort((columns, users))
    csr = Csr(
        indptr=np.concatenate([[0], np.cumsum(np.bincount(users))]),
        indices=columns[order].astype(np.int32),
        time=rows[order, 3],
    )
    return histories(csr), len(films)


def gowalla(data: Path) -> tuple[Histories, int]:
    """The users' train items, in no order; the test items are not read."""
    rows = []
    with gzip.open(data / "gowalla" / "train.txt.gz", "rt") as file:
        for line in file:
            rows.append(np.array(line.split()[1:], np.int32))
    indices = np.concatenate(rows)
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return histories(Csr(indptr=indptr, indices=indices)), int(indices.max()) + 1


def svd_vectors(known: Histories, users: NDArray[np.int64], entities: int, dimension: int) -> NDArray[np.float32]:
    """Entities by SVD of the training users' incidence, both sides scaled by the root of their counts."""
    from scipy.sparse.linalg import svds

    whole = sp.csr_matrix(
        (np.ones(len(known.entities), np.float32), known.entities, known.indptr), shape=(known.num_users, entities)
    )
    seen = whole[users]
    of_user = np.maximum(np.diff(seen.indptr), 1.0)
    of_entity = np.maximum(np.bincount(seen.indices, minlength=entities), 1.0)
    scaled = sp.diags(of_user**-0.5) @ seen @ sp.diags(of_entity**-0.5)
    _, values, right = svds(scaled.astype(np.float32), k=dimension, random_state=0)
    vectors: NDArray[np.float32] = (right.T * values)[:, ::-1].astype(np.float32)
    return vectors


def row(settings: Mapping[str, Any], measure: Callable[[], dict[str, Any]], *, again: bool) -> dict[str, Any]:
    """The row of these settings; read and written around the measuring, so that several processes can share them."""
    for kept in [] if again else Results("nann").rows:
        if kept["settings"] == json.loads(json.dumps(settings)):
            return dict(kept["figures"])
    figures = measure()
    return Results("nann", again=True).row(settings, lambda: figures)


def next_film(data: Path, work: Path, arguments: argparse.Namespace) -> None:
    """Rows of ml-1m-time: Recall@100 a kind and seed, then the gain."""
    known, films = ml_1m_time(data)
    split = split_users(known)
    asked = questions(known, split.test, FILMS["neural"].events, each=arguments.each)
    found: dict[str, list[NDArray[np.float64]]] = {kind: [] for kind in arguments.kinds}
    for seed in arguments.seeds:
        for kind, values in found.items():
            steps = FILMS[kind].steps * (arguments.patience if kind == "two_tower" else 1)
            settings = FILMS[kind].model_copy(update={"seed": seed, "steps": steps})

            def measure(settings: ScorerSettings = settings) -> dict[str, Any]:
                fitted = trained(known, split, films, settings, work / "films", svd=True)
                recall = task_recall(fitted.scorer, asked)
                return {
                    "recall@100": float(recall.mean()),
                    "seconds": fitted.metrics["seconds"],
                    "users": len(recall),
                    "questions": len(asked.users),
                    "each_user": [round(float(value), 4) for value in recall],
                }

            wanted = {"data": "ml-1m-time", "each": arguments.each, **settings.model_dump()}
            figures = row(wanted, measure, again=arguments.again)
            values.append(np.array(figures["each_user"]))
            print(f"ml-1m-time seed {seed} {kind}: Recall@100 {figures['recall@100']:.4f}", flush=True)
    if len(found) < len(KINDS):
        return
    for name, ours, theirs in [
        *(
            (f"seed {seed}", found["neural"][number], found["two_tower"][number])
            for number, seed in enumerate(arguments.seeds)
        ),
        ("mean of seeds", np.mean(found["neural"], 0), np.mean(found["two_tower"], 0)),
    ]:
        print(f"ml-1m-time gain, {name}: {paired_bootstrap(ours, theirs, 10_000)}")


def places(data: Path, work: Path, arguments: argparse.Namespace) -> None:
    """Rows of gowalla: a row an adversarial strength and seed, with the curve over beams."""
    known, entities = gowalla(data)
    split = split_users(known)
    for strength, scale in STRENGTHS:
        if arguments.strengths and str(strength) not in arguments.strengths:
            continue
        for seed in arguments.place_seeds:
            own = {"adversarial": strength, "adversarial_scale": scale, "seed": seed}
            settings = ScorerSettings(**{**PLACES.model_dump(), **own})

            def measure(settings: ScorerSettings = settings) -> dict[str, Any]:
                fitted = trained(known, split, entities, settings, work / "places", svd=True)
                events = questions(known, split.test[: arguments.users], settings.events, each=1)
                return {
                    "seconds": fitted.metrics["seconds"],
                    "flatness": fitted.metrics["flatness"],
                    "recall@100": float(task_recall(fitted.scorer, events).mean()),
                    **searched(fitted.scorer, events.events, arguments.neighbours),
                }

            wanted = {"data": "gowalla", "users": arguments.users, "neighbours": arguments.neighbours, "width": WIDTH}
            figures = row({**wanted, **settings.model_dump()}, measure, again=arguments.again)
            print(f"gowalla strength {strength:g} ({scale}), seed {seed}: Recall@100 {figures['recall@100']:.4f}")
            show(figures, entities)


def generated(count: int, users: int, *, again: bool) -> None:
    """Vectors in 1,000 clusters, users of events from three of them, an untrained score moved away from its twin's."""
    settings = {"data": "generated", "entities": count, "users": users, "width": WIDTH, "neighbours": NEIGHBOURS}

    def measure() -> dict[str, Any]:
        rng = np.random.default_rng(0)
        centres = rng.standard_normal((1000, 32)).astype(np.float32)
        cluster = rng.integers(1000, size=count)
        vectors = centres[cluster] + 0.7 * rng.standard_normal((count, 32)).astype(np.float32)
        torch.manual_seed(0)
        scorer = NeuralScorer(ScorerSettings(), count, vectors)
        with torch.no_grad():
            for name, parameter in scorer.named_parameters():
                if name != "table":
                    parameter += 0.3 * parameter.std().nan_to_num() * torch.randn_like(parameter)
        liked = rng.integers(1000, size=(users, 3))
        events = np.stack([rng.choice(np.flatnonzero(np.isin(cluster, row)), 50) for row in liked])
        return searched(scorer.eval(), events, NEIGHBOURS)

    show(row(settings, measure, again=again), count)


def trained(
    known: Histories, split: UserSplit, entities: int, settings: ScorerSettings, work: Path, *, svd: bool = False
) -> Fitted:
    """The score of these settings, from its checkpoint where there is one; the twin it starts from is shared."""
    name = f"{settings.kind}-{settings.steps}-{settings.adversarial:g}-{settings.adversarial_scale}-{settings.seed}.pt"
    file, own = work / name, work / f"twin-{name}"
    work.mkdir(parents=True, exist_ok=True)
    if settings.twin_steps and not own.exists():
        twin = twin_of(settings)
        trained(known, split, entities, twin, work, svd=svd)
        os.link(work / f"{twin.kind}-{twin.steps}-0-{twin.adversarial_scale}-{twin.seed}.pt", own)
    # A score that starts from its twin, or goes on, reads no vectors.
    read = svd and not own.exists() and not file.exists()
    vectors = svd_vectors(known, split.train, entities, settings.dimension) if read else None
    return fit_scorer(known, split.train, entities, settings, vectors=vectors, checkpoint=file)


def searched(scorer: Scorer, events: NDArray[np.int64], neighbours: int) -> dict[str, Any]:
    """The graph, brute force and searches over beams; overlap@100 and evaluations are means over users."""
    table = scorer.entity_vectors()
    begun = time.monotonic()
    graph = build_graph(table, GraphSettings(neighbours=neighbours))
    built = time.monotonic() - begun
    exact = exact_best(scorer, events, 100)
    curve = []
    for beam in BEAMS:
        for from_events in (False, True):
            found = agreement(
                scorer, graph, events, exact, SearchSettings(beam=beam, width=WIDTH), from_events=from_events
            )
            curve.append(
                {
                    "beam": beam,
                    "from_events": from_events,
                    "overlap@100": float(found.overlap.mean()),
                    "lowest_tenth": float(np.quantile(found.overlap, 0.1)),
                    "evaluations": float(found.evaluations.mean()),
                    "most_evaluations": int(found.evaluations.max()),
                    "rounds": float(found.rounds.mean()),
                }
            )
    return {
        "graph_seconds": built,
        "edges_per_node": graph.layers[0].indptr[-1] / len(table),
        "root_mean_square": float(np.sqrt(np.square(table).mean())),
        "change": change(scorer, events),
        "curve": curve,
    }


def change(scorer: Scorer, events: NDArray[np.int64]) -> float:
    """How much the scores of the best 100 move with the entity's vector, in standard deviations of a user's scores.

    The vectors are changed by a tenth of their root mean square a coordinate, up or down at random (the source's figure
    6, with signs in place of numbers between).
    """
    table = scorer.table.detach()
    rng = np.random.default_rng(0)
    step = 0.1 * float(table.square().mean().sqrt())
    moved = []
    for row, scores in brute_force(scorer, events[:20]):
        best = torch.from_numpy(np.argsort(-scores)[:100].copy())
        signs = torch.from_numpy(rng.choice([-1.0, 1.0], (100, table.shape[1])).astype(np.float32))
        with torch.no_grad():
            vectors, mask = scorer.event_vectors(torch.from_numpy(events[row][None]))
            after = scorer(vectors, mask, table[best] + step * signs)[0].numpy()
        moved.append(np.abs(after - scores[best.numpy()]).mean() / scores.std())
    return float(np.mean(moved))


def show(figures: Mapping[str, Any], entities: int) -> None:
    """The curve as a table."""
    print(f"  {'beam':>5} {'from events':>12} {'overlap@100':>12} {'evaluations':>12} {'of all':>7} {'rounds':>7}")
    for point in figures["curve"]:
        print(
            f"  {point['beam']:5} {point['from_events']!s:>12} {point['overlap@100']:12.4f} "
            f"{point['evaluations']:12.0f} {point['evaluations'] / entities:7.2%} {point['rounds']:7.0f}",
            flush=True,
        )


def main() -> None:
    """Measure what is missing, print all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("KITHKIN_DATA", "../shared/data")))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "kithkin-nann", help="checkpoints")
    parser.add_argument("--parts", nargs="+", default=["films", "places"], choices=["films", "places", "generated"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of films")
    parser.add_argument("--place-seeds", type=int, nargs="+", default=[0], help="of places")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="of films: only these")
    parser.add_argument("--patience", type=int, default=1, help="of films: times the steps for the twin")
    parser.add_argument("--each", type=int, default=10, help="questions of a user, of films")
    parser.add_argument("--users", type=int, default=100, help="searches, of places and generated")
    parser.add_argument("--strengths", nargs="*", help="of places: only these")
    parser.add_argument("--neighbours", type=int, default=NEIGHBOURS, help="of places: M of the graph")
    parser.add_argument("--entities", type=int, default=1_000_000, help="of generated")
    parser.add_argument("--again", action="store_true", help="measure rows that are there, too")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    needed = {"films": "ml-1m-time", "places": "gowalla"}
    for part in arguments.parts:
        if part in needed and not (arguments.data / needed[part]).exists():
            print(f"{part}: {needed[part]} is not there, skipped")
        elif part == "films":
            next_film(arguments.data, arguments.work, arguments)
        elif part == "places":
            places(arguments.data, arguments.work, arguments)
        else:
            generated(arguments.entities, arguments.users, again=arguments.again)


if __name__ == "__main__":
    main()
