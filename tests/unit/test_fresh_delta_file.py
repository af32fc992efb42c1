"""The delta's file where it grew long: folded to the last word on each node, and read on by those that had it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from server.fresh.delta import Delta
from server.fresh.delta_file import DeltaReader, DeltaWriter, Record


def named(**names: str) -> Record:
    return Record(kind="upsert", node_type="Artist", nodes=pa.table({"id": list(names), "name": list(names.values())}))


def gone(*ids: str) -> Record:
    return Record(kind="delete", node_type="Artist", nodes=pa.table({"id": pa.array(ids, pa.string())}))


def told(delta: Delta) -> dict[str, str | None]:
    each = delta.types["Artist"]
    names = dict(zip(each.nodes.column("id").to_pylist(), each.nodes.column("name").to_pylist(), strict=True))
    return {**names, **dict.fromkeys(each.deleted)}


def fold(writer: DeltaWriter) -> None:
    writer.fold(lambda records: Delta().plus(records).records())


def test_folded_it_says_the_same_in_fewer_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.delta"
    writer = DeltaWriter(path)
    for number in range(50):
        writer.add(named(a=f"A{number}", b=f"B{number}"))
    writer.add(gone("b"))
    writer.looked(80.0)
    long = path.stat().st_size
    fold(writer)
    assert path.stat().st_size < long / 10
    reader = DeltaReader(path)
    anew, records = reader.poll()
    assert (anew, told(Delta().plus(records))) == (False, {"a": "A49", "b": None})
    assert reader.lag(90.0) == 10.0, "when it was looked at last is kept"
    assert [each.name for each in tmp_path.iterdir()] == ["x.delta"]


def test_who_read_all_goes_on_behind_the_fold_and_who_did_not_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.delta"
    writer, quick, slow = DeltaWriter(path), DeltaReader(path), DeltaReader(path)
    writer.add(named(a="A1"))
    writer.looked(80.0)
    assert [len(reader.poll()[1]) for reader in (quick, slow)] == [1, 1]
    writer.add(named(a="A2", b="B2"))
    ((_, (second,)),) = [quick.poll()]
    assert second.number == 2
    fold(writer)
    writer.add(named(c="C3"))
    anew, records = quick.poll()
    assert (anew, [each.number for each in records]) == (False, [3])
    anew, records = slow.poll()
    assert anew
    assert told(Delta().plus(records)) == {"a": "A2", "b": "B2", "c": "C3"}
    writer.add(gone("a"))
    assert [[each.number for each in reader.poll()[1]] for reader in (quick, slow)] == [[4], [4]]


def test_another_writer_begins_anew_whatever_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.delta"
    first, reader = DeltaWriter(path), DeltaReader(path)
    for number in range(3):
        first.add(named(a=f"A{number}"))
    first.looked(80.0)
    assert len(reader.poll()[1]) == 3
    second = DeltaWriter(path)
    second.add(named(b="B"))
    second.looked(81.0)
    anew, records = reader.poll()
    assert (anew, told(Delta().plus(records))) == (True, {"b": "B"})


def test_a_fold_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.delta"
    writer = DeltaWriter(path)
    writer.add(named(a="A"))
    writer.looked(80.0)
    before = path.read_bytes()

    def full(_: object) -> list[Record]:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        writer.fold(full)
    assert path.read_bytes() == before
    writer.add(gone("a"))
    assert [each.kind for each in DeltaReader(path).poll()[1]] == ["upsert", "delete"]
