"""An ONNX graph written operator by operator: torch's exporter takes five seconds an encoder, this milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

_OPSET = 20
_IR_VERSION = 10


@dataclass(frozen=True, kw_only=True)
class OnnxEdges:
    """Names of the values that stand for ``PaddedEdges``."""

    type: str
    """int64 [N, K]."""
    weight: str
    """[N, K, 1], log-scaled."""
    share: str
    """[N, K, 1], 0 in empty slots."""
    mask: str
    """[N, K, 1], 0 or 1."""
    member: str
    """[N, K, edge types], 1 where a filled slot is of the type."""


class OnnxGraph:
    """Collects operators and constants; every method takes names of values and returns the name of its result."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []

    def input(self, name: str, kind: int, shape: Sequence[str | int]) -> str:
        """Declare an input of the graph; ``kind`` is a ``TensorProto`` type."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def model(self, name: str, outputs: dict[str, Sequence[str | int]]) -> Any:
        """The checked ``ModelProto``; ``outputs`` are float values with their shapes."""
        made = [helper.make_tensor_value_info(each, TensorProto.FLOAT, list(shape)) for each, shape in outputs.items()]
        graph = helper.make_graph(self._nodes, name, self._inputs, made, self._constants)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="kithkin"
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """One operator."""
        name = output or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Tensor | NDArray[Any]) -> str:
        """A tensor that is part of the model."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def number(self, value: float) -> str:
        """A float constant."""
        return self.constant(np.array(value, np.float32))

    def integers(self, values: Sequence[int]) -> str:
        """An int64 constant [n]."""
        return self.constant(np.array(values, np.int64))

    def linear(self, name: str, linear: nn.Module) -> str:
        """``nn.Linear`` over the last axis."""
        assert isinstance(linear, nn.Linear)
        product = self.op("MatMul", name, self.constant(linear.weight.T))
        return product if linear.bias is None else self.op("Add", product, self.constant(linear.bias))

    def gelu(self, name: str) -> str:
        """``F.gelu``, the exact one."""
        return self.op("Gelu", name)

    def clipped_exp(self, name: str, largest: float) -> str:
        """``exp(clamp(x, -largest, largest))``."""
        return self.op("Exp", self.op("Clip", name, self.number(-largest), self.number(largest)))

    def sum(self, name: str, axis: int, *, keep: int) -> str:
        """Sum over one axis."""
        return self.op("ReduceSum", name, self.integers([axis]), keepdims=keep)

    def slice(self, name: str, start: int, stop: int) -> str:
        """Columns ``start`` to ``stop`` of the last axis."""
        return self.op("Slice", name, self.integers([start]), self.integers([stop]), self.integers([-1]))

    def unsqueeze(self, name: str, axis: int) -> str:
        """A new axis of length 1."""
        return self.op("Unsqueeze", name, self.integers([axis]))

    def unit(self, name: str, least: float, output: str = "") -> str:
        """Rows [N, d] divided by their length, or by ``least`` where they are shorter."""
        length = self.op("ReduceL2", name, self.integers([1]), keepdims=1)
        return self.op("Div", name, self.op("Max", length, self.number(least)), output=output)
