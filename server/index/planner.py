"""How a filtered search is done: over the rows that pass, over all of them, or approximately; whichever costs least.

A filter that few rows pass leaves little to score. One that most pass hardly changes what an approximate index finds:
it is asked for more, and what it finds is checked. In between a small model of the cost decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class SearchPath(StrEnum):
    """What a search reads."""

    ROWS = "rows"
    """The vectors that pass, gathered: exact."""
    ALL = "all"
    """Every vector, those that do not pass left out afterwards: exact."""
    APPROXIMATE = "approximate"
    """What an approximate index finds, checked and scored again."""


# Nanoseconds on one core of a server of 2023, measured at 100,000 vectors of 64 and 128 dimensions; what counts is how
# they compare.
_SCANNED, _SCANNED_VALUE = 30.0, 0.3
"""A vector read in its order, and each of its values."""
_GATHERED, _GATHERED_VALUE = 50.0, 0.6
"""A vector fetched from anywhere, and each of its values."""
_ASKED = 10_000.0
"""A question to an approximate index."""
_CODE, _CODE_VALUE = 1.0, 0.015
"""A quantised vector of a partition that is looked into, and each of its values."""
_CANDIDATE = 60.0
"""A candidate that the approximate index sorts, and that is checked."""
_MARGIN = 1.5
"""Candidates asked for, relative to those needed if the filter were independent of the query. It seldom is."""
_WIDENING = 2
"""Partitions looked into, relative to the share that suffices without a filter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Approximate:
    """How an approximate index would be asked."""

    wanted: int
    """Candidates."""
    leaves: int
    """Partitions to look into."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Partitions:
    """How an approximate index is built, and what suffices without a filter."""

    leaves: int
    leaves_to_search: int
    reorder: int
    """Candidates that make up a search for few results."""


def exact_path(total: int, passing: int, dimension: int) -> tuple[SearchPath, float]:
    """The cheaper of the two exact ways for ``passing`` of ``total`` vectors, and what it costs."""
    rows = passing * (_GATHERED + _GATHERED_VALUE * dimension)
    everything = total * (_SCANNED + _SCANNED_VALUE * dimension)
    return (SearchPath.ROWS, rows) if rows <= everything else (SearchPath.ALL, everything)


def approximate(total: int, passing: int, needed: int, partitions: Partitions) -> Approximate:
    """A question that leaves ``needed`` candidates once those are gone that do not pass."""
    wanted = math.ceil(_MARGIN * needed * total / max(passing, 1))
    # The best that pass lie further from the query than the best there are: more partitions hold them.
    leaves = math.ceil(_WIDENING * partitions.leaves_to_search * max(wanted / partitions.reorder, 1.0))
    return Approximate(wanted=wanted, leaves=min(leaves, partitions.leaves))


def approximate_cost(question: Approximate, total: int, needed: int, dimension: int, leaves: int) -> float:
    """What asking costs, scoring what passes included; infinite where nearly everything would be a candidate."""
    if question.wanted >= total // 2:
        return math.inf
    looked_into = total * question.leaves / leaves
    return (
        _ASKED
        + looked_into * (_CODE + _CODE_VALUE * dimension)
        + question.wanted * _CANDIDATE
        + needed * (_GATHERED + _GATHERED_VALUE * dimension)
    )
