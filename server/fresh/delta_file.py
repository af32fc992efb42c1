"""The file between the follower, who alone writes it, and the workers, who read it: what changed since a bundle.

Records follow one another, each with its length and its checksum, and are only ever added: a reader takes the whole
ones and comes back for the rest, so that a follower killed in the middle of one leaves nothing worse than a tail that
nobody reads. A file that is to begin anew is written beside and renamed. When the follower last looked at the store
without finding anything undone is the file's own time.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
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

    def to_bytes(self) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.nodes.schema) as writer:
            writer.write_table(self.nodes)
        head = json.dumps({"kind": self.kind, "type": self.node_type}).encode()
        body: bytes = sink.getvalue().to_pybytes()
        return head + b"\n" + body

    @classmethod
    def of(cls, body: bytes) -> Record:
        head, _, table = body.partition(b"\n")
        told = json.loads(head)
        return cls(kind=told["kind"], node_type=told["type"], nodes=pa.ipc.open_stream(table).read_all())


class DeltaWriter:
    """Adds records; one process at a time."""

    def __init__(self, path: Path) -> None:
        """Begin a file anew; it takes the place of what is there with the first ``looked``, whole."""
        self._path = path
        self._file = path.with_name(path.name + ".new")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_bytes(b"")

    def add(self, record: Record) -> None:
        """One more record; the file's time stays."""
        body = record.to_bytes()
        before = self._file.stat().st_mtime
        with self._file.open("ab") as file:
            file.write(_HEAD.pack(_MAGIC, len(body), zlib.crc32(body)) + body)
        os.utime(self._file, (before, before))

    def looked(self, at: float) -> None:
        """All that was committed before this time (seconds since 1970) is in the file."""
        os.utime(self._file, (at, at))
        if self._file != self._path:
            os.replace(self._file, self._path)  # noqa: PTH105 - names the atomic call
            self._file = self._path


class DeltaReader:
    """Reads what was added since the last time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._place = 0
        self._file: int | None = None

    def poll(self) -> tuple[bool, list[Record]]:
        """Whether the file began anew (all before is void), and the records since; nothing where there is no file."""
        try:
            with self._path.open("rb") as file:
                stat = os.fstat(file.fileno())
                anew = self._file is not None and stat.st_ino != self._file
                if anew or self._file is None:
                    self._place = 0
                self._file = stat.st_ino
                if stat.st_size <= self._place:
                    return anew, []
                file.seek(self._place)
                return anew, list(self._records(file.read()))
        except FileNotFoundError:
            return False, []

    def lag(self, now: float) -> float | None:
        """Seconds since the follower last had it all; None: it never had."""
        try:
            return max(0.0, now - self._path.stat().st_mtime)
        except FileNotFoundError:
            return None

    def _records(self, data: bytes) -> Iterator[Record]:
        place = 0
        while place + _HEAD.size <= len(data):
            magic, length, checksum = _HEAD.unpack_from(data, place)
            body = data[place + _HEAD.size : place + _HEAD.size + length]
            if magic != _MAGIC or len(body) < length or zlib.crc32(body) != checksum:
                return
            place += _HEAD.size + length
            self._place += _HEAD.size + length
            yield Record.of(body)
