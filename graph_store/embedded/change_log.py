"""What this program wrote to an embedded store: a file beside it, one line a commit, linked by the store's state.

A line holds the state token before the commit and after it. While a writer holds the store nobody else can commit, so
a chain of lines from a known state to the present one tells everything that was committed in between. The line is
written after the commit: where the process ends between the two, or another program writes, the chain has a gap, and
who reads it compares the whole graph instead. A line too few costs time; a wrong one is not possible, which a table in
the store (whose rows say nothing of commits by others) could not promise.

Where Ladybug's own log is folded into the file, size and time of both change and nothing is committed: a line with
nothing in place of changes says that the state after it is the one before.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from graph_store.written import Logged, WrittenSince

_MOST_BYTES = 8 << 20
"""A longer file loses its older half."""


_TAIL_BYTES = 1 << 16
"""What is read of the file first: its last lines."""


class Token(NamedTuple):
    """What the file system tells of a store."""

    file: str
    """Size and time of the file, empty where there is none."""
    log: str
    """The same of Ladybug's log, empty where there is nothing in it."""

    @classmethod
    def of(cls, path: Path) -> Token:
        """The present one."""
        parts = []
        for each in (path, path.with_name(path.name + ".wal")):
            part = ""
            with suppress(FileNotFoundError):
                stat = each.stat()
                if each == path or stat.st_size:
                    part = f"{stat.st_size:x}-{stat.st_mtime_ns:x}"
            parts.append(part)
        return cls(*parts)

    @classmethod
    def parsed(cls, text: str) -> Token:
        """From its text."""
        file, _, log = text.partition("+")
        return cls(file, log)

    @property
    def logged(self) -> int:
        """Bytes of Ladybug's log."""
        return int(self.log.partition("-")[0] or "0", 16)

    def __str__(self) -> str:
        return f"{self.file}+{self.log}" if self.log else self.file


class ChangeLog:
    """The file ``<store>.changes``."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".changes")
        self._number: int | None = None

    def append(self, before: str, after: str, changes: Sequence[Logged]) -> None:
        """Note a commit; for the writer. A full disk or a folder without rights leaves a gap, and no error."""
        self._add(before, after, [each.to_json() for each in changes])

    def folded(self, before: str, after: str) -> None:
        """Note that the store is as it was ``before``, and its files are not."""
        self._add(before, after, None)

    def _add(self, before: str, after: str, changes: list[list[object]] | None) -> None:
        with suppress(OSError):
            if self._number is None:
                self._number = next((entry[0] for entry in self._entries() if entry is not None), 0)
            self._number += 1
            body = json.dumps([self._number, before, after, changes], separators=(",", ":"))
            with self._path.open("ab") as file:
                file.write(f"{zlib.crc32(body.encode()):08x} {body}\n".encode())
                size = file.tell()
            if size > _MOST_BYTES:
                self._halve()

    def state(self, token: str) -> str:
        """The state that a token stands for: where a log was folded last, the one before."""
        last = next(self._entries(), None)
        return last[1] if last is not None and last[3] is None and last[2] == token else token

    def last(self) -> Token | None:
        """The files as the last line left them."""
        last = next(self._entries(), None)
        return None if last is None else Token.parsed(last[2])

    def since(self, watermark: str, now: str) -> WrittenSince | None:
        """The changes from one state on, and whether they lead to the other; None where no chain begins there.

        Between a commit and its line, the chain ends before the present state for a moment.
        """
        if watermark == now:
            return WrittenSince(changes=(), watermark=now, complete=True)
        found: list[Logged] = []
        last = wanted = ""
        for entry in self._entries():
            if entry is None or (last and entry[3] is not None and entry[2] != wanted):
                return None
            if entry[3] is None:
                continue
            if entry[2] == watermark and not last:
                return WrittenSince(changes=(), watermark=watermark, complete=False)
            found[:0] = [Logged.from_json(each) for each in entry[3]]
            last, wanted = last or entry[2], entry[1]
            if wanted == watermark:
                return WrittenSince(changes=tuple(found), watermark=last, complete=last == now)
        return None

    def _entries(self) -> Iterator[_Entry | None]:
        """The lines, the last first; None for one that cannot be read."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, 2)
                start = max(0, size - _TAIL_BYTES)
                file.seek(start)
                # Of the part that begins somewhere, the first line is not whole.
                lines = file.read(size - start).split(b"\n")[1 if start else 0 : -1]
                for line in reversed(lines):
                    yield _parsed(line)
                if start:
                    file.seek(0)
                    before = file.read(size).split(b"\n")[: -1 - len(lines)]
                    for line in reversed(before):
                        yield _parsed(line)
        except OSError:
            return

    def _lines(self) -> list[bytes]:
        try:
            return self._path.read_bytes().split(b"\n")[:-1]
        except OSError:
            return []

    def _halve(self) -> None:
        lines = self._lines()
        beside = self._path.with_name(self._path.name + ".tmp")
        beside.write_bytes(b"".join(line + b"\n" for line in lines[len(lines) // 2 :]))
        os.replace(beside, self._path)  # noqa: PTH105 - names the atomic call


_Entry = tuple[int, str, str, list[list[object]] | None]


def _parsed(line: bytes) -> _Entry | None:
    checksum, _, body = line.partition(b" ")
    if not body or checksum != f"{zlib.crc32(body):08x}".encode():
        return None
    number, before, after, changes = json.loads(body)
    return number, before, after, changes
