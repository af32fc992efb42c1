"""The graph: its declaration (kithkin.toml), its stores, ingest, and co-engagement edges."""
