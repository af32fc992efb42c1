"""Training by several workers, each on its part of the graph (HASP); see docs/distributed.md."""
