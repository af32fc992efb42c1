"""Changes row by row: read from files or given from Python, checked as an ingest checks, and written in bulk.

``change(project, store, files)`` writes change files; ``graph_store.graph.open_graph`` is the way in from Python;
``Comparison`` finds what anybody changed in a store.
"""

from graph_store.changes.comparison import Changes, Comparison, Noted, Watermark
from graph_store.changes.report import ChangeReport
from graph_store.changes.run import change

__all__ = ["ChangeReport", "Changes", "Comparison", "Noted", "Watermark", "change"]
