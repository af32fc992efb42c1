"""What training leaves: the fitted transforms and a model per space, saved without pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from graph_store.schema import Triple
from graph_store.settings import SpaceSettings
from model_store.csr import EdgeType
from model_store.durable import naming
from model_store.features import FeatureTransforms
from training.checkpoint import save_tensors
from training.errors import CheckpointError
from training.space_model import SpaceModel, SpaceShape
from training.transductive.factor_model import TRANSDUCTIVE, FactorModel

FORMAT_VERSION = 1
_DOCUMENT = "model.json"
NEURAL = "neural"
"""Folder of the neural scorer beside those of the spaces."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """Transforms and space models, with the configuration they came from."""

    transforms: FeatureTransforms
    spaces: dict[str, SpaceModel]
    configuration: dict[str, Any] = field(default_factory=dict)
    """The resolved training settings."""
    notes: tuple[str, ...] = ()
    """What was left out, and why, in sentences."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """Per space: steps, last loss, seconds; of the neural scorer under ``neural``."""
    neural: Path | None = None
    """Folder of the neural scorer's files, where one was trained."""

    def summary(self) -> dict[str, Any]:
        """Plain values for a log: per space its steps, last loss and seconds, and the notes."""
        return {"spaces": {name: self.metrics.get(name, {}) for name in self.spaces}, "notes": list(self.notes)}

    def save(self, folder: Path) -> None:
        """Write ``features/``, ``<space>/weights.pt`` and ``model.json`` into a folder."""
        self.transforms.save(folder / "features")
        for name, model in self.spaces.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            save_tensors(folder / name / "weights.pt", model.state_dict())
        document = {
            "format_version": FORMAT_VERSION,
            "configuration": self.configuration,
            "notes": list(self.notes),
            "metrics": self.metrics,
            "neural": self.neural is not None,
            "spaces": {name: _describe(model) for name, model in self.spaces.items()},
        }
        # Last: a folder with this file is whole.
        unfinished = folder / f"{_DOCUMENT}.part"
        with naming(folder / _DOCUMENT):
            unfinished.write_text(json.dumps(document, indent=1), encoding="utf-8")
            unfinished.replace(folder / _DOCUMENT)

    @classmethod
    def load(cls, folder: Path) -> TrainedModel:
        """Read what ``save`` wrote. Raises CheckpointError."""
        try:
            document = json.loads((folder / _DOCUMENT).read_text(encoding="utf-8"))
            if document["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format {document['format_version']} is not known")
            spaces = {}
            for name, described in document["spaces"].items():
                model = space_model(shape_of(described["shape"]), SpaceSettings(**described["settings"]))
                model.load_state_dict(torch.load(folder / name / "weights.pt", weights_only=True, map_location="cpu"))
                spaces[name] = model.eval()
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise CheckpointError(
                f"{folder}: no trained model can be read there: {error}", hint="Train again: `kithkin train`."
            ) from error
        return cls(
            transforms=FeatureTransforms.load(folder / "features"),
            spaces=spaces,
            configuration=document["configuration"],
            notes=tuple(document["notes"]),
            metrics=document["metrics"],
            neural=folder / NEURAL if document.get("neural") else None,
        )


def _describe(model: SpaceModel) -> dict[str, Any]:
    return {"settings": model.settings.model_dump(mode="json"), "shape": describe_shape(model.shape)}


def describe_shape(shape: SpaceShape) -> dict[str, Any]:
    """A shape as plain values."""
    return {**asdict(shape), "edge_types": [[*each.triple, each.reversed] for each in shape.edge_types]}


def shape_of(described: dict[str, Any]) -> SpaceShape:
    """The shape that ``describe_shape`` described."""
    fields = dict(described)
    fields["edge_types"] = tuple(EdgeType(Triple(*each[:3]), bool(each[3])) for each in fields["edge_types"])
    fields["medians"] = tuple(fields["medians"])
    fields["blocks"] = {name: tuple(sizes) for name, sizes in fields["blocks"].items()}
    return SpaceShape(**fields)


def space_model(shape: SpaceShape, settings: SpaceSettings) -> SpaceModel:
    """The model of a space before training: which kind follows from the setting ``encoder``."""
    return (FactorModel if settings.encoder in TRANSDUCTIVE else SpaceModel)(shape, settings)
