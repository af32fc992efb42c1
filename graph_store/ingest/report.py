"""What an ingest did, source by source."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from graph_store.errors import InputError
from graph_store.store import Written


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceReport:
    """One source of kithkin.toml after an ingest."""

    name: str
    """Files, and what they fill: ``ratings.csv -> (User)-[RATED]->(Movie)``."""
    files: tuple[Path, ...]
    rows: int
    """Rows read that pass ``where``."""
    rejected: int
    """Bad rows; they stand in ``rejects``."""
    merged: int
    """Rows that repeat a node or an edge of an earlier row (identical, counted, or the last one won)."""
    without_edge: int
    """Rows of a relation source that name no other end (an empty list, a text that means "no value")."""
    written: Written
    """Rows in the store; nodes made from the ends of edges are in ``IngestReport.created_nodes``."""
    rejects: Path | None = None
    """CSV with file, line, column, value, reason and the raw row."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Offender:
    """A row that fails a check."""

    file: Path
    line: int
    """1-based, header included."""
    column: str
    value: str | None
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """One declared check after the rows were staged."""

    name: str
    """Such as ``Movie: range year 1880 to 2030``."""
    level: str
    """error or warn."""
    checked: int
    """Rows looked at; nodes or edges for required, unique and has."""
    failed: int
    allowed: int
    """How many may fail (``tolerance``)."""
    first: tuple[Offender, ...]
    """The first that fail, in the order of sources, files and lines."""
    rejects: tuple[Path, ...]
    """CSVs with all rows that fail: file, line, column, value, reason and the raw row."""

    @property
    def passed(self) -> bool:
        """True where no more rows fail than may."""
        return self.failed <= self.allowed


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestReport:
    """What one ingest did."""

    sources: tuple[SourceReport, ...]
    created_nodes: dict[str, Written]
    """By node type: nodes that exist because an edge names them (``create_source``, ``create_target``)."""
    seconds: float
    checks: tuple[CheckReport, ...] = ()
    """The declared checks, in their order."""
    failure: InputError | None = None
    """What an ingest would have ended with; only ``check`` reports it, ``ingest`` raises it."""
    deleted: dict[str, int] = field(default_factory=dict)
    """With ``replace``, by node type and relation: how many no file brings any more; of ``check``, to be deleted."""

    @property
    def rejected(self) -> int:
        """Bad rows in all sources."""
        return sum(source.rejected for source in self.sources)

    @property
    def written(self) -> Written:
        """All rows written, nodes and edges together."""
        parts = [source.written for source in self.sources] + list(self.created_nodes.values())
        return total(parts)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd but not wrong, each with its source."""
        return tuple(f"{source.name}: {warning}" for source in self.sources for warning in source.warnings)


def total(parts: list[Written]) -> Written:
    """The sum of several writes."""
    return Written(
        created=sum(part.created for part in parts),
        changed=sum(part.changed for part in parts),
        unchanged=sum(part.unchanged for part in parts),
        deleted=sum(part.deleted for part in parts),
    )
