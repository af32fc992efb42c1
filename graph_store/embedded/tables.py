"""The tables that a declared graph needs in Ladybug, and what is missing of them.

A node type is a node table with the primary key ``id``. A relation's *name* is one relationship table with a pair of
node tables for each of its triples and with the properties of all of them together, so that a person can write
``(a:Artist)-[r:ASSOCIATED_BAND]->(x)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graph_store.embedded.database import EmbeddedDatabase, quoted
from graph_store.errors import StoreConflict
from graph_store.schema import GraphSchema, Property, PropertyType, Relation

_TYPES: dict[PropertyType, str] = {
    PropertyType.STRING: "STRING",
    PropertyType.INT: "INT64",
    PropertyType.FLOAT: "DOUBLE",
    PropertyType.BOOL: "BOOL",
    PropertyType.DATE: "DATE",
    PropertyType.TIMESTAMP: "TIMESTAMP_TZ",
    PropertyType.STRINGS: "STRING[]",
}
_ANOTHER_FILE = (
    "Give the declared property another name, or delete the store's file: `kithkin ingest` makes it again from the"
    " declared files (what was changed in Cypher is lost)."
)


@dataclass(kw_only=True, slots=True)
class Table:
    """A table that Ladybug has."""

    kind: str
    """NODE or REL."""
    columns: dict[str, str] = field(default_factory=dict)
    """Ladybug's type by column."""
    key: str | None = None
    """Primary key of a node table."""
    pairs: set[tuple[str, str]] = field(default_factory=set)
    """Ends of a relationship table."""


def column_type(declared: Property) -> str:
    """Ladybug's type of a property."""
    return f"FLOAT[{declared.dimension}]" if declared.type is PropertyType.VECTOR else _TYPES[declared.type]


def relation_properties(schema: GraphSchema, name: str) -> dict[str, Property]:
    """The properties of all relations called ``name``, in declared order."""
    properties: dict[str, Property] = {}
    for relation in named(schema, name):
        properties.update(relation.properties)
    return properties


def named(schema: GraphSchema, name: str) -> tuple[Relation, ...]:
    """The relations called ``name``."""
    return tuple(relation for relation in schema.relations if relation.triple.name == name)


def relation_names(schema: GraphSchema) -> tuple[str, ...]:
    """The relations' names, each once, in declared order."""
    return tuple(dict.fromkeys(relation.triple.name for relation in schema.relations))


def read_tables(database: EmbeddedDatabase) -> dict[str, Table]:
    """What the database has, by name."""
    tables = {
        str(name): Table(kind=str(kind))
        for name, kind in database.rows("CALL show_tables() RETURN name, type")
        if kind in ("NODE", "REL")
    }
    for name, table in tables.items():
        text = _text(name)
        for row in database.rows(f"CALL table_info({text}) RETURN *"):
            table.columns[row[1]] = row[2]
            if table.kind == "NODE" and row[4]:
                table.key = row[1]
        if table.kind == "REL":
            for source, target, *_ in database.rows(f"CALL show_connection({text}) RETURN *"):
                table.pairs.add((source, target))
    return tables


def missing(schema: GraphSchema, tables: dict[str, Table]) -> Iterator[str]:
    """The statements that make the declared tables and columns that are not there.

    Raises StoreConflict where a table is there that does not fit.
    """
    for node_type in schema.node_types:
        table = _table(tables, node_type.name, "NODE")
        if table is None:
            columns = "".join(f", {quoted(name)} {column_type(p)}" for name, p in node_type.properties.items())
            yield f"CREATE NODE TABLE {quoted(node_type.name)}(id STRING PRIMARY KEY{columns})"
            continue
        if table.key != "id" or table.columns.get("id") != "STRING":
            raise StoreConflict(
                f"the store's {node_type.name} nodes have another key than id", hint="Ingest into another store file."
            )
        yield from _missing_columns(node_type.name, table, node_type.properties)
    for name in relation_names(schema):
        table = _table(tables, name, "REL")
        pairs = [(relation.triple.source, relation.triple.target) for relation in named(schema, name)]
        properties = relation_properties(schema, name)
        if table is None:
            ends = ", ".join(f"FROM {quoted(source)} TO {quoted(target)}" for source, target in pairs)
            columns = "".join(f", {quoted(column)} {column_type(p)}" for column, p in properties.items())
            yield f"CREATE REL TABLE {quoted(name)}({ends}{columns})"
            continue
        for source, target in pairs:
            if (source, target) not in table.pairs:
                yield f"ALTER TABLE {quoted(name)} ADD FROM {quoted(source)} TO {quoted(target)}"
        yield from _missing_columns(name, table, properties)


def is_complete(schema: GraphSchema, tables: dict[str, Table], name: str) -> bool:
    """Whether the node type or relation ``name`` has its table, with every declared column and pair of ends."""
    table = tables.get(name)
    if table is None:
        return False
    relations = named(schema, name)
    properties = relation_properties(schema, name) if relations else schema.node_type(name).properties
    ends = {(relation.triple.source, relation.triple.target) for relation in relations}
    return ends <= table.pairs and all(column in table.columns for column in properties)


def _table(tables: dict[str, Table], name: str, kind: str) -> Table | None:
    # Ladybug's names differ by more than upper and lower case.
    for other, table in tables.items():
        if other.lower() == name.lower():
            if other != name or table.kind != kind:
                what = "node type" if table.kind == "NODE" else "relation"
                raise StoreConflict(
                    f"the store has a {what} {other!r}, which {name!r} collides with",
                    hint="Choose another name in kithkin.toml, or ingest into another store file.",
                )
            return table
    return None


def _missing_columns(owner: str, table: Table, properties: dict[str, Property]) -> Iterator[str]:
    there = {name.lower(): name for name in table.columns}
    for name, declared in properties.items():
        wanted = column_type(declared)
        if name in table.columns:
            if table.columns[name] != wanted:
                raise StoreConflict(
                    f"{owner}.{name} is {table.columns[name]} in the store and {wanted} in kithkin.toml",
                    hint=_ANOTHER_FILE,
                )
        elif name.lower() in there:
            raise StoreConflict(f"{owner}.{name} is written {there[name.lower()]!r} in the store", hint=_ANOTHER_FILE)
        else:
            yield f"ALTER TABLE {quoted(owner)} ADD {quoted(name)} {wanted}"


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
