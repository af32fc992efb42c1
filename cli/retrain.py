"""The daily job: new data in, a model from the last one's weights, and the gate that it has to pass."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format

from cli.steps import Pipeline

if TYPE_CHECKING:
    from training.evaluation.report import EvaluationReport
    from training.promotion import Decision

FOLDER = "retraining"
"""In the work folder: the training under way, which takes the place of ``checkpoints`` when it is promoted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Retraining:
    """What one run of the daily job did."""

    published: str | None
    """Version that was published and activated; None: the active bundle stays."""
    active: str | None
    """Version that serves now."""
    unchanged: bool
    """Nothing has changed since the active bundle was made, so nothing was trained."""
    reason: str
    seconds: float
    content_hash: str
    left_out: int = 0
    """Engagements older than the window."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of the training, by space; ``warm_tensors``: how many were taken over from the last one."""
    decision: Decision | None = None
    evaluation: EvaluationReport | None = None

    @property
    def refused(self) -> bool:
        """A model was trained and did not pass the gate."""
        return self.published is None and not self.unchanged

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "published": self.published,
            "active": self.active,
            "unchanged": self.unchanged,
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
            "content_hash": self.content_hash,
            "left_out": self.left_out,
            "metrics": self.metrics,
            "gate": None if self.decision is None else self.decision.to_json(),
            "evaluation": None if self.evaluation is None else self.evaluation.to_json(),
        }


def retrain(pipeline: Pipeline) -> Retraining:
    """Ingest, export, train within the window from the last weights, evaluate, and publish what passes the gate.

    A model that does not pass leaves everything as it was: the active bundle, and the weights that the next retraining
    starts from. Call it inside ``pipeline.alone()``.
    """
    from model_store.bundle_store import BundleStore
    from training.evaluate import evaluate
    from training.promotion import decide
    from training.train import train
    from training.window import Window

    started = time.perf_counter()
    project, settings = pipeline.project, pipeline.project.settings.retrain
    pipeline.ingest()
    content_hash = pipeline.export().outcome["content_hash"]
    bundles = BundleStore(pipeline.models)
    active = bundles.active()
    inputs = pipeline.train_inputs(content_hash)
    to_publish = pipeline.publish_inputs(inputs)
    done = pipeline.log.outcome("publish", to_publish)
    if done is not None and active is not None and done["version"] == active and not pipeline.force:
        return Retraining(
            published=None,
            active=active,
            unchanged=True,
            reason="nothing has changed since the active bundle was made",
            seconds=time.perf_counter() - started,
            content_hash=content_hash,
        )

    snapshot = pipeline.snapshot(content_hash)
    window = None if settings.window_days is None else Window(snapshot, settings.window_days)
    folder, last = project.work / FOLDER, pipeline.checkpoints
    model = train(
        project,
        snapshot if window is None else window,
        folder=folder,
        progress=pipeline.progress,
        resume=not pipeline.force,
        warm=last if settings.warm and last.is_dir() else None,
    )
    evaluation = evaluate(project, snapshot if window is None else window, model, progress=pipeline.progress)
    decision = decide(settings.gate, evaluation, None if active is None else _measured(bundles, active))
    published = None
    if decision.promoted:
        published = pipeline.activate(snapshot, model, evaluation, folder)
        pipeline.log.forget("train")
        shutil.rmtree(last, ignore_errors=True)
        folder.rename(last)
        outcome = {"inputs": inputs, "content_hash": content_hash, "metrics": model.metrics, "notes": list(model.notes)}
        pipeline.log.record("train", inputs, outcome)
        bundle = {"version": published, "trained": inputs, "evaluation": evaluation.to_json()}
        pipeline.log.record("publish", to_publish, bundle)
        pipeline.prune_snapshots()
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return Retraining(
        published=published,
        active=published or active,
        unchanged=False,
        reason=decision.reason,
        seconds=time.perf_counter() - started,
        content_hash=content_hash,
        left_out=0 if window is None else window.left_out,
        metrics=model.metrics,
        decision=decision,
        evaluation=evaluation,
    )


def _measured(bundles: Any, version: str) -> EvaluationReport | None:
    """What was measured of a bundle before it was published; None where nothing was."""
    from training.evaluation.report import EvaluationReport

    document = json_format.MessageToDict(bundles.open(version, verify=False).manifest.evaluation)
    return EvaluationReport.from_json(document) if document else None
