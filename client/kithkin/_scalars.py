"""Single values as callers have them: NumPy's scalars become Python's own."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

INT64 = range(-(2**63), 2**63)


def plain(value: Any) -> Any:
    """Python's own value for NumPy's scalars; anything else as it is."""
    if getattr(getattr(value, "dtype", None), "kind", "") == "M":
        value = value.astype("datetime64[us]")  # a datetime64[ns] would become a bare integer
    return value.item() if hasattr(value, "item") and not isinstance(value, Iterable) else value


def finite(value: float) -> bool:
    """True for a finite number that fits in a float; whole numbers may be larger than any."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
