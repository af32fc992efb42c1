"""Neural scores as ONNX files: ours written operator by operator, anyone's loaded and checked.

A scorer file has these inputs and this output; N (candidates) and T (event slots) may be any number in each call, N and
T at least 1, d is the length of the entities' vectors:

    events      float32 [1, T, d]   vectors of one user's events, oldest first
    mask        bool    [1, T]      false: an empty slot, whose vector is ignored
    candidates  float32 [N, d]      vectors of the entities to score
    scores      float32 [N]         the higher the better
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

from training.errors import EncoderMismatch, TrainingError
from training.neural_metric.scorer import LARGEST_LOGIT, NeuralScorer, UserTower

TOLERANCE = 1e-5
_OPSET = 20
_IR_VERSION = 10
_INPUTS: dict[str, tuple[str, int]] = {
    "events": ("tensor(float)", 3),
    "mask": ("tensor(bool)", 2),
    "candidates": ("tensor(float)", 2),
}


class ScorerMismatch(TrainingError):
    """An ONNX file is no scorer of these entities: an input or the output is missing, or of another type or shape."""


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


class OnnxScorer:
    """Any score that an ONNX file computes from the declared inputs."""

    def __init__(self, path: Path, dimension: int, *, threads: int = 1) -> None:
        """Load and check a file; ``dimension`` is the length of the entities' vectors.

        Raises ScorerMismatch, which names the input or output at fault.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no base class of its own
            raise ScorerMismatch(f"{path} cannot be loaded as ONNX: {error}") from None
        self.dimension = dimension
        self._check(path)

    def __call__(
        self, events: NDArray[np.float32], mask: NDArray[np.bool_], candidates: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Scores ``[N]`` of candidates ``[N, d]`` for one user's events ``[T, d]`` with mask ``[T]``; 0 is allowed."""
        # onnxruntime ends the process where a dimension is 0 (Reshape divides by it).
        if not len(candidates):
            return np.empty(0, np.float32)
        if not len(events):
            events, mask = np.zeros((1, self.dimension), np.float32), np.zeros(1, bool)
        inputs = {"events": events[None], "mask": mask[None], "candidates": candidates}
        scores: NDArray[np.float32] = self._session.run(["scores"], inputs)[0]
        return scores

    def _check(self, path: Path) -> None:
        declared = {each.name: each for each in self._session.get_inputs()}
        for name, (kind, rank) in _INPUTS.items():
            if name not in declared:
                raise ScorerMismatch(
                    f"{path} has no input {name!r}; it has: {', '.join(sorted(declared)) or 'none'}",
                    hint="A scorer's inputs are events, mask and candidates: docs/methods/nann.md.",
                )
            found = declared[name]
            if found.type != kind:
                raise ScorerMismatch(f"{path}: input {name!r} is {found.type}, and has to be {kind}")
            if len(found.shape) != rank:
                raise ScorerMismatch(f"{path}: input {name!r} has the shape {found.shape}, and has to have {rank} axes")
            if isinstance(found.shape[0], int) and found.shape[0] != 1:
                raise ScorerMismatch(f"{path}: input {name!r} has the shape {found.shape}: the first axis is fixed")
            if name != "mask" and isinstance(found.shape[-1], int) and found.shape[-1] != self.dimension:
                raise ScorerMismatch(
                    f"{path}: input {name!r} takes vectors of length {found.shape[-1]}, the entities' have "
                    f"{self.dimension}"
                )
        unknown = sorted(set(declared) - set(_INPUTS))
        if unknown:
            raise ScorerMismatch(f"{path} has inputs that nobody fills: {', '.join(unknown)}")
        if "scores" not in {each.name for each in self._session.get_outputs()}:
            raise ScorerMismatch(f"{path} has no output 'scores'")
        # What the file declares may leave sizes open, so it is asked once.
        for slots, filled, count in ((1, 0, 1), (3, 2, 5)):
            given = random_inputs(self.dimension, slots, filled, count, np.random.default_rng(0))
            try:
                scores = self(*given)
            except Exception as error:
                raise ScorerMismatch(f"{path} fails on {slots} events and {count} candidates: {error}") from None
            if scores.shape != (count,) or scores.dtype != np.float32 or not np.isfinite(scores).all():
                raise ScorerMismatch(
                    f"{path}: output 'scores' of {count} candidates is {scores.dtype} of the shape "
                    f"{list(scores.shape)}, and has to be {count} finite float32 numbers"
                )


def random_inputs(
    dimension: int, slots: int, filled: int, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
    """Events ``[slots, d]``, mask and candidates ``[count, d]``, the last ``filled`` slots taken."""
    scale = np.float32(dimension**-0.5)
    events = rng.standard_normal((slots, dimension)).astype(np.float32) * scale
    mask = np.arange(slots) >= slots - filled
    return events, mask, rng.standard_normal((count, dimension)).astype(np.float32) * scale


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
