"""What ``kithkin doctor`` tells of one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One line of the doctor's."""

    what: str
    state: Literal["ok", "note", "wrong"]
    """note: as it may be, and worth knowing; wrong: something fails, or will."""
    says: str
    do: str = ""
    """What to do about it; empty where nothing is to be done."""
