"""Why two nodes belong together."""
