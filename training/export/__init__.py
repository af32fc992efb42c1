"""The snapshot: the whole graph as sorted, memory-mapped columns with a content hash."""

from training.export.comparison import Changes, Comparison, compare
from training.export.exporter import export_snapshot
from training.export.snapshot import NO_TIME, Snapshot

__all__ = ["NO_TIME", "Changes", "Comparison", "Snapshot", "compare", "export_snapshot"]
