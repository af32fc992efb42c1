"""Errors of the graph store, split by whose fault they are.

GraphStoreError
├── ConfigError            kithkin.toml or a setting is wrong: file, key and value are named
├── InputError             the data is wrong: file, line, column and value are named
│   ├── TooManyRejects     more bad rows than the limit; nothing was written
│   └── ChecksFailed       a declared check of level error fails; nothing was written
├── QueryError             a Cypher query the store refuses (syntax, unknown label, a write without --write)
├── NodeNotFound           no node has this id or name; the closest names are told
└── StoreError             the store itself
    ├── StoreUnavailable   not reachable, or went away; worth a retry
    ├── StoreAuthError     wrong user or password, or a user who may not do this
    ├── StoreLocked        another process holds the write handle
    ├── StoreConflict      what is there does not fit the declared schema
    └── StoreCorrupt       damaged files
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path
from typing import Any


class GraphStoreError(Exception):
    """Base of every error this package raises on purpose.

    ``hint`` says what to do about it, in one sentence; ``exit_code`` is what the command line ends with.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class ConfigError(GraphStoreError):
    """A setting is wrong; names the file, the key (dotted) and the value."""

    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        file: Path | None = None,
        key: str = "",
        value: object = None,
        hint: str = "",
    ) -> None:
        place = ": ".join(str(part) for part in (file, key) if part)
        shown = "" if value is None else f" (got {value!r})"
        super().__init__(f"{place}: {message}{shown}" if place else f"{message}{shown}", hint=hint)
        self.file, self.key, self.value = file, key, value


class InputError(GraphStoreError):
    """Input data is wrong; names the file, the line (1-based, header included), the column and the value."""

    exit_code = 4

    def __init__(
        self,
        message: str,
        *,
        file: Path | None = None,
        line: int | None = None,
        column: str = "",
        value: object = None,
        hint: str = "",
    ) -> None:
        place = str(file or "")
        if line is not None:
            place += f":{line}"
        if column:
            place += f"{': ' if place else ''}column {column!r}"
        shown = "" if value is None else f" (got {value!r})"
        super().__init__(f"{place}: {message}{shown}" if place else f"{message}{shown}", hint=hint)
        self.file, self.line, self.column, self.value = file, line, column, value


class TooManyRejects(InputError):
    """More rows were rejected than the limit allows; nothing was written to the store."""


class ChecksFailed(InputError):
    """Rows fail declared checks of level error; nothing was written to the store.

    ``reports`` are all checks of the load (``graph_store.ingest.CheckReport``).
    """

    reports: tuple[Any, ...] = ()


class QueryError(GraphStoreError):
    """The store refused a Cypher query."""

    exit_code = 2


class NodeNotFound(GraphStoreError):
    """No node has this id or name; ``closest`` are (type, id, name) of the nodes that come nearest."""

    exit_code = 2

    def __init__(
        self, text: str, *, node_type: str | None = None, closest: tuple[tuple[str, str, str], ...] = ()
    ) -> None:
        nearest = ", ".join(f"{type_} {id_}" + (f" {name!r}" if name != id_ else "") for type_, id_, name in closest)
        hint = f"Closest: {nearest}" if nearest else "There are no such nodes at all; has `kithkin ingest` run?"
        super().__init__(f"no {node_type or 'node'} has the id or name {text!r}", hint=hint)
        self.text, self.node_type, self.closest = text, node_type, closest


class StoreError(GraphStoreError):
    """The store failed."""

    exit_code = 5


class StoreUnavailable(StoreError):
    """The store cannot be reached, or went away in the middle."""


class StoreAuthError(StoreError):
    """User or password refused, or what the user may not do."""


class StoreLocked(StoreError):
    """Another process holds the only write handle."""


class StoreConflict(StoreError):
    """What is in the store does not fit the declared schema."""


class StoreCorrupt(StoreError):
    """The store's files are damaged."""


def known_hint(name: str, known: Collection[str]) -> str:
    """The name that was meant, if one is close, and all that would do."""
    close = difflib.get_close_matches(name, known, n=1)
    return (f"Did you mean {close[0]!r}? " if close else "") + f"Known are {', '.join(sorted(known))}."
