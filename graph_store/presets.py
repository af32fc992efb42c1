"""Presets: the settings of a method under a name, ``training/presets/<name>.toml``, below everything that is set."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "training" / "presets"
"""Beside the methods they belong to; read as files, so that nothing of training is imported."""


def preset_names() -> list[str]:
    """The presets there are."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def load_preset(name: str) -> dict[str, Any]:
    """The table ``[training]`` of a preset. Raises KeyError for a name that is none."""
    if name not in preset_names():
        raise KeyError(name)
    settings = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))["training"]
    assert isinstance(settings, dict)
    return settings


def below(settings: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` with the preset's values where they say nothing, table by table."""
    result = {**preset, **settings}
    for key, value in preset.items():
        given = settings.get(key)
        if isinstance(value, Mapping) and isinstance(given, Mapping):
            result[key] = below(given, value)
    return result
