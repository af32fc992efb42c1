"""What a pass starts from, as one hash: files of another model or graph are not gone on with."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from model_store.features import FeatureTransforms
from training.graph import Graph
from training.space_model import SpaceModel


def fingerprint(model: SpaceModel, transforms: FeatureTransforms, graph: Graph, others: Any) -> str:
    """Hexadecimal SHA-256 of weights, settings, transforms and graph; ``others``: further plain values."""
    digest = hashlib.sha256()
    for part in (graph.content_hash, model.settings.model_dump_json(), model.shape, others, torch.__version__):
        digest.update(repr(part).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
    seen: dict[int, str] = {}
    for node_type, blocks in transforms.blocks.items():
        for block in blocks:
            for each in fields(block):  # type: ignore[arg-type]
                value = getattr(block, each.name)
                if isinstance(value, np.ndarray):
                    # Blocks of several types may share one array of factors.
                    if id(value) not in seen:
                        seen[id(value)] = hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()
                    value = seen[id(value)]
                digest.update(repr((node_type, each.name, value)).encode())
    return digest.hexdigest()
