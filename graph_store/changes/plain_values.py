"""Values whose reading by the rules of ingest is beyond doubt, read without SQL: a statement takes 3 ms of a processor.

What is written in any other way (with blanks around it, 1.0 for a whole number, a time in another zone) is not read
here, and neither is what is wrong: both are for ``graph_store.ingest.columns``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

from graph_store.changes.rows import BLANKS, Change
from graph_store.schema import PropertyType

_INT = re.compile(r"[+-]?[0-9]{1,18}")
_FLOAT = re.compile(r"[+-]?[0-9]{1,17}(\.[0-9]{0,17})?([eE][+-]?[0-9]{1,2})?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{6})?(Z|\+00:00)?")
_BOOLS = {"true": True, "false": False}


class _Doubtful(Exception):  # not an error: leaves the value to SQL
    """A value that is read by SQL, or refused there."""


def plain_values(changes: Sequence[Change], names: Sequence[str]) -> list[dict[str, Any]] | None:
    """The typed values of changes of one node type or relation; None where one of them is in doubt."""
    readers = {name: _READERS.get(changes[0].declared.properties[name].type, _doubtful) for name in names}
    try:
        return [
            {name: None if value is None else readers[name](value) for name, value in each.properties.items()}
            for each in changes
        ]
    except (_Doubtful, ValueError):
        return None


def _doubtful(_: Any) -> Any:
    raise _Doubtful


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or value[0] in BLANKS or value[-1] in BLANKS or "\0" in value:
        raise _Doubtful
    value.encode()  # a lone surrogate is a ValueError
    return value


def _texts(value: Any) -> list[str]:
    found = [_text(each) for each in value] if isinstance(value, list) else []
    if not found:
        raise _Doubtful
    return found


def _matching(pattern: re.Pattern[str], read: Callable[[str], Any]) -> Callable[[Any], Any]:
    def reader(value: Any) -> Any:
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise _Doubtful
        return read(value)

    return reader


def _bool(value: Any) -> bool:
    if not isinstance(value, str) or value not in _BOOLS:
        raise _Doubtful
    return _BOOLS[value]


def _moment(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


_READERS: dict[PropertyType, Callable[[Any], Any]] = {
    PropertyType.STRING: _text,
    PropertyType.STRINGS: _texts,
    PropertyType.INT: _matching(_INT, int),
    PropertyType.FLOAT: _matching(_FLOAT, float),
    PropertyType.BOOL: _bool,
    PropertyType.DATE: _matching(_DATE, date.fromisoformat),
    PropertyType.TIMESTAMP: _matching(_TIME, _moment),
}
