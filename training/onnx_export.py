"""The online encoders as ONNX graphs, compared with the torch encoder before they are published.

The graph is written operator by operator: torch's exporter takes five seconds an encoder, this takes milliseconds, and
the comparison holds either to the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from graph_store.schema import NodeRole
from training.encoders.semantic_gnn import LARGEST_SCORE, SemanticConv
from training.errors import EncoderMismatch
from training.space_model import OnlineEncoder, SpaceModel

TOLERANCE = 1e-5
_OPSET = 20
_IR_VERSION = 10


def export_encoder(model: SpaceModel, node_type: str, path: Path, *, seed: int = 0) -> float:
    """Write one node type's encoder; returns the largest difference from torch, relative to the vectors' length.

    Compared are random batches with no, one and many neighbours. Raises EncoderMismatch above 1e-5.
    """
    model = model.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(_EncoderGraph(model, node_type).build(), str(path))
    difference = _difference(model, node_type, path, seed)
    if not difference <= TOLERANCE:
        raise EncoderMismatch(
            f"encoder of {node_type} in the space {model.shape.name}: ONNX differs from torch by {difference:.2e}, "
            f"allowed are {TOLERANCE:.0e}",
            hint="Nothing was published. Another version of onnxruntime may compute it rightly.",
        )
    return difference


class _EncoderGraph:
    """``OnlineEncoder.forward`` as ONNX operators; names and shapes as in docs/architecture.md."""

    def __init__(self, model: SpaceModel, node_type: str) -> None:
        self.model, self.node_type = model, node_type
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def build(self) -> Any:
        model, encoder = self.model, self.model.encoder
        inputs = [_input("features", TensorProto.FLOAT, ["N", model.shape.widths[self.node_type]])]
        state = self._gelu(self._linear("features", encoder.input[self.node_type]))
        signals = ""
        if model.shape.signal_width:
            matrix = self._constant(model.get_buffer(f"signals_of_{self.node_type}"))
            signals = self._unit(self._op("MatMul", "features", matrix), 1e-12)
        if model.settings.layers:
            inputs += [
                _input("edge_type", TensorProto.INT64, ["N", "K"]),
                _input("weight", TensorProto.FLOAT, ["N", "K"]),
                _input("mask", TensorProto.BOOL, ["N", "K"]),
            ]
            inputs += [
                _input(f"states_{layer}", TensorProto.FLOAT, ["N", "K", width])
                for layer, width in enumerate(model.state_widths)
            ]
            weight, mask, member = self._edges()
            for layer, conv in enumerate(encoder.convs):
                published = f"states_{layer}"
                if layer == 0 and signals:
                    published = self._slice(published, 0, model.settings.hidden)
                state = self._conv(conv, state, published, weight, mask, member)
            if signals:
                published = self._slice("states_0", model.settings.hidden, model.state_widths[0])
                signals = self._smoothed(signals, published, member)
        vector = self._op(
            "Add", self._linear(state, encoder.output), self._linear("features", encoder.skip[self.node_type])
        )
        self._finish(self._unit(vector, 1e-6), state, signals)
        output = helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["N", model.settings.dimension])
        graph = helper.make_graph(
            self._nodes, f"{model.shape.name}_{self.node_type}", inputs, [output], self._constants
        )
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="kithkin"
        )
        onnx.checker.check_model(made, full_check=True)
        return made

    def _edges(self) -> tuple[str, str, str]:
        """Scaled weights [N, K, 1], the mask [N, K, 1] and membership [N, K, edge types], as floats."""
        median = self._op("Gather", self._constant(self.model.medians), "edge_type")
        ratio = self._op(
            "Div", self._op("Max", "weight", self._number(0.0)), self._op("Max", median, self._number(1e-12))
        )
        scaled = self._op(
            "Div", self._op("Log", self._op("Add", ratio, self._number(1.0))), self._number(float(np.log(2.0)))
        )
        weighted = self._op("Greater", median, self._number(0.0))
        weight = self._op("Where", weighted, scaled, self._number(1.0))
        mask = self._op("Unsqueeze", self._op("Cast", "mask", to=TensorProto.FLOAT), self._integers([2]))
        kinds = self._integers(list(range(max(len(self.model.shape.edge_types), 1))))
        same = self._op("Equal", self._op("Unsqueeze", "edge_type", self._integers([2])), kinds)
        member = self._op("Mul", self._op("Cast", same, to=TensorProto.FLOAT), mask)
        return self._op("Unsqueeze", weight, self._integers([2])), mask, member

    def _conv(self, conv: nn.Module, state: str, neighbours: str, weight: str, mask: str, member: str) -> str:
        assert isinstance(conv, SemanticConv)
        heads, width = conv.heads, conv.width
        split, split_many = self._integers([0, heads, width]), self._integers([0, 0, heads, width])
        query = self._op("Reshape", self._linear(state, conv.query), split)
        key = self._op("Reshape", self._linear(neighbours, conv.key), split_many)
        value = self._op("Reshape", self._linear(neighbours, conv.value), split_many)
        key = self._op("Add", key, self._op("Gather", self._constant(conv.edge_key), "edge_type"))
        value = self._op("Add", value, self._op("Gather", self._constant(conv.edge_value), "edge_type"))
        product = self._op("Mul", self._op("Unsqueeze", query, self._integers([1])), key)
        score = self._op("Mul", self._sum(product, -1, keep=0), self._number(width**-0.5))
        slope = self._op("Gather", self._constant(conv.edge_weight), "edge_type")
        score = self._op("Add", score, self._op("Mul", slope, weight))
        exponent = self._op("Mul", self._exponent(score), mask)  # [N, K, heads]
        total = self._op("MatMul", self._op("Transpose", member, perm=[0, 2, 1]), exponent)  # [N, edge types, heads]
        present = self._op("Greater", total, self._number(0.0))

        relation = self._op("Reshape", self._linear(state, conv.relation_query), split)
        keys = self._constant(conv.relation_key.permute(1, 2, 0))  # [heads, width, edge types]
        # [heads, N, width] x [heads, width, edge types] -> [N, edge types, heads]
        scores = self._op("MatMul", self._op("Transpose", relation, perm=[1, 0, 2]), keys)
        scores = self._op("Transpose", scores, perm=[1, 2, 0])
        scores = self._op("Mul", scores, self._number(width**-0.5))
        scores = self._op("Add", scores, self._constant(conv.relation_bias))
        importance = self._op("Mul", self._exponent(scores), self._op("Cast", present, to=TensorProto.FLOAT))
        beta = self._op("Div", importance, self._op("Add", self._sum(importance, 1, keep=1), self._number(1.0)))

        share = self._op("Div", beta, self._op("Max", total, self._number(1e-30)))
        share = self._op("Where", present, share, self._number(0.0))
        share = self._op("Mul", exponent, self._op("MatMul", member, share))
        message = self._op("Mul", self._op("Unsqueeze", share, self._integers([3])), value)
        gathered = self._op("Reshape", self._sum(message, 1, keep=0), self._integers([0, heads * width]))
        return self._op("Add", state, self._linear(self._gelu(gathered), conv.output))

    def _smoothed(self, signals: str, neighbours: str, member: str) -> str:
        one = self._number(1.0)
        count = self._sum(member, 1, keep=0)  # [N, edge types]
        there = self._op("Cast", self._op("Greater", count, self._number(0.0)), to=TensorProto.FLOAT)
        present = self._op("Max", self._sum(there, 1, keep=1), one)
        share = self._op("Unsqueeze", self._op("Div", one, self._op("Max", count, one)), self._integers([2]))
        share = self._op("Div", self._op("MatMul", member, share), self._op("Unsqueeze", present, self._integers([2])))
        mean = self._sum(self._op("Mul", share, neighbours), 1, keep=0)
        scaled = self._op("Mul", mean, self._number(self.model.settings.smoothing))
        return self._unit(self._op("Add", signals, scaled), 1e-12)

    def _finish(self, vector: str, state: str, signals: str) -> None:
        model = self.model
        if model.shape.inner_product:
            bias = self._linear(state, model.encoder.bias[self.node_type])
            if model.shape.roles[self.node_type] == NodeRole.USER.value:
                vector = self._op("Div", vector, self._number(model.settings.temperature))
                zero = self._op("Mul", bias, self._number(0.0))
                bias = self._op("Add", zero, self._number(1.0))
            self._op("Concat", vector, bias, axis=1, output="vector")
        elif signals:
            weighted = self._op("Mul", signals, self._number(model.settings.signals))
            joined = self._op("Concat", vector, weighted, axis=1)
            self._unit(self._op("MatMul", joined, self._constant(model.projection.T)), 1e-12, output="vector")
        else:
            self._op("Identity", vector, output="vector")

    def _op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        name = output or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def _constant(self, value: Tensor | NDArray[Any]) -> str:
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _number(self, value: float) -> str:
        return self._constant(np.array(value, np.float32))

    def _integers(self, values: Sequence[int]) -> str:
        return self._constant(np.array(values, np.int64))

    def _linear(self, name: str, linear: nn.Module) -> str:
        assert isinstance(linear, nn.Linear)
        product = self._op("MatMul", name, self._constant(linear.weight.T))
        return product if linear.bias is None else self._op("Add", product, self._constant(linear.bias))

    def _gelu(self, name: str) -> str:
        return self._op("Gelu", name)

    def _exponent(self, name: str) -> str:
        return self._op("Exp", self._op("Clip", name, self._number(-LARGEST_SCORE), self._number(LARGEST_SCORE)))

    def _sum(self, name: str, axis: int, *, keep: int) -> str:
        return self._op("ReduceSum", name, self._integers([axis]), keepdims=keep)

    def _slice(self, name: str, start: int, stop: int) -> str:
        return self._op("Slice", name, self._integers([start]), self._integers([stop]), self._integers([-1]))

    def _unit(self, name: str, least: float, output: str = "") -> str:
        length = self._op("ReduceL2", name, self._integers([1]), keepdims=1)
        return self._op("Div", name, self._op("Max", length, self._number(least)), output=output)


def _input(name: str, kind: int, shape: list[str | int]) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _difference(model: SpaceModel, node_type: str, path: Path, seed: int) -> float:
    import onnxruntime

    online = OnlineEncoder(model, node_type).eval()
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
    if not model.settings.layers:
        return [features]
    edge_type = rng.integers(max(len(model.shape.edge_types), 1), size=(nodes, slots))
    weight = rng.exponential(2.0, (nodes, slots)).astype(np.float32)
    mask = np.broadcast_to(np.arange(slots) < filled, (nodes, slots)).copy()
    states = [
        rng.standard_normal((nodes, slots, width)).astype(np.float32) * np.float32(0.2) for width in model.state_widths
    ]
    return [features, edge_type, weight, mask, *states]
