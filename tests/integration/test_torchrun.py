"""Training by two workers under torchrun: what they learn, that one may be killed, and one that dies for good."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import training
from graph_store.progress import NoProgress
from graph_store.project import Project
from graph_store.settings import TrainingSettings
from tests.memory_snapshot import THEMES, project_of, themes_document, themes_snapshot
from tests.stored_snapshot import stored
from training.checkpoint import CHECKPOINT
from training.distributed import worker
from training.distributed.launch import Workers
from training.distributed.parts import Part
from training.distributed.plan import PLAN, STEPS, Plan
from training.errors import DistributedError
from training.export import Snapshot
from training.fit_features import fit_features
from training.graph import Graph
from training.holdout import split_newest
from training.inference import embed
from training.model import TrainedModel
from training.node_features import NodeFeatures
from training.space_model import SpaceModel, SpaceShape
from training.train import learning_rate_share, step_seed, train

SMALL = {
    "training.workers": 2,
    "training.threads": 1,
    "training.device": "cpu",
    "training.input_dimension": 8,
    "training.similar.dimension": 16,
    "training.similar.hidden": 16,
    "training.similar.batch_size": 64,
    "training.user.dimension": 16,
    "training.user.hidden": 16,
    "training.user.batch_size": 64,
    "training.distributed.rare_share": 0.01,
}


def project(folder: Path, **settings: Any) -> Project:
    return project_of(themes_document(), folder, {**SMALL, **settings})


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return stored(themes_snapshot(), tmp_path_factory.mktemp("whole"))


def test_two_workers_train_a_model_like_any_other(snapshot: Snapshot, tmp_path: Path) -> None:
    settings = {"training.similar.steps": 24, "training.user.steps": 40}
    model = train(project(tmp_path, **settings), snapshot, folder=tmp_path / "trained")
    assert model.metrics["similar"]["steps"] == 24
    assert model.metrics["user"]["steps"] == 40
    assert model.metrics["similar"]["workers"] == 2
    assert any(note.startswith("trained by 2 workers: a part holds at most") for note in model.notes)
    read = TrainedModel.load(tmp_path / "trained")
    graph = Graph(snapshot)
    films = embed(read.spaces["similar"], read.transforms, graph, node_types=("Film",)).vectors["Film"]
    nearest = np.argsort(-(films @ films.T - 2 * np.eye(len(films))), axis=1)[:, :5]
    assert (nearest % THEMES == (np.arange(len(films)) % THEMES)[:, None]).mean() > 0.9
    found = embed(read.spaces["user"], read.transforms, graph, node_types=("Person", "Film")).vectors
    shown = np.argsort(-(found["Person"] @ found["Film"].T), axis=1)[:, :10]
    assert (shown % THEMES == (np.arange(len(shown)) % THEMES)[:, None]).mean() > 0.6


def workers_for(
    snapshot: Snapshot, settings: TrainingSettings, folder: Path, *, resume: bool = True
) -> tuple[Workers, SpaceModel]:
    split = split_newest(snapshot, settings.holdout)
    transforms = fit_features(split.graph, dimension=8, seed=1)
    torch.manual_seed(1)
    shape = SpaceShape.of("similar", Graph(snapshot), transforms, settings.similar, inner_product=False)
    found = Workers(
        settings,
        snapshot,
        split,
        transforms,
        max_neighbours=10,
        folder=folder,
        start="0123456789abcdef",
        resume=resume,
        progress=NoProgress(),
    )
    return found, SpaceModel(shape, settings.similar)


def features_of(workers: Workers) -> NodeFeatures:
    return NodeFeatures(Graph(workers.snapshot), workers.transforms, memory_mib=100)


class KillsOne(threading.Thread):
    """Ends the second worker as the kernel would, once the first has told so many steps."""

    def __init__(self, told: Path, step: int) -> None:
        super().__init__()
        self.told, self.step = told, step
        self.killed_at: int | None = None

    def run(self) -> None:
        while self.killed_at is None and time.monotonic() < self.deadline:
            entries = lines(self.told)
            pids = next((each["pids"] for each in entries if each.get("event") == "begin"), None)
            done = max((each.get("done", 0) for each in entries), default=0)
            if pids and done >= self.step:
                os.kill(pids[1], signal.SIGKILL)
                self.killed_at = done
            time.sleep(0.02)

    def start(self) -> None:
        self.deadline = time.monotonic() + 200
        super().start()


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that somebody may be writing."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def test_a_killed_worker_starts_again_from_the_checkpoint_to_the_same_end(snapshot: Snapshot, tmp_path: Path) -> None:
    steps = 100
    settings = project(tmp_path, **{"training.similar.steps": steps, "training.checkpoint_every": 10}).settings.training
    workers, model = workers_for(snapshot, settings, tmp_path)
    expected = SpaceModel(model.shape, settings.similar)
    expected.load_state_dict(model.state_dict())
    killer = KillsOne(tmp_path / "similar" / STEPS, step=12)
    killer.start()
    figures = workers.fit(model, 1000, features_of(workers))
    killer.join()
    assert killer.killed_at is not None
    assert killer.killed_at < steps
    assert figures["steps"] == steps
    told = lines(tmp_path / "similar" / STEPS)
    assert [each["event"] for each in told if "event" in each] == ["begin", "begin", "end"]
    counted = [each["done"] for each in told if "done" in each]
    assert counted[-1] == steps
    resumed_from = counted[[place for place, each in enumerate(counted) if each < counted[place - 1]][-1]]
    assert resumed_from >= 10
    assert resumed_from % 10 == 0
    assert len(told[-1]["peak_mib"]) == 2
    together(Plan.read(tmp_path / "similar" / PLAN), expected, steps)
    for name, weights in model.state_dict().items():
        assert torch.allclose(weights, expected.state_dict()[name], atol=1e-4), name


def together(plan: Plan, model: SpaceModel, steps: int) -> None:
    """The same training in one process: each step, the mean of what both parts ask for."""
    parts = [Part.open(plan.parts / str(rank), parent=plan.parent, part=rank, parts=2) for rank in (0, 1)]
    seeds = [worker.seed_of(plan.settings.seed, rank) for rank in (0, 1)]
    objectives = [worker.objective_of(plan, part, seed) for part, seed in zip(parts, seeds, strict=True)]
    own = plan.settings.similar
    optimiser = torch.optim.AdamW(model.parameters(), lr=own.learning_rate, weight_decay=own.weight_decay)
    torch.set_num_threads(1)
    model.train()
    for step in range(steps):
        optimiser.zero_grad(set_to_none=True)
        for part, objective, seed in zip(parts, objectives, seeds, strict=True):
            torch.manual_seed(step_seed(seed, step))
            model.whole_rows = {name: torch.from_numpy(rows) for name, rows in part.rows.items()}
            (objective.loss(model, objective.draw(step)) / 2).backward()  # type: ignore[no-untyped-call]
        optimiser.param_groups[0]["lr"] = own.learning_rate * learning_rate_share(step, steps)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()


def test_workers_of_two_machines_meet(snapshot: Snapshot, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    together_at = {"training.distributed.machines": 2, "training.distributed.rendezvous": f"127.0.0.1:{port}"}
    settings = project(tmp_path, **{"training.similar.steps": 3, **together_at}).settings.training
    workers, model = workers_for(snapshot, settings, tmp_path)
    command = [sys.executable, "-m", "training.distributed.join", str(tmp_path / "similar" / PLAN)]
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(Path(training.__file__).parent.parent)}
    ) as other:
        figures = workers.fit(model, 1000, features_of(workers))
        assert other.wait(60) == 0
    assert figures["steps"] == 3
    begin = lines(tmp_path / "similar" / STEPS)[0]
    assert len(begin["pids"]) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux to be told of a parent's death")
def test_workers_end_with_the_training_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(
        "import os, pathlib, time\npathlib.Path('pid.part').write_text(str(os.getpid()))\n"
        "os.rename('pid.part', 'pid')\ntime.sleep(600)\n"
    )
    (tmp_path / "starts.py").write_text(
        "import os, subprocess, sys\n"
        "agent = [sys.executable, '-m', 'training.distributed.agent', str(os.getpid())]\n"
        "subprocess.run([*agent, '--nproc-per-node', '1', '--standalone', 'worker.py'])\n"
    )
    code = str(Path(training.__file__).parent.parent)
    with subprocess.Popen(
        [sys.executable, "starts.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": code}
    ) as starts:
        assert soon(lambda: (tmp_path / "pid").exists())
        starts.kill()
    pid = int((tmp_path / "pid").read_text())
    assert soon(lambda: not Path(f"/proc/{pid}").exists())


def soon(happened: Callable[[], bool]) -> bool:
    """Whether it happens within two minutes."""
    deadline = time.monotonic() + 120
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.05)
    return happened()


def test_a_worker_that_dies_for_good_ends_the_training_with_its_last_lines(snapshot: Snapshot, tmp_path: Path) -> None:
    settings = project(tmp_path, **{"training.similar.steps": 5, "training.distributed.restarts": 0}).settings.training
    workers, model = workers_for(snapshot, settings, tmp_path)
    part = workers.parts() / "1" / "part.json"
    part.write_text(part.read_text().replace(snapshot.content_hash, "0" * 64))
    with pytest.raises(DistributedError, match="worker 1 of space similar ended with exit status 1") as raised:
        workers.fit(model, 1000, features_of(workers))
    assert "is part 1 of 2 of snapshot 000000000000, wanted is part 1 of 2 of snapshot" in raised.value.message
    assert not (tmp_path / "similar" / CHECKPOINT).exists()
