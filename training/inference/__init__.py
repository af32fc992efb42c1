"""Inference of all nodes, layer by layer: no node is computed twice.

``chunks`` (what is computed of some nodes), ``arrays`` (where results are kept, and how far a pass has come),
``all_nodes`` (a pass on one machine), ``spark`` (the same as joins on Spark; imported by name, it needs pyspark).
"""

from training.inference.all_nodes import Embedding, embed, embed_parts, known_nodes

__all__ = ["Embedding", "embed", "embed_parts", "known_nodes"]
