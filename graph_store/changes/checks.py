"""Changes typed by the rules of ingest, and checked against each other and the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from graph_store.changes.plain_values import plain_values
from graph_store.changes.rows import Change, Reject
from graph_store.ingest.columns import Field, field_sql
from graph_store.ingest.raw import RawColumn, RawFile
from graph_store.schema import NodeType, Relation
from graph_store.scratch_sql import scratch_sql
from graph_store.sources import ColumnSpec
from graph_store.store import GraphStore

_IDS_AT_ONCE = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Typed:
    """One change whose values have the declared types."""

    change: Change
    properties: dict[str, Any]
    key: tuple[Any, ...]
    """``(id,)``, or the values of ``Relation.key_columns``."""


def typed(changes: Sequence[Change]) -> tuple[list[Typed], list[Reject]]:
    """Read every value as its property is declared; in the order of ``changes``, the bad ones apart."""
    rejects: list[Reject] = []
    by_place: dict[int, Typed] = {}
    groups: dict[str, list[int]] = {}
    for place, each in enumerate(changes):
        groups.setdefault(_name(each.declared), []).append(place)
    for places in groups.values():
        members = [changes[place] for place in places]
        values, wrong = _values(members)
        for place, each, properties, reject in zip(places, members, values, wrong, strict=True):
            reject = reject or _lacking(each, properties)
            if reject is not None:
                rejects.append(reject)
            else:
                by_place[place] = Typed(change=each, properties=properties, key=_key(each, properties))
    return [by_place[place] for place in sorted(by_place)], rejects


def _values(members: Sequence[Change]) -> tuple[list[dict[str, Any]], list[Reject | None]]:
    """The typed values of changes of one node type or relation, and what is wrong with each."""
    declared = members[0].declared
    names = [name for name in declared.properties if any(name in each.properties for each in members)]
    if not names:
        return [{} for _ in members], [None] * len(members)
    plain = plain_values(members, names)
    if plain is not None:
        return plain, [None] * len(members)
    with scratch_sql() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return _read_by_sql(connection, members, names)


def _read_by_sql(
    connection: duckdb.DuckDBPyConnection, members: Sequence[Change], names: Sequence[str]
) -> tuple[list[dict[str, Any]], list[Reject | None]]:
    declared = members[0].declared
    texts: dict[str, pa.Array] = {"place": pa.array(range(len(members)), pa.int64())}
    columns, fields = {}, []
    for index, name in enumerate(names):
        given = [each.properties.get(name) for each in members]
        lists = [value if isinstance(value, list) else None for value in given]
        texts[f"c{index}"] = pa.array([value if isinstance(value, str) else None for value in given], pa.string())
        texts[f"l{index}"] = pa.array(lists, pa.list_(pa.string()))
        columns[name] = RawColumn(text=f"c{index}", items=f"l{index}" if any(x is not None for x in lists) else None)
        spec = ColumnSpec(column=name)
        fields.append(Field(key=f"p{index}", name=name, spec=spec, declared=declared.properties[name]))
    raw = RawFile(file=Path(), table="given", columns=columns, twice=frozenset(), text="", rows=len(members))
    sql = [field_sql(field, raw) for field in fields]
    cleaned = ", ".join(f"{part.cleaned} AS {field.cleaned}" for field, part in zip(fields, sql, strict=True))
    values = ", ".join(f"{part.value} AS {field.value}" for field, part in zip(fields, sql, strict=True))
    problems = " ".join(
        f"WHEN {part.wrong} THEN {{'name': {index}, 'value': {field.cleaned}::VARCHAR, 'reason': {part.reason}}}"
        for index, (field, part) in enumerate(zip(fields, sql, strict=True))
    )
    kept = ", ".join(field.value for field in fields)
    connection.register("given", pa.table(texts))
    found = connection.sql(
        f"SELECT {kept}, CASE {problems} END AS problem FROM "
        f"(SELECT *, {values} FROM (SELECT *, {cleaned} FROM given)) ORDER BY place"
    ).to_arrow_table()
    connection.unregister("given")
    by_name = {
        name: found.column(index).cast(declared.properties[name].type.arrow).to_pylist()
        for index, name in enumerate(names)
    }
    rows = [
        {name: by_name[name][place] for name in names if name in each.properties} for place, each in enumerate(members)
    ]
    wrong = [
        Reject(number=each.number, column=names[bad["name"]], value=bad["value"], reason=bad["reason"]) if bad else None
        for each, bad in zip(members, found.column("problem").to_pylist(), strict=True)
    ]
    return rows, wrong


def _lacking(change: Change, properties: dict[str, Any]) -> Reject | None:
    """Keys and an edge's required values are always wanted; a node's may be left out, and may not be taken away."""
    declared = change.declared
    needed = list(declared.key_columns[2:]) if isinstance(declared, Relation) else []
    if change.op == "upsert":
        # Of an edge all at once: whether it is there already nobody looks up.
        given = properties if isinstance(declared, NodeType) else declared.properties
        needed += [name for name in required(declared) if name in given and name not in needed]
    for name in needed:
        if properties.get(name) is None:
            return Reject(number=change.number, column=name, value=None, reason="missing value")
    return None


def required(declared: NodeType | Relation) -> list[str]:
    """Properties that a node or an edge may not lack."""
    names = [name for name, each in declared.properties.items() if each.required]
    if isinstance(declared, Relation) and declared.weight and declared.weight not in names:
        names.append(declared.weight)
    return names


def known_ids(store: GraphStore, changes: Iterable[Change]) -> dict[str, set[str]]:
    """Those ids, by type, that the changes name and the store has."""
    wanted: dict[str, set[str]] = {}
    for each in changes:
        declared = each.declared
        types = (declared.name,) if isinstance(declared, NodeType) else (declared.triple.source, declared.triple.target)
        for node_type, node_id in zip(types, each.ends, strict=True):
            wanted.setdefault(node_type, set()).add(node_id)
    known: dict[str, set[str]] = {}
    for node_type, ids in wanted.items():
        listed = sorted(ids)
        found = known.setdefault(node_type, set())
        for start in range(0, len(listed), _IDS_AT_ONCE):
            part = listed[start : start + _IDS_AT_ONCE]
            # One row: a row an id costs the driver of Neo4j twice as much.
            statement = f"UNWIND $ids AS id MATCH (n:`{store.label_prefix}{node_type}` {{id: id}}) RETURN collect(n.id)"
            found.update(*store.query(statement, {"ids": part}).rows[0])
    return known


def possible(changes: Sequence[Typed], known: dict[str, set[str]]) -> tuple[list[Typed], list[Reject]]:
    """The changes that can be made one after the other on a store with these ids; ``known`` is kept up to date.

    Bad are an edge to a node that is not there at its turn, and a new node without a required value.
    """
    kept: list[Typed] = []
    rejects: list[Reject] = []
    for each in changes:
        change, declared = each.change, each.change.declared
        if isinstance(declared, NodeType):
            there = known.setdefault(declared.name, set())
            node_id = change.ends[0]
            if change.op == "delete":
                there.discard(node_id)
            else:
                lacking = [name for name in required(declared) if each.properties.get(name) is None]
                if node_id not in there and lacking:
                    reason = f"missing value of a new {declared.name}"
                    rejects.append(Reject(number=change.number, column=lacking[0], value=None, reason=reason))
                    continue
                there.add(node_id)
        elif change.op == "upsert":
            ends = zip(("source", "target"), (declared.triple.source, declared.triple.target), change.ends, strict=True)
            unknown = [(column, kind, end) for column, kind, end in ends if end not in known.get(kind, ())]
            if unknown:
                column, kind, end = unknown[0]
                reason = f"no {kind} has this id"
                rejects.append(Reject(number=change.number, column=column, value=end, reason=reason))
                continue
        kept.append(each)
    return kept, rejects


def _key(change: Change, properties: dict[str, Any]) -> tuple[Any, ...]:
    declared = change.declared
    more = declared.key_columns[2:] if isinstance(declared, Relation) else ()
    return (*change.ends, *(properties[name] for name in more))


def _name(declared: NodeType | Relation) -> str:
    return declared.name if isinstance(declared, NodeType) else declared.triple.key
