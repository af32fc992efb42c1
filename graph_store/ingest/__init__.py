"""From files to the store: read, check, stage, and only then write.

``ingest(project, store)`` is the whole, ``check(project, store)`` all but the writing;
``input_fingerprint(project)`` says whether its inputs changed.
"""

from graph_store.ingest.files import input_fingerprint
from graph_store.ingest.report import CheckReport, IngestReport, SourceReport
from graph_store.ingest.run import check, ingest

__all__ = ["CheckReport", "IngestReport", "SourceReport", "check", "ingest", "input_fingerprint"]
