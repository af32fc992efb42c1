"""The sections ``[serving.tls]`` and ``[serving.impressions]`` of ``kithkin.toml``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TlsSettings(BaseModel):
    """Certificates of the server, PEM files; changed files are taken up without a restart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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


class ImpressionSettings(BaseModel):
    """A record of what was answered, in Parquet files that ``kithkin ingest`` can read back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
