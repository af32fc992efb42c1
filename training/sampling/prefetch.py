"""Work done in threads ahead of the one who needs it, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def prefetch(
    jobs: Iterable[Callable[[], T]], *, threads: int = 1, ahead: int | None = None
) -> Generator[T, None, None]:
    """Results of the jobs in their order, while up to ``ahead`` later ones are already under way.

    ``threads`` 0 runs each job when its result is asked for. ``ahead`` is twice the threads unless given, and bounds
    the memory. A job's exception is raised at its place, and nothing later runs. Closing the iterator (``close()``, or
    leaving a ``for`` loop and dropping it) waits for the jobs under way and drops the others.
    """
    if threads < 0 or (ahead is not None and ahead < 1):
        raise ValueError(f"threads must be at least 0 and ahead at least 1, not {threads} and {ahead}")
    return _prefetch(jobs, threads, ahead or 2 * threads)


def _prefetch(jobs: Iterable[Callable[[], T]], threads: int, ahead: int) -> Generator[T, None, None]:
    if threads == 0:
        for job in jobs:
            yield job()
        return
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
