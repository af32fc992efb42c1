"""Retrieval by a neural score (NANN, Chen et al. 2022, arXiv 2202.10226): docs/methods/nann.md.

The order of the modules: ``settings``, ``histories`` (what users did, and examples drawn from it), ``scorer`` (the
score and its inner-product twin), ``adversarial`` and ``fit`` (training), ``hnsw`` and ``graph`` (the similarity
graph), ``search`` (beam search under a score), ``evaluate``, ``export`` (ONNX) and ``train`` (all, from a snapshot).
"""
