"""Checkpoints of one space's training: written beside, then named, so that a kill leaves the last whole one."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import torch

from model_store.durable import naming
from training.space_model import SpaceModel

CHECKPOINT = "checkpoint.pt"


def fingerprint(*parts: Any) -> str:
    """Hash of what a training starts from (JSON values); a checkpoint of another start is not resumed."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save_tensors(path: Path, value: Any) -> None:
    """``torch.save``, whose own error tells of positions in the file: OSError with its name where the disk is full."""
    with naming(path), path.open("wb") as file:
        try:
            torch.save(value, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def save_checkpoint(
    folder: Path, model: SpaceModel, optimiser: torch.optim.Optimizer, *, step: int, loss: float, start: str
) -> None:
    """Write the state after ``step`` steps."""
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{CHECKPOINT}.part"
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": step,
        "loss": loss,
        "start": start,
        "settings": model.settings.model_dump_json(),
    }
    save_tensors(unfinished, state)
    unfinished.replace(folder / CHECKPOINT)


def load_checkpoint(
    folder: Path, model: SpaceModel, optimiser: torch.optim.Optimizer, *, start: str
) -> tuple[int, float]:
    """Restore the last checkpoint of the same start: its step and loss; (0, nan) where there is none to resume."""
    try:
        state = torch.load(folder / CHECKPOINT, weights_only=True, map_location=model.medians.device)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError):
        return 0, float("nan")
    if state.get("start") != start:
        return 0, float("nan")
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"]), float(state["loss"])
