"""A made-up catalogue of films of any size, with a known right answer: the same for the same seed."""

from graph_store.synthetic.generator import GeneratedCatalogue, generate

__all__ = ["GeneratedCatalogue", "generate"]
