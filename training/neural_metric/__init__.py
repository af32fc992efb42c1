"""Retrieval by a neural score (NANN, Chen et al. 2022, arXiv 2202.10226): docs/methods/nann.md.

The order of the modules: ``settings``, ``histories`` (what users did, and examples drawn from it), ``start`` (where the
entities' vectors begin), ``scorer`` (the score and its inner-product twin), ``adversarial`` and ``fit`` (training),
``hnsw`` and ``graph`` (the similarity graph), ``evaluate``, ``export`` (ONNX), ``train`` (all, from a snapshot) and
``publish`` (into a bundle). The search itself is ``model_store.beam_search``, which the server shares.
"""
