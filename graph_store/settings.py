"""Settings of every part, as they stand in ``kithkin.toml``.

Every setting: flag > environment ``KITHKIN_<SECTION>__<KEY>`` > file > default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoreSettings(_Settings):
    """Where the graph lives."""

    uri: str = ".kithkin/graph.lbug"
    """Path of the embedded store (relative to kithkin.toml), or neo4j://host:7687 (bolt, neo4j+s, ... too)."""
    user: str = "neo4j"
    """Neo4j user. The password comes from KITHKIN_STORE_PASSWORD only."""
    database: str = "neo4j"
    """Neo4j database."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds to wait for a connection or a lock."""
    memory_mib: int = Field(default=1024, ge=64)
    """Buffer pool of the embedded store, mebibytes."""

    @property
    def is_neo4j(self) -> bool:
        return "://" in self.uri


class IngestSettings(_Settings):
    """How strict reading is."""

    reject_share: float = Field(default=0.001, ge=0, le=1)
    """Bad rows allowed as a share of all rows of a source."""
    reject_floor: int = Field(default=10, ge=0)
    """Bad rows allowed at least."""


class SpaceSettings(_Settings):
    """One vector space and how its encoder is trained."""

    dimension: int = Field(default=256, ge=2, le=1024)
    """Length of the vectors."""
    hidden: int = Field(default=128, ge=2)
    """Width of the hidden layers, a multiple of ``heads``."""
    encoder: Literal["semantic_gnn"] = "semantic_gnn"
    """How messages are made; docs/methods has a page on each."""
    sampler: Literal["uniform", "random_walk"] = "uniform"
    """Who is a neighbour: over the declared relations (uniform), or by random-walk importance (PinSage)."""
    learned: tuple[Literal["entity", "concept", "user"], ...] = ()
    """Roles of nodes that get a learned vector each beside their features; new ones get their type's mean."""
    layers: int = Field(default=1, ge=0, le=3)
    """Rounds of messages from neighbours."""
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
    """Positive pairs a step; the other pairs of the batch are the negatives."""
    negatives: int = Field(default=512, ge=0)
    """Entities drawn evenly as further negatives (space ``user``)."""
    learning_rate: float = Field(default=2e-3, gt=0)
    """After the warm-up; falls to zero along a cosine."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """How strongly the weights are drawn to zero."""
    temperature: float = Field(default=0.07, gt=0)
    """Divides the cosines before the softmax."""
    log_q: float = Field(default=1.0, ge=0, le=1)
    """How far the softmax is corrected for candidates that are drawn often; 1: wholly."""
    balance: float = Field(default=0.5, ge=0, le=1)
    """A relation's share of the positive pairs grows with its edges to this power (space ``similar``)."""
    concept_share: float = Field(default=0.15, ge=0, le=1)
    """Share of the positive pairs that join an entity and a concept (space ``similar``)."""
    signals: float = Field(default=1.0, ge=0)
    """Weight of the fitted blocks beside the trained encoder in the vectors; 0: the encoder alone (``similar``)."""
    smoothing: float = Field(default=1.0, ge=0)
    """Weight of the neighbours' blocks beside a node's own (``similar``)."""
    supervision: float = Field(default=0.25, gt=0, le=0.5)
    """Share of the engagements that a step predicts from the others; the parts take turns (``user``)."""

    @model_validator(mode="after")
    def _fits(self) -> SpaceSettings:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self


class UserSpaceSettings(SpaceSettings):
    """The space ``user``: the same settings, other defaults."""

    dimension: int = Field(default=128, ge=2, le=1024)
    """Length of the vectors."""
    block_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of a node's feature blocks left out in training."""


class TrainingSettings(_Settings):
    """Training of all spaces."""

    seed: int = 1
    """Seed of every random choice."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto: a GPU where there is one."""
    threads: int = Field(default=0, ge=0)
    """CPU threads; 0: as many as there are."""
    sampler_threads: int = Field(default=1, ge=0)
    """Threads that draw batches ahead of the training step; 0: in the step itself. Results do not depend on it."""
    input_dimension: int = Field(default=128, ge=2)
    """Length of each input block fitted per relation or text property."""
    holdout: float = Field(default=0.1, ge=0, lt=1)
    """Share of each user's newest engagements kept out of training, for evaluation."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Steps between two checkpoints."""
    similar: SpaceSettings = SpaceSettings()
    """The space of similar entities."""
    user: UserSpaceSettings = UserSpaceSettings()
    """The space of users and what they engage with: the same keys, but ``dimension`` 128 and ``block_dropout`` 0.1."""


class JudgedEvaluation(_Settings):
    """Similar entities against judgements that never enter the graph."""

    name: str
    """How the report calls it."""
    node: str
    """Entity type of queries and answers."""
    file: str
    """CSV file, relative to ``data``; it never enters the graph."""
    query: str
    similar: str
    """Columns of the file: the query's id and the similar entity's id."""
    candidates: str | None = None
    """File with the ids to rank; nothing: every entity that appears in the judgements."""
    candidates_column: str | None = None
    tune_modulo: int | None = Field(default=None, ge=2)
    """Queries with sha256(decimal id) mod this = ``tune_remainder`` are for tuning, never reported."""
    tune_remainder: int = Field(default=1, ge=0)
    recall_at: int = Field(default=100, ge=1)
    """Answers counted for recall."""
    ndcg_at: int = Field(default=200, ge=1)
    """Answers counted for NDCG."""

    @model_validator(mode="after")
    def _fits(self) -> JudgedEvaluation:
        if (self.candidates is None) != (self.candidates_column is None):
            raise ValueError("candidates and candidates_column go together")
        return self


class ClickEvaluation(_Settings):
    """Clicks given views: which of the entities that a user was shown they click, split by time."""

    name: str = "clicks"
    """How the report calls it."""
    relation: tuple[str, str, str]
    """Engagement relation (its triple) with a time; each engagement of a user with an entity is a view."""
    kinds: tuple[str, ...] = ()
    """Kinds of engagements that are clicks, where the relation declares a kind; all others are views."""
    least_weight: float | None = None
    """Where the relation has no kind: engagements of at least this weight are clicks, lighter ones views."""
    splits: tuple[Literal["per_user", "global"], ...] = ("per_user", "global")
    """By time, each user's own or that of all; the first is the headline."""
    supervision: float = Field(default=0.15, gt=0, lt=1)
    """Share of the engagements that are learned from, the newest but those for the test; all older ones are links."""
    test: float = Field(default=0.15, gt=0, lt=1)
    """Share of the newest engagements, which are tested on."""

    @model_validator(mode="after")
    def _fits(self) -> ClickEvaluation:
        if bool(self.kinds) == (self.least_weight is not None):
            raise ValueError("give either kinds or least_weight: which engagements are clicks")
        if self.supervision + self.test >= 1:
            raise ValueError("supervision and test leave no links: together they must be below 1")
        return self


class EvaluationSettings(_Settings):
    """What ``kithkin evaluate`` measures."""

    judged: tuple[JudgedEvaluation, ...] = ()
    """Judgements of similar entities."""
    clicks: tuple[ClickEvaluation, ...] = ()
    """Clicks given views, measured by ``kithkin evaluate clicks``."""
    users_at: int = Field(default=20, ge=1)
    """Answers counted for a user's held-out engagements."""
    max_users: int = Field(default=5000, ge=1)
    """Users whose held-out engagements are asked for, drawn at random where there are more."""
    bootstrap: int = Field(default=1000, ge=100)
    """Resamplings for the confidence intervals."""


class PublishSettings(_Settings):
    """What goes into a bundle."""

    recall_target: float = Field(default=0.95, gt=0, le=1)
    """Recall at 10 that the index must reach against exact search."""
    max_neighbours: int = Field(default=50, ge=1)
    """Neighbours kept per node and relation, the heaviest first, ties by id (bytes)."""
    keep: int = Field(default=3, ge=1)
    """Bundles kept beside the active one."""


class ServingSettings(_Settings):
    """The gRPC server."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0: all."""
    port: int = Field(default=50051, ge=0, le=65535)
    """0: any free port, printed at the start."""
    max_top_k: int = Field(default=1000, ge=1)
    """A request for more is refused."""
    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    """A request larger than this is refused."""
    drain_s: float = Field(default=10.0, ge=0)
    """Seconds given to running calls when a worker stops."""
    reflection: bool = True
    """May clients ask for the protocol itself (gRPC server reflection)."""


class Settings(_Settings):
    """Every section of kithkin.toml that is not the graph itself."""

    work: Path = Path(".kithkin")
    """Folder, relative to kithkin.toml, for the store, snapshots, checkpoints, bundles and rejects."""
    data: Path = Path()
    """Folder, relative to kithkin.toml, that the sources' paths start from."""
    store: StoreSettings = StoreSettings()
    ingest: IngestSettings = IngestSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    publish: PublishSettings = PublishSettings()
    serving: ServingSettings = ServingSettings()
