"""The contract of all objectives: what a step asks for is drawn ahead, in threads; its loss is taken in the loop."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from training.space_model import SpaceModel


class Objective(Protocol):
    """A loss over batches that follow from the step's number alone."""

    def draw(self, step: int) -> Any:
        """What the step needs, on the CPU; None where there is nothing to ask for. Threads may call it at once."""
        ...

    def loss(self, model: SpaceModel, drawn: Any) -> Tensor:
        """The loss of what was drawn."""
        ...
