"""Few rows are compared in Python and many in SQL, to the same end."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from graph_store import rows

SCHEMA = pa.schema(
    {
        "source": pa.string(),
        "at": pa.timestamp("us", tz="UTC"),
        "number": pa.int64(),
        "share": pa.float64(),
        "day": pa.date32(),
        "words": pa.list_(pa.string()),
        "face": pa.list_(pa.float32()),
    }
)
AT = datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)


def _row(source: str, at: datetime | None = AT, **given: object) -> dict[str, object]:
    values = {"number": 1, "share": 0.1, "day": date(2026, 1, 1), "words": ["a", "b"], "face": [0.1, 0.2]}
    return {"source": source, "at": at, **values, **given}


INCOMING = pa.Table.from_pylist(
    [
        _row("new"),
        _row("same"),
        _row("no time", None),
        _row("another time", None),
        _row("number", number=2),
        _row("null", number=None),
        _row("zero", share=-0.0),
        _row("nan", share=float("nan")),
        _row("day", day=date(2026, 1, 2)),
        _row("words", words=["b", "a"]),
        _row("no words", words=[]),
        _row("face", face=[0.1, 0.3]),
        _row("nan in it", face=[0.1, float("nan")]),
        _row("twice there"),
    ],
    SCHEMA,
)
EXISTING = pa.Table.from_pylist(
    [
        _row("same"),
        _row("no time", None),
        _row("another time"),
        _row("number"),
        _row("null"),
        _row("zero", share=0.0),
        _row("nan", share=float("nan")),
        _row("day"),
        _row("words"),
        _row("no words", words=None),
        _row("face"),
        _row("nan in it", face=[0.1, float("nan")]),
        _row("twice there"),
        _row("twice there", number=7),
        _row("only there"),
    ],
    SCHEMA,
)
KEYS = ["source", "at"]


@pytest.mark.parametrize("few", [0, 2_000])
def test_what_differs(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(rows, "_FEW", few)
    found = rows.difference(INCOMING, EXISTING, KEYS)
    assert found.new.column("source").to_pylist() == ["new", "another time"]
    changed = ["number", "null", "day", "words", "no words", "face", "twice there"]
    assert found.changed.column("source").to_pylist() == changed
    assert found.unchanged == INCOMING.num_rows - 9
    assert found.new.schema == found.changed.schema == SCHEMA
    assert rows.not_in(INCOMING, EXISTING, KEYS).column("source").to_pylist() == ["new", "another time"]
    assert rows.present_in(EXISTING, INCOMING, KEYS).num_rows == EXISTING.num_rows - 2
    assert rows.not_in(EXISTING, INCOMING, ["source"]).column("source").to_pylist() == ["only there"]
    by_key = rows.difference(INCOMING.select(KEYS), EXISTING.select(KEYS), KEYS)
    assert (by_key.new.num_rows, by_key.changed.num_rows, by_key.unchanged) == (2, 0, INCOMING.num_rows - 2)
