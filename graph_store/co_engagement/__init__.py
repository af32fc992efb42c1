"""Co-engagement edges: which entities the same users engage with, derived from the engagements in the store.

``expression`` says what they are, in Ibis; ``engines`` has DuckDB or Spark run it; ``derive`` reads the
engagements from the store and writes the edges back.
"""

from graph_store.co_engagement.derive import derive

__all__ = ["derive"]
