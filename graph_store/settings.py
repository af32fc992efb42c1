"""Settings of every part, as they stand in ``kithkin.toml``.

Every setting: flag > environment ``KITHKIN_<SECTION>__<KEY>`` > file > default.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from graph_store.neural_settings import NeuralSettings
from graph_store.serving_settings import ImpressionSettings, TlsSettings


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
    engine: Literal["duckdb", "spark"] = "duckdb"
    """What derives co-engagement edges; ``spark``: for logs beyond one machine (docs/ingest.md)."""


class SpaceSettings(_Settings):
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


class DistributedSettings(_Settings):
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


class TrainingSettings(_Settings):
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
    cold_modulo: int | None = Field(default=None, ge=2)
    """Candidates with sha256(decimal id) mod this = ``cold_remainder`` are without engagements in `evaluate cold`."""
    cold_remainder: int = Field(default=0, ge=0)
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


class ClickNetworkSettings(_Settings):
    """The graph network that predicts clicks, and how it is trained."""

    layers: int = Field(default=2, ge=0, le=4)
    """Rounds of messages: so many hops reach the sampled neighbourhoods of both ends."""
    fan_out: tuple[int, ...] = ()
    """Neighbours drawn per node and edge type in each hop, in disjoint subgraphs, -1 all, and hops beyond the last
    number as that; none: all nodes at once with all neighbours, for graphs of up to about a million engagements."""
    last: int = Field(default=0, ge=0)
    """Engagements of each kind that describe a user, the newest; 0: drawn from all by ``fan_out``."""
    concepts: bool = False
    """Do concepts carry messages too; without it, entities know of them by their features."""
    hidden: int = Field(default=64, ge=2)
    """Width of the layers."""
    dimension: int = Field(default=32, ge=2)
    """Length of the vectors."""
    input_dimension: int = Field(default=32, ge=2)
    """Length of each input block fitted per relation or text property."""
    learned: bool = True
    """Do entities that were engaged with have a learned vector each beside their features."""
    learned_dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of these left out in training, so that an entity does well without."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of hidden values set to zero in training."""
    windows: int = Field(default=4, ge=0)
    """Spans of the older engagements that are learned from, each from the links before it; 0: the newest alone."""
    epochs: int = Field(default=30, ge=1)
    """Passes at most; the best by the newest fifth of the supervision rows is kept."""
    patience: int = Field(default=5, ge=1)
    """Passes without a better result before it ends."""
    batch_size: int = Field(default=2048, ge=1)
    """Examples a step."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Of AdamW."""
    weight_decay: float = Field(default=1e-3, ge=0)
    """How strongly the weights are drawn to zero."""


class EvaluationSettings(_Settings):
    """What ``kithkin evaluate`` measures."""

    judged: tuple[JudgedEvaluation, ...] = ()
    """Judgements of similar entities."""
    clicks: tuple[ClickEvaluation, ...] = ()
    """Clicks given views, measured by ``kithkin evaluate clicks``."""
    click_network: ClickNetworkSettings = ClickNetworkSettings()
    """The graph network whose vectors ``kithkin evaluate clicks`` adds to the click models."""
    users_at: int = Field(default=20, ge=1)
    """Answers counted for a user's held-out engagements."""
    next_at: tuple[int, ...] = Field(default=(20, 100), min_length=1)
    """Answers counted for a user's next engagement."""
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


class RetrainGate(_Settings):
    """What a retrained model must reach to be published."""

    metric: str
    """Name of the metric as ``kithkin evaluate`` prints it, such as NDCG@20; of ours, not of a baseline."""
    protocol: str | None = None
    """Name of the protocol; nothing: the first that has the metric."""
    at_least: float | None = None
    """Least value."""
    max_drop: float | None = Field(default=None, ge=0)
    """Largest drop below the active bundle's value in the same protocol, as a difference."""

    @model_validator(mode="after")
    def _fits(self) -> RetrainGate:
        if self.at_least is None and self.max_drop is None:
            raise ValueError("give at_least, max_drop or both: otherwise nothing is held to the metric")
        return self


class RetrainSettings(_Settings):
    """The daily job ``kithkin retrain``."""

    window_days: float | None = Field(default=None, gt=0)
    """Engagements older than so many days before the newest are not learned from; nothing: all are."""
    warm: bool = True
    """Start from the weights of the last published training."""
    gate: RetrainGate | None = None
    """What a new model must reach; nothing: every new model is published."""


class ShadowSettings(_Settings):
    """A bundle that is asked beside the one that serves, and answers nobody."""

    version: str
    """The bundle."""
    share: float = Field(default=0.01, ge=0, le=1)
    """Share of the searches that it is asked too."""


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
    workers: int = Field(default=1, ge=1, le=64)
    """Processes that answer, all on the one port; each loads the bundle for itself."""
    hang_s: float = Field(default=30.0, gt=0)
    """A worker that does not answer the supervisor for so many seconds is killed and started again."""
    beside: tuple[str, ...] = ()
    """Further bundles that each worker loads, for requests that name a ``bundle_version``."""
    shadow: ShadowSettings | None = None
    """A bundle that is asked a share of the searches too, to compare (docs/serving.md); nothing: none is."""
    max_concurrent_calls: int = Field(default=128, ge=1)
    """Calls that a worker has in work or waiting at once; a further one is refused at once, to be tried again."""
    connection_age_s: float = Field(default=3600.0, gt=0)
    """Seconds after which a client is told to connect anew, so that connections spread over workers and machines."""
    tls: TlsSettings = TlsSettings()
    """Certificates."""
    keys_file: Path | None = None
    """File of API keys' hashes, relative to kithkin.toml (docs/operations.md), beside those in KITHKIN_API_KEYS; keys
    in neither: everybody may call."""
    insecure: bool = False
    """Take API keys over connections without TLS, though they can be read on the way."""
    health_needs_key: bool = False
    """Does the health service ask for a key too."""
    admin_port: int | None = Field(default=None, ge=1, le=65535)
    """Port of ModelService, which is then on this one only; nothing: on the same port as all."""
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of the metrics for Prometheus, over HTTP; 0: any free one, told in the log; nothing: no metrics."""
    metrics_host: str = "127.0.0.1"
    """Address of the metrics; they have no keys and no TLS."""
    audit_share: float = Field(default=0.001, ge=0, le=1)
    """Share of the searches in approximate indexes that are repeated exactly, to measure recall; with metrics only."""
    impressions: ImpressionSettings = ImpressionSettings()
    """A record of what was answered."""

    follow: str = ""
    """How often to look at the graph store for changes, such as "2s"; entities that are new there are then found within
    seconds (docs/serving.md). Empty: only another bundle brings them."""

    @field_validator("follow")
    @classmethod
    def _duration(cls, value: str) -> str:
        if value and (not re.fullmatch(r"\d+(\.\d+)?s", value) or float(value[:-1]) < 0.1):
            raise ValueError('write it in seconds, 0.1 or more: "2s"; or leave it empty')
        return value

    @model_validator(mode="after")
    def _ports_differ(self) -> ServingSettings:
        if self.admin_port is not None and self.admin_port == self.port:
            raise ValueError(f"admin_port and port are both {self.port}: give each its own, or leave admin_port out")
        return self

    @property
    def follow_s(self) -> float | None:
        """Seconds between two looks; None: the store is not followed."""
        return float(self.follow[:-1]) if self.follow else None

    def within(self, folder: Path) -> ServingSettings:
        """The same with paths that start from ``folder`` (that of kithkin.toml) made absolute."""

        def at(path: Path | None) -> Path | None:
            return None if path is None else (folder / path).absolute()

        tls = {name: at(path) for name, path in self.tls}
        return self.model_copy(
            update={
                "keys_file": at(self.keys_file),
                "tls": self.tls.model_copy(update=tls),
                "impressions": self.impressions.model_copy(update={"folder": at(self.impressions.folder)}),
            }
        )


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
    retrain: RetrainSettings = RetrainSettings()
    serving: ServingSettings = ServingSettings()
