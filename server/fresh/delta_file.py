"""The file between the follower, who alone writes it, and the workers, who read it: what changed since a bundle.

Records follow one another, each with its length and its checksum, and are only ever added: a reader takes the whole
ones and comes back for the rest, so that a follower killed in the middle of one leaves nothing worse than a tail that
nobody reads. A file that is to begin anew, or that grew long and is folded to the last word on each node, is written
beside and renamed. When the follower last looked at the store
without finding anything undone is the file's own time.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Literal

import pyarrow as pa

_HEAD = struct.Struct("<4sII")
_MAGIC = b"KDLT"
FOLDER = "delta"
"""Beside the bundles."""


def delta_path(root: Path, version: str) -> Path:
    """Where the delta of a bundle lies."""
    return root / FOLDER / f"{version}.delta"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Some nodes of one type that are as told now (``upsert``) or gone (``delete``)."""

    kind: Literal["upsert", "delete"]
    node_type: str
    nodes: pa.Table
    """The bundle's columns of the type, then per space ``vector/<space>`` (list of float32, null: as published, or
    none), and per edge type ``links/<key>`` (ids of the neighbours in their order) and ``weights/<key>``; of deleted
    nodes the ``id`` alone."""
    number: int = 0
    """Place among all records of one writer, from 1; of records that were folded into one, the last one's."""
    run: str = ""
    """Which writer: another one's numbers say nothing."""

    def to_bytes(self) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.nodes.schema) as writer:
            writer.write_table(self.nodes)
        told = {"kind": self.kind, "type": self.node_type, "number": self.number, "run": self.run}
        body: bytes = sink.getvalue().to_pybytes()
        return json.dumps(told).encode() + b"\n" + body

    @classmethod
    def of(cls, body: bytes) -> Record:
        head, _, table = body.partition(b"\n")
        told = json.loads(head)
        nodes = pa.ipc.open_stream(table).read_all()
        return cls(kind=told["kind"], node_type=told["type"], nodes=nodes, number=told["number"], run=told["run"])


class DeltaWriter:
    """Adds records; one process at a time."""

    def __init__(self, path: Path) -> None:
        """Begin a file anew; it takes the place of what is there with the first ``looked``, whole."""
        self._path = path
        self._file = path.with_name(path.name + ".new")
        self._run = secrets.token_hex(8)
        self._number = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_bytes(b"")

    @property
    def size(self) -> int:
        """Bytes that are written."""
        return self._file.stat().st_size

    def add(self, record: Record) -> None:
        """One more record; the file's time stays. Raises OSError where the disk is full or the file was removed."""
        self._write(self._file, replace(record, number=self._number + 1, run=self._run))
        self._number += 1

    def looked(self, at: float) -> None:
        """All that was committed before this time (seconds since 1970) is in the file."""
        os.utime(self._file, (at, at))
        if self._file != self._path:
            os.replace(self._file, self._path)  # noqa: PTH105 - names the atomic call
            self._file = self._path

    def fold(self, folded: Callable[[Sequence[Record]], Iterable[Record]]) -> None:
        """Write the file again with fewer records that come to the same; who has read it all goes on behind them.

        Raises OSError as ``add``; the file is then as it was.
        """
        beside = self._path.with_name(self._path.name + ".folded")
        before = self._file.stat()
        try:
            beside.write_bytes(b"")
            with self._file.open("rb") as file:
                records = list(_records(file.read()))
            for record in folded([record for _, record in records]):
                self._write(beside, replace(record, number=self._number, run=self._run))
            os.utime(beside, (before.st_mtime, before.st_mtime))
            os.replace(beside, self._file)  # noqa: PTH105 - names the atomic call
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise

    def _write(self, path: Path, record: Record) -> None:
        body = record.to_bytes()
        before = path.stat()
        try:
            with path.open("ab") as file:
                file.write(_HEAD.pack(_MAGIC, len(body), zlib.crc32(body)) + body)
        except OSError:
            # Nothing that is added behind a torn record would be read.
            with contextlib.suppress(OSError):
                os.truncate(path, before.st_size)
            raise
        os.utime(path, (before.st_mtime, before.st_mtime))


class DeltaReader:
    """Reads what was added since the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0
        self._file: FileIO | None = None
        """Kept open: the number of a file that is gone may be given to the one that takes its place."""
        self._gone = False
        """Whether the file that was read is no more."""
        self._last: Record | None = None

    def __del__(self) -> None:
        self._close()

    def poll(self) -> tuple[bool, list[Record]]:
        """Whether the file began anew (all before is void), and the records since; nothing where there is no file."""
        try:
            there = self._path.stat()
            if self._file is not None and not os.path.samestat(there, os.fstat(self._file.fileno())):
                self._close()
            if self._file is None:
                self._file, self._place = FileIO(self._path), 0
        except FileNotFoundError:
            self._close()
            return False, []
        anew, self._gone = self._gone, False
        self._file.seek(self._place)
        found = list(_records(self._file.readall()))
        self._place += sum(length for length, _ in found)
        records = [record for _, record in found]
        if anew and records and self._has(records[0]):
            # Folded, and all that was folded was read.
            assert self._last is not None
            anew, records = False, [record for record in records if record.number > self._last.number]
        if records:
            # Without its rows, which would be held for as long.
            self._last = replace(records[-1], nodes=pa.table({}))
        return anew, records

    def lag(self, now: float) -> float | None:
        """Seconds since the follower last had it all; None: it never had."""
        try:
            return max(0.0, now - self._path.stat().st_mtime)
        except FileNotFoundError:
            return None

    def _has(self, record: Record) -> bool:
        """Whether this record was read."""
        return self._last is not None and self._last.run == record.run and self._last.number >= record.number

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file, self._gone = None, True


def _records(data: bytes) -> Iterator[tuple[int, Record]]:
    """Whole records, each with its length."""
    place = 0
    while place + _HEAD.size <= len(data):
        magic, length, checksum = _HEAD.unpack_from(data, place)
        body = data[place + _HEAD.size : place + _HEAD.size + length]
        if magic != _MAGIC or len(body) < length or zlib.crc32(body) != checksum:
            return
        place += _HEAD.size + length
        yield _HEAD.size + length, Record.of(body)
