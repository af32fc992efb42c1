"""Parquet files of a generated catalogue and its kithkin.toml, of any size, block by block; the same every time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

_BLOCK = 1_000_000
_START_US = 1_700_000_000_000_000
NODE_SHARES = {"Item": 0.5, "Tag": 0.05, "User": 0.45}
EDGE_SHARES = {"VIEWED": 0.7, "NEAR": 0.2, "HAS_TAG": 0.1}
DECLARATION = """\
name = "load"

[nodes.Item]
role = "entity"
display = "title"
properties = {{ title = {{ type = "string" }}, year = {{ type = "int" }}, price = {{ type = "float" }} }}
[nodes.Tag]
role = "concept"
display = "name"
properties = {{ name = {{ type = "string" }} }}
[nodes.User]
role = "user"

[[relations]]
triple = ["User", "VIEWED", "Item"]
role = "engagement"
weight = "share"
time = "time"
properties = {{ share = {{ type = "float" }}, time = {{ type = "timestamp" }} }}
[[relations]]
triple = ["Item", "NEAR", "Item"]
role = "co_engagement"
weight = "strength"
properties = {{ strength = {{ type = "float" }} }}
[[relations]]
triple = ["Item", "HAS_TAG", "Tag"]
role = "semantic"

[[sources]]
file = "items.parquet"
node = "Item"
id = "id"
properties = {{ title = "title", year = "year", price = "price" }}
[[sources]]
file = "tags.parquet"
node = "Tag"
id = "id"
properties = {{ name = "name" }}
[[sources]]
file = "users.parquet"
node = "User"
id = "id"
[[sources]]
file = "viewed.parquet"
relation = ["User", "VIEWED", "Item"]
source = "user"
target = "item"
properties = {{ share = "share", time = "time" }}
[[sources]]
file = "near.parquet"
relation = ["Item", "NEAR", "Item"]
source = "item"
target = "other"
properties = {{ strength = "strength" }}
[[sources]]
file = "has_tag.parquet"
relation = ["Item", "HAS_TAG", "Tag"]
source = "item"
target = "tag"

[store]
uri = ".kithkin/graph.lbug"
memory_mib = {memory_mib}
"""
Ints = NDArray[np.int64]


def write_project(folder: Path, *, nodes: int, edges: int, memory_mib: int) -> Path:
    """About so many nodes and edges in Parquet files with a declaration, made once; returns the kithkin.toml.

    No node and no edge repeats and every end is there, so that a bare COPY of the files gives the same graph. Events
    come by time, from users and to items of skewed popularity; the other edges in no order of their ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "kithkin.toml"
    if file.exists():
        return file
    counts = {name: int(nodes * share) for name, share in NODE_SHARES.items()}
    _write(folder / "items.parquet", _items(counts["Item"]))
    _write(folder / "tags.parquet", _tags(counts["Tag"]))
    _write(folder / "users.parquet", _users(counts["User"]))
    amounts = {name: int(edges * share) for name, share in EDGE_SHARES.items()}
    _write(folder / "viewed.parquet", _viewed(amounts["VIEWED"], counts))
    _write(folder / "near.parquet", _near(amounts["NEAR"], counts["Item"]))
    _write(folder / "has_tag.parquet", _has_tag(amounts["HAS_TAG"], counts))
    file.write_text(DECLARATION.format(memory_mib=memory_mib), encoding="utf-8")
    return file


def _write(path: Path, tables: Iterator[pa.Table]) -> None:
    first = next(tables)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first, row_group_size=131_072)
        for table in tables:
            writer.write_table(table, row_group_size=131_072)


def _blocks(count: int) -> Iterator[Ints]:
    for start in range(0, count, _BLOCK):
        yield np.arange(start, min(start + _BLOCK, count))


def _ids(letter: str, numbers: Ints) -> pa.Array:
    digits = pa.array(numbers).cast(pa.string())
    return pc.binary_join_element_wise(pa.scalar(letter), digits, "")


def _items(count: int) -> Iterator[pa.Table]:
    for numbers in _blocks(count):
        rng = np.random.default_rng([1, int(numbers[0])])
        titles = pc.binary_join_element_wise(pa.scalar("The Item of"), _ids("number ", numbers), " ")
        yield pa.table(
            {
                "id": _ids("i", numbers),
                "title": titles,
                "year": rng.integers(1930, 2026, len(numbers)),
                "price": np.round(rng.exponential(20.0, len(numbers)), 2),
            }
        )


def _tags(count: int) -> Iterator[pa.Table]:
    for numbers in _blocks(count):
        yield pa.table({"id": _ids("t", numbers), "name": _ids("tag ", numbers)})


def _users(count: int) -> Iterator[pa.Table]:
    for numbers in _blocks(count):
        yield pa.table({"id": _ids("u", numbers)})


def _viewed(count: int, nodes: dict[str, int]) -> Iterator[pa.Table]:
    for numbers in _blocks(count):
        rng = np.random.default_rng([2, int(numbers[0])])
        user = (nodes["User"] * rng.random(len(numbers)) ** 1.5).astype(np.int64)
        item = (nodes["Item"] * rng.random(len(numbers)) ** 2).astype(np.int64)
        yield pa.table(
            {
                "user": _ids("u", user),
                "item": _ids("i", item),
                "share": np.round(rng.random(len(numbers)) + 0.05, 2),
                "time": pa.array(_START_US + numbers * 1_000_000).cast(pa.timestamp("us", tz="UTC")),
            }
        )


def _spread(numbers: Ints, count: int) -> tuple[Ints, Ints]:
    """Each of ``count`` nodes once a round, in an order that jumps about; and the round."""
    step = next(step for step in range(int(count * 0.618) | 1, 2 * count, 2) if np.gcd(step, count) == 1)
    return numbers % count * step % count, numbers // count


def _near(count: int, items: int) -> Iterator[pa.Table]:
    rounds = -(-count // items)
    for numbers in _blocks(count):
        rng = np.random.default_rng([3, int(numbers[0])])
        item, turn = _spread(numbers, items)
        other = (item + 1 + turn * (items // (rounds + 1))) % items
        strength = np.round(rng.random(len(numbers)) + 0.01, 3)
        yield pa.table({"item": _ids("i", item), "other": _ids("i", other), "strength": strength})


def _has_tag(count: int, nodes: dict[str, int]) -> Iterator[pa.Table]:
    rounds = -(-count // nodes["Item"])
    for numbers in _blocks(count):
        item, turn = _spread(numbers, nodes["Item"])
        tag = (item * 31 + turn * (nodes["Tag"] // (rounds + 1))) % nodes["Tag"]
        yield pa.table({"item": _ids("i", item), "tag": _ids("t", tag)})
