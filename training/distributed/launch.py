"""Training by workers: writes the parts, starts torchrun for each space, and follows it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import IO, Any

import torch

import training
from graph_store.progress import Progress, Task
from graph_store.settings import TrainingSettings
from model_store.features import FeatureTransforms
from training.checkpoint import CHECKPOINT
from training.distributed.partition import partition
from training.distributed.parts import describe, write_features, write_parts, written_parts
from training.distributed.plan import INITIAL, PLAN, STEPS, Plan
from training.errors import DistributedError
from training.export import Snapshot
from training.holdout import Split
from training.node_features import NodeFeatures
from training.space_model import SpaceModel
from training.train import resolved_steps

_LOG = "torchrun.log"
_LOGS = "workers"
_SHOWN = 15
"""Last lines of a dead worker that the error shows."""
_STOP_S = 20.0
"""Seconds that torchrun has to end its workers."""


class Workers:
    """The workers of one training; the parts are written when the first space is trained."""

    def __init__(
        self,
        settings: TrainingSettings,
        snapshot: Snapshot,
        split: Split,
        transforms: FeatureTransforms,
        *,
        max_neighbours: int,
        folder: Path,
        start: str,
        resume: bool,
        progress: Progress,
    ) -> None:
        """``folder``: of the whole training; ``start``: its fingerprint.

        Raises DistributedError for settings that cannot work.
        """
        own = settings.distributed
        if settings.workers % own.machines:
            raise DistributedError(
                f"{settings.workers} workers cannot be shared evenly by {own.machines} machines",
                hint="Set training.workers to a multiple of training.distributed.machines.",
            )
        if own.rendezvous:
            _address(own.rendezvous)
        elif own.machines > 1:
            raise DistributedError(
                f"{own.machines} machines do not know where to meet",
                hint="Set training.distributed.rendezvous to HOST:PORT on this machine.",
            )
        self.settings, self.snapshot, self.split, self.transforms = settings, snapshot, split, transforms
        self.max_neighbours, self.folder, self.start = max_neighbours, folder, start
        self.resume, self.progress = resume, progress
        self._parts: Path | None = None
        for name in ("similar", "user"):
            # Other machines wait for the plan of this training.
            (folder / name / PLAN).unlink(missing_ok=True)

    def fit(self, model: SpaceModel, edges: int, features: NodeFeatures | None = None) -> dict[str, float]:
        """Train a space's model from the weights it has: its figures, as ``fit`` of one process gives them.

        ``features``: of the whole graph, for the space ``similar``; else workers make them from the links they have.
        Raises DistributedError where workers cannot be started or keep dying.
        """
        if not resolved_steps(model.shape.name, model.settings, edges // self.settings.workers):
            return {"steps": 0.0, "seconds": 0.0}
        plan = Plan(
            folder=self.folder / model.shape.name,
            parts=self.parts(),
            parent=self.snapshot.content_hash,
            start=self.start,
            shape=model.shape,
            edges=edges // self.settings.workers,
            max_neighbours=self.max_neighbours,
            settings=self.settings,
        )
        plan.folder.mkdir(parents=True, exist_ok=True)
        torch.save({name: each.cpu() for name, each in model.state_dict().items()}, plan.folder / INITIAL)
        (plan.folder / STEPS).write_text("")
        if not self.resume:
            (plan.folder / CHECKPOINT).unlink(missing_ok=True)
        if features is not None:
            write_features(plan.parts, self.settings.workers, features)
        begun = time.monotonic()
        told = run_workers(plan.write(), plan, self.progress)
        state = torch.load(plan.folder / CHECKPOINT, weights_only=True, map_location=model.medians.device)
        model.load_state_dict(state["model"])
        found = {"steps": float(state["step"]), "seconds": round(time.monotonic() - begun, 3)}
        found |= {"workers": float(self.settings.workers), "largest_worker_mib": max(told["peak_mib"])}
        loss = float(state["loss"])
        return {**found, "loss": loss} if loss == loss else found

    def parts(self) -> Path:
        """Folder of the parts of this snapshot and these settings; written where they are not there yet."""
        if self._parts is None:
            root = self.folder / "parts"
            place = root / self.start[:16]
            document = written_parts(place, self.snapshot.content_hash) if self.resume else None
            if document is None:
                shutil.rmtree(root, ignore_errors=True)
                own = self.settings.distributed
                chosen = partition(self.snapshot, own, parts=self.settings.workers, seed=self.settings.seed)
                document = write_parts(
                    place,
                    self.snapshot,
                    self.split,
                    self.transforms,
                    chosen,
                    method=own.partition,
                    progress=self.progress,
                )
            self._parts, self._described = place, describe(document)
        return self._parts

    def notes(self) -> list[str]:
        """What the parts hold, in a sentence; none where none were needed."""
        if self._parts is None:
            return []
        found = self._described
        return [
            f"trained by {self.settings.workers} workers: a part holds at most {found['edges']:.1%} of all edges and "
            f"{found['engagement_and_co_engagement']:.1%} of the engagements and co-engagements; {found['cut']:.1%} "
            "of the edges among entities and users lie between parts"
        ]


def run_workers(path: Path, plan: Plan, progress: Progress) -> dict[str, Any]:
    """Start this machine's workers of a plan, wait for all of them; what the first one told at the end.

    Raises DistributedError; whatever happens, no worker of this machine is left behind.
    """
    own = plan.settings.distributed
    if own.rendezvous:
        _check_free(*_address(own.rendezvous))
    logs = plan.folder / _LOGS
    shutil.rmtree(logs, ignore_errors=True)
    command = torchrun(path, plan, logs)
    with (plan.folder / _LOG).open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment_of(plan))
        try:
            told = _follow(process, plan, progress)
        finally:
            _end(process)
    if process.returncode or told is None:
        raise _died(plan, process.returncode)
    return told


def torchrun(path: Path, plan: Plan, logs: Path) -> list[str]:
    """The command that runs one machine's workers; each writes what it says into ``logs``."""
    own = plan.settings.distributed
    command = [sys.executable, "-m", "training.distributed.agent", str(os.getpid())]
    command += ["--nnodes", str(own.machines), "--nproc-per-node", str(plan.settings.workers // own.machines)]
    command += ["--rdzv-backend", "c10d", "--rdzv-id", f"{plan.shape.name}-{plan.start[:12]}"]
    command += ["--rdzv-endpoint", own.rendezvous or "127.0.0.1:0"]
    if not own.rendezvous:
        # All on this machine, whose name may not be one that can be looked up.
        command += ["--local-addr", "127.0.0.1"]
    command += ["--max-restarts", str(own.restarts), "--log-dir", str(logs), "--redirects", "3"]
    return [*command, "-m", "training.distributed.worker", str(path)]


def _address(rendezvous: str) -> tuple[str, int]:
    host, _, port = rendezvous.rpartition(":")
    if not host or not port.isdigit():
        raise DistributedError(
            f"training.distributed.rendezvous is {rendezvous!r}", hint="Write it as HOST:PORT, such as gpu1:29400."
        )
    return host, int(port)


def _check_free(host: str, port: int) -> None:
    """Torchrun would take whatever listens there for another machine's, and wait for it."""
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise DistributedError(
            f"nothing can listen on {host}:{port}: {error.strerror or error}",
            hint="End what uses the port, or set training.distributed.rendezvous to an address of this machine.",
        ) from None


def environment_of(plan: Plan) -> dict[str, str]:
    """The environment of one machine's workers."""
    own = plan.settings.distributed
    together = plan.settings.workers // own.machines
    environment = dict(os.environ)
    threads = plan.settings.threads or max((os.cpu_count() or 1) // together, 1)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    # A store of their own for each start: torchrun keeps the one it shares through its restarts, addresses of dead
    # workers included, and whoever reads them before the new ones are there finds nobody or waits for good.
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    # Workers find the same code, installed or not.
    code = str(Path(training.__file__).parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join([code, *filter(None, [environment.get("PYTHONPATH")])])
    if own.machines == 1 and sys.platform == "linux":
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return environment


def _follow(process: subprocess.Popen[bytes], plan: Plan, progress: Progress) -> dict[str, Any] | None:
    """Tell the first worker's progress until torchrun ends; what it told last, None where it did not get so far."""
    from training.train import resolved_steps

    own = plan.settings.similar if plan.shape.name == "similar" else plan.settings.user
    steps = resolved_steps(plan.shape.name, own, plan.edges)
    with (
        (plan.folder / STEPS).open(encoding="utf-8") as file,
        progress.task(f"train {plan.shape.name}", steps, "steps") as task,
    ):
        reader = _Reader(file, task)
        while process.poll() is None:
            reader.read()
            time.sleep(0.05)
        reader.read()
    return reader.end


class _Reader:
    def __init__(self, file: IO[str], task: Task) -> None:
        self._file, self._task = file, task
        self._shown, self._rest = 0, ""
        self.end: dict[str, Any] | None = None

    def read(self) -> None:
        """Read the lines that are there by now; a line that is being written waits for the next time."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        for line in lines:
            entry = json.loads(line)
            if entry.get("event") == "end":
                self.end = entry
            # Workers that were started again go through steps that were shown before.
            if entry.get("done", 0) > self._shown:
                fields = {name: value for name, value in entry.items() if name != "done"}
                self._task.advance(entry["done"] - self._shown, **fields)
                self._shown = entry["done"]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Torchrun ends its workers when it is asked to end."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _died(plan: Plan, status: int) -> DistributedError:
    text = (plan.folder / _LOG).read_text(encoding="utf-8", errors="replace")
    cause = text[text.rfind("Root Cause") :] if "Root Cause" in text else ""
    rank, code = (re.search(rf"{name}\s*:\s*(-?\d+)", cause) for name in ("local_rank", "exitcode"))
    if rank is None or code is None:
        lines = text
        said = f"torchrun ended with status {status}"
    else:
        found = list((plan.folder / _LOGS).glob(f"*/attempt_*/{rank[1]}/stderr.log"))
        newest = max(found, key=lambda each: each.stat().st_mtime, default=None)
        lines = newest.read_text(encoding="utf-8", errors="replace") if newest else ""
        number = int(code[1])
        ended = f"exit status {number}"
        if number < 0:
            with contextlib.suppress(ValueError):
                ended = signal.Signals(-number).name
        said = f"worker {rank[1]} of space {plan.shape.name} ended with {ended}"
        if plan.settings.distributed.restarts:
            said += f", after {plan.settings.distributed.restarts} restarts"
    last = "\n".join(f"  | {line}" for line in deque(lines.splitlines(), maxlen=_SHOWN))
    return DistributedError(
        said + (f"; its last lines:\n{last}" if last else ""),
        hint=f"All that was said is in {plan.folder / _LOGS}; `kithkin train` goes on from the last checkpoint.",
    )
