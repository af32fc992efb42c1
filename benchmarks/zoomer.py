"""Does a region of interest reach the full neighbourhood's ROC-AUC with fewer neighbours, and in how much less time?

    python -m benchmarks.zoomer --graph generated --seeds 1 2 3
    python -m benchmarks.zoomer --graph ml-100k-kg --snapshot FOLDER --seeds 1 2 3

The same encoder (``zoomer``, one layer), rows, steps and seeds with neighbours drawn evenly and with those most
relevant to the focal point, over fan-outs per relation; "full" takes every neighbour. Time is processor time of one
thread: that of drawing the neighbourhoods and making the batch (sampling), and of forward, backward and optimiser
(network), medians over the steps. Every run has a fixed number of steps; nothing is chosen by the test rows. The
interval is a bootstrap over the test rows. Users and items know, beside their features, their share of clicks.

``ml-100k-kg``: a snapshot of examples/ml-100k; the click protocol's rows, each user's own events by time. A rating is a
view, one of 4 and more a click. Three spans of the message rows, each asked for from the links before it, and the older
four fifths of the supervision rows are learned from. Focal point: the user and the film asked about. Relevance vectors
are fitted on links older than every row learned from, and refitted on message and supervision links for the test.

``generated``: users, items and contexts of 40 topics (numbers in ``generated``). An item's and a context's features are
its topic's direction and noise of about the same length, a user's the mean of the items they saw. A user has a taste
for each topic and a bias, an item has a quality, all drawn from normal distributions; every view, in the graph or asked
for, is a click with probability sigmoid(1.5 taste[topic of the item] + bias + quality). What tells a click is thus the
user's some 15 views of the topic among 600, beside the shares of clicks of user and item; nothing else is in the
labels. Focal point: the user and the context; relevance is between the features.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from benchmarks._results import Results
from graph_store.schema import Triple
from graph_store.settings import ClickEvaluation
from model_store.csr import Csr, EdgeType
from training.clicks.data import ClickFrame, Clicks, newest
from training.encoders import Batch, Edges
from training.encoders.zoomer import ZoomerConv, ZoomerEncoder
from training.export import Snapshot
from training.fit_features import fit_features
from training.graph import transposed
from training.relevance import relevance_vectors
from training.sampling.disjoint import DisjointSampler, DisjointSubgraph
from training.sampling.region_of_interest import RegionOfInterestSampler

FAN_OUTS = (5, 10, 25, 50)
NETWORK = {"hidden": 32, "heads": 2, "dimension": 32, "layers": 1, "learning_rate": 1e-2, "weight_decay": 1e-4}
Nodes = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows asked for, and the graph that tells of them."""

    adjacency: dict[EdgeType, Csr]
    vectors: dict[str, Floats]
    """What relevance is between."""
    features: dict[str, torch.Tensor]
    seeds: dict[str, Nodes]
    """One of each type a row."""
    before: Nodes | None
    clicked: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is learned and what is asked."""

    train: Part
    test: Part
    blocks: dict[str, tuple[int, ...]]
    focal: tuple[str, ...]
    """Types whose seeds are the focal point."""
    request: tuple[str, ...]
    """Types whose vectors make the request, against those of ``item``."""
    item: str
    user: str
    usual: float
    """Share of clicks among the views."""
    one_space: bool
    """Are the features of all types in one space."""
    about: dict[str, Any]


def generated(
    seed: int, *, users: int = 2000, items: int = 2000, contexts: int = 200, topics: int = 40, views: int = 600
) -> Task:
    """A user has ``views`` in the graph, 16 more to learn from and 4 to test on, all of different items."""
    rng = np.random.default_rng(seed)
    width = 16
    direction = rng.standard_normal((topics, width))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    topic, subject = rng.integers(topics, size=items), np.arange(contexts) % topics

    def features(of: Nodes) -> Floats:
        found: Floats = (direction[of] + rng.standard_normal((len(of), width)) * width**-0.5).astype(np.float32)
        return found

    taste = rng.standard_normal((users, topics))
    bias, quality = 0.5 * rng.standard_normal(users), 0.5 * rng.standard_normal(items)
    user = np.repeat(np.arange(users), views + 20)
    seen = np.argsort(rng.random((users, items)), axis=1)[:, : views + 20].ravel()
    chance = 1.0 / (1.0 + np.exp(-(1.5 * taste[user, topic[seen]] + bias[user] + quality[seen])))
    clicked = rng.random(len(user)) < chance
    turn = np.arange(len(user)) % (views + 20)
    held = turn < views
    adjacency: dict[EdgeType, Csr] = {}
    for name, chosen in (("CLICKED", held & clicked), ("PASSED", held & ~clicked)):
        triple = Triple("User", name, "Item")
        adjacency[EdgeType(triple)] = links(user[chosen], seen[chosen], users)
        adjacency[EdgeType(triple, True)] = transposed(adjacency[EdgeType(triple)], items)
    shown = Triple("Context", "SHOWS", "Item")
    pairs = np.nonzero(subject[:, None] == topic[None])
    adjacency[EdgeType(shown)] = links(*pairs, contexts)
    adjacency[EdgeType(shown, True)] = transposed(adjacency[EdgeType(shown)], items)
    vectors = {"Item": features(topic), "Context": features(subject)}
    mean = np.zeros((users, width), np.float32)
    np.add.at(mean, user[held], vectors["Item"][seen[held]] / views)
    vectors["User"] = mean
    asked = rng.integers(contexts // topics, size=len(user)) * topics + topic[seen]  # a context of the item's topic

    def part(chosen: NDArray[np.bool_]) -> Part:
        order = rng.permutation(np.flatnonzero(chosen))
        return Part(
            adjacency=adjacency,
            vectors=vectors,
            features={name: torch.from_numpy(each) for name, each in vectors.items()},
            seeds={"User": user[order], "Item": seen[order], "Context": asked[order]},
            before=None,
            clicked=clicked[order],
        )

    from sklearn.metrics import roc_auc_score

    edges = sum(each.num_edges for each in adjacency.values())
    tested = turn >= views + 16
    return Task(
        train=part((turn >= views) & ~tested),
        test=part(tested),
        blocks={name: (width,) if name == "Context" else (width, 1) for name in vectors},
        focal=("User", "Context"),
        request=("User", "Context"),
        item="Item",
        user="User",
        usual=float(clicked[held].mean()),
        one_space=True,
        about={
            "mean_degree": round(edges / (users + items + contexts), 1),
            "auc_of_the_true_probability": round(float(roc_auc_score(clicked[tested], chance[tested])), 4),
        },
    )


def links(rows: Nodes, columns: Nodes, count: int) -> Csr:
    """Adjacency from pairs, neighbours ascending."""
    order = np.lexsort((columns, rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))]).astype(np.int64)
    return Csr(indptr=indptr, indices=columns[order].astype(np.int32))


def ml_100k(folder: Path, seed: int) -> Task:
    """The click protocol's rows; see the head of this file."""
    frame = ClickFrame.of(Snapshot.open(folder), ClickEvaluation(relation=("User", "RATED", "Film"), least_weight=4))
    split = frame.split
    bare = frame.graph(split.message.take(np.zeros(0, np.int64)))
    transforms = fit_features(bare, dimension=8, seed=seed)
    names = (frame.user_type, frame.entity_type)
    features = {
        name: torch.from_numpy(transforms.apply(name, bare.properties(name), bare.links(name))) for name in names
    }
    begins = frame.span_begins(3)
    span = np.searchsorted(begins, split.message.place, side="right") - 1
    asked, before = split.message.take(span >= 0), begins[span[span >= 0]]
    learned = split.supervision.take(~newest(split.supervision, 0.2, frame.how))
    rows = asked + learned
    before = np.concatenate([before, np.full(len(learned), np.iinfo(np.int64).max)])
    order = np.random.default_rng(seed).permutation(len(rows))

    def part(carrying: Clicks, measured: Clicks, chosen: Clicks, limit: Nodes | None) -> Part:
        graph = frame.graph(carrying, clock="place")
        return Part(
            adjacency={
                EdgeType(triple, way): graph.csr(EdgeType(triple, way))
                for triple in (frame.clicked, frame.passed)
                for way in (False, True)
            },
            vectors=relevance_vectors(frame.graph(measured)),
            features=features,
            seeds={frame.user_type: chosen.users, frame.entity_type: chosen.entities},
            before=limit,
            clicked=chosen.clicked,
        )

    train = part(split.message, split.message.take(span < 0), rows.take(order), before[order])
    edges = sum(each.num_edges for each in train.adjacency.values())
    return Task(
        train=train,
        test=part(split.earlier, split.earlier, split.test, None),
        blocks={name: (*(block.width for block in transforms.blocks[name]), 1, 1) for name in names},
        focal=names,
        request=(frame.user_type,),
        item=frame.entity_type,
        user=frame.user_type,
        usual=float(split.message.clicked.mean()),
        one_space=False,
        about={"mean_degree": round(edges / sum(len(each) for each in features.values()), 1)},
    )


class Network(torch.nn.Module):
    """The encoder, and the logit of a click: the cosine of request and item, scaled, and their biases."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.names = tuple(task.train.features)
        hidden, heads, dimension = (int(NETWORK[each]) for each in ("hidden", "heads", "dimension"))
        self.encoder = ZoomerEncoder(
            {name: sum(sizes) for name, sizes in task.blocks.items()},
            task.blocks,
            convolutions=[ZoomerConv(hidden, heads, len(task.train.adjacency), 0.0)],
            hidden=hidden,
            dimension=dimension,
            dropout=0.0,
            block_dropout=0.0,
        )
        if task.one_space:
            # What is in one space starts in one space.
            columns = task.train.features[task.item].shape[1]
            with torch.no_grad():
                for linear in self.encoder.input.values():
                    linear.weight[:, :columns] = self.encoder.input[task.item].weight[:, :columns]
        self.scale = torch.nn.Parameter(torch.tensor(4.0))
        self.shift = torch.nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch, count: int) -> torch.Tensor:
        vectors, biases = self.encoder(batch, dict.fromkeys(self.task.train.seeds, count))
        request = F.normalize(torch.stack([vectors[name] for name in self.task.request]).sum(0), dim=1)
        bias = torch.stack(list(biases.values())).sum(0)
        logits: torch.Tensor = self.scale * (request * vectors[self.task.item]).sum(1) + bias + self.shift
        return logits


class Batches:
    """Draws the neighbourhoods of rows of a part and makes the batch."""

    def __init__(self, task: Task, part: Part, how: str, fan_out: int, seed: int) -> None:
        self.task, self.part = task, part
        sizes = {name: len(each) for name, each in part.features.items()}
        self.interest = (
            RegionOfInterestSampler(part.adjacency, sizes, part.vectors, fan_out=(fan_out,))
            if how == "region of interest"
            else None
        )
        self.even = DisjointSampler(part.adjacency, sizes, fan_out=(fan_out,), seed=seed)
        self.numbers = {each: number for number, each in enumerate(part.adjacency)}

    def __call__(self, chosen: Nodes, key: int) -> Batch:
        part, task = self.part, self.task
        seeds = {name: each[chosen] for name, each in part.seeds.items()}
        before = None if part.before is None else part.before[chosen]
        drawn: DisjointSubgraph
        if self.interest is None:
            drawn = self.even.sample(seeds, before=before, key=key)
        else:
            focal = np.sum([part.vectors[name][seeds[name]] for name in task.focal], axis=0, dtype=np.float32)
            drawn = self.interest.examples(seeds, focal=focal, before=before, key=key)
        ids = {name: drawn.graph.node_ids.get(name, np.empty(0, np.int64)) for name in part.features}
        first, total = {}, 0
        for name, nodes in ids.items():
            first[name] = total
            total += len(nodes)
        index, kinds = [], []
        for each, number in self.numbers.items():
            sender, receiver = drawn.graph.edge_index[each]
            index.append(np.stack([sender + first[each.neighbour_type], receiver + first[each.node_type]]))
            kinds.append(np.full(len(sender), number))
        example = np.concatenate([drawn.example.get(name, np.empty(0, np.int64)) for name in ids])
        focal_nodes = np.stack([example + first[name] for name in task.focal], axis=1)
        ones = torch.ones(sum(len(each) for each in kinds))
        rows = {name: torch.from_numpy(nodes) for name, nodes in ids.items()}
        edges = Edges(
            index=torch.from_numpy(np.concatenate(index, axis=1)),
            type=torch.from_numpy(np.concatenate(kinds)),
            weight=ones,
            share=ones,
        )
        features = {name: part.features[name][each] for name, each in rows.items()}
        for name in (task.user, task.item):
            features[name] = torch.cat([features[name], self._counts(drawn, name)], dim=1)
        return Batch(
            features=features,
            rows=rows,
            edges=[edges],
            focal=torch.from_numpy(focal_nodes),
        )

    def _counts(self, drawn: DisjointSubgraph, name: str) -> torch.Tensor:
        """Share of clicks among the views before the example, drawn to the usual one and less that, times 4."""
        clicked, passed = (
            next(
                count.astype(np.float64)
                for each, count in drawn.degree.items()
                if each.node_type == name and each.triple.name.endswith(kind)
            )
            for kind in ("CLICKED", "PASSED")
        )
        usual = self.task.usual
        share = (clicked + 5 * usual) / (clicked + passed + 5) - usual
        return torch.from_numpy((4 * share).astype(np.float32))[:, None]


def measured(task: Task, how: str, fan_out: int, seed: int, steps: int, size: int, tested: int) -> dict[str, Any]:
    """Train for so many steps, then score the first ``tested`` test rows with the same neighbourhoods."""
    torch.manual_seed(seed)
    network = Network(task)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=NETWORK["learning_rate"], weight_decay=NETWORK["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    batches = Batches(task, task.train, how, fan_out, seed)
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(task.train.clicked.astype(np.float32))
    order = np.concatenate([rng.permutation(len(labels)) for _ in range(steps * size // len(labels) + 1)])
    sampling, network_s, nodes = [], [], []
    for step in range(steps):
        chosen = order[step * size : (step + 1) * size]
        begun = time.process_time()
        batch = batches(chosen, step)
        made = time.process_time()
        loss = F.binary_cross_entropy_with_logits(network(batch, len(chosen)), labels[torch.from_numpy(chosen)])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        sampling.append(made - begun)
        network_s.append(time.process_time() - made)
        nodes.append(sum(len(each) for each in batch.rows.values()))
    clicked = task.test.clicked[:tested]
    scores = scored(network.eval(), Batches(task, task.test, how, fan_out, seed), len(clicked), size)
    low, high = interval(clicked, scores)
    return {
        **task.about,
        "auc": round(area(clicked, scores), 4),
        "auc_low": low,
        "auc_high": high,
        "sampling_ms": round(1e3 * float(np.median(sampling)), 2),
        "network_ms": round(1e3 * float(np.median(network_s)), 2),
        "step_ms": round(1e3 * float(np.median(np.add(sampling, network_s))), 2),
        "nodes_a_row": round(float(np.mean(nodes)) / size, 1),
        "loss": round(float(loss.detach()), 4),
    }


@torch.no_grad()
def scored(network: Network, batches: Batches, count: int, size: int) -> NDArray[np.float64]:
    """Logits of the first ``count`` rows."""
    parts = [
        network(batches(chosen, 1 << 20), len(chosen)).double().numpy()
        for first in range(0, count, size)
        for chosen in (np.arange(first, min(first + size, count)),)
    ]
    return np.concatenate(parts)


def area(clicked: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """ROC-AUC from ranks, ties at their mean."""
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    ones = int(clicked.sum())
    return float((ranks[clicked].sum() - ones * (ones + 1) / 2) / (ones * (len(clicked) - ones)))


def interval(clicked: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[float, float]:
    """95 % of 300 resamplings of the rows."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        rows = rng.integers(len(clicked), size=len(clicked))
        found.append(area(clicked[rows], scores[rows]))
    low, high = np.quantile(found, (0.025, 0.975))
    return round(float(low), 4), round(float(high), 4)


def summary(rows: list[dict[str, Any]], graph: str) -> str:
    """The table, means over the seeds, and the speed-up at equal AUC."""
    kept: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["settings"]["graph"] == graph:
            kept.setdefault((row["settings"]["neighbours"], row["settings"]["fan_out"]), []).append(row["figures"])
    if ("full", -1) not in kept:
        return "no full neighbourhood measured yet"

    def mean(key: tuple[str, int], name: str) -> float:
        return float(np.mean([each[name] for each in kept[key]]))

    heads = ("fan-out", "seeds", "AUC", "sampling", "network", "step ms", "full/it")
    lines = ["neighbours".ljust(20) + "".join(f"{each:>9}" for each in heads)]
    for key in sorted(kept, key=lambda each: (each[0], each[1])):
        fan_out = "all" if key[1] < 0 else str(key[1])
        ratio = mean(("full", -1), "step_ms") / mean(key, "step_ms")
        times = "".join(f"{mean(key, name):>9.2f}" for name in ("sampling_ms", "network_ms", "step_ms"))
        lines.append(f"{key[0]:20}{fan_out:>9}{len(kept[key]):>9}{mean(key, 'auc'):>9.4f}{times}{ratio:>9.1f}")
    least = mean(("full", -1), "auc_low")
    for how in ("region of interest", "uniform"):
        equal = [key[1] for key in sorted(kept) if key[0] == how and mean(key, "auc") >= least]
        if equal:
            ratio = mean(("full", -1), "step_ms") / mean((how, min(equal)), "step_ms")
            lines.append(f"{how}: not below the full neighbourhood's interval from {min(equal)} on: {ratio:.1f} times")
        else:
            lines.append(f"{how}: below the full neighbourhood's interval ({least:.4f}) at every fan-out")
    return "\n".join(lines)


def main() -> None:
    """Measure what is not there yet, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", choices=("generated", "ml-100k-kg"), default="generated")
    parser.add_argument("--snapshot", type=Path, help="folder of an exported snapshot of examples/ml-100k")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--tested", type=int, default=4000, help="test rows scored")
    parser.add_argument("--fan-outs", type=int, nargs="+", default=[*FAN_OUTS, -1])
    parser.add_argument("--name", default="zoomer", help="file of the results")
    parser.add_argument("--again", action="store_true", help="measure what is there already too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(options.name, again=options.again)
    for seed in options.seeds:
        task = None
        for fan_out in options.fan_outs:
            for how in ("full",) if fan_out < 0 else ("region of interest", "uniform"):
                settings = {
                    "graph": options.graph,
                    "neighbours": how,
                    "fan_out": fan_out,
                    "seed": seed,
                    "steps": options.steps,
                    "batch_size": options.batch_size,
                    "tested": options.tested,
                    "network": NETWORK,
                }
                if task is None:
                    task = generated(seed) if options.graph == "generated" else ml_100k(options.snapshot, seed)

                def measure(how: str = how, fan_out: int = fan_out, seed: int = seed, task: Task = task) -> Any:
                    return measured(task, how, fan_out, seed, options.steps, options.batch_size, options.tested)

                print(how, fan_out, seed, results.row(settings, measure), flush=True)
    print(summary(results.rows, options.graph))


if __name__ == "__main__":
    main()
