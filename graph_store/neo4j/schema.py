"""What a declared graph needs in Neo4j: a unique ``id`` per node type, and a note of the declared types.

Neo4j does not know property types, so one node ``(:KithkinSchema)`` remembers them. It is also what writers lock, so
that two of them do not create the same edge twice.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import neo4j

from graph_store.errors import StoreConflict
from graph_store.neo4j.driver import Neo4jConnection, NothingToWrite
from graph_store.schema import GraphSchema, NodeRole, Property, PropertyType
from graph_store.written import Logged, WrittenSince

_CYPHER_TYPES: dict[PropertyType, str] = {
    PropertyType.STRING: "STRING",
    PropertyType.INT: "INTEGER",
    PropertyType.FLOAT: "INTEGER | FLOAT",
    PropertyType.BOOL: "BOOLEAN",
    PropertyType.DATE: "DATE",
    PropertyType.TIMESTAMP: "ZONED DATETIME",
    PropertyType.STRINGS: "LIST<STRING>",
    PropertyType.VECTOR: "LIST<INTEGER | FLOAT>",
}
_MOST_ENTRIES = 200
"""Writes that the log remembers."""
_HINT = "Rename it in kithkin.toml, make the data fit, or use another database (store.database)."


def apply_schema(connection: Neo4jConnection, schema: GraphSchema) -> None:
    """Create what is missing; raises StoreConflict where what is there does not fit."""

    def compare(transaction: neo4j.ManagedTransaction) -> tuple[list[str], dict[str, str]]:
        known = _noted(transaction)
        wanted = _declared(schema)
        for key, kind in wanted.items():
            if known.get(key, kind) != kind:
                raise StoreConflict(f"{key} is {known[key]} in the store and {kind} in kithkin.toml", hint=_HINT)
        _check_foreign(transaction, schema, known)
        there = {
            (tuple(record["labels"]), tuple(record["properties"]))
            for record in transaction.run(
                "SHOW CONSTRAINTS YIELD type, labelsOrTypes AS labels, properties "
                "WHERE type IN ['UNIQUENESS', 'NODE_PROPERTY_UNIQUENESS', 'NODE_KEY'] RETURN labels, properties"
            )
        }
        names = [node_type.name for node_type in schema.node_types]
        return [name for name in names if ((name,), ("id",)) not in there], {**known, **wanted}

    lacking, noted = connection.read(compare)
    for name in lacking:
        connection.command(f"CREATE CONSTRAINT IF NOT EXISTS FOR (n:`{name}`) REQUIRE n.id IS UNIQUE")

    def note(transaction: neo4j.ManagedTransaction) -> None:
        if _noted(transaction) == noted:
            raise NothingToWrite(None)
        transaction.run(
            "MERGE (k:KithkinSchema) SET k.declared = $declared", declared=json.dumps(noted, sort_keys=True)
        ).consume()

    if connection.read(_noted) != noted:
        connection.write(note)


def lock_writers(transaction: neo4j.ManagedTransaction) -> None:
    """Wait for other writers; raises StoreConflict where no schema was applied."""
    record = transaction.run(
        "MATCH (k:KithkinSchema) SET k.writes = coalesce(k.writes, 0) + 1 RETURN count(k) AS found"
    ).single()
    if record is None or record["found"] == 0:
        raise StoreConflict(
            "the store has no schema yet", hint="Run `kithkin ingest`, which applies the schema of kithkin.toml."
        )


def note_written(transaction: neo4j.ManagedTransaction, changes: Sequence[Logged]) -> None:
    """Remember a write in its own transaction, so that after a crash either both are there or neither.

    The log is a list on the node that every writer locks, numbered by its count of writes: nobody's query of the graph
    meets nodes of ours, and entries come in the order of the commits.
    """
    entry = json.dumps([each.to_json() for each in changes], separators=(",", ":"))
    transaction.run(
        "MATCH (k:KithkinSchema) WITH k, coalesce(k.log, []) + [toString(k.writes) + ' ' + $entry] AS log "
        "SET k.log = log[-$most..]",
        entry=entry,
        most=_MOST_ENTRIES,
    ).consume()


def writes(transaction: neo4j.ManagedTransaction) -> int:
    """How many writes of ours were committed."""
    record = transaction.run("MATCH (k:KithkinSchema) RETURN coalesce(k.writes, 0) AS writes LIMIT 1").single()
    return int(record["writes"]) if record else 0


def written_since(transaction: neo4j.ManagedTransaction, position: int) -> WrittenSince | None:
    """The entries after ``position``; None where the log does not reach back so far."""
    record = transaction.run(
        "MATCH (k:KithkinSchema) RETURN coalesce(k.writes, 0) AS writes, coalesce(k.log, []) AS log LIMIT 1"
    ).single()
    if record is None:
        return None
    entries = [entry.partition(" ") for entry in record["log"]]
    numbers = [int(number) for number, _, _ in entries]
    if record["writes"] < position or (record["writes"] > position and position + 1 not in numbers):
        return None
    changes = [
        Logged.from_json(each)
        for number, (_, _, body) in zip(numbers, entries, strict=True)
        if number > position
        for each in json.loads(body)
    ]
    # What others committed beside it, nobody tells.
    return WrittenSince(changes=tuple(changes), watermark=str(record["writes"]), complete=False)


def labels(schema: GraphSchema, node_type: str) -> str:
    """Labels of a node of this type, ``:Movie:Entity``; a role that another type is called after is left out."""
    role = schema.node_type(node_type).role.value.capitalize()
    taken = {declared.name for declared in schema.node_types}
    return f":`{node_type}`" if role in taken else f":`{node_type}`:{role}"


ROLE_LABELS = frozenset(role.value.capitalize() for role in NodeRole)


def _noted(transaction: neo4j.ManagedTransaction) -> dict[str, str]:
    record = transaction.run("MATCH (k:KithkinSchema) RETURN k.declared AS declared LIMIT 1").single()
    noted: dict[str, str] = json.loads(record["declared"]) if record and record["declared"] else {}
    return noted


def _declared(schema: GraphSchema) -> dict[str, str]:
    owners: list[tuple[str, dict[str, Property]]] = [(n.name, n.properties) for n in schema.node_types]
    owners += [(relation.triple.name, relation.properties) for relation in schema.relations]
    return {
        f"{owner}.{name}": prop.type.value + (f"[{prop.dimension}]" if prop.dimension else "")
        for owner, properties in owners
        for name, prop in properties.items()
    }


def _check_foreign(transaction: neo4j.ManagedTransaction, schema: GraphSchema, known: dict[str, str]) -> None:
    """What others put there under our names must fit before we write beside it."""
    for node_type in schema.node_types:
        checks: dict[str, str] = {"id": "n.id IS NULL OR NOT n.id IS :: STRING"}
        for name, prop in node_type.properties.items():
            if f"{node_type.name}.{name}" not in known:
                checks[name] = f"NOT n.`{name}` IS :: {_CYPHER_TYPES[prop.type]}"
        for name, check in checks.items():
            _check(transaction, f"{node_type.name}.{name}", f"MATCH (n:`{node_type.name}`) WHERE {check}", name)
    for relation in schema.relations:
        source, kind, target = relation.triple
        for name, prop in relation.properties.items():
            if f"{kind}.{name}" not in known:
                pattern = f"MATCH (:`{source}`)-[n:`{kind}`]->(:`{target}`)"
                check = f"WHERE NOT n.`{name}` IS :: {_CYPHER_TYPES[prop.type]}"
                _check(transaction, f"{relation.triple}.{name}", f"{pattern} {check}", name)


def _check(transaction: neo4j.ManagedTransaction, where: str, matched: str, name: str) -> None:
    record: Any = transaction.run(f"{matched} RETURN n.`{name}` AS bad LIMIT 1").single()
    if record is not None:
        shown = "no value" if record["bad"] is None else f"the value {record['bad']!r}"
        raise StoreConflict(f"{where}: the store holds {shown}, which is not of the declared type", hint=_HINT)
