"""Settings of the neural metric: the scorer, its training and the graph over its entities."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ScorerSettings(_Settings):
    """How a score is made and trained."""

    kind: Literal["neural", "two_tower"] = "neural"
    """The neural score, or its inner-product twin, which is there to be compared with."""
    dimension: int = Field(default=32, ge=2)
    """Length of an entity's vector, a multiple of ``heads``."""
    hidden: int = Field(default=64, ge=2)
    """Width of the hidden layers."""
    heads: int = Field(default=2, ge=1)
    """Heads of the attention over the events."""
    events: int = Field(default=50, ge=1)
    """A user's last so many events are seen, no more."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the events left out at random in training."""
    batch_size: int = Field(default=128, ge=1)
    """Targets a step; each is a negative of the others."""
    negatives: int = Field(default=256, ge=0)
    """Entities drawn evenly, shared by a step's targets as further negatives."""
    steps: int = Field(default=3000, ge=1)
    """Training steps."""
    twin_steps: int = Field(default=0, ge=0)
    """Of the steps, so many go to the inner-product twin, whose vectors and user's side the neural score starts from: a
    step of the twin costs about a tenth."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Of Adam, at its highest; up over the first steps, then down along a cosine."""
    weight_decay: float = Field(default=1e-5, ge=0)
    """Of AdamW, on all parameters."""
    adversarial: float = Field(default=0.0, ge=0)
    """Largest change of each coordinate of an entity's vector under which the score is asked to stay the same (the
    source's epsilon); 0: no adversarial training."""
    adversarial_scale: Literal["absolute", "relative"] = "absolute"
    """Relative: ``adversarial`` counts in root mean squares of the coordinates of the entities' vectors."""
    adversarial_weight: float = Field(default=1.0, ge=0)
    """Weight of the adversarial loss beside the other (the source: 1)."""
    seed: int = Field(default=0, ge=0)
    """Of everything random; the same seed gives the same scorer on the same machine."""
    threads: int = Field(default=1, ge=0)
    """Threads of torch while training; 0: as they are. Batches of this size gain little from more."""
    checkpoint_every: int = Field(default=500, ge=1)
    """Steps between checkpoints."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.dimension % self.heads:
            raise ValueError(f"dimension ({self.dimension}) is no multiple of heads ({self.heads})")
        if self.twin_steps and (self.kind != "neural" or self.twin_steps >= self.steps):
            raise ValueError(f"twin_steps ({self.twin_steps}) are part of the steps ({self.steps}) of a neural score")
        return self


class GraphSettings(_Settings):
    """The similarity graph over the entities' vectors."""

    neighbours: int = Field(default=32, ge=2)
    """Neighbours of a node in the upper layers, at most; twice as many in the lowest (M of HNSW)."""
    candidates: int = Field(default=40, ge=1)
    """Nodes looked at to choose the neighbours from (efConstruction of HNSW)."""
    seed: int = Field(default=0, ge=0)
    """Of the order of insertion and of who is in the upper layers."""
