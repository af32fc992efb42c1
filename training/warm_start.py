"""Weights of an earlier training as the start of the next."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from model_store.durable import sha256
from training.errors import CheckpointError
from training.space_model import SpaceModel


def warm_fingerprint(folder: Path) -> str:
    """What the weights of a training's folder are known by: a training begun from others is not resumed."""
    return " ".join(sha256(each) for each in sorted(folder.glob("*/weights.pt")))


def warm_start(model: SpaceModel, folder: Path) -> int:
    """Copy the weights of ``<folder>/weights.pt`` whose name and shape are the model's; how many tensors these are.

    Vectors learned for single nodes are left out: node i of another snapshot is another node. Signals and projection
    are fitted anew in any case. 0 where nothing was trained there. Raises CheckpointError for a damaged file.
    """
    file = folder / "weights.pt"
    try:
        earlier = torch.load(file, weights_only=True, map_location=model.medians.device)
    except FileNotFoundError:
        return 0
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"{file} cannot be read: {error}", hint="Remove it, or retrain without a warm start (retrain.warm = false)."
        ) from error
    taken = 0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            found = earlier.get(name)
            if found is not None and found.shape == parameter.shape and ".learned." not in f".{name}":
                parameter.copy_(found)
                taken += 1
    return taken
