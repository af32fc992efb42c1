"""What a run of changes did, by node type and relation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from graph_store.ingest.report import total
from graph_store.store import Written


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangeReport:
    """What a run of changes did."""

    rows: int
    """Changes read."""
    rejected: int = 0
    """Bad ones among them; they were left out."""
    written: dict[str, Written] = field(default_factory=dict)
    """By node type, or relation as ``(Film)-[HAS_GENRE]->(Genre)``. A row that a later one of the same node or edge
    overtakes counts nowhere; edges that go with their node are not counted."""
    rejects: tuple[Path, ...] = ()
    """CSV files with file, line, column, value, reason and the row itself."""
    seconds: float = 0.0

    @property
    def total(self) -> Written:
        """Nodes and edges together."""
        return total(list(self.written.values()))
