"""Encoders: from features and neighbours to vectors, one encoder a file."""

from training.encoders.semantic_gnn import SemanticConv, SemanticEncoder

__all__ = ["SemanticConv", "SemanticEncoder"]
