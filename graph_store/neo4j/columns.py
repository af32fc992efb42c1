"""Arrow columns as Neo4j's parameters and back, a list a column: a row at a time is many times slower.

Times travel as whole numbers, because the driver's own time objects cost more than all the rest. Neo4j's ``collect``
leaves nulls out, so a column comes back as its values and, beside them, which rows have one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graph_store.errors import StoreConflict
from graph_store.schema import PropertyType

_ZERO_DAY = "date('1970-01-01')"


def parameters(rows: pa.Table) -> dict[str, list[Any]]:
    """Column i as ``c<i>``; the nanoseconds of a time beside its seconds as ``c<i>n``."""
    values: dict[str, list[Any]] = {}
    for index, column in enumerate(rows.columns):
        if pa.types.is_timestamp(column.type):
            micros = column.cast(pa.int64())
            numbers = micros.fill_null(0).to_numpy()
            seconds, rest = np.divmod(numbers, 1_000_000)  # rounds down, also before 1970
            missing = micros.is_null().to_numpy()
            values[f"c{index}"] = pa.array(seconds, mask=missing).to_pylist()
            values[f"c{index}n"] = (rest * 1000).tolist()
        elif pa.types.is_date(column.type):
            values[f"c{index}"] = column.cast(pa.int32()).to_pylist()
        else:
            values[f"c{index}"] = column.to_pylist()
    return values


def value(index: int, kind: PropertyType) -> str:
    """Cypher for row i of column ``index``."""
    column = f"$c{index}[i]"
    if kind is PropertyType.TIMESTAMP:
        made = f"datetime.fromEpoch({column}, $c{index}n[i])"
    elif kind is PropertyType.DATE:
        made = f"{_ZERO_DAY} + duration({{days: {column}}})"
    else:
        return column
    return f"CASE WHEN {column} IS NULL THEN null ELSE {made} END"


def equals(expression: str, index: int, kind: PropertyType) -> str:
    """Cypher that compares a stored value with row i of column ``index``; null equals null."""
    column = f"$c{index}[i]"
    same = f"{expression} = {value(index, kind)}"
    if kind is PropertyType.TIMESTAMP:  # the same moment in another zone is the same moment
        same = f"{_micros(expression)} = {column} * 1000000 + $c{index}n[i] / 1000"
    return f"({same} OR ({expression} IS NULL AND {column} IS NULL))"


def collected(expressions: Sequence[tuple[str, PropertyType]], *, ids: int) -> str:
    """Cypher that returns each expression as the lists that ``batch`` reads; the first ``ids`` are never null."""
    # Named first, so that each property is read once however often it is used.
    named = ", ".join(f"{expression} AS v{index}" for index, (expression, _) in enumerate(expressions))
    lists = []
    for index, (_, kind) in enumerate(expressions):
        read = f"v{index}"
        if kind is PropertyType.TIMESTAMP:
            read = _micros(read)
        elif kind is PropertyType.DATE:
            read = f"duration.inDays({_ZERO_DAY}, {read}).days"
        lists.append(f"collect({read}) AS c{index}")
        if index >= ids:
            lists.append(f"collect(v{index} IS NOT NULL) AS c{index}v")
    return f"WITH {named} RETURN {', '.join(lists)}"


def _micros(expression: str) -> str:
    # Not from epochSeconds, which Neo4j rounds towards zero: wrong by a second before 1970 (measured).
    return f"{expression}.epochMillis * 1000 + {expression}.microsecond % 1000"


def batch(record: Mapping[str, Any], schema: pa.Schema) -> pa.RecordBatch:
    """One record of ``collected`` lists as a record batch.

    Raises StoreConflict for a value of another type than declared.
    """
    arrays = [
        array(record[f"c{index}"], field, present=record.get(f"c{index}v", None)) for index, field in enumerate(schema)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def array(values: Sequence[Any], field: pa.Field, *, present: Sequence[bool] | None = None) -> pa.Array:
    """A list of Neo4j as a column; ``present`` says which rows have one of the values, nothing: all.

    Raises StoreConflict for a value of another type than declared.
    """
    wire = field.type
    if pa.types.is_timestamp(wire):
        wire = pa.int64()
    elif pa.types.is_date(wire):
        wire = pa.int32()
    try:
        column = pa.array(values, wire)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise StoreConflict(
            f"a value of {field.name!r} in Neo4j is not of the declared type: {error}",
            hint="Correct it in Neo4j, or declare the property otherwise.",
        ) from None
    if present is not None and len(present) > len(values):
        has = np.asarray(present, dtype=bool)
        column = pc.take(column, pa.array(np.cumsum(has) - 1, mask=~has))
    return column.cast(field.type)
