"""From ids to rows: a table of all ids of a type, exact, in twenty-odd bytes a node and the ids' own text."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ARROW_WORK = 1 << 20
"""Ids that are put into Arrow's table, which lives for one call, and looked up in it, before our own is compiled: a
small export never loads Numba."""


class NodeRows:
    """The rows of one node type's ids; row i is the i-th id of ``nodes/<Type>.arrow``."""

    def __init__(self, file: Path, scratch: Scratch) -> None:
        self._file, self._scratch = file, scratch
        self.count = sum(len(ids) for ids in self._read())
        self._ids: pa.Array | None = None
        self._work = 0
        self._find: Callable[[pa.Array], NDArray[np.int32]] | None = None

    def of(self, ids: pa.Array) -> NDArray[np.int32]:
        """Rows ``[n]`` of ids, -1 where the type has no such id, or the id is missing."""
        if self._find is None:
            self._work += self.count + len(ids)
            if self._work <= _ARROW_WORK:
                return self._through_arrow(ids)
            self._ids = None
            self._find = self._compiled()
        return self._find(ids)

    def _through_arrow(self, ids: pa.Array) -> NDArray[np.int32]:
        if self._ids is None:
            self._ids = pa.chunked_array(list(self._read()), pa.string()).cast(pa.large_string()).combine_chunks()
        found = pc.index_in(ids.cast(pa.large_string()), value_set=self._ids, skip_nulls=True)
        return np.asarray(found.fill_null(-1)).astype(np.int32)

    def _compiled(self) -> Callable[[pa.Array], NDArray[np.int32]]:
        # Imported here: a command line that exports nothing should not pay for Numba.
        from training.export.node_kernels import fill, find

        offsets, text = self._text()
        # Open addressing, two thirds full at the most; a slot is the upper half of the hash and the row plus one.
        slots = self._scratch.array("slots", np.uint64, 1 << max(4, (self.count * 3 // 2).bit_length()))
        fill(slots, offsets, text)

        def rows_of(ids: pa.Array) -> NDArray[np.int32]:
            rows = np.empty(len(ids), dtype=np.int32)
            find(slots, offsets, text, *_buffers(ids), rows)
            if ids.null_count:
                rows[np.asarray(ids.is_null())] = -1
            return rows

        return rows_of

    def _text(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """The ids as one text: where each begins ``[count + 1]``, and the bytes."""
        size = sum(pc.sum(pc.binary_length(ids)).as_py() for ids in self._read())
        offsets = self._scratch.array("offsets", np.int64, self.count + 1)
        text = self._scratch.array("text", np.uint8, max(size, 1))
        row = end = 0
        for ids in self._read():
            starts, values = _buffers(ids)
            taken = values[starts[0] : starts[-1]]
            text[end : end + len(taken)] = taken
            offsets[row : row + len(starts)] = starts - starts[0] + end
            row, end = row + len(ids), end + len(taken)
        return offsets, text

    def _read(self) -> Iterator[pa.Array]:
        """The ids, block by block; the other columns are not read."""
        options = pa.ipc.IpcReadOptions(included_fields=[0])
        with pa.OSFile(str(self._file), "rb") as source, pa.ipc.open_file(source, options=options) as reader:
            for each in range(reader.num_record_batches):
                yield reader.get_batch(each).column("id")


class Scratch:
    """Large arrays: in memory up to a size, above in files of a folder, whose pages the system can take back."""

    def __init__(self, folder: Path, limit: int) -> None:
        """``limit``: bytes of the largest array that stands in memory."""
        self._folder, self._limit = folder, limit

    def array(self, name: str, dtype: Any, size: int) -> NDArray[Any]:
        """Zeros ``[size]``; a file is left to the folder's owner to remove."""
        if size * np.dtype(dtype).itemsize <= self._limit:
            return np.zeros(size, dtype=dtype)
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / name).open("wb") as file:
            length = size * np.dtype(dtype).itemsize
            # A full disk is to be an error here: of a mapped page that finds no place the process would die.
            if sys.platform == "linux":
                os.posix_fallocate(file.fileno(), 0, length)
            else:
                file.truncate(length)
        return np.memmap(self._folder / name, dtype=dtype, mode="r+", shape=(size,))


def _buffers(ids: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Where each text begins ``[n + 1]``, and the bytes they begin in."""
    ids = ids.cast(pa.large_string())
    _, starts, text = ids.buffers()
    if not len(ids):
        return np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.uint8)
    offsets = np.frombuffer(starts, dtype=np.int64, count=ids.offset + len(ids) + 1)[ids.offset :]
    empty = text is None or text.size == 0
    return offsets, np.zeros(1, dtype=np.uint8) if empty else np.frombuffer(text, dtype=np.uint8)
