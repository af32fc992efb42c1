"""One array of a snapshot as it is written: a ``.npy`` file that is never whole in memory, and never mapped.

Writing to a mapped file ends the process where the disk is full, and counts its pages as the process's memory; writes
to the file itself fail with an error that can be told.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray


class ArrayFile:
    """A one-dimensional array of a known length in a file, read and written in parts."""

    def __init__(self, path: Path, dtype: np.dtype[Any], start: int) -> None:
        self.dtype = dtype
        self._path, self._start = path, start
        self._file: int | None = None

    @classmethod
    def make(cls, path: Path, dtype: Any, length: int) -> ArrayFile:
        """A new file, with the header that ``numpy.save`` writes; use it as a context manager, to write."""
        kind = np.dtype(dtype)
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (length,)}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            file.truncate(start + length * kind.itemsize)
        return cls(path, kind, start)

    @classmethod
    def open(cls, path: Path) -> ArrayFile:
        """A file that is there, to read."""
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        return cls(path, mapped.dtype, mapped.offset)

    def __enter__(self) -> ArrayFile:
        self._file = os.open(self._path, os.O_WRONLY)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)

    def write(self, start: int, values: NDArray[Any]) -> None:
        """Put the values at a place; OSError where they cannot be written."""
        assert self._file is not None
        left = np.ascontiguousarray(values, dtype=self.dtype).data.cast("B")
        place = self._start + start * self.dtype.itemsize
        while len(left):
            written = os.pwrite(self._file, left, place)
            left, place = left[written:], place + written

    def read(self, start: int, end: int) -> NDArray[Any]:
        """The values from one place to another, in memory."""
        offset = self._start + start * self.dtype.itemsize
        return np.fromfile(self._path, dtype=self.dtype, count=end - start, offset=offset)
