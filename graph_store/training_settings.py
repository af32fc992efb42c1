"""The section ``[training]`` of ``kithkin.toml``; ``[training.neural]`` has a module of its own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from graph_store.neural_settings import NeuralSettings
from graph_store.section import Section


class SpaceSettings(Section):
    """One vector space and how its encoder is trained."""

    dimension: int = Field(default=256, ge=2, le=1024)
    """Length of the vectors."""
    hidden: int = Field(default=128, ge=2)
    """Width of the hidden layers, a multiple of ``heads``."""
    encoder: Literal[
        "semantic_gnn",
        "pin_sage",
        "graph_sage",
        "gat",
        "r_gcn",
        "mean",
        "zoomer",
        "light_gcn",
        "matrix_factorisation",
    ] = "semantic_gnn"
    """How messages are made; docs/methods has a page on each. The last two learn a vector for each node, from
    engagements alone (``user``)."""
    sampler: Literal["uniform", "random_walk", "region_of_interest"] = "uniform"
    """Who is a neighbour: over the declared relations (uniform), by random-walk importance (PinSage), or over the
    declared relations those most relevant to the node itself (region_of_interest, ZOOMER)."""
    relevance: Literal["tanimoto", "cosine"] = "tanimoto"
    """How relevance is measured in a region of interest."""
    learned: tuple[Literal["entity", "concept", "user"], ...] = ()
    """Roles of nodes that get a learned vector each beside their features; new ones get their type's mean."""
    pooling: Literal["importance", "mean"] = "importance"
    """How ``pin_sage`` weighs neighbours: by importance, or all alike."""
    bases: int = Field(default=8, ge=1)
    """Matrices that the relations of ``r_gcn`` share."""
    layers: int = Field(default=0, ge=0, le=3)
    """Rounds of messages from neighbours, beside what ``context_dimension`` says of them."""
    fan_out: int = Field(default=10, ge=1)
    """Neighbours read per node and edge type, when the vectors are made; at most ``publish.max_neighbours``."""
    sampled_fan_out: int = Field(default=4, ge=1)
    """The same in training, drawn anew in every step from the ``publish.max_neighbours`` heaviest."""
    heads: int = Field(default=4, ge=1)
    """Attention heads."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of hidden values set to zero in training."""
    block_dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of a node's feature blocks left out in training, so that vectors do well where some are not known."""
    steps: int | None = Field(default=None, ge=0)
    """Optimiser steps; nothing: by the size of the graph."""
    batch_size: int = Field(default=1024, ge=2)
    """Positive pairs a step."""
    loss: Literal["softmax", "max_margin"] = "softmax"
    """Softmax with log-Q correction, or PinSage's hinge: a negative is to lie below the positive by ``margin``."""
    margin: float = Field(default=0.1, gt=0)
    """See ``loss``; in cosines."""
    in_batch: bool = True
    """Are the other pairs of the batch negatives."""
    negatives: int = Field(default=0, ge=0)
    """Nodes drawn evenly as negatives of the whole batch; beside those of ``in_batch`` they make mixed negatives."""
    hard_negatives: int = Field(default=0, ge=0)
    """Hard negatives of a pair's left node at the most: none in the first epoch, one more in each later one."""
    hard_band: tuple[int, int] = (100, 500)
    """They are entities between these ranks (from, to) of the left node's personalised PageRank."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """After the warm-up; falls to zero along a cosine."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """How strongly the weights are drawn to zero."""
    temperature: float = Field(default=0.1, gt=0)
    """Divides the cosines before the softmax."""
    log_q: float = Field(default=1.0, ge=0, le=1)
    """How far the softmax is corrected for candidates that are drawn often; 1: wholly."""
    balance: float = Field(default=0.5, ge=0, le=1)
    """A relation's share of the positive pairs grows with its edges to this power (space ``similar``)."""
    concept_share: float = Field(default=0.15, ge=0, le=1)
    """Share of the positive pairs that join an entity and a concept (space ``similar``)."""
    signals: float = Field(default=1.0, ge=0)
    """Weight of the fitted blocks beside the trained encoder in the vectors; 0: the encoder alone (``similar``). With
    ``light_gcn`` and ``matrix_factorisation`` that of the spectral part beside the learned vectors."""
    context: float = Field(default=1.0, ge=0)
    """Weight of what the neighbours are like in the signals, beside the node's own blocks (``similar``)."""
    supervision: float = Field(default=0.25, gt=0, le=0.5)
    """Share of the engagements that a step predicts from the others; the parts take turns (``user``)."""

    rank: int = Field(default=640, ge=1)
    """Length of the spectral part beside ``light_gcn`` and ``matrix_factorisation``, before both are reduced."""
    user_power: float = Field(default=0.3, ge=0, le=1)
    """In the spectral part, users are divided by their number of engagements to this power."""
    entity_power: float = Field(default=0.45, ge=0, le=1)
    """The same for entities."""
    spectrum: float = Field(default=0.75, ge=0)
    """Power of the singular values in the spectral part's score."""
    popularity: float = Field(default=0.5, ge=0)
    """Weight of an entity's log number of engagements beside the learned vectors of ``light_gcn`` and
    ``matrix_factorisation``; they are trained with 1, but the spectral part has a share of its own."""
    refinement: int = Field(default=1, ge=0)
    """Rounds of least squares that bring the reduced vectors of ``light_gcn`` and ``matrix_factorisation`` nearer to
    the scores at the top of each user's list; 0: the SVD as it is. Left out above 2e10 pairs of a user and an
    entity."""

    @model_validator(mode="after")
    def _fits(self) -> SpaceSettings:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if not 0 <= self.hard_band[0] < self.hard_band[1]:
            raise ValueError(f"hard_band ({self.hard_band[0]}, {self.hard_band[1]}) must go up, from 0 or more")
        if not self.in_batch and not self.negatives:
            raise ValueError("in_batch = false leaves no negatives: set negatives")
        return self


class UserSpaceSettings(SpaceSettings):
    """The space ``user``: the same settings, other defaults."""

    dimension: int = Field(default=128, ge=2, le=1024)
    """Length of the vectors."""
    negatives: int = Field(default=512, ge=0)
    """Entities drawn evenly as negatives of the whole batch."""
    block_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of a node's feature blocks left out in training."""
    layers: int = Field(default=1, ge=0, le=3)
    """Rounds of messages from neighbours, beside what ``context_dimension`` says of them."""
    temperature: float = Field(default=0.07, gt=0)
    """Divides the cosines before the softmax."""


class DistributedSettings(Section):
    """Training by several workers, each on its part of the graph; docs/distributed.md."""

    partition: Literal["hasp", "random"] = "hasp"
    """How entities and users are split: few edges between parts (hasp), or at random, for comparison."""
    rare_share: float = Field(default=0.001, ge=0, le=1)
    """Relations with at most this share of all edges are whole in every part."""
    halo: Literal["none", "users", "all"] = "users"
    """Edges between parts: an engagement goes with its entity, all others are left out (users); all are left out
    (none); they are in both parts (all)."""
    machines: int = Field(default=1, ge=1)
    """Machines that share the workers evenly; all see the work folder under the same path."""
    rendezvous: str = ""
    """Where the workers find each other, host:port on the first machine; nothing: a free port of this machine."""
    restarts: int = Field(default=3, ge=0)
    """How often the workers are started again from the last checkpoint when one of them dies."""


class TrainingSettings(Section):
    """Training of all spaces."""

    preset: str | None = None
    """A method's settings (docs/methods), such as "pinsage"; what else is set stands above them."""
    seed: int = 1
    """Seed of every random choice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: a GPU where there is one."""
    threads: int = Field(default=0, ge=0)
    """CPU threads; 0: as many as there are."""
    sampler_threads: int = Field(default=1, ge=0)
    """Threads that draw batches ahead of the training step; 0: in the step itself. Results do not depend on it."""
    memory_mib: int = Field(default=4096, ge=0)
    """Mebibytes that features of all nodes (training) and states (inference) may take; above, they stand in files."""
    input_dimension: int = Field(default=128, ge=2)
    """Length of each input block fitted per relation or text property."""
    context_dimension: int = Field(default=128, ge=0)
    """Length of each block that tells what the neighbours over a relation are like; 0: no such blocks."""
    holdout: float = Field(default=0.1, ge=0, lt=1)
    """Share of each user's newest engagements kept out of training, for evaluation."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Steps between two checkpoints."""
    tensorboard: bool = False
    """Write TensorBoard's event files beside the log of every training (`log.jsonl`)."""
    workers: int = Field(default=1, ge=1)
    """Processes that train, each on its part of the graph; `steps` and `batch_size` are each worker's own."""
    distributed: DistributedSettings = DistributedSettings()
    """How several workers share the graph and find each other."""
    similar: SpaceSettings = SpaceSettings()
    """The space of similar entities."""
    user: UserSpaceSettings = UserSpaceSettings()
    """The space of users and what they engage with: the same keys, but ``dimension`` 128, ``negatives`` 512 and
    ``block_dropout`` 0.1."""
    neural: NeuralSettings = NeuralSettings()
    """A neural score beside the spaces."""

    @model_validator(mode="after")
    def _fits(self) -> TrainingSettings:
        if self.similar.encoder in ("light_gcn", "matrix_factorisation"):
            raise ValueError(f"similar.encoder: {self.similar.encoder} is for the space user alone")
        return self
