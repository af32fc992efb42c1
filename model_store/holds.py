"""Who uses a bundle says so by a lock on its folder, which ends with the process that holds it.

A lock and not a list: what a killed server noted would keep its bundles for ever.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from model_store.errors import BundleNotFound

if sys.platform != "win32":
    import fcntl

_NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK)
"""A disk that knows no locks: bundles are served from it all the same, and not guarded."""


class Hold:
    """Keeps one bundle from being removed until it is released. Raises BundleNotFound where it is gone already."""

    def __init__(self, folder: Path) -> None:
        self._folder: int | None = None
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            raise _gone(folder) from None
        try:
            _lock(descriptor, shared=True)
            # Removed between opening and locking, its name is another's by now, or nobody's.
            here = os.fstat(descriptor)
            try:
                there = folder.stat()
            except OSError:
                raise _gone(folder) from None
            if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
                raise _gone(folder)
        except BaseException:
            os.close(descriptor)
            raise
        self._folder = descriptor

    def release(self) -> None:
        """Let it be removed; twice does no harm."""
        if self._folder is not None:
            os.close(self._folder)
            self._folder = None


@contextmanager
def unheld(folder: Path) -> Iterator[bool | None]:
    """Whether nobody holds the bundle; while the block lasts nobody can. None: the disk knows no locks."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield _lock(descriptor, wait=False)
    finally:
        os.close(descriptor)


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Wait for whoever else moves or removes bundles under this root, and keep others waiting."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, shared: bool = False, wait: bool = True) -> bool | None:
    """Lock an open folder until it is closed.

    False where others have it and ``wait`` is off, None where the disk knows no locks.
    """
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def _gone(folder: Path) -> BundleNotFound:
    return BundleNotFound(
        f"no bundle {folder.name!r} in {folder.parent}", hint="`kithkin bundles` lists those there are."
    )
