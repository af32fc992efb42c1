"""Rows on their way into a store: checked, made uniform, and compared with what is there already.

Both stores write only the difference, so that the same table twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graph_store.errors import InputError
from graph_store.schema import NodeType, Property, PropertyType, Relation
from graph_store.scratch_sql import scratch_sql

_FEW = 2_000
"""Rows up to which two tables are compared in Python: a statement of SQL takes 3 ms of a processor before the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """What an upsert has to do."""

    new: pa.Table
    """Rows whose key the store does not hold."""
    changed: pa.Table
    """Rows whose key it holds with another value."""
    unchanged: int


def node_rows(node_type: NodeType, table: pa.Table) -> pa.Table:
    """The table with the declared types, one row an id (the last wins), and only null for "no value".

    Raises InputError for a column that is not declared, a value of another type, a missing id, or a bad vector.
    """
    rows = _uniform(node_type.name, node_type.arrow_schema, node_type.properties, ("id",), table)
    return _last_of_each(rows, ("id",))


def edge_rows(relation: Relation, table: pa.Table) -> pa.Table:
    """The same for edges; a row an edge, by ``Relation.key_columns`` (a key column that is missing is null)."""
    name = str(relation.triple)
    rows = _uniform(name, relation.arrow_schema, relation.properties, ("source", "target"), table)
    for column in relation.key_columns:
        if column not in rows.column_names:
            field = relation.arrow_schema.field(column)
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return _last_of_each(rows, relation.key_columns)


def difference(incoming: pa.Table, existing: pa.Table, keys: Sequence[str]) -> Difference:
    """Compare by ``keys`` (null equals null); the other columns of ``incoming`` tell changed from unchanged."""
    if existing.num_rows == 0 or incoming.num_rows == 0:
        return Difference(new=incoming, changed=incoming.slice(0, 0), unchanged=0)
    values = [name for name in incoming.column_names if name not in keys]
    if incoming.num_rows + existing.num_rows <= _FEW:
        return _difference_of_few(incoming, existing, keys, values)
    differs = " OR ".join(f"i.{_quoted(name)} IS DISTINCT FROM e.{_quoted(name)}" for name in values) or "false"
    # Someone's own Cypher may have made the same edge twice: changed if any of the two differs.
    found = _joined(incoming, existing, keys, f"i.__row AS r, bool_or({differs}) AS differs", "GROUP BY i.__row")
    there = found.column("r").combine_chunks()
    is_there = pc.is_in(pa.array(np.arange(incoming.num_rows)), value_set=there)
    changed = found.filter(found.column("differs")).column("r").combine_chunks()
    return Difference(
        new=incoming.filter(pc.invert(is_there)),
        changed=incoming.take(changed.sort()),
        unchanged=len(there) - len(changed),
    )


def not_in(rows: pa.Table, others: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The rows whose key ``others`` lacks."""
    return rows.filter(pc.invert(_is_in(rows, others, keys)))


def present_in(rows: pa.Table, others: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The rows whose key ``others`` has."""
    return rows.filter(_is_in(rows, others, keys))


def _difference_of_few(
    incoming: pa.Table, existing: pa.Table, keys: Sequence[str], values: Sequence[str]
) -> Difference:
    there: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for key, each in zip(_tuples(existing, keys), _tuples(existing, values), strict=True):
        there.setdefault(key, []).append(each)
    new, changed, unchanged = [], [], 0
    for row, (key, given) in enumerate(zip(_tuples(incoming, keys), _tuples(incoming, values), strict=True)):
        if key not in there:
            new.append(row)
        elif any(each != given for each in there[key]):
            changed.append(row)
        else:
            unchanged += 1
    taken = [incoming.take(pa.array(rows, pa.int64())) for rows in (new, changed)]
    return Difference(new=taken[0], changed=taken[1], unchanged=unchanged)


def _tuples(table: pa.Table, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """Rows as Python compares them: times as numbers, and NaN (which others may have written) as equal to NaN."""
    if not names:
        return [()] * table.num_rows
    columns = []
    for name in names:
        column = table.column(name)
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        elif pa.types.is_date(column.type):
            column = column.cast(pa.int32())
        told = column.to_pylist()
        if pa.types.is_floating(column.type):
            told = ["nan" if value != value else value for value in told]
        elif _is_list(column.type) and pa.types.is_floating(column.type.value_type):
            told = [
                each if each is None else tuple("nan" if value != value else value for value in each) for each in told
            ]
        columns.append(told)
    return list(zip(*columns, strict=True))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_in(rows: pa.Table, others: pa.Table, keys: Sequence[str]) -> pa.Array:
    if len(keys) == 1:
        return pc.is_in(rows.column(keys[0]), value_set=others.column(keys[0])).combine_chunks()
    if rows.num_rows + others.num_rows <= _FEW:
        there = set(_tuples(others, keys))
        return pa.array([key in there for key in _tuples(rows, keys)], pa.bool_())
    found = _joined(rows, others, keys, "DISTINCT i.__row AS r", "").column("r").combine_chunks()
    return pc.is_in(pa.array(np.arange(rows.num_rows)), value_set=found)


def _joined(incoming: pa.Table, existing: pa.Table, keys: Sequence[str], select: str, group: str) -> pa.Table:
    on = " AND ".join(f"i.{_quoted(key)} IS NOT DISTINCT FROM e.{_quoted(key)}" for key in keys)
    with scratch_sql() as connection:
        connection.register("incoming", _numbered(incoming))
        connection.register("existing", existing)
        return connection.sql(f"SELECT {select} FROM incoming i JOIN existing e ON {on} {group}").to_arrow_table()


def _numbered(table: pa.Table) -> pa.Table:
    return table.append_column("__row", pa.array(np.arange(table.num_rows)))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _uniform(
    where: str, schema: pa.Schema, properties: Mapping[str, Property], required: Sequence[str], table: pa.Table
) -> pa.Table:
    for name in required:
        if name not in table.column_names:
            raise InputError(f"{where}: the rows have no column {name!r}", column=name)
    columns: dict[str, pa.ChunkedArray] = {}
    for name in table.column_names:
        if name in columns:
            raise InputError(f"{where}: two columns of this name", column=name)
        if name not in schema.names:
            raise InputError(f"{where}: not a declared property", column=name, hint="Declare it in kithkin.toml.")
        try:
            column = table.column(name).cast(schema.field(name).type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            wanted = properties[name].type.value if name in properties else "string"
            raise InputError(f"{where}: not of type {wanted}: {error}", column=name) from None
        if name in required and column.null_count:
            raise InputError(f"{where}: {column.null_count} rows have no {name}", column=name)
        if name in properties:
            column = _one_missing(where, name, properties[name], column)
        columns[name] = column
    return pa.table(columns).combine_chunks()


def _one_missing(where: str, name: str, declared: Property, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Null is the one way to say "no value": NaN becomes null, null texts in a list are left out."""
    if declared.type is PropertyType.FLOAT:
        return pc.if_else(pc.is_nan(column), None, column)
    if declared.type is PropertyType.STRINGS:
        if any(chunk.flatten().null_count for chunk in column.chunks):
            return pa.chunked_array(
                [[None if value is None else [v for v in value if v is not None] for value in column.to_pylist()]],
                type=column.type,
            )
    elif declared.type is PropertyType.VECTOR:
        for chunk in column.chunks:
            numbers = chunk.flatten()
            if numbers.null_count or not pc.all(pc.is_finite(numbers), min_count=0).as_py():
                raise InputError(f"{where}: a vector holds NaN, infinity or null", column=name)
        lengths = pc.unique(pc.list_value_length(column).drop_null()).to_pylist()
        for length in lengths:
            if length != declared.dimension:
                message = f"{where}: a vector of {length} numbers, declared are {declared.dimension}"
                raise InputError(message, column=name)
    return column


def _last_of_each(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    numbers = _numbered(rows.select(list(keys)))
    last = numbers.group_by(list(keys)).aggregate([("__row", "max")]).column("__row_max")
    if len(last) == rows.num_rows:
        return rows
    return rows.take(last.combine_chunks().sort())
