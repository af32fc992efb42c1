"""What every section of ``kithkin.toml`` is: unknown keys are refused, values do not change."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of the settings' models."""

    model_config = ConfigDict(frozen=True, extra="forbid")
