"""Encoders: from features and neighbours to vectors, one convolution a file.

``convolution`` (the contract), ``encoder`` (the frame around convolutions), ``onnx_graph`` (both as ONNX), then the
convolutions. ``ENCODERS`` maps the names of the setting ``encoder`` to functions that make them.
"""

from training.encoders.build import ENCODERS, build_encoder
from training.encoders.convolution import Convolution, Edges, PaddedEdges
from training.encoders.encoder import Batch, Encoder
from training.encoders.semantic_gnn import SemanticConv

__all__ = [
    "ENCODERS",
    "Batch",
    "Convolution",
    "Edges",
    "Encoder",
    "PaddedEdges",
    "SemanticConv",
    "build_encoder",
]
