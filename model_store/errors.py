"""Errors of the model store, each saying what to do.

ModelStoreError
├── BundleIncomplete       the bundle being written lacks something; nothing was published
├── DiskFull               the disk takes no more; what was there before stays
├── BundleNotFound         no bundle at all, or none of that version
├── NothingBefore          no bundle was active before, or it is gone
├── BundleVersionUnknown   written by a release with another layout
├── BundleCorrupt          a file is missing, cut short or changed
└── ScorerMismatch         an ONNX file is no neural scorer of these entities
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path


class ModelStoreError(Exception):
    """Base of every error this package raises on purpose.

    ``hint`` says what to do about it, in one sentence; ``exit_code`` is what the command line ends with.
    """

    exit_code = 6

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class BundleIncomplete(ModelStoreError):
    """The bundle being written does not hold what its manifest promises, or the reverse."""


class DiskFull(ModelStoreError):
    """A file cannot be written: the disk or a quota is full, a file may not be as large, or the disk fails.

    ``error`` is the system's; ``folder`` is named where it tells no file, and its disk's free space is told.
    """

    def __init__(self, error: OSError, folder: Path, *, stays: str) -> None:
        # Of a copy the second name is the one that is written.
        file = error.filename2 or error.filename or folder
        try:
            free = f"{shutil.disk_usage(folder).free / 2**20:,.0f} MiB are free"
        except OSError:
            free = "what is free cannot be told"
        super().__init__(
            f"{file} cannot be written: {os.strerror(error.errno or errno.EIO)} ({free})",
            hint=f"Make room, or set `work` to a folder on a larger disk, and run the same command again: {stays}.",
        )
        self.file = Path(file)


class BundleNotFound(ModelStoreError):
    """No bundle of that version, or no active one."""


class NothingBefore(ModelStoreError):
    """There is no bundle to go back to."""


class BundleVersionUnknown(ModelStoreError):
    """The bundle has a layout that this release does not read."""


class BundleCorrupt(ModelStoreError):
    """A file of the bundle is missing, cut short or changed; names it."""

    def __init__(self, message: str, *, file: Path | None = None, hint: str = "") -> None:
        super().__init__(
            f"{file}: {message}" if file else message,
            hint=hint or "Publish again (`kithkin publish`), or copy the bundle's folder again from where it is whole.",
        )
        self.file = file


class ScorerMismatch(ModelStoreError):
    """An ONNX file is no scorer of these entities: an input or the output is missing, or of another type or shape."""
