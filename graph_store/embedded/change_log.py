"""What this program wrote to an embedded store: a file beside it, one line a commit, linked by the store's state.

A line holds the state token before the commit and after it. While a writer holds the store nobody else can commit, so
a chain of lines from a known state to the present one tells everything that was committed in between. The line is
written after the commit: where the process ends between the two, or another program writes, the chain has a gap, and
who reads it compares the whole graph instead. A line too few costs time; a wrong one is not possible, which a table in
the store (whose rows say nothing of commits by others) could not promise.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from graph_store.written import Logged, WrittenSince

_MOST_BYTES = 8 << 20
"""A longer file loses its older half."""


class ChangeLog:
    """The file ``<store>.changes``."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".changes")

    def append(self, before: str, after: str, changes: Sequence[Logged]) -> None:
        """Note a commit; for the writer. A full disk or a folder without rights leaves a gap, and no error."""
        with suppress(OSError):
            number = 1 + (self._last_number() if self._path.is_file() else 0)
            body = json.dumps([number, before, after, [each.to_json() for each in changes]], separators=(",", ":"))
            with self._path.open("ab") as file:
                file.write(f"{zlib.crc32(body.encode()):08x} {body}\n".encode())
            if self._path.stat().st_size > _MOST_BYTES:
                self._halve()

    def since(self, watermark: str, now: str) -> WrittenSince | None:
        """The changes from one state on, and whether they lead to the other; None where no chain begins there.

        Between a commit and its line, the chain ends before the present state for a moment.
        """
        if watermark == now:
            return WrittenSince(changes=(), watermark=now, complete=True)
        found: list[Logged] = []
        last = wanted = ""
        for line in reversed(self._lines()):
            entry = _parsed(line)
            if entry is None or (last and entry[2] != wanted):
                return None
            if entry[2] == watermark and not last:
                return WrittenSince(changes=(), watermark=watermark, complete=False)
            found[:0] = [Logged.from_json(each) for each in entry[3]]
            last, wanted = last or entry[2], entry[1]
            if wanted == watermark:
                return WrittenSince(changes=tuple(found), watermark=last, complete=last == now)
        return None

    def _lines(self) -> list[bytes]:
        try:
            return self._path.read_bytes().split(b"\n")[:-1]
        except OSError:
            return []

    def _last_number(self) -> int:
        with self._path.open("rb") as file:
            file.seek(max(0, self._path.stat().st_size - (1 << 20)))
            for line in reversed(file.read().split(b"\n")):
                entry = _parsed(line)
                if entry is not None:
                    return entry[0]
        return 0

    def _halve(self) -> None:
        lines = self._lines()
        beside = self._path.with_name(self._path.name + ".tmp")
        beside.write_bytes(b"".join(line + b"\n" for line in lines[len(lines) // 2 :]))
        os.replace(beside, self._path)  # noqa: PTH105 - names the atomic call


def _parsed(line: bytes) -> tuple[int, str, str, list[list[object]]] | None:
    checksum, _, body = line.partition(b" ")
    if not body or checksum != f"{zlib.crc32(body):08x}".encode():
        return None
    number, before, after, changes = json.loads(body)
    return number, before, after, changes
