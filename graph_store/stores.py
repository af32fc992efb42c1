"""Which store a project uses; each is imported only where it is opened."""

from __future__ import annotations

from graph_store.project import Project
from graph_store.store import GraphStore


def open_store(project: Project, *, read_only: bool = False) -> GraphStore:
    """Open the store that ``store.uri`` names.

    Raises StoreUnavailable, StoreAuthError or StoreLocked with what to do. With ``read_only`` the embedded store is
    opened beside a writer and sees, in each call, what was committed last; it must exist.
    """
    if project.settings.store.is_neo4j:
        from graph_store.neo4j.prefixed import open_neo4j

        return open_neo4j(project.schema, project.settings.store, read_only=read_only)
    from graph_store.embedded.store import EmbeddedStore

    return EmbeddedStore.open(project.schema, project.settings.store, project.folder, read_only=read_only)
