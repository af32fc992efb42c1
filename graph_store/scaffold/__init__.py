"""``kithkin init``: a commented kithkin.toml from a look at the files."""

from graph_store.scaffold.write import write_project

__all__ = ["write_project"]
