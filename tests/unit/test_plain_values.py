"""What is read without SQL is read as with it."""

from __future__ import annotations

from typing import Any

import pytest

from graph_store.changes import checks
from graph_store.changes.plain_values import plain_values
from graph_store.changes.rows import Given, read
from graph_store.schema import GraphSchema, NodeType

SCHEMA = GraphSchema(
    node_types=(
        NodeType.model_validate(
            {
                "name": "Thing",
                "role": "entity",
                "properties": {
                    "string": {"type": "string"},
                    "strings": {"type": "strings"},
                    "int": {"type": "int"},
                    "float": {"type": "float"},
                    "bool": {"type": "bool"},
                    "date": {"type": "date"},
                    "timestamp": {"type": "timestamp"},
                    "vector": {"type": "vector", "dimension": 2},
                },
            }
        ),
    ),
    relations=(),
)
PLAIN: dict[str, list[Any]] = {
    "string": ["a", "two words", "Ünïcode ☃", "0", "-", "a\tb", None],
    "strings": [["a"], ["a b", "c"], None],
    "int": ["0", "-1", "+7", "007", "999999999999999999", 12, True and 5, None],
    "float": ["1", "-1.5", "1.", "0.1", "3.141592653589793", "1e10", "2.5E-7", "123456789012345678"[:17], 0.1, 1e22],
    "bool": ["true", "false", True, False, None],
    "date": ["2026-11-21", "0001-01-01", "9999-12-31", None],
    "timestamp": [
        "2026-11-21T10:11:12",
        "2026-11-21 10:11:12Z",
        "1969-12-31T23:59:59.999999+00:00",
        "0001-01-01T00:00:00",
        "9999-12-31T23:59:59.999999Z",
    ],
}
DOUBTFUL: dict[str, list[Any]] = {
    "string": ["", " ", " a", "a\n", "\u00a0a", ["a"]],
    "strings": [[], [""], ["a", None], [" a"], "a"],
    "int": ["1.0", " 1", "1_000", "٣", "9999999999999999999", "x", ["1"], 1.5],
    "float": ["nan", "inf", "1e999", ".5", "1_0.0", "٣.٣", ["1"]],
    "bool": ["yes", "TRUE", "2", "1"],
    "date": ["2026-1-2", "2026-02-30", "0000-01-01", "2026-11-21T10:00:00", "20261121"],
    "timestamp": ["2026-11-21", "2026-11-21T25:00:00", "2026-11-21T10:11:12+02:00", "2026-11-21T24:00:00", "now"],
    "vector": [["1", "2"], ["1"], "1,2"],
}


def _changes(name: str, value: Any) -> Any:
    given = {"op": "upsert", "type": "Thing", "id": "a", "properties": {name: value}}
    changes, rejects = read(SCHEMA, [Given(number=1, values=given, text="")])
    assert not rejects
    return changes


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in PLAIN.items() for value in values])
def test_plain_values_are_those_of_sql(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = _changes(name, value)
    told = plain_values(changes, [name])
    assert told is not None
    monkeypatch.setattr(checks, "plain_values", lambda *_: None)
    [by_sql], rejects = checks.typed(changes)
    assert not rejects
    assert told == [by_sql.properties]
    assert [type(each) for each in told[0].values()] == [type(each) for each in by_sql.properties.values()]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in DOUBTFUL.items() for value in values])
def test_what_is_in_doubt_is_left_to_sql(name: str, value: Any) -> None:
    assert plain_values(_changes(name, value), [name]) is None
