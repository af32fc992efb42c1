"""Neural scores as ONNX files: anyone's, loaded and checked.

A scorer file has these inputs and this output; N (candidates) and T (event slots) may be any number in each call, N and
T at least 1, d is the length of the entities' vectors:

    events      float32 [1, T, d]   vectors of one user's events, oldest first
    mask        bool    [1, T]      false: an empty slot, whose vector is ignored
    candidates  float32 [N, d]      vectors of the entities to score
    scores      float32 [N]         the higher the better
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.errors import ScorerMismatch

INPUTS: dict[str, tuple[str, int]] = {
    "events": ("tensor(float)", 3),
    "mask": ("tensor(bool)", 2),
    "candidates": ("tensor(float)", 2),
}
"""Type and number of axes of each input."""


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
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
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
        for name, (kind, rank) in INPUTS.items():
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
        unknown = sorted(set(declared) - set(INPUTS))
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
