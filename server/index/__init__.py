"""Nearest neighbours: exact, by ScaNN, and which of the two; built, tuned and audited at publishing."""
