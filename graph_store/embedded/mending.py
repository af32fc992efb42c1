"""Ladybug's log of a store whose writer was ended while it added to it: the commits that are whole are kept.

Ladybug refuses to open a file whose log ends in the middle of a record, and would then lose what was committed before;
told to, it reads up to there and cuts the rest off. That is right where the rest is a commit of which nobody was told
that it was done: what the log of writes tells of was.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ladybug

from graph_store.embedded.change_log import ChangeLog, Token

_MEMORY = 256 << 20


def is_cut_short(path: Path, log: ChangeLog) -> bool:
    """Whether the log may be torn behind all that was told to be done."""
    last, now = log.last(), Token.of(path)
    return last is not None and last.file == now.file and last.logged <= now.logged


def cut_torn_log(path: Path, log: ChangeLog) -> bool:
    """Cut off the torn end; for who holds the writer's lock. False: that would lose commits, or nobody knows.

    The log is then as it was.
    """
    last = log.last()
    if last is None or not is_cut_short(path, log):
        return False
    torn = path.with_name(path.name + ".wal")
    kept = path.with_name(path.name + ".wal.torn")
    shutil.copyfile(torn, kept)
    try:
        database = ladybug.Database(path, buffer_pool_size=_MEMORY, throw_on_wal_replay_failure=False)
        connection: Any = ladybug.Connection(database)
        connection.execute("CALL force_checkpoint_on_close=false").close()
        connection.close()
        database.close()
        done = Token.of(path).logged >= last.logged
    except RuntimeError:
        done = False
    if done:
        kept.unlink()
    else:
        kept.replace(torn)
    return done
