"""The statements that write rows into Ladybug's tables; each inside somebody's transaction, and nothing is checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from graph_store.embedded.database import EmbeddedDatabase, quoted
from graph_store.embedded.tables import column_type, relation_properties
from graph_store.schema import GraphSchema, NodeType, Property, PropertyType, Relation

_CHANGED_AT_ONCE = 50_000
"""Rows changed or deleted by one statement: bounds the memory that its join takes."""
FEW = 2_000
"""New rows that are created one by one: what COPY wrote is folded into the file at once, and each COPY into a node
table leaves 13 MiB in memory (Ladybug 0.22)."""


def create_nodes(database: EmbeddedDatabase, declared: NodeType, new: pa.Table) -> None:
    """Nodes whose id is not there."""
    if new.num_rows <= FEW:
        given = ["id", *(name for name in new.column_names if name != "id")]
        created = ["`id`: c0"]
        for number, name in enumerate(given[1:], start=1):
            created.append(f"{quoted(name)}: {_value(f'c{number}', declared.properties[name])}")
        values = ", ".join(created)
        for part in _parts(new.select(given)):
            database.with_rows(f"LOAD FROM arrow_rows CREATE (:{quoted(declared.name)} {{{values}}})", part)
    else:
        columns = ", ".join(quoted(name) for name in new.column_names)
        database.with_rows(f"COPY {quoted(declared.name)}({columns}) FROM arrow_rows", new)


def change_nodes(database: EmbeddedDatabase, declared: NodeType, changed: pa.Table) -> None:
    """Values of nodes that are there."""
    properties = [name for name in changed.column_names if name != "id"]
    assignments = _assignments("n", changed.column_names, properties, declared.properties)
    for part in _parts(changed):
        database.with_rows(f"LOAD FROM arrow_rows MATCH (n:{quoted(declared.name)} {{id: c0}}) SET {assignments}", part)


def delete_nodes(database: EmbeddedDatabase, node_type: str, rows: pa.Table) -> None:
    """Nodes with their edges."""
    for part in _parts(rows):
        database.with_rows(f"LOAD FROM arrow_rows MATCH (n:{quoted(node_type)} {{id: c0}}) DETACH DELETE n", part)


def create_edges(database: EmbeddedDatabase, schema: GraphSchema, relation: Relation, rows: pa.Table) -> None:
    """Edges that are not there."""
    if not rows.num_rows:
        return
    source, name, target = relation.triple
    if rows.num_rows <= FEW:
        number = {column: f"c{index}" for index, column in enumerate(rows.column_names)}
        given = [column for column in rows.column_names if column not in ("source", "target")]
        values = ", ".join(f"{quoted(each)}: {_value(number[each], relation.properties[each])}" for each in given)
        database.with_rows(
            f"LOAD FROM arrow_rows {_ends(relation, number)} CREATE (a)-[:{quoted(name)} {{{values}}}]->(b)",
            next(_parts(rows)),
        )
        return
    # COPY takes source and target first, and wants the table's other columns, also those of other triples.
    columns = {"source": rows.column("source"), "target": rows.column("target")}
    for column, declared in relation_properties(schema, name).items():
        given_here = column in rows.column_names
        columns[column] = rows.column(column) if given_here else pa.nulls(rows.num_rows, declared.type.arrow)
    properties = ", ".join(quoted(column) for column in columns if column not in ("source", "target"))
    listed = f"({properties})" if properties else ""
    ends = f"(from='{source}', to='{target}')"
    database.with_rows(f"COPY {quoted(name)}{listed} FROM arrow_rows {ends}", pa.table(columns))


def change_edges(database: EmbeddedDatabase, relation: Relation, rows: pa.Table, properties: Sequence[str]) -> None:
    """These values of edges that are there."""
    assignments = _assignments("r", rows.column_names, properties, relation.properties)
    for part in _parts(rows):
        database.with_rows(f"{_matched(relation, rows.column_names)} SET {assignments}", part)


def delete_edges(database: EmbeddedDatabase, relation: Relation, rows: pa.Table) -> None:
    """Edges by their key columns."""
    for part in _parts(rows):
        database.with_rows(f"{_matched(relation, rows.column_names)} DELETE r", part)


def _matched(relation: Relation, columns: Sequence[str]) -> str:
    """Ends by primary key first, then the edge: another order makes Ladybug join all with all."""
    number = {column: f"c{index}" for index, column in enumerate(columns)}
    conditions = []
    for key in relation.key_columns[2:]:
        value = _value(number[key], relation.properties[key])
        conditions.append(f"(r.{quoted(key)} = {value} OR (r.{quoted(key)} IS NULL AND {number[key]} IS NULL))")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    matched = f"MATCH (a)-[r:{quoted(relation.triple.name)}]->(b){where}"
    return f"LOAD FROM arrow_rows {_ends(relation, number)} {matched}"


def _ends(relation: Relation, number: Mapping[str, str]) -> str:
    source, _, target = relation.triple
    return (
        f"MATCH (a:{quoted(source)} {{id: {number['source']}}}) MATCH (b:{quoted(target)} {{id: {number['target']}}})"
    )


def _parts(rows: pa.Table) -> Iterator[pa.Table]:
    """Slices under the names c0, c1, ... that no variable of a statement has."""
    renamed = rows.rename_columns([f"c{index}" for index in range(rows.num_columns)])
    for start in range(0, rows.num_rows, _CHANGED_AT_ONCE):
        yield renamed.slice(start, _CHANGED_AT_ONCE)


def _assignments(
    variable: str, columns: Sequence[str], changed: Sequence[str], properties: Mapping[str, Property]
) -> str:
    number = {column: f"c{index}" for index, column in enumerate(columns)}
    return ", ".join(f"{variable}.{quoted(name)} = {_value(number[name], properties[name])}" for name in changed)


def _value(column: str, declared: Property) -> str:
    """Ladybug reads Arrow's zoned times as plain ones and lists as variable ones, and does not cast by itself."""
    if declared.type in (PropertyType.TIMESTAMP, PropertyType.VECTOR):
        return f"CAST({column} AS {column_type(declared)})"
    return column
