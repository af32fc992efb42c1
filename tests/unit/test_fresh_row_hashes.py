"""What differs between two lots of rows, found among sorted hashes, against the same counted in Python."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from graph_store.changes.row_hashes import RowHashes, by_key, corrected, differing
from graph_store.scratch_sql import scratch_sql

Row = tuple[str, str, int | None]
KEYS = ("source", "target")


def table(rows: list[Row]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    schema = pa.schema([("source", pa.string()), ("target", pa.string()), ("at", pa.int64())])
    return pa.table([pa.array(each, field.type) for each, field in zip(columns, schema, strict=True)], schema=schema)


def drawn(random: np.random.Generator, count: int) -> list[Row]:
    """Few ends and few times: many rows of one pair, and some that are there twice."""
    return [
        (f"s{random.integers(6)}", f"t{random.integers(4)}", None if random.random() < 0.2 else int(random.integers(3)))
        for _ in range(count)
    ]


def by_pair(rows: list[Row]) -> dict[tuple[str, str], Counter[int | None]]:
    found: dict[tuple[str, str], Counter[int | None]] = {}
    for source, target, at in rows:
        found.setdefault((source, target), Counter())[at] += 1
    return found


def pairs(found: pa.Table) -> list[tuple[str, str]]:
    return list(zip(*(found.column(name).to_pylist() for name in KEYS), strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_pairs_that_differ_are_found_whatever_joins_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    older = drawn(random, int(random.integers(0, 40)))
    newer = [row for row in older if random.random() < 0.8] + drawn(random, int(random.integers(0, 6)))
    random.shuffle(newer)
    before, after = by_pair(older), by_pair(newer)
    with scratch_sql() as connection:
        first = RowHashes.of(connection, table(older), KEYS, None)
        second = RowHashes.of(connection, table(newer), KEYS, first)
        found = differing(connection, first, second)
    assert pairs(found["upsert"]) == sorted(pair for pair in after if after[pair] != before.get(pair))
    assert pairs(found["delete"]) == sorted(before.keys() - after.keys())


def test_the_same_rows_in_another_order_are_those_that_are_known() -> None:
    rows: list[Row] = [("a", "x", 1), ("a", "x", 1), ("b", "y", None)]
    with scratch_sql() as connection:
        first = RowHashes.of(connection, table(rows), KEYS, None)
        assert RowHashes.of(connection, table(rows[::-1]), KEYS, first) is first
        assert RowHashes.of(connection, table(rows[1:]), KEYS, first) is not first


@pytest.mark.parametrize("seed", range(10))
def test_of_noted_keys_the_note_is_what_counts(seed: int) -> None:
    random = np.random.default_rng(seed)
    older, between, newer = (drawn(random, 25) for _ in range(3))
    known = sorted(by_pair(drawn(random, 6)))
    before, then, now = map(by_pair, (older, between, newer))
    with scratch_sql() as connection:
        first = RowHashes.of(connection, table(older), KEYS, None)
        second = RowHashes.of(connection, table(newer), KEYS, first)
        hashes = {
            (row["source"], row["target"]): row["hash"] for row in by_key(connection, table(between), KEYS).to_pylist()
        }
        columns = [pa.array([pair[end] for pair in known]) for end in (0, 1)]
        note = pa.table([*columns, pa.array([hashes.get(pair) for pair in known], pa.uint64())], [*KEYS, "hash"])
        found = corrected(connection, differing(connection, first, second), table(newer), KEYS, [note])
    last = {**before, **{pair: then[pair] for pair in known if pair in then}}
    last = {pair: each for pair, each in last.items() if pair not in known or pair in then}
    assert pairs(found["upsert"]) == sorted(pair for pair in now if now[pair] != last.get(pair))
    assert pairs(found["delete"]) == sorted(last.keys() - now.keys())


@pytest.mark.parametrize("values", [([], None), ([], [None]), (None, [None]), ([], ["a"])])
def test_a_list_without_values_is_not_none_at_all(values: tuple[list[str | None] | None, ...]) -> None:
    with scratch_sql() as connection:
        before, after = (
            pa.table({"id": ["a", "b"], "tags": pa.array([["x"], value], pa.list_(pa.string()))}) for value in values
        )
        known = RowHashes.of(connection, before, ["id"], None)
        found = differing(connection, known, RowHashes.of(connection, after, ["id"], known))
        assert found["upsert"].column("id").to_pylist() == ["b"]
        hashes = [by_key(connection, rows, ["id"]).sort_by("id").column("hash").to_pylist() for rows in (before, after)]
        assert hashes[0][0] == hashes[1][0]
        assert hashes[0][1] != hashes[1][1]
