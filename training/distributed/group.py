"""The workers of one training as one of them sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.errors import DistributedError
from training.objectives import Objective
from training.space_model import SpaceModel


class Group:
    """Workers that take the same steps, each over its part, and average their gradients."""

    def __init__(self, device: torch.device) -> None:
        """``device``: this worker's own. The process group is there already."""
        self.rank, self.size, self.device = dist.get_rank(), dist.get_world_size(), device

    @property
    def is_first(self) -> bool:
        """Whether this worker writes checkpoints and progress."""
        return self.rank == 0

    def averaged_loss(self, model: SpaceModel, objective: Objective) -> Callable[[Any], Tensor]:
        """The objective's loss of what was drawn, whose gradients are averaged over the workers.

        The whole loss is wrapped, not the encoder alone: which parameters a step uses differs from worker to worker,
        and follows from the loss.
        """
        # Buffers are the same everywhere: they come from one file, and training changes none.
        return DistributedDataParallel(_Loss(model, objective), find_unused_parameters=True, broadcast_buffers=False)

    def agree(self, done: int) -> None:
        """All workers have to go on from the same step. Raises DistributedError."""
        steps = [int(each[0]) for each in self.gather(float(done))]
        if len(set(steps)) > 1:
            raise DistributedError(
                f"the workers found checkpoints of different steps: {steps}",
                hint="All machines must see the same work folder.",
            )

    def gather(self, *figures: float) -> list[list[float]]:
        """Figures of every worker, by rank."""
        # Gloo gathers nothing that lies on a GPU.
        device = self.device if dist.get_backend() == "nccl" else torch.device("cpu")
        own = torch.tensor(figures, dtype=torch.float64, device=device)
        found = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(found, own)
        return [each.tolist() for each in found]


class _Loss(nn.Module):
    def __init__(self, model: SpaceModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def forward(self, drawn: Any) -> Tensor:
        if drawn is None:
            # Nothing to ask for here, but the others wait for this worker's gradients.
            return torch.stack([each.sum() for each in self.model.parameters()]).sum() * 0.0
        return self.objective.loss(self.model, drawn)
