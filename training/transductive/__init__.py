"""Vectors learned for each node from engagements alone: LightGCN and matrix factorisation beside a spectral part.

``interactions`` (the matrix), ``spectral`` (its SVD), ``softmax`` (what is learned), ``factor_model`` (both as one
space), ``reduction`` (to the published dimension), ``fit`` (build and finish).
"""
