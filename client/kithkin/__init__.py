"""Python client of Kithkin, a retrieval service on a knowledge graph."""
