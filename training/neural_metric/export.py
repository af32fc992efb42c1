"""Our neural score as an ONNX file, written operator by operator; ``model_store.onnx_scorer`` says what is in one."""

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

from model_store.onnx_scorer import OnnxScorer, random_inputs
from training.errors import EncoderMismatch
from training.neural_metric.scorer import LARGEST_LOGIT, NeuralScorer, UserTower

TOLERANCE = 1e-5
_OPSET = 20
_IR_VERSION = 10


def export_scorer(scorer: NeuralScorer, path: Path, *, seed: int = 0) -> float:
    """Write a scorer's ONNX file; returns the largest difference from torch, relative to the largest score.

    Compared are random users with no, one, many and all slots of events. Raises EncoderMismatch above 1e-5.
    """
    scorer = scorer.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(_ScorerGraph(scorer).build(), str(path))
    difference = _difference(scorer, path, seed)
    if not difference <= TOLERANCE:
        raise EncoderMismatch(
            f"the neural scorer: ONNX differs from torch by {difference:.2e}, allowed are {TOLERANCE:.0e}",
            hint="Another version of onnxruntime may compute it rightly.",
        )
    return difference


def _difference(scorer: NeuralScorer, path: Path, seed: int) -> float:
    loaded = OnnxScorer(path, scorer.settings.dimension)
    rng = np.random.default_rng(seed + 1)
    slots = scorer.settings.events
    worst = 0.0
    for wide, filled, count in ((1, 0, 3), (slots, 0, 2), (slots, 1, 7), (slots, slots // 2, 40), (slots, slots, 1)):
        events, mask, candidates = random_inputs(scorer.settings.dimension, wide, min(filled, wide), count, rng)
        with torch.no_grad():
            given = (torch.from_numpy(each) for each in (events[None], mask[None], candidates))
            expected = scorer(*given)[0].numpy()
        scale = max(1.0, float(np.abs(expected).max()))
        worst = max(worst, float(np.abs(loaded(events, mask, candidates) - expected).max()) / scale)
    return worst


class _ScorerGraph:
    """``NeuralScorer.forward`` for one user as ONNX operators."""

    def __init__(self, scorer: NeuralScorer) -> None:
        self.scorer = scorer
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def build(self) -> Any:
        scorer, d = self.scorer, self.scorer.settings.dimension
        there = self._op("Cast", "mask", to=TensorProto.FLOAT)  # [1, T]
        column = self._op("Unsqueeze", there, self._integers([2]))
        # A vector in an empty slot is anyone's guess, and may not be a number.
        empty = self._op("Not", self._op("Unsqueeze", "mask", self._integers([2])))
        events = self._op("Where", empty, self._number(0.0), "events")
        later = self._op("CumSum", there, self._constant(np.array(1, np.int64)), exclusive=1, reverse=1)
        # As many events count as the scorer was trained with: older ones are closed.
        age = self._op("Cast", later, to=TensorProto.INT64)
        known = self._op("Less", age, self._constant(np.array(scorer.settings.events, np.int64)))
        column = self._op("Mul", column, self._op("Unsqueeze", self._float(known), self._integers([2])))
        events = self._op("Mul", events, column)
        age = self._op("Min", age, self._constant(np.array(scorer.settings.events - 1, np.int64)))

        user = self._user(scorer.user, events, column, age)  # [1, d]
        attended = self._attended(events, column, age)  # [N, d]
        pair = self._op(
            "Concat",
            attended,
            self._op("Mul", "candidates", attended),
            self._op("Mul", "candidates", user),
            axis=1,
        )
        hidden = self._op("Add", self._linear("candidates", scorer.of_candidate), self._linear(user, scorer.of_user))
        hidden = self._op("Gelu", self._op("Add", hidden, self._linear(pair, scorer.of_pair)))
        hidden = self._op("Gelu", self._linear(hidden, scorer.inner))
        score = self._op("Add", self._linear(hidden, scorer.outer), self._linear("candidates", scorer.skip_candidate))
        score = self._op("Add", score, self._linear(pair, scorer.skip_pair))
        self._op("Squeeze", score, self._integers([1]), output="scores")

        inputs = [
            helper.make_tensor_value_info("events", TensorProto.FLOAT, [1, "T", d]),
            helper.make_tensor_value_info("mask", TensorProto.BOOL, [1, "T"]),
            helper.make_tensor_value_info("candidates", TensorProto.FLOAT, ["N", d]),
        ]
        output = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N"])
        graph = helper.make_graph(self._nodes, "neural_scorer", inputs, [output], self._constants)
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="kithkin"
        )
        onnx.checker.check_model(made, full_check=True)
        return made

    def _user(self, tower: UserTower, events: str, column: str, age: str) -> str:
        recency = self._op("Gather", self._constant(tower.recency), age)  # [1, T, heads]
        logits = self._op("Add", self._linear(events, tower.key), recency)
        bound = (self._number(-LARGEST_LOGIT), self._number(LARGEST_LOGIT))
        exponent = self._op("Mul", self._op("Exp", self._op("Clip", logits, *bound)), column)
        total = self._op("Add", self._sum(exponent, 1, keep=1), self._number(1.0))
        share = self._op("Unsqueeze", self._op("Div", exponent, total), self._integers([3]))
        values = self._op("Reshape", self._linear(events, tower.value), self._split(tower.heads, tower.value))
        pooled = self._sum(self._op("Mul", share, values), 1, keep=0)  # [1, heads, d / heads]
        pooled = self._op("Reshape", pooled, self._integers([1, -1]))
        count = self._op("Max", self._sum(column, 1, keep=0), self._number(1.0))
        joined = self._op("Concat", pooled, self._op("Div", self._sum(events, 1, keep=0), count), axis=1)
        inner = self._op("Gelu", self._linear(joined, tower.inner))
        return self._op("Add", self._linear(inner, tower.outer), self._linear(joined, tower.skip))

    def _attended(self, events: str, column: str, age: str) -> str:
        scorer, heads = self.scorer, self.scorer.heads
        width = scorer.settings.dimension // heads
        split = self._integers([-1, heads, width])
        # The one user's events without the first axis; heads first.
        key = self._op("Add", self._linear(events, scorer.key), self._op("Gather", self._constant(scorer.recency), age))
        key = self._op("Transpose", self._op("Reshape", key, split), perm=[1, 2, 0])  # [heads, width, T]
        value = self._op("Reshape", self._linear(events, scorer.value), split)
        value = self._op("Transpose", value, perm=[1, 0, 2])  # [heads, T, width]
        query = self._op("Reshape", self._linear("candidates", scorer.query), split)
        query = self._op("Transpose", query, perm=[1, 0, 2])  # [heads, N, width]
        logits = self._op("Mul", self._op("MatMul", query, key), self._number(width**-0.5))  # [heads, N, T]
        # Softmax with a slot of logit 0 that is nobody: the maximum is taken off, at least 0.
        there = self._op("Transpose", column, perm=[0, 2, 1])  # [1, 1, T]
        closed = self._op("Mul", self._op("Sub", there, self._number(1.0)), self._number(1e30))
        logits = self._op("Add", logits, closed)
        highest = self._op("ReduceMax", logits, self._integers([2]), keepdims=1)
        highest = self._op("Max", highest, self._number(0.0))
        exponent = self._op("Exp", self._op("Sub", logits, highest))
        nobody = self._op("Exp", self._op("Neg", highest))
        total = self._op("Add", self._sum(exponent, 2, keep=1), nobody)
        found = self._op("MatMul", self._op("Div", exponent, total), value)  # [heads, N, width]
        return self._op("Reshape", self._op("Transpose", found, perm=[1, 0, 2]), self._integers([-1, heads * width]))

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

    def _linear(self, name: str, linear: nn.Linear) -> str:
        product = self._op("MatMul", name, self._constant(linear.weight.T))
        return product if linear.bias is None else self._op("Add", product, self._constant(linear.bias))

    def _sum(self, name: str, axis: int, *, keep: int) -> str:
        return self._op("ReduceSum", name, self._integers([axis]), keepdims=keep)

    def _float(self, name: str) -> str:
        return self._op("Cast", name, to=TensorProto.FLOAT)

    def _split(self, heads: int, linear: nn.Linear) -> str:
        return self._integers([1, -1, heads, linear.out_features // heads])
