"""The section ``[store]`` of ``kithkin.toml``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from graph_store.section import Section


class StoreSettings(Section):
    """Where the graph lives."""

    uri: str = ".kithkin/graph.lbug"
    """Path of the embedded store (relative to kithkin.toml), or neo4j://host:7687 (bolt, neo4j+s, ... too)."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds to wait for a connection or a lock."""
    memory_mib: int = Field(default=1024, ge=64)
    """Buffer pool of the embedded store, mebibytes."""
    user: str = "neo4j"
    """Neo4j user. The password never stands here: docs/neo4j.md."""
    password_file: Path | None = None
    """File with the password and nothing else, relative to kithkin.toml, as Docker and Kubernetes give secrets; the
    variables KITHKIN_STORE_PASSWORD and KITHKIN_STORE_PASSWORD_FILE stand above it."""
    database: str = "neo4j"
    """Neo4j database."""
    label_prefix: str = Field(default="", pattern=r"^([A-Za-z][A-Za-z0-9_]*)?$", max_length=64)
    """Stands before every label and relationship type of this project in Neo4j, such as "Kith_"."""
    create_constraints: bool = True
    """May Kithkin create the constraints it needs in Neo4j; false: it checks them, and tells the Cypher to run."""
    trusted_certificates: Path | None = None
    """PEM file, relative to kithkin.toml, of the authorities that sign Neo4j's certificate, for neo4j+s:// and bolt+s://;
    nothing: those that this machine trusts."""
    pool_size: int = Field(default=100, ge=1)
    """Connections to a Neo4j server at the most."""
    acquisition_timeout_s: float | None = Field(default=None, gt=0)
    """Seconds to wait for one of them to be free, making one included; nothing: ``timeout_s``."""
    retry_s: float | None = Field(default=None, gt=0)
    """Seconds within which a transaction that Neo4j ended for the moment (a deadlock, another leader, a connection
    lost) is begun again; nothing: ``timeout_s``."""
    transaction_timeout_s: float | None = Field(default=None, ge=0.001)
    """Seconds after which Neo4j ends a transaction of ours; a scan of a relation is one. Nothing: Neo4j's own limit."""

    @model_validator(mode="after")
    def _fits(self) -> StoreSettings:
        if self.trusted_certificates is not None and not self.uri.startswith(("neo4j+s://", "bolt+s://")):
            raise ValueError("trusted_certificates are for connections with TLS: write uri as neo4j+s:// or bolt+s://")
        return self

    @property
    def is_neo4j(self) -> bool:
        return "://" in self.uri

    def identity(self) -> str:
        """Which graph it is, whatever the way to it: what was done with a graph stays done when a time-out changes."""
        return self.model_dump_json(include={"uri", "database", "label_prefix"})

    def within(self, folder: Path) -> StoreSettings:
        """The same with the paths of secrets and certificates, which start from ``folder``, made absolute."""

        def at(path: Path | None) -> Path | None:
            return None if path is None else (folder / path).absolute()

        return self.model_copy(
            update={
                "password_file": at(self.password_file),
                "trusted_certificates": at(self.trusted_certificates),
            }
        )
