"""The steps from files to a published bundle; each is skipped when its inputs have not changed."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.step_log import StepLog
from graph_store.embedded.locks import WriterLock
from graph_store.errors import ConfigError, StoreLocked
from graph_store.progress import Progress
from graph_store.project import Project
from graph_store.store import GraphStore
from graph_store.stores import open_store
from model_store.durable import UNWRITABLE
from model_store.errors import DiskFull

if TYPE_CHECKING:
    from graph_store.ingest import IngestReport
    from training.evaluation.report import EvaluationReport
    from training.export import Snapshot
    from training.model import TrainedModel

_PUBLISHING = "publishing"
"""In the log of steps: a bundle that is about to be there, and has not been noted as published."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepResult:
    """What one step did."""

    name: str
    skipped: bool
    seconds: float
    outcome: dict[str, Any] = field(default_factory=dict)
    """What a later step needs, and what a person wants to read."""


class Pipeline:
    """The steps of one project. Each method returns what the step did; with ``force`` nothing is skipped."""

    def __init__(self, project: Project, progress: Progress, *, force: bool = False) -> None:
        self.project = project
        self.progress = progress
        self.force = force
        self.log = StepLog(project.work / "steps.json")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other builds of this project out while the block lasts; what killed ones left is removed.

        Raises StoreLocked where another one is at work, ConfigError where the work folder cannot be written, DiskFull
        where there is no room in it.
        """
        lock = WriterLock(self.project.work / "steps")
        try:
            self.project.work.mkdir(parents=True, exist_ok=True)
            holder = lock.acquire()
        except OSError as error:
            raise ConfigError(
                f"cannot be written: {error.strerror}",
                key="work",
                value=str(self.project.work),
                hint="Give a folder that this user may write, as `work` or KITHKIN_WORK.",
            ) from None
        if holder is not None:
            raise StoreLocked(
                f"process {holder or 'unknown'} is building in {self.project.work}",
                hint="Wait until it is done, or stop it.",
            )
        try:
            left = [f"{root}/.{state}-*" for root in ("snapshots", "subgraphs") for state in ("writing", "replaced")]
            for pattern in ("staging", "co_engagement-*", *left):
                for folder in self.project.work.glob(pattern):
                    shutil.rmtree(folder, ignore_errors=True)
            yield
        except OSError as error:
            # Of what says its own words for it (the store, an export, a bundle) none comes here.
            if error.errno not in UNWRITABLE or error.filename is None:
                raise
            raise DiskFull(error, self.project.work, stays="what was finished stays, and the rest is made") from error
        finally:
            lock.release()

    def ingest(self, *, replace: bool = False) -> StepResult:
        """Files to store, then the derived co-engagement edges; ``replace``: what left the files is deleted.

        With ``replace`` it is never skipped.
        """
        from graph_store.co_engagement import derive
        from graph_store.ingest import ingest, input_fingerprint

        started = time.perf_counter()
        deleted: dict[str, Any] = {}
        inputs = _digest(input_fingerprint(self.project), self.project.settings.store.identity())
        with open_store(self.project) as store:
            known = None if self.force or replace else self.log.outcome("ingest", inputs)
            if known is not None and any(store.counts().nodes.values()):
                if store.state_token() == known.get("state"):
                    return _result("ingest", started, known, skipped=True)
                # Somebody changed the graph since: their changes stay, what is derived from it follows.
                derive(self.project, store, progress=self.progress)
                outcome = {**known, **_counts(store), "state": store.state_token()}
            else:
                self.log.forget("ingest")
                report = ingest(self.project, store, replace=replace, progress=self.progress)
                derive(self.project, store, progress=self.progress)
                outcome = {
                    **_counts(store),
                    "sources": ingest_sources(report),
                    **_checks(report),
                    "state": store.state_token(),
                }
                deleted = {"deleted": report.deleted} if replace else {}
        self.log.record("ingest", inputs, outcome)
        return _result("ingest", started, outcome | deleted)

    def export(self) -> StepResult:
        """Store to snapshot."""
        from training.export import export_snapshot

        started = time.perf_counter()
        with open_store(self.project, read_only=True) as store:
            inputs = self._export_inputs(store.state_token())
            known = None if self.force else self.log.outcome("export", inputs)
            if known is not None and self._snapshot_folder(known["content_hash"]).is_dir():
                return _result("export", started, known, skipped=True)
            snapshot = export_snapshot(
                store,
                self.project.schema,
                self._snapshots,
                progress=self.progress,
                memory_mib=self.project.settings.export.memory_mib,
                known_as=self.project.settings.store.identity(),
            )
        outcome = {"content_hash": snapshot.content_hash}
        self.log.record("export", inputs, outcome)
        return _result("export", started, outcome)

    def _export_inputs(self, state: str) -> str:
        return _digest(state, self.project.schema.model_dump_json(), self.project.settings.store.identity())

    def graph_stayed(self, before: str, after: str) -> None:
        """The store's state moved, and its graph did not: what was done with the graph before is done."""
        ingested, exported = self.log.entry("ingest"), self.log.outcome("export", self._export_inputs(before))
        if ingested is not None and ingested["outcome"].get("state") == before:
            self.log.record("ingest", ingested["inputs"], {**ingested["outcome"], "state": after})
        if exported is not None:
            self.log.record("export", self._export_inputs(after), exported)

    def train(self) -> StepResult:
        """Snapshot to trained model."""
        started = time.perf_counter()
        content_hash = self._needed("export")["content_hash"]
        inputs = self.train_inputs(content_hash)
        folder = self.checkpoints
        known = None if self.force else self.log.outcome("train", inputs)
        if known is not None and folder.is_dir():
            return _result("train", started, known, skipped=True)
        from training.train import train

        self.log.forget("train")
        model = train(self.project, self.snapshot(), folder=folder, progress=self.progress, resume=not self.force)
        outcome = {"inputs": inputs, "content_hash": content_hash, "metrics": model.metrics, "notes": list(model.notes)}
        self.log.record("train", inputs, outcome)
        return _result("train", started, outcome)

    def publish(self) -> StepResult:
        """Trained model to active bundle, its indexes tuned and audited."""
        from model_store.bundle_store import BundleStore
        from training.evaluation.report import EvaluationReport

        started = time.perf_counter()
        trained = self._needed("train")
        inputs = self.publish_inputs(trained["inputs"])
        bundles = BundleStore(self.models)
        known = None if self.force else self.log.outcome("publish", inputs)
        if known is not None and known["version"] in bundles.versions():
            if bundles.active() is None:
                bundles.activate(known["version"])  # another active bundle is somebody's choice, and stays
            return _result("publish", started, known, skipped=True)
        outcome = None if self.force else self.log.outcome(_PUBLISHING, inputs)
        if outcome is not None and outcome["version"] in bundles.versions():
            # A process ended between writing it and noting so: it is whole, and written once. Where it has served
            # already another one is somebody's choice.
            evaluation = EvaluationReport.from_json(outcome["evaluation"])
            version = outcome["version"]
            served = bundles.was_active(version)
            self._take_up(version, trained["content_hash"], evaluation, self.checkpoints, activate=not served)
        else:
            outcome = self._publish(inputs, trained)
        self.log.record("publish", inputs, outcome, instead_of=_PUBLISHING)
        self.prune_snapshots()
        return _result("publish", started, outcome)

    def _publish(self, inputs: str, trained: dict[str, Any]) -> dict[str, Any]:
        from training.evaluate import evaluate
        from training.model import TrainedModel

        snapshot = self.snapshot(trained["content_hash"])
        model = TrainedModel.load(self.checkpoints)
        evaluation = evaluate(self.project, snapshot, model, progress=self.progress)
        outcome = {"trained": trained["inputs"], "evaluation": evaluation.to_json()}

        def begun(version: str) -> None:
            self.log.record(_PUBLISHING, inputs, {"version": version, **outcome})

        return {"version": self.activate(snapshot, model, evaluation, self.checkpoints, begun=begun), **outcome}

    def activate(
        self,
        snapshot: Snapshot,
        model: TrainedModel,
        evaluation: EvaluationReport,
        folder: Path,
        *,
        begun: Callable[[str], None] | None = None,
    ) -> str:
        """Write a bundle, make it the active one, and leave the report in ``folder``; returns the version.

        ``begun`` hears of the version when all is written and just before it is there.
        """
        from model_store.bundle_store import BundleStore
        from server.index.publish import build_indexes
        from training.publish import write_contents

        with BundleStore(self.models).writer(self.project.name) as writer:
            write_contents(writer, self.project, snapshot, model, evaluation, progress=self.progress)
            build_indexes(writer, self.project.settings.publish, progress=self.progress)
            if begun is not None:
                begun(writer.manifest.version)
            published = writer.commit()
        self._take_up(published, snapshot.content_hash, evaluation, folder)
        return published

    def _take_up(
        self, version: str, content_hash: str, evaluation: EvaluationReport, folder: Path, *, activate: bool = True
    ) -> None:
        """Make a bundle that is there the active one, and leave the report in ``folder``."""
        from model_store.bundle_store import BundleStore
        from training.evaluation.html_report import write_html
        from training.run_log import LOG

        bundles = BundleStore(self.models)
        if activate:
            bundles.activate(version)
        bundles.prune(self.project.settings.publish.keep)
        write_html(
            evaluation,
            folder / "evaluation.html",
            title=f"{self.project.name}: evaluation",
            facts={"bundle": version, "snapshot": content_hash},
            log=folder / LOG,
        )

    def train_inputs(self, content_hash: str) -> str:
        """Hash of what a training on this snapshot depends on."""
        settings = self.project.settings
        # Training draws from the neighbours that will be published.
        return _digest(content_hash, settings.training.model_dump_json(), str(settings.publish.max_neighbours))

    def publish_inputs(self, trained: str) -> str:
        """Hash of what publishing depends on, after a training of these inputs."""
        settings = self.project.settings
        return _digest(
            trained,
            settings.publish.of_the_bundle(),
            settings.evaluation.model_dump_json(),
            _judgements(self.project),
            _own_scorer(self.project),
            self.project.name,
        )

    def training_log(self, version: str) -> Path | None:
        """The log of the training that a bundle came from, unless another training has taken its place."""
        from training.run_log import LOG

        published, trained = self.log.last("publish"), self.log.last("train")
        if published is None or trained is None or published["version"] != version:
            return None
        return self.checkpoints / LOG if published.get("trained") == trained["inputs"] else None

    def prune_snapshots(self) -> None:
        """Remove the snapshots that neither the last steps nor any bundle came from."""
        from model_store.bundle_store import BundleStore
        from model_store.errors import ModelStoreError

        bundles = BundleStore(self.models)
        try:
            opened = [bundles.open(version, verify=False) for version in bundles.versions()]
        except ModelStoreError:
            return  # a damaged bundle does not say what it came from
        kept = {bundle.manifest.snapshot_hash for bundle in opened}
        kept |= {outcome["content_hash"] for step in ("export", "train") if (outcome := self.log.last(step))}
        for folder in self._snapshots.glob("[0-9a-f]*"):
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def snapshot(self, content_hash: str | None = None) -> Snapshot:
        """The snapshot of this hash, or the one that the last export made."""
        from training.export import Snapshot

        return Snapshot.open(self._snapshot_folder(content_hash or self._needed("export")["content_hash"]))

    @property
    def models(self) -> Path:
        """Folder of the bundles."""
        return self.project.work / "models"

    @property
    def _snapshots(self) -> Path:
        return self.project.work / "snapshots"

    @property
    def checkpoints(self) -> Path:
        """Folder of the last training."""
        return self.project.work / "checkpoints"

    def _snapshot_folder(self, content_hash: str) -> Path:
        return self._snapshots / content_hash

    def _needed(self, step: str) -> dict[str, Any]:
        outcome = self.log.last(step)
        if outcome is None:
            raise ConfigError(
                f"`kithkin {step}` has not run for {self.project.name}",
                hint="Run it, or `kithkin build` for all steps.",
            )
        return outcome


def ingest_sources(report: IngestReport) -> list[dict[str, Any]]:
    """What the ingest did, source by source, as JSON keeps it."""
    return [
        {
            "source": source.name,
            "rows": source.rows,
            "rejected": source.rejected,
            "rejects": str(source.rejects) if source.rejects else None,
            "merged": source.merged,
            "written": asdict(source.written),
            "warnings": list(source.warnings),
        }
        for source in report.sources
    ]


def _checks(report: IngestReport) -> dict[str, Any]:
    """The declared checks, where there are some."""
    from cli.checks_command import checks_json

    return {"checks": [checks_json(check) for check in report.checks]} if report.checks else {}


def _counts(store: GraphStore) -> dict[str, Any]:
    counts = store.counts()
    return {"nodes": counts.nodes, "edges": {str(triple): number for triple, number in counts.edges.items()}}


def _result(name: str, started: float, outcome: dict[str, Any], *, skipped: bool = False) -> StepResult:
    return StepResult(name=name, skipped=skipped, seconds=time.perf_counter() - started, outcome=outcome)


def _own_scorer(project: Project) -> str:
    """A hash of the file of ``training.neural.scorer``; a missing one is the training's to tell."""
    file = project.folder / (project.settings.training.neural.scorer or "")
    return _digest(file.read_bytes().hex()) if file.is_file() else ""


def _judgements(project: Project) -> str:
    """A hash over the files that the evaluation reads; a missing one is the evaluation's to tell."""
    digest = hashlib.blake2b(digest_size=16)
    for judged in project.settings.evaluation.judged:
        for name in (judged.file, judged.candidates):
            if name and (project.data / name).is_file():
                with (project.data / name).open("rb") as file:
                    digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def _digest(*parts: str) -> str:
    # Another version may read, train or write differently: after an upgrade every step runs once.
    digest = hashlib.blake2b(version("kithkin-service").encode(), digest_size=16)
    for part in parts:
        digest.update(part.encode())
        digest.update(b"\0")
    return digest.hexdigest()
