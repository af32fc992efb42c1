"""What a declared graph needs in Neo4j: a unique ``id`` per node type, and a note of the declared types.

Neo4j does not know property types, so one node ``(:KithkinSchema)`` remembers them. It is also what writers lock, so
that two of them do not create the same edge twice. With ``store.label_prefix`` the node has it too, as the types of the
schema given here have: each project has a note of its own.
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
_NOTE = "KithkinSchema"
NODE_TYPE, RELATION = "a node type", "a relation"


def note_label(prefix: str) -> str:
    """Label of the node that remembers what a project declares."""
    return prefix + _NOTE


def constraint_name(label: str) -> str:
    """What our constraint on the ids of a label is called, so that all can see whose it is."""
    return f"kithkin_{label}_id"


def apply_schema(connection: Neo4jConnection, schema: GraphSchema) -> None:
    """Create what is missing; raises StoreConflict where what is there does not fit.

    With ``store.create_constraints = false`` a missing constraint is such a conflict, which tells the Cypher.
    """
    label = note_label(connection.label_prefix)
    if not all(declared.name.startswith(connection.label_prefix) for declared in schema.node_types):
        raise ValueError("names of the schema lack store.label_prefix; graph_store.neo4j.prefixed opens such a store")

    def compare(transaction: neo4j.ManagedTransaction) -> tuple[list[str], dict[str, str]]:
        known = _noted(transaction, label) or {}
        wanted = _declared(schema)
        for key, kind in wanted.items():
            if known.get(key, kind) != kind:
                raise StoreConflict(f"{key} is {known[key]} in the store and {kind} in kithkin.toml", hint=_HINT)
        _check_other_projects(transaction, label, {name for name in wanted if "." not in name})
        _check_foreign(transaction, schema, known)
        return _lacking(transaction, schema), {**known, **wanted}

    lacking, noted = connection.read(compare)
    if lacking and not connection.create_constraints:
        raise StoreConflict(
            f"Neo4j lacks {len(lacking)} constraints, and store.create_constraints is false",
            hint="Have somebody run, who may:\n  " + "\n  ".join(f"{_creation(name)};" for name in lacking),
        )
    for name in lacking:
        connection.command(_creation(name))
    if lacking and (still := connection.read(lambda transaction: _lacking(transaction, schema))):
        called = ", ".join(map(constraint_name, still))
        raise StoreConflict(f"a constraint called so is there, on something else: {called}", hint="Drop or rename it.")

    def note(transaction: neo4j.ManagedTransaction) -> None:
        if _noted(transaction, label) == noted:
            raise NothingToWrite(None)
        declared = json.dumps(noted, sort_keys=True)
        transaction.run(f"MERGE (k:`{label}`) SET k.declared = $declared", declared=declared).consume()

    if connection.read(lambda transaction: _noted(transaction, label)) != noted:
        connection.write(note)


def lacking_constraints(connection: Neo4jConnection, schema: GraphSchema) -> list[str]:
    """The Cypher that makes the constraints which are not there, a statement each."""
    return [_creation(name) for name in connection.read(lambda transaction: _lacking(transaction, schema))]


def remove_schema(connection: Neo4jConnection, schema: GraphSchema) -> list[str]:
    """Drop the constraints that have our names and the note of the types; nodes and edges stay. Returns the names.

    Constraints that others made stay, those of before they had names of ours, and those on a label that another
    project of this database has too (its prefix and a type's name make the same).
    """
    label = note_label(connection.label_prefix)

    def ours(transaction: neo4j.ManagedTransaction) -> list[str]:
        noted = _noted(transaction, label) or {}
        types = {name for name, kind in {**noted, **_declared(schema)}.items() if kind == NODE_TYPE}
        types -= {name for _, others in _other_notes(transaction, label) for name in others}
        names = list(map(constraint_name, sorted(types)))
        there = transaction.run("SHOW CONSTRAINTS YIELD name WHERE name IN $names RETURN name", names=names)
        return sorted(record["name"] for record in there)

    found = connection.read(ours)
    for name in found:
        connection.command(f"DROP CONSTRAINT `{name}` IF EXISTS")
    connection.write(lambda transaction: transaction.run(f"MATCH (k:`{label}`) DETACH DELETE k").consume())
    return found


def lock_writers(transaction: neo4j.ManagedTransaction, prefix: str) -> None:
    """Wait for other writers; raises StoreConflict where no schema was applied."""
    record = transaction.run(
        f"MATCH (k:`{note_label(prefix)}`) SET k.writes = coalesce(k.writes, 0) + 1 RETURN count(k) AS found"
    ).single()
    if record is None or record["found"] == 0:
        raise StoreConflict(
            "the store has no schema yet", hint="Run `kithkin ingest`, which applies the schema of kithkin.toml."
        )


def note_written(transaction: neo4j.ManagedTransaction, prefix: str, changes: Sequence[Logged]) -> None:
    """Remember a write in its own transaction, so that after a crash either both are there or neither.

    The log is a list on the node that every writer locks, numbered by its count of writes: nobody's query of the graph
    meets nodes of ours, and entries come in the order of the commits.
    """
    entry = json.dumps([each.to_json() for each in changes], separators=(",", ":"))
    transaction.run(
        f"MATCH (k:`{note_label(prefix)}`) WITH k, coalesce(k.log, []) + [toString(k.writes) + ' ' + $entry] AS log "
        "SET k.log = log[-$most..]",
        entry=entry,
        most=_MOST_ENTRIES,
    ).consume()


def writes(transaction: neo4j.ManagedTransaction, prefix: str) -> int:
    """How many writes of ours were committed."""
    record = transaction.run(
        f"MATCH (k:`{note_label(prefix)}`) RETURN coalesce(k.writes, 0) AS writes LIMIT 1"
    ).single()
    return int(record["writes"]) if record else 0


def written_since(transaction: neo4j.ManagedTransaction, prefix: str, position: int) -> WrittenSince | None:
    """The entries after ``position``; None where the log does not reach back so far."""
    record = transaction.run(
        f"MATCH (k:`{note_label(prefix)}`) RETURN coalesce(k.writes, 0) AS writes, coalesce(k.log, []) AS log LIMIT 1"
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


def labels(schema: GraphSchema, node_type: str, prefix: str) -> str:
    """Labels of a node of this type, ``:Movie:Entity``; a role that another type is called after is left out."""
    role = prefix + schema.node_type(node_type).role.value.capitalize()
    taken = {declared.name for declared in schema.node_types}
    return f":`{node_type}`" if role in taken else f":`{node_type}`:`{role}`"


ROLE_LABELS = frozenset(role.value.capitalize() for role in NodeRole)


def _creation(label: str) -> str:
    return f"CREATE CONSTRAINT `{constraint_name(label)}` IF NOT EXISTS FOR (n:`{label}`) REQUIRE n.id IS UNIQUE"


def _lacking(transaction: neo4j.ManagedTransaction, schema: GraphSchema) -> list[str]:
    """Labels without a constraint that makes ids unique, whoever made it."""
    there = {
        (tuple(record["labels"]), tuple(record["properties"]))
        for record in transaction.run(
            "SHOW CONSTRAINTS YIELD type, labelsOrTypes AS labels, properties "
            "WHERE type IN ['UNIQUENESS', 'NODE_PROPERTY_UNIQUENESS', 'NODE_KEY'] RETURN labels, properties"
        )
    }
    names = [node_type.name for node_type in schema.node_types]
    return [name for name in names if ((name,), ("id",)) not in there]


def _noted(transaction: neo4j.ManagedTransaction, label: str) -> dict[str, str] | None:
    """What was declared when the schema was last applied; None: it never was, which is not the same as nothing."""
    record = transaction.run(f"MATCH (k:`{label}`) RETURN k.declared AS declared LIMIT 1").single()
    if record is None or record["declared"] is None:
        return None
    noted: dict[str, str] = json.loads(record["declared"])
    return noted


def _declared(schema: GraphSchema) -> dict[str, str]:
    """What each name is, and the type of each property (``Movie.year``)."""
    names = {node_type.name: NODE_TYPE for node_type in schema.node_types}
    names |= {relation.triple.name: RELATION for relation in schema.relations}
    owners: list[tuple[str, dict[str, Property]]] = [(n.name, n.properties) for n in schema.node_types]
    owners += [(relation.triple.name, relation.properties) for relation in schema.relations]
    return names | {
        f"{owner}.{name}": prop.type.value + (f"[{prop.dimension}]" if prop.dimension else "")
        for owner, properties in owners
        for name, prop in properties.items()
    }


def _check_other_projects(transaction: neo4j.ManagedTransaction, label: str, names: set[str]) -> None:
    """Of two prefixes, one may begin with the other, and then a name of both be the same."""
    for other, noted in _other_notes(transaction, label):
        same = names & {key.partition(".")[0] for key in noted}
        if same:
            raise StoreConflict(
                f"{', '.join(sorted(same))}: another project in this database has these names, with the prefix "
                f"{other.removesuffix(_NOTE)!r}",
                hint="Choose a store.label_prefix that does not begin as that one does.",
            )


def _other_notes(transaction: neo4j.ManagedTransaction, label: str) -> list[tuple[str, dict[str, str]]]:
    """The labels of the notes of other projects in this database, each with what it declares."""
    found = transaction.run("CALL db.labels() YIELD label WHERE label ENDS WITH $note RETURN label", note=_NOTE)
    others = [record["label"] for record in found if record["label"] != label]
    return [(other, _noted(transaction, other) or {}) for other in others]


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
