"""The online encoders as ONNX graphs, compared with the torch encoder before they are published.

The graph is written operator by operator: torch's exporter takes five seconds an encoder, this takes milliseconds, and
the comparison holds either to the same result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from graph_store.schema import NodeRole
from model_store.durable import naming
from training.edge_inputs import LEAST_WEIGHT
from training.encoders import Convolution
from training.encoders.onnx_graph import OnnxEdges, OnnxGraph
from training.errors import EncoderMismatch
from training.space_model import OnlineEncoder, SpaceModel
from training.transductive.factor_model import FactorEncoder, FactorModel

TOLERANCE = 1e-5


def export_encoder(model: SpaceModel, node_type: str, path: Path, *, seed: int = 0) -> float:
    """Write one node type's encoder; returns the largest difference from torch, relative to the vectors' length.

    Compared are random batches with no, one and many neighbours. Raises EncoderMismatch above 1e-5.
    """
    model = model.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        if isinstance(model, FactorModel):
            onnx.save(model.online_onnx(node_type), str(path))
        else:
            onnx.save(EncoderGraph(model, node_type).build(), str(path))
    difference = _difference(model, node_type, path, seed)
    if not difference <= TOLERANCE:
        raise EncoderMismatch(
            f"encoder of {node_type} in the space {model.shape.name}: ONNX differs from torch by {difference:.2e}, "
            f"allowed are {TOLERANCE:.0e}",
            hint="Nothing was published. Another version of onnxruntime may compute it rightly.",
        )
    return difference


class EncoderGraph:
    """``OnlineEncoder.forward`` as ONNX operators; names and shapes as in docs/architecture.md."""

    def __init__(self, model: SpaceModel, node_type: str) -> None:
        self.model, self.node_type, self.graph = model, node_type, OnnxGraph()

    def build(self) -> Any:
        model, encoder, graph = self.model, self.model.encoder, self.graph
        features = graph.input("features", TensorProto.FLOAT, ["N", model.shape.widths[self.node_type]])
        state, focal = self._start(features)
        signals = ""
        if model.shape.signal_width:
            matrix = graph.constant(model.get_buffer(f"signals_of_{self.node_type}"))
            signals = graph.unit(graph.op("MatMul", features, matrix), 1e-12)
        if model.settings.layers:
            graph.input("edge_type", TensorProto.INT64, ["N", "K"])
            graph.input("weight", TensorProto.FLOAT, ["N", "K"])
            graph.input("mask", TensorProto.BOOL, ["N", "K"])
            for layer, width in enumerate(model.state_widths):
                graph.input(f"states_{layer}", TensorProto.FLOAT, ["N", "K", width])
            edges = self._edges()
            for layer, conv in enumerate(encoder.convs):
                assert isinstance(conv, Convolution)
                state = conv.to_onnx(graph, state, f"states_{layer}", edges, focal)
        self._finish(encoder.head_to_onnx(graph, self.node_type, features, state), state, signals)
        return graph.model(f"{model.shape.name}_{self.node_type}", {"vector": ["N", model.settings.dimension]})

    def _start(self, features: str) -> tuple[str, str]:
        """State of layer 0, and the focal state."""
        state = self.model.encoder.project_to_onnx(self.graph, self.node_type, features)
        return state, state

    def _edges(self) -> OnnxEdges:
        """``padded_edge_inputs``."""
        graph, medians = self.graph, self.model.medians
        least = graph.number(LEAST_WEIGHT)
        median = graph.op("Gather", graph.constant(medians), "edge_type")
        ratio = graph.op("Div", graph.op("Max", "weight", graph.number(0.0)), graph.op("Max", median, least))
        scaled = graph.op(
            "Div", graph.op("Log", graph.op("Add", ratio, graph.number(1.0))), graph.number(float(np.log(2.0)))
        )
        weighted = graph.op("Greater", median, graph.number(0.0))
        weight = graph.op("Where", weighted, scaled, graph.number(1.0))
        mask = graph.unsqueeze(graph.op("Cast", "mask", to=TensorProto.FLOAT), 2)
        same = graph.op("Equal", graph.unsqueeze("edge_type", 2), graph.integers(list(range(len(medians)))))
        member = graph.op("Mul", graph.op("Cast", same, to=TensorProto.FLOAT), mask)  # [N, K, edge types]
        raw = graph.op("Mul", graph.unsqueeze(graph.op("Max", "weight", least), 2), mask)  # [N, K, 1]
        total = graph.op("MatMul", graph.op("Transpose", member, perm=[0, 2, 1]), raw)  # [N, edge types, 1]
        inverse = graph.op("Div", graph.number(1.0), graph.op("Max", total, least))
        share = graph.op("Mul", raw, graph.op("MatMul", member, inverse))
        return OnnxEdges(type="edge_type", weight=graph.unsqueeze(weight, 2), share=share, mask=mask, member=member)

    def _finish(self, vector: str, state: str, signals: str) -> None:
        model, graph = self.model, self.graph
        if model.shape.inner_product:
            bias = graph.linear(state, model.encoder.bias[self.node_type])
            if model.shape.roles[self.node_type] == NodeRole.USER.value:
                vector = graph.op("Div", vector, graph.number(model.settings.temperature))
                zero = graph.op("Mul", bias, graph.number(0.0))
                bias = graph.op("Add", zero, graph.number(1.0))
            graph.op("Concat", vector, bias, axis=1, output="vector")
        elif signals:
            weighted = graph.op("Mul", signals, graph.number(model.settings.signals))
            joined = graph.op("Concat", vector, weighted, axis=1)
            graph.unit(graph.op("MatMul", joined, graph.constant(model.projection.T)), 1e-12, output="vector")
        else:
            graph.op("Identity", vector, output="vector")


def _difference(model: SpaceModel, node_type: str, path: Path, seed: int) -> float:
    import onnxruntime

    online = FactorEncoder(model, node_type) if isinstance(model, FactorModel) else OnlineEncoder(model, node_type)
    online.eval()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    rng = np.random.default_rng(seed + 1)
    worst = 0.0
    for nodes, slots, filled in ((1, 1, 0), (4, 1, 1), (2, 40, 40), (7, 12, 5), (1, 3, 1)):
        inputs = random_inputs(model, node_type, nodes=nodes, slots=slots, filled=filled, rng=rng)
        with torch.no_grad():
            expected = online(*(torch.from_numpy(each) for each in inputs)).numpy()
        found = session.run(["vector"], dict(zip(names, inputs, strict=True)))[0]
        scale = max(1.0, float(np.linalg.norm(expected, axis=1).max()))
        worst = max(worst, float(np.abs(found - expected).max()) / scale)
    return worst


def random_inputs(
    model: SpaceModel, node_type: str, *, nodes: int, slots: int, filled: int, rng: np.random.Generator
) -> list[NDArray[Any]]:
    """Inputs of an encoder in their order, with the first ``filled`` of the slots taken."""
    features = rng.standard_normal((nodes, model.shape.widths[node_type])).astype(np.float32) * np.float32(0.2)
    if not model.state_widths:
        return [features]
    edge_type = rng.integers(max(len(model.shape.edge_types), 1), size=(nodes, slots))
    weight = rng.exponential(2.0, (nodes, slots)).astype(np.float32)
    mask = np.broadcast_to(np.arange(slots) < filled, (nodes, slots)).copy()
    states = [
        rng.standard_normal((nodes, slots, width)).astype(np.float32) * np.float32(0.2) for width in model.state_widths
    ]
    return [features, edge_type, weight, mask, *states]
