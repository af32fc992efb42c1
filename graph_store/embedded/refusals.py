"""Statements of somebody's that are not run."""

from __future__ import annotations

import re

from graph_store.errors import QueryError

# Texts and comments, which may hold semicolons and keywords that mean nothing.
_OPAQUE = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`[^`]*`|//[^\n]*|/\*.*?\*/", re.DOTALL)
_TRANSACTION = frozenset({"BEGIN", "COMMIT", "ROLLBACK", "CHECKPOINT"})
# These write outside the graph (files, settings of the process), which a read-only transaction lets pass.
_WRITES_OUTSIDE = frozenset({"COPY", "EXPORT", "IMPORT", "INSTALL", "UNINSTALL", "LOAD EXTENSION", "ATTACH", "DETACH"})


def refuse(statement: str, *, write: bool, read_only: bool) -> None:
    """Raise QueryError for what is not one statement, ends a transaction, or writes and may not."""
    bare = _OPAQUE.sub(" ", statement).strip().rstrip("; \n\t\r")
    words = bare.upper().split()
    start = {" ".join(words[:length]) for length in (1, 2)}
    if not words:
        raise QueryError("the query is empty")
    if start & _TRANSACTION:
        raise QueryError(f"{words[0]} is not for queries", hint="Each query is a transaction of its own.")
    if ";" in bare:
        raise QueryError("more than one statement", hint="Run them one by one.")
    if not write and start & _WRITES_OUTSIDE:
        raise QueryError(f"{words[0]} writes, and the query is read-only", hint="Allow it with --write.")
    if write and read_only:
        raise QueryError("the store is open read-only", hint="Open it without read_only.")
