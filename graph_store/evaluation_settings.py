"""The section ``[evaluation]`` of ``kithkin.toml``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from graph_store.section import Section


class JudgedEvaluation(Section):
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


class ClickEvaluation(Section):
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


class ClickNetworkSettings(Section):
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


class EvaluationSettings(Section):
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
