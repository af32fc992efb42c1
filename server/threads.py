"""Work that takes milliseconds, kept out of the event loop: a few threads, the same for all calls of a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

AT_ONCE = 2
"""Threads: each computes with the interpreter's lock released, and more would take time from the event loop."""
_POOL = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="search")


async def apart(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """What ``work`` returns or raises, computed in a thread; further calls wait until one is free."""
    return await asyncio.get_running_loop().run_in_executor(_POOL, lambda: work(*args, **kwargs))
