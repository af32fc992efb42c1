"""From files to the store: read, check, stage, and only then write.

``ingest(project, store)`` is the whole; ``input_fingerprint(project)`` says whether its inputs changed.
"""

from graph_store.ingest.files import input_fingerprint
from graph_store.ingest.report import IngestReport, SourceReport
from graph_store.ingest.run import ingest

__all__ = ["IngestReport", "SourceReport", "ingest", "input_fingerprint"]
