"""The section ``[training.neural]`` of ``kithkin.toml``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class NeuralSettings(BaseModel):
    """A neural score of users and entities, found by beam search (NANN, docs/methods/nann.md)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = False
    """Train a neural scorer beside the spaces, and publish it with its proximity graph."""
    relation: tuple[str, str, str] | None = None
    """The engagement relation (its triple) whose events tell a user; nothing: the only one."""
    scorer: str | None = None
    """An ONNX file (relative to kithkin.toml) to publish in place of the trained scorer; it reads the same vectors."""
    dimension: int = Field(default=32, ge=2)
    """Length of an entity's vector, a multiple of ``heads``."""
    hidden: int = Field(default=64, ge=2)
    """Width of the hidden layers."""
    heads: int = Field(default=2, ge=1)
    """Heads of the attention over the events."""
    events: int = Field(default=50, ge=1, le=1000)
    """A user's last so many events are read, no more."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the events left out at random in training."""
    batch_size: int = Field(default=64, ge=1)
    """Targets a step; each is a negative of the others."""
    negatives: int = Field(default=192, ge=0)
    """Entities drawn evenly, shared by a step's targets as further negatives."""
    steps: int = Field(default=1700, ge=1)
    """Training steps."""
    twin_steps: int = Field(default=1500, ge=0)
    """Of the steps, so many train the inner product that the score starts from, at about a tenth of the cost."""
    learning_rate: float = Field(default=1e-2, gt=0)
    """At its highest; up over the first steps, then down along a cosine."""
    weight_decay: float = Field(default=1e-5, ge=0)
    """How strongly the weights are drawn to zero."""
    adversarial: float = Field(default=0.3, ge=0)
    """Largest change of each coordinate of an entity's vector under which the score is to stay the same; 0: none."""
    adversarial_scale: Literal["absolute", "relative"] = "relative"
    """Relative: ``adversarial`` counts in root mean squares of the coordinates of the entities' vectors."""
    neighbours: int = Field(default=16, ge=2)
    """Neighbours of an entity in the upper layers of the proximity graph, at most; twice as many in the lowest."""
    candidates: int = Field(default=40, ge=1)
    """Nodes looked at to choose these neighbours from."""
    width: int = Field(default=8, ge=1)
    """Nodes whose neighbours are scored together, in one call of the network."""
    overlap_target: float = Field(default=0.95, gt=0, le=1)
    """Share of brute force's best 100 that the search is to find; publishing takes the narrowest beam that does."""
    audit_users: int = Field(default=200, ge=1)
    """Users whose searches are compared with brute force, at most; fewer where there are many entities, 20 at least."""
    beam: int | None = Field(default=None, ge=1)
    """Best nodes that a search keeps; nothing: by ``overlap_target``."""

    @model_validator(mode="after")
    def _fits(self) -> NeuralSettings:
        if self.dimension % self.heads:
            raise ValueError(f"dimension ({self.dimension}) must be a multiple of heads ({self.heads})")
        if self.twin_steps >= self.steps:
            raise ValueError(f"twin_steps ({self.twin_steps}) are part of steps ({self.steps}), and must be fewer")
        return self
