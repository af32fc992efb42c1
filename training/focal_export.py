"""What a bundle needs for a user's vector around a context (ZOOMER): an encoder, relevance vectors, focal vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from torch import Tensor, nn

from kithkin.v1 import bundle_pb2
from model_store.durable import naming
from model_store.writer import BundleWriter
from training.edge_inputs import padded_edge_inputs
from training.encoders.zoomer import ZoomerEncoder
from training.errors import EncoderMismatch
from training.graph import Graph
from training.neighbourhoods import MostRelevant, neighbourhoods
from training.node_features import NodeFeatures
from training.onnx_export import TOLERANCE, EncoderGraph, random_inputs
from training.space_model import SpaceModel

_NODES_AT_ONCE = 8192


def has_focal_point(model: SpaceModel, user_type: str) -> bool:
    """Whether a user's vector can be computed around a context.

    The space's encoder has to be ZOOMER's with neighbours by region of interest, and users must have no learned
    vectors, which no exported encoder reads.
    """
    return (
        isinstance(model.encoder, ZoomerEncoder)
        and model.settings.sampler == "region_of_interest"
        and model.settings.layers > 0
        and user_type not in model.encoder.learned
    )


def write_focal(
    writer: BundleWriter,
    manifest: bundle_pb2.SpaceManifest,
    model: SpaceModel,
    features: NodeFeatures,
    graph: Graph,
    user_types: tuple[str, ...],
) -> None:
    """Publish what users of these types are encoded from around a context; nothing where there is no focal point.

    Raises EncoderMismatch where an exported encoder does not compute what the trained one does.
    """
    able = [each for each in user_types if has_focal_point(model, each)]
    if not able:
        return
    name, near = model.shape.name, neighbourhoods(graph, model.settings)
    assert isinstance(near, MostRelevant)
    manifest.focal.relevance = model.settings.relevance
    manifest.focal.fan_out = model.settings.fan_out
    for node_type in graph.schema.node_types:
        count = graph.num_nodes(node_type.name)
        writer.write_relevance(name, node_type.name, near.vectors[node_type.name])
        plain = np.empty((count, model.settings.hidden), np.float32)
        for first in range(0, count, _NODES_AT_ONCE):
            last = min(first + _NODES_AT_ONCE, count)
            plain[first:last] = _plain(model, node_type.name, features.part(node_type.name, first, last), first, last)
        writer.write_focal(name, node_type.name, plain)
        manifest.focal.node_types.append(node_type.name)
    for user_type in able:
        path = writer.focal_encoder_path(name, user_type)
        difference = export_focal_encoder(model, user_type, path)
        manifest.focal.encoders.add(
            node_type=user_type,
            onnx=path.relative_to(writer.folder).as_posix(),
            feature_width=model.shape.widths[user_type],
            max_difference=difference,
        )


def export_focal_encoder(model: SpaceModel, node_type: str, path: Path, *, seed: int = 0) -> float:
    """Write the encoder of a user type around a context; returns the largest difference from torch.

    Inputs are those of the space's encoder, then ``context_vector`` and ``context_state`` float32 [N, hidden], the sums
    of the context's focal vectors and of its states of layer 0; zeros: no context. Raises EncoderMismatch above 1e-5.
    """
    model = model.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        onnx.save(_FocalGraph(model, node_type).build(), str(path))
    difference = _difference(model, node_type, path, seed)
    if not difference <= TOLERANCE:
        raise EncoderMismatch(
            f"focal encoder of {node_type} in the space {model.shape.name}: ONNX differs from torch by "
            f"{difference:.2e}, allowed are {TOLERANCE:.0e}",
            hint="Nothing was published. Another version of onnxruntime may compute it rightly.",
        )
    return difference


class FocalEncoder(nn.Module):
    """``OnlineEncoder`` with a context beside the node as focal point."""

    def __init__(self, model: SpaceModel, node_type: str) -> None:
        super().__init__()
        self.model, self.node_type = model, node_type

    def forward(
        self,
        features: Tensor,
        edge_type: Tensor,
        weight: Tensor,
        mask: Tensor,
        context_vector: Tensor,
        context_state: Tensor,
        *states: Tensor,
    ) -> Tensor:
        """Vectors [N, dimension]."""
        model, encoder = self.model, self.model.encoder
        assert isinstance(encoder, ZoomerEncoder)
        focal = encoder.plain(self.node_type, features) + context_vector
        state = encoder.project(self.node_type, features, None, focal)
        focal = state + context_state
        edges = padded_edge_inputs(edge_type, weight, mask, model.medians)
        for conv, published in zip(encoder.convs, states, strict=True):
            state = conv.forward_padded(state, published, edges, focal)  # type: ignore[operator]
        bias = encoder.bias[self.node_type](state)[:, 0]
        signals = model.signals(self.node_type, features)
        return model.finish(self.node_type, encoder.head(self.node_type, features, state), bias, signals)


class _FocalGraph(EncoderGraph):
    """``FocalEncoder.forward`` as ONNX operators."""

    def _start(self, features: str) -> tuple[str, str]:
        hidden = self.model.settings.hidden
        vector = self.graph.input("context_vector", TensorProto.FLOAT, ["N", hidden])
        added = self.graph.input("context_state", TensorProto.FLOAT, ["N", hidden])
        encoder = self.model.encoder
        assert isinstance(encoder, ZoomerEncoder)
        state = encoder.project_to_onnx(self.graph, self.node_type, features, vector)
        return state, self.graph.op("Add", state, added)


@torch.no_grad()
def _plain(
    model: SpaceModel, node_type: str, features: NDArray[np.float32], first: int, last: int
) -> NDArray[np.float32]:
    encoder = model.encoder
    assert isinstance(encoder, ZoomerEncoder)
    rows = torch.arange(first, last) if node_type in encoder.learned else None
    found: NDArray[np.float32] = encoder.plain(node_type, torch.from_numpy(features), rows).numpy()
    return found


def _difference(model: SpaceModel, node_type: str, path: Path, seed: int) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    online, rng = FocalEncoder(model, node_type).eval(), np.random.default_rng(seed + 2)
    names: list[str] = ["features", "edge_type", "weight", "mask", "context_vector", "context_state"]
    names += [f"states_{layer}" for layer in range(model.settings.layers)]
    worst = 0.0
    for nodes, slots, filled, size in ((1, 1, 0, 0.0), (4, 1, 1, 0.3), (2, 40, 40, 0.1), (3, 12, 5, 0.0)):
        inputs: list[NDArray[Any]] = random_inputs(model, node_type, nodes=nodes, slots=slots, filled=filled, rng=rng)
        context = [(size * rng.standard_normal((nodes, model.settings.hidden))).astype(np.float32) for _ in range(2)]
        inputs[4:4] = context
        with torch.no_grad():
            expected = online(*(torch.from_numpy(each) for each in inputs)).numpy()
        found = session.run(["vector"], dict(zip(names, inputs, strict=True)))[0]
        scale = max(1.0, float(np.linalg.norm(expected, axis=1).max()))
        worst = max(worst, float(np.abs(found - expected).max()) / scale)
    return worst
