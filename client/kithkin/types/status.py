"""What a server has loaded, and which bundles there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, overload

Health = Literal["SERVING", "NOT_SERVING", "SERVICE_UNKNOWN", "UNKNOWN"]
Metric = Literal["cosine", "inner_product", "unspecified"]


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The index of one node type in one space."""

    node_type: str
    vectors: int
    kind: str
    """``scann`` or ``exact``."""
    exact_reason: str
    recall_at_10: float
    recall_target: float


@dataclass(frozen=True, slots=True)
class SpaceStatus:
    """One vector space of the bundle."""

    name: str
    metric: Metric
    dimension: int
    indexes: tuple[IndexStatus, ...]


@dataclass(frozen=True, slots=True)
class BundleStatus:
    """The bundle that answers."""

    version: str
    published_at: datetime | None
    snapshot_hash: str
    spaces: tuple[SpaceStatus, ...]
    nodes: Mapping[str, int] = field(hash=False)
    """Nodes by type."""


@dataclass(frozen=True, slots=True)
class DeltaStatus:
    """What changed in the store since the bundle was published, and is answered with."""

    fresh: int
    """Nodes that the bundle does not have."""
    changed: int
    """Nodes of the bundle that differ by now."""
    deleted: int
    """Nodes of the bundle that are gone."""
    lag: timedelta | None
    """Time since everything in the store was last in the delta; None: it never was."""


@dataclass(frozen=True, slots=True)
class Status:
    """What a server has loaded."""

    server_version: str
    bundle: BundleStatus | None
    """None: no bundle is loaded."""
    uptime: timedelta
    worker_pid: int
    refused_bundle: str
    """Why the newest bundle was refused while an older one serves; empty: none was."""
    workers: int = 1
    """Workers that the server runs."""
    workers_serving: int = 1
    """Workers that answer from the same bundle as the one that answered this call."""
    beside: tuple[str, ...] = ()
    """Further bundles that requests may name."""
    delta: DeltaStatus | None = None
    """None: the store is not followed."""


@dataclass(frozen=True, slots=True)
class BundleSummary:
    """One bundle that the server could serve."""

    version: str
    published_at: datetime | None
    snapshot_hash: str
    nodes: Mapping[str, int] = field(hash=False)
    """Nodes by type."""
    active: bool
    """What a server starts with."""
    serving: bool
    """The process that answered has it loaded."""
    problem: str
    """Why it cannot be opened; empty: it can."""


@dataclass(frozen=True, slots=True)
class Bundles(Sequence[BundleSummary]):
    """A page of bundles, newest first."""

    items: tuple[BundleSummary, ...]
    next_page_token: str
    """For ``bundles(page_token=...)``; empty: this is the last page."""

    @overload
    def __getitem__(self, index: int) -> BundleSummary: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[BundleSummary, ...]: ...
    def __getitem__(self, index: int | slice) -> BundleSummary | tuple[BundleSummary, ...]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[BundleSummary]:
        return iter(self.items)


@dataclass(frozen=True, slots=True)
class Activation:
    """Which bundle serves now, and which was active before."""

    version: str
    previous_version: str
    """Empty: none."""
