"""Functions compiled by Numba: they run without the interpreter's lock, and are kept for the next process."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """The function, compiled when it is first called."""
    return compiled_with()(function)


def compiled_with(*, fastmath: Collection[str] = ()) -> Callable[[F], F]:
    """The same; ``fastmath``: liberties that the compiler may take with floats, LLVM's names."""
    options: dict[str, Any] = {"nogil": True, "fastmath": set(fastmath) if fastmath else False}

    def compile_it(function: F) -> F:
        try:
            return cast(F, numba.njit(cache=True, **options)(function))
        except RuntimeError:
            # Nowhere to keep compiled code (a read-only installation without a home): compiled anew in each process.
            return cast(F, numba.njit(**options)(function))

    return compile_it
