"""Writes that survive a crash: content reaches the disk before a name points at it; a full disk names the file."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What the system says where a disk takes no more: it is full, so is a quota, a file may not be as large, it fails."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of the disk inside the block names the file, as ``open`` does and ``write`` does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def reserve(descriptor: int, length: int) -> None:
    """Give an open file its length and, where the system can, its place on the disk.

    A full disk is an error here: of a page of a mapped file that finds no place the process would die.
    """
    if sys.platform == "linux" and length:
        os.posix_fallocate(descriptor, 0, length)
    else:
        os.ftruncate(descriptor, length)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write a ``.npy`` file as ``numpy.save`` does, whose own error says nothing of a full disk.

    Raises OSError with the system's ``errno`` and the file's name.
    """
    whole = np.ascontiguousarray(array)
    with naming(path), path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(whole))
        if whole.size:
            file.write(whole.data.cast("B"))


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# A folder is synced the same way: its entries are its content.
sync_folder = sync_file


def replace_text(path: Path, text: str) -> None:
    """Replace a small file so that a reader sees the old text or the new, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path):
            beside.write_text(text, encoding="utf-8")
            sync_file(beside)
            beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def append_line(path: Path, line: str) -> None:
    """Add one line to a file in one write; lines of several processes do not mix."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        with naming(path):
            # A line that a crash or a full disk cut short does not take this one along.
            size = os.fstat(descriptor).st_size
            whole = not size or os.pread(descriptor, 1, size - 1) == b"\n"
            content = f"{'' if whole else chr(10)}{line}\n".encode()
            if os.write(descriptor, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
