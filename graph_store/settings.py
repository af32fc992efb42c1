"""Settings of every part, as they stand in ``kithkin.toml``.

Every setting: flag > environment ``KITHKIN_<SECTION>__<KEY>`` > file > default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from graph_store.evaluation_settings import ClickEvaluation, ClickNetworkSettings, EvaluationSettings, JudgedEvaluation
from graph_store.neural_settings import NeuralSettings
from graph_store.section import Section
from graph_store.serving_settings import ImpressionSettings, ServingSettings, ShadowSettings, TlsSettings
from graph_store.store_settings import StoreSettings
from graph_store.training_settings import DistributedSettings, SpaceSettings, TrainingSettings, UserSpaceSettings

__all__ = [
    "ClickEvaluation",
    "ClickNetworkSettings",
    "DistributedSettings",
    "EvaluationSettings",
    "ExportSettings",
    "ImpressionSettings",
    "IngestSettings",
    "JudgedEvaluation",
    "NeuralSettings",
    "PublishSettings",
    "RetrainGate",
    "RetrainSettings",
    "ServingSettings",
    "Settings",
    "ShadowSettings",
    "SpaceSettings",
    "StoreSettings",
    "TlsSettings",
    "TrainingSettings",
    "UserSpaceSettings",
]


_NAME = r"^[A-Za-z][A-Za-z0-9_]{0,63}$"


class IngestSettings(Section):
    """How strict reading is."""

    reject_share: float = Field(default=0.001, ge=0, le=1)
    """Bad rows allowed as a share of all rows of a source."""
    reject_floor: int = Field(default=10, ge=0)
    """Bad rows allowed at least."""
    engine: Literal["duckdb", "spark"] = "duckdb"
    """What derives co-engagement edges; ``spark``: for logs beyond one machine (docs/ingest.md)."""


class ExportSettings(Section):
    """From the store to a snapshot; docs/snapshot.md."""

    memory_mib: int = Field(default=2048, ge=64)
    """Mebibytes that an export may take beside the store's own, however many edges there are; less makes it slower."""


class PublishSettings(Section):
    """What goes into a bundle."""

    recall_target: float = Field(default=0.95, gt=0, le=1)
    """Recall at 10 that the index must reach against exact search."""
    max_neighbours: int = Field(default=50, ge=1)
    """Neighbours kept per node and relation, the heaviest first, ties by id (bytes)."""
    keep: int = Field(default=3, ge=1)
    """Bundles kept beside the active one."""
    write_back: bool = False
    """Is what was published written back into the graph (docs/write_back.md): vectors, and each entity's nearest."""
    write_back_neighbours: int = Field(default=20, ge=1, le=1000)
    """Edges written back of an entity, to those most similar to it."""
    write_back_relation: str = Field(default="SIMILAR_TO", pattern=_NAME)
    """Name of these edges; no declared node type or relation may have it."""
    write_back_property: str = Field(default="kithkin_vector", pattern=_NAME)
    """In Neo4j the property that holds an entity's vector; beside it the same with ``_bundle`` names the bundle."""

    def of_the_bundle(self) -> str:
        """JSON of what a bundle depends on."""
        return self.model_dump_json(exclude={name for name in type(self).model_fields if name.startswith("write_back")})


class RetrainGate(Section):
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


class RetrainSettings(Section):
    """The daily job ``kithkin retrain``."""

    window_days: float | None = Field(default=None, gt=0)
    """Engagements older than so many days before the newest are not learned from; nothing: all are."""
    warm: bool = True
    """Start from the weights of the last published training."""
    gate: RetrainGate | None = None
    """What a new model must reach; nothing: every new model is published."""


class Settings(Section):
    """Every section of kithkin.toml that is not the graph itself."""

    work: Path = Path(".kithkin")
    """Folder, relative to kithkin.toml, for the store, snapshots, checkpoints, bundles and rejects."""
    data: Path = Path()
    """Folder, relative to kithkin.toml, that the sources' paths start from."""
    store: StoreSettings = StoreSettings()
    ingest: IngestSettings = IngestSettings()
    export: ExportSettings = ExportSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    publish: PublishSettings = PublishSettings()
    retrain: RetrainSettings = RetrainSettings()
    serving: ServingSettings = ServingSettings()
