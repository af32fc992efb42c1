"""The log of writes in Neo4j emptied, where it names somebody who is to be forgotten."""

from __future__ import annotations

import json

import neo4j

from graph_store.neo4j.driver import Neo4jConnection
from graph_store.neo4j.schema import note_label
from graph_store.settings import StoreSettings


def clear_log(settings: StoreSettings, node_id: str, *, dry_run: bool = False) -> bool:
    """Empty the log where an entry names this id; returns whether one did. ``dry_run``: only look.

    Whoever follows the log compares the whole graph once. Raises StoreUnavailable or StoreAuthError.
    """
    # Entries are JSON: with its quotes an id is not found within another.
    found = f"MATCH (k:`{note_label(settings.label_prefix)}`) WHERE any(entry IN k.log WHERE entry CONTAINS $text) "

    def work(transaction: neo4j.ManagedTransaction) -> bool:
        end = "RETURN count(k) AS found" if dry_run else "SET k.log = [] RETURN count(k) AS found"
        record = transaction.run(found + end, text=json.dumps(node_id)).single()
        return record is not None and record["found"] > 0

    connection = Neo4jConnection(settings, read_only=dry_run)
    try:
        return connection.read(work) if dry_run else connection.write(work)
    finally:
        connection.close()
