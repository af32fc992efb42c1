"""Clicks given views on MovieLens 100K: what the vectors of the click network (GraphSAGE) add to click models.

    python -m benchmarks.clicks --data FOLDER_OF_ML_100K

``gain``: both click models without and with the vectors, three seeds, both splits. ``network``: the network's own
ROC-AUC over layers and fan-outs. ``learning``: what it learns from, with the logistic regression alone. Nothing is
chosen by looking at the test rows.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import roc_auc_score

from benchmarks._results import Results
from cli.steps import Pipeline
from graph_store.progress import NoProgress
from graph_store.project import Project, load_project
from graph_store.settings import ClickNetworkSettings
from training.clicks import ClickFrame
from training.clicks.click_models import LOGISTIC_REGRESSION
from training.clicks.data import How
from training.clicks.fit import fit_network
from training.clicks.protocol import WITH, WITHOUT, evaluate_frame
from training.export import Snapshot

EXAMPLE = Path(__file__).parent.parent / "examples" / "ml-100k"
SPLITS: tuple[How, ...] = ("per_user", "global")
SEEDS = (1, 2, 3)
RESAMPLINGS = 1000

NETWORKS: tuple[Mapping[str, Any], ...] = (
    {"layers": 0},
    {"layers": 1},
    {"layers": 2},
    {"layers": 3},
    {"layers": 1, "fan_out": [5]},
    {"layers": 1, "fan_out": [10]},
    {"layers": 1, "fan_out": [25]},
    {"layers": 2, "fan_out": [5, 2]},
    {"layers": 2, "fan_out": [10, 3]},
)
"""Fan-out absent: all neighbours."""
LEARNING: tuple[Mapping[str, Any], ...] = (
    {"windows": 0},
    {"windows": 1},
    {"windows": 2},
    {"learned": False},
    {"last": 20},
    {"concepts": True},
)


def main() -> None:
    """Measure what is not measured yet, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of ml-100k.inter and the others; default: KITHKIN_DATA")
    parser.add_argument("--work", type=Path, help="folder for store and snapshot, kept; default: a temporary one")
    parser.add_argument("--part", choices=("gain", "network", "learning"), action="append", help="default: all")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="of the parts network and learning")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="measure anew")
    options = parser.parse_args()
    data = _found(options.data)
    if data is None:
        print("clicks: skipped, no folder with ml-100k.inter: give --data or KITHKIN_DATA")
        return
    torch.set_num_threads(options.threads)
    results = Results("clicks", again=options.again)
    with tempfile.TemporaryDirectory() as temporary:
        project, snapshot = _snapshot(data, options.work or Path(temporary))
        parts = options.part or ("gain", "network", "learning")
        frames = {how: ClickFrame.of(snapshot, project.settings.evaluation.clicks[0], how) for how in SPLITS}
        if "gain" in parts:
            for how in SPLITS:
                for seed in SEEDS:
                    settings = {"part": "gain", "split": how, "seed": seed}
                    row = results.row(settings, lambda how=how, seed=seed: _gain(frames[how], seed))  # type: ignore[misc]
                    _print_gain(how, seed, row)
        for part, variants in (("network", NETWORKS), ("learning", LEARNING)):
            if part not in parts:
                continue
            for seed in SEEDS[: options.seeds]:
                for variant in variants:
                    settings = {"part": part, "split": "per_user", "seed": seed, **variant}
                    if part == "network":
                        row = results.row(
                            settings,
                            lambda variant=variant, seed=seed: _network(frames["per_user"], variant, seed),  # type: ignore[misc]
                        )
                    else:
                        row = results.row(
                            settings,
                            lambda variant=variant, seed=seed: _learning(frames["per_user"], variant, seed),  # type: ignore[misc]
                        )
                    shown = {key: value for key, value in row.items() if isinstance(value, (int, float))}
                    print(f"{part} {dict(variant)} seed {seed}: {shown}", flush=True)


def _found(given: Path | None) -> Path | None:
    """The folder given, or ``ml-100k-kg`` in it or in KITHKIN_DATA; None where the data is not there."""
    root = given or Path(os.environ.get("KITHKIN_DATA", "."))
    return next((each for each in (root, root / "ml-100k-kg") if (each / "ml-100k.item").exists()), None)


def _snapshot(data: Path, work: Path) -> tuple[Project, Snapshot]:
    """The data set through ingest and export, as ``kithkin build`` does it."""
    arguments, sys.argv = sys.argv, ["prepare.py", str(data.resolve()), str((work / "data").resolve())]
    try:
        runpy.run_path(str(EXAMPLE / "prepare.py"), run_name="__main__")
    finally:
        sys.argv = arguments
    overrides = {"work": str((work / "work").resolve()), "data": str((work / "data").resolve())}
    project = load_project(EXAMPLE, overrides=overrides)
    pipeline = Pipeline(project, NoProgress())
    with pipeline.alone():
        pipeline.ingest()
        pipeline.export()
    return project, pipeline.snapshot()


def _gain(frame: ClickFrame, seed: int) -> dict[str, Any]:
    fitted = fit_network(frame, ClickNetworkSettings(), seed=seed)
    report = evaluate_frame(frame, fitted, resamplings=RESAMPLINGS, seed=seed)
    best = {
        columns: max(each.auc.mean for each in report.scored if each.columns == columns)
        for columns in (WITHOUT, WITH, "")
    }
    return {
        **report.to_json(),
        "without": round(best[WITHOUT], 5),
        "with": round(best[WITH], 5),
        "alone": round(best[""], 5),
        "points": round(100 * report.gain.mean, 3),
        "low": round(100 * report.gain.low, 3),
        "high": round(100 * report.gain.high, 3),
    }


def _network(frame: ClickFrame, variant: Mapping[str, Any], seed: int) -> dict[str, Any]:
    fitted = fit_network(frame, ClickNetworkSettings(**variant), seed=seed)
    begun = time.monotonic()
    scores = fitted.vectors(frame, frame.split.earlier, frame.split.test)[2]
    return {
        "auc": round(float(roc_auc_score(frame.split.test.clicked, scores)), 5),
        "validated": round(fitted.validated, 5),
        "epochs": fitted.epochs,
        "seconds": fitted.seconds,
        "inference_seconds": round(time.monotonic() - begun, 2),
    }


def _learning(frame: ClickFrame, variant: Mapping[str, Any], seed: int) -> dict[str, Any]:
    fitted = fit_network(frame, ClickNetworkSettings(**variant), seed=seed)
    report = evaluate_frame(frame, fitted, resamplings=RESAMPLINGS, seed=seed, models=(LOGISTIC_REGRESSION,))
    areas = {each.columns: each for each in report.scored}
    return {
        "without": round(areas[WITHOUT].auc.mean, 5),
        "with": round(areas[WITH].auc.mean, 5),
        "alone": round(areas[""].auc.mean, 5),
        "validated": round(fitted.validated, 5),
        "points": round(100 * report.gain.mean, 3),
        "low": round(100 * report.gain.low, 3),
        "high": round(100 * report.gain.high, 3),
        "epochs": fitted.epochs,
        "seconds": fitted.seconds,
    }


def _print_gain(how: str, seed: int, row: Mapping[str, Any]) -> None:
    print(f"{how}, seed {seed}: {row['points']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}] points")
    for each in row["scored"]:
        new = [f"{value:.4f}" if value is not None else "-" for value in (each["new_users"], each["new_entities"])]
        print(f"  {each['model']:20} {each['columns']:16} {each['auc'][0]:.4f}  new users {new[0]}, films {new[1]}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
