"""How well do learned vectors retrieve what users visit, by inner product of at most 512 dimensions (Gowalla)?

    python -m benchmarks.gowalla --data ../data/gowalla

Reads ``train.txt`` and ``test.txt`` (gzipped or not; a line a user: ``user item item ...``), LightGCN's split. All
places that are not in a user's training line are ranked; Recall@20 and NDCG@20 over all users, gains by paired
bootstrap. Without ``--final`` everything is measured on a fifth of each user's training visits instead, held out so
that its mean popularity relates to the rest's as the test's does (81, which the data set's notes give, to 75) and that
popularity alone scores nearly as published: settings are chosen there. Lists of the answers are kept in ``--work``, so
that gains can be taken between rows of different runs.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from benchmarks._results import Results
from graph_store.progress import NoProgress
from graph_store.project import parse_project
from graph_store.schema import GraphSchema, Triple
from graph_store.settings import TrainingSettings
from model_store.csr import Csr, EdgeType
from model_store.features import FeatureTransforms
from training.evaluation.metrics import bootstrap, paired_bootstrap
from training.evaluation.top_k import hits, list_metrics
from training.graph import Graph
from training.train import fit
from training.transductive.factor_model import FactorModel
from training.transductive.fit import FactorTraining
from training.transductive.interactions import Interactions, ones
from training.transductive.spectral import fit_spectral

Floats = NDArray[np.float32]
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
Scorer = Callable[[NDArray[np.int64]], Floats]

AT = 20
TEST_POPULARITY = 81.0
"""Mean number of training visits of a test visit's place, from the data set's notes; the test file is not read."""
HEAD = 700.0
"""Visits from which a place's weight in the draw of the tuning part rises, so that popularity alone scores there nearly
as it does on the test by its published figures (.041 / .029 against .042 / .032)."""
VISITED = Triple("User", "VISITED", "Place")
DOCUMENT: dict[str, Any] = {
    "nodes": {"User": {"role": "user"}, "Place": {"role": "entity"}},
    "relations": [{"triple": list(VISITED), "role": "engagement"}],
}
LIGHT_GCN: dict[str, Any] = {
    "encoder": "light_gcn", "layers": 3, "dimension": 512, "hidden": 64, "rank": 1024, "signals": 0.35,
    "popularity": 0.75, "refinement": 1,
    "steps": 100, "batch_size": 4096, "negatives": 4096, "learning_rate": 0.01, "temperature": 0.1,
}  # fmt: skip
_TRAINED_WITH = ("layers", "hidden", "steps", "batch_size", "negatives", "learning_rate", "temperature")


def read_pairs(folder: Path, name: str) -> Pairs:
    """Users and items of a file of lines ``user item item ...``."""
    packed = folder / f"{name}.txt.gz"
    users, items = [], []
    with gzip.open(packed, "rt") if packed.exists() else (folder / f"{name}.txt").open() as lines:
        for line in lines:
            user, *visited = (int(each) for each in line.split())
            users += [user] * len(visited)
            items += visited
    return np.array(users, np.int64), np.array(items, np.int64)


def held_out(users: NDArray[np.int64], items: NDArray[np.int64], share: float = 0.2) -> NDArray[np.bool_]:
    """A part of each user's visits, at least one, drawn so that what is known of the test holds for it.

    A visit is drawn with the weight ``popularity ** a * (1 + (popularity / HEAD) ** 2)``: the head of the test is
    heavier than a power of popularity can say. ``a`` is such that the held-out visits' mean popularity relates to that
    of the kept ones as the test's does to that of all.
    """
    popularity = np.bincount(items).astype(np.float64)
    degrees = np.bincount(users)
    first = np.cumsum(degrees) - degrees

    def draw(power: float) -> NDArray[np.bool_]:
        rng = np.random.default_rng(7)
        weight = popularity**power * (1 + (popularity / HEAD) ** 2)
        key = rng.exponential(size=len(users)) / weight[items]
        order = np.lexsort((key, users))
        rank = np.empty(len(users), np.int64)
        rank[order] = np.arange(len(users)) - np.repeat(first, degrees)
        count = np.maximum(1, np.floor(share * degrees + rng.random(len(degrees))))
        return np.asarray(rank < count[users])

    wanted, low, high = TEST_POPULARITY / popularity[items].mean(), -0.5, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        held = draw(middle)
        kept = np.bincount(items[~held], minlength=len(popularity))
        low, high = (middle, high) if kept[items[held]].mean() / kept[items[~held]].mean() < wanted else (low, middle)
    return held


class Visits:
    """A snapshot of the training visits in memory, as training reads it."""

    def __init__(self, matrix: Any) -> None:
        self.schema: GraphSchema = parse_project(DOCUMENT, file=Path("kithkin.toml"), environment={}).schema
        self._counts = {"User": matrix.shape[0], "Place": matrix.shape[1]}
        turned = matrix.T.tocsr()
        self._csr = {
            EdgeType(VISITED, reverse): Csr(
                indptr=each.indptr.astype(np.int64), indices=each.indices.astype(np.int32), weight=None, time=None
            )
            for reverse, each in ((False, matrix), (True, turned))
        }
        self.content_hash = "gowalla"
        self.edge_types = tuple(self._csr)

    def num_nodes(self, node_type: str) -> int:
        return int(self._counts[node_type])

    def ids(self, node_type: str) -> pa.StringArray:
        return pa.array([str(each) for each in range(self.num_nodes(node_type))])

    def nodes(self, node_type: str) -> pa.Table:
        return pa.table({"id": self.ids(node_type)})

    def csr(self, edge_type: EdgeType) -> Csr:
        return self._csr[edge_type]


class Gowalla:
    """The visits, what is trained of them once, and the measuring of a scorer."""

    def __init__(self, data: Path, work: Path, *, final: bool, threads: int) -> None:
        self.work, self.threads = work, threads
        users, items = read_pairs(data, "train")
        shape = (int(users.max()) + 1, int(items.max()) + 1)
        if final:
            asked = read_pairs(data, "test")
            shape = (shape[0], max(shape[1], int(asked[1].max()) + 1))
        else:
            held = held_out(users, items)
            asked, users, items = (users[held], items[held]), users[~held], items[~held]
        self.seen, self.wanted = ones(users, items, shape), ones(*asked, shape)
        self.asked = np.flatnonzero(np.diff(self.wanted.indptr) > 0)
        self.graph = Graph(Visits(self.seen))
        self.transforms = FeatureTransforms({"User": [], "Place": []})

    @cached_property
    def interactions(self) -> Interactions:
        return Interactions.of(self.graph)

    def measured(self, name: str, scorer: Scorer, **more: Any) -> dict[str, Any]:
        """Figures of a scorer; its lists are kept under the name."""
        lists = np.empty((len(self.asked), AT), np.int64)
        for first in range(0, len(self.asked), 512):
            chunk = self.asked[first : first + 512]
            scores = torch.from_numpy(np.ascontiguousarray(scorer(chunk), np.float32))
            own = self.seen[chunk]
            scores[np.repeat(np.arange(len(chunk)), np.diff(own.indptr)), own.indices] = -torch.inf
            lists[first : first + 512] = scores.topk(AT, dim=1).indices.numpy()
        self.work.mkdir(parents=True, exist_ok=True)
        np.save(self.work / f"{name}.npy", lists)
        values = self.values(name)
        return {
            **{metric: _described(bootstrap(each, 1000)) for metric, each in values.items()},
            "users": len(self.asked),
            **more,
        }

    def values(self, name: str) -> dict[str, NDArray[np.float64]]:
        """Recall and NDCG of each user."""
        wanted = self.wanted[self.asked]
        lists = np.load(self.work / f"{name}.npy")
        found = list_metrics(hits(lists, wanted), np.diff(wanted.indptr).astype(np.int64), AT)
        return {metric: found[metric] for metric in (f"Recall@{AT}", f"NDCG@{AT}")}

    def gain(self, ours: str, theirs: str) -> dict[str, Any]:
        """Paired bootstrap over users."""
        mine, other = self.values(ours), self.values(theirs)
        return {metric: _described(paired_bootstrap(mine[metric], other[metric], 1000)) for metric in mine}


def popularity(data: Gowalla) -> dict[str, Any]:
    """Visits of the place."""
    degrees = data.interactions.entity_degrees
    return data.measured("popularity", lambda chunk: np.tile(degrees, (len(chunk), 1)))


def item_knn(data: Gowalla) -> dict[str, Any]:
    """Sum of the cosines to the places visited."""
    unit = data.interactions.scaled(0.0, 0.5)
    turned = data.seen.T.tocsr()
    # From the left, so that no place-by-place matrix is made.
    return data.measured("item_knn", lambda chunk: np.asarray(((unit[chunk] @ turned) @ unit).todense()))


def svd(data: Gowalla, ranks: tuple[int, ...], name: str, **powers: float) -> dict[int, dict[str, Any]]:
    """Truncated SVDs of one factorisation; powers as in the settings."""
    clock = _Clock()
    spectrum = powers.pop("spectrum")
    spectral = fit_spectral(data.interactions, rank=max(ranks), seed=1, **powers)
    users, entities = data.seen @ spectral.of_entities(spectrum), data.seen.T @ spectral.of_users()
    spent = clock.read()
    return {
        rank: data.measured(f"{name}_{rank}", _inner(users[:, :rank], entities[:, :rank]), **spent) for rank in ranks
    }


def ials(data: Gowalla, *, dimension: int, rounds: int, unobserved: float, ridge: float) -> dict[str, Any]:
    """Implicit ALS (Hu et al. 2008) with the regularisation of Rendle et al. 2022, by frequency to the power 1."""
    clock = _Clock()
    rng = np.random.default_rng(1)
    entities = (rng.standard_normal((data.seen.shape[1], dimension)) / dimension**0.5).astype(np.float32)
    turned = data.seen.T.tocsr()
    users = np.empty(0, np.float32)
    for _ in range(rounds):
        users = _half(data.seen, entities, unobserved, ridge)
        entities = _half(turned, users, unobserved, ridge)
    spent = clock.read()
    return data.measured(f"ials_{dimension}", _inner(users, entities), **spent)


def _half(matrix: Any, other: Floats, unobserved: float, ridge: float) -> Floats:
    """Solve for the rows of a matrix with the other side fixed."""
    columns, width = other.shape
    common = unobserved * (other.T @ other)
    solved = np.zeros((matrix.shape[0], width), np.float32)
    for row in range(matrix.shape[0]):
        near = other[matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]]
        weight = ridge * (len(near) + unobserved * columns)
        solved[row] = np.linalg.solve(common + near.T @ near + weight * np.eye(width, dtype=np.float32), near.sum(0))
    return solved


def learned(data: Gowalla, seed: int, settings: Mapping[str, Any]) -> tuple[FactorTraining, dict[str, Any]]:
    """Train the vectors of one seed, or read what was trained with the same settings but those of the spectral part."""
    clock = _Clock()
    own = TrainingSettings(user=settings, seed=seed, threads=data.threads, sampler_threads=0)
    training = FactorTraining(data.graph, data.transforms, own)
    trained_with = {name: settings[name] for name in ("encoder", *_TRAINED_WITH)}
    folder = data.work / f"{settings['encoder']}-{seed}"
    kept, cost = folder / "learned.pt", folder / "cost.json"
    if cost.exists() and json.loads(cost.read_text())["settings"] == trained_with:
        training.model.load_state_dict(torch.load(kept, weights_only=True), strict=False)
    else:
        metrics = fit(training.model, training.objective, data.seen.nnz, own, folder, "", False, NoProgress())
        torch.save(dict(training.model.named_parameters()), kept)
        cost.write_text(json.dumps({"settings": trained_with, "spent": {**clock.read(), "loss": metrics["loss"]}}))
    spent: dict[str, Any] = json.loads(cost.read_text())["spent"]
    clock = _Clock()
    training.finish()
    reduction = clock.read()
    return training, {**spent, **{f"reduction_{name}": reduction[name] for name in ("seconds", "cpu_seconds")}}


def factors(data: Gowalla, name: str, model: FactorModel, **more: Any) -> dict[str, Any]:
    """Figures of a trained model's published vectors."""
    vectors = model.vectors(data.graph)
    return data.measured(name, _inner(vectors["User"], vectors["Place"]), **more)


class _Clock:
    def __init__(self) -> None:
        self.wall, self.cpu = time.monotonic(), time.process_time()

    def read(self) -> dict[str, Any]:
        """Seconds since, processor seconds, and the largest memory so far."""
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        spent = {"seconds": time.monotonic() - self.wall, "cpu_seconds": time.process_time() - self.cpu}
        return {**{name: round(value, 1) for name, value in spent.items()}, "peak_gib": round(memory, 2)}


def _inner(users: Floats, entities: Floats) -> Scorer:
    turned = torch.from_numpy(np.ascontiguousarray(entities)).T
    rows = torch.from_numpy(np.ascontiguousarray(users))
    return lambda chunk: (rows[torch.from_numpy(chunk)] @ turned).numpy()


def _described(interval: Any) -> dict[str, float]:
    return {name: round(getattr(interval, name), 5) for name in ("mean", "low", "high")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.txt and test.txt, or .txt.gz")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "kithkin-gowalla")
    parser.add_argument("--final", action="store_true", help="measure on the test, not on a part of train")
    parser.add_argument("--only", nargs="*", help="baselines, spectral, ials, light_gcn, matrix_factorisation, gains")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure rows again that are there")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    part = "test" if arguments.final else "tuning"
    data = Gowalla(arguments.data, arguments.work / part, final=arguments.final, threads=arguments.threads)
    results = Results("gowalla", again=arguments.again)
    chosen = arguments.only

    def wanted(group: str) -> bool:
        return not chosen or group in chosen

    def row(method: str, measure: Callable[[], Mapping[str, Any]], **settings: Any) -> None:
        figures = results.row({"method": method, "part": part, "threads": arguments.threads, **settings}, measure)
        shown = "  ".join(f"{name} {value['mean']:.4f}" for name, value in figures.items() if isinstance(value, dict))
        print(f"{method:24} {shown}  {settings}", flush=True)

    if wanted("light_gcn"):
        for seed in arguments.seeds:
            _learned_rows(data, row, "light_gcn", LIGHT_GCN, seed)
    if wanted("baselines"):
        row("popularity", lambda: popularity(data))
        row("item_knn", lambda: item_knn(data))
        plain = {"user_power": 0.5, "entity_power": 0.5, "spectrum": 1.5}
        found: dict[int, dict[str, Any]] = {}
        for rank in (1024, 512):
            row(
                "svd",
                partial(_rank_of, found, rank, partial(svd, data, (1024, 512), "svd", **plain)),
                rank=rank,
                **plain,
            )
    if wanted("spectral"):
        powers = {"user_power": 0.3, "entity_power": 0.45, "spectrum": 0.75}
        row("spectral", lambda: svd(data, (512,), "spectral", **powers)[512], rank=512, **powers)
    if wanted("matrix_factorisation"):
        settings = {**LIGHT_GCN, "encoder": "matrix_factorisation"}
        _learned_rows(data, row, "matrix_factorisation", settings, arguments.seeds[0])
    if wanted("ials"):
        own = {"dimension": 128, "rounds": 8, "unobserved": 0.1, "ridge": 0.003}
        row("ials", lambda: ials(data, **own), **own)  # type: ignore[arg-type]
    if wanted("gains"):
        for seed in arguments.seeds:
            ours, factorised = (
                f"{name}_{LIGHT_GCN['signals']}_{seed}" for name in ("light_gcn", "matrix_factorisation")
            )
            for theirs in (
                "svd_1024",
                "svd_512",
                "spectral_512",
                f"light_gcn_0.25_{seed}",
                f"light_gcn_alone_{seed}",
                factorised,
            ):
                if all((data.work / f"{name}.npy").exists() for name in (ours, theirs)):
                    row("gain", partial(data.gain, ours, theirs), ours=ours, over=theirs)


def _learned_rows(data: Gowalla, row: Callable[..., None], name: str, settings: dict[str, Any], seed: int) -> None:
    """The learned vectors beside the spectral part, and alone: one training for both."""
    once: dict[str, Any] = {}

    def both() -> dict[str, Any]:
        training, spent = _once(once, lambda: dict(enumerate(learned(data, seed, settings)))).values()
        return factors(data, f"{name}_{settings['signals']}_{seed}", training.model, **spent)

    def alone() -> dict[str, Any]:
        training, spent = _once(once, lambda: dict(enumerate(learned(data, seed, settings)))).values()
        vectors, width = training.model.joined_all(data.graph), training.model.shape.signal_width
        inner = _inner(vectors["User"][:, width:], vectors["Place"][:, width:])
        return data.measured(f"{name}_alone_{seed}", inner, **spent)

    row(name, both, seed=seed, **settings)
    row(f"{name} alone", alone, seed=seed, **{**settings, "signals": 0.0, "dimension": settings["hidden"] + 1})


def _rank_of(kept: dict[Any, Any], rank: int, make: Callable[[], dict[Any, Any]]) -> dict[str, Any]:
    figures: dict[str, Any] = _once(kept, make)[rank]
    return figures


def _once(kept: dict[Any, Any], make: Callable[[], dict[Any, Any]]) -> dict[Any, Any]:
    """What ``make`` makes, made at the first call."""
    if not kept:
        kept.update(make())
    return kept


if __name__ == "__main__":
    main()
