"""The section ``[serving]`` of ``kithkin.toml``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from graph_store.section import Section


class TlsSettings(Section):
    """Certificates of the server, PEM files; changed files are taken up without a restart."""

    certificate: Path | None = None
    """Chain of the server's certificate, its own first; nothing: no TLS."""
    key: Path | None = None
    """Private key of that certificate."""
    client_authority: Path | None = None
    """Certificates of the authorities that sign clients' certificates; given, every client must show one (mTLS)."""

    @model_validator(mode="after")
    def _fits(self) -> TlsSettings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        if self.client_authority is not None and self.certificate is None:
            raise ValueError("client_authority asks clients for certificates, and needs certificate and key")
        return self


class ImpressionSettings(Section):
    """A record of what was answered, in Parquet files that ``kithkin ingest`` can read back."""

    folder: Path | None = None
    """Where the files go, relative to kithkin.toml; nothing: no record."""
    users: Literal["id", "hash", "none"] = "id"
    """How a user is written: by id, as HMAC-SHA256 of the id with the key in KITHKIN_IMPRESSIONS_KEY, or not at all."""
    rotate_s: float = Field(default=300.0, gt=0)
    """Seconds after which a file is closed and shown; a process that is killed loses what it has not closed."""
    rotate_rows: int = Field(default=100_000, ge=1)
    """Rows (one a shown entity) after which it is too."""
    queue: int = Field(default=10_000, ge=1)
    """Answers that may wait to be written; further ones are dropped and counted."""


class ShadowSettings(Section):
    """A bundle that is asked beside the one that serves, and answers nobody."""

    version: str
    """The bundle."""
    share: float = Field(default=0.01, ge=0, le=1)
    """Share of the searches that it is asked too."""


class ServingSettings(Section):
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
