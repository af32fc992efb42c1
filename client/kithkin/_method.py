"""Makes a client's methods out of the functions of `kithkin._calls`, so that both clients have the same ones."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any


def dress(method: Callable[..., Any], build: Callable[..., Any], listing: str = "") -> None:
    """Gives `method` the name, signature (after ``self``) and documentation of `build`, returning the call's answer.

    ``listing`` is what `build` returns where it iterates over pages.
    """
    functools.update_wrapper(method, build)
    del method.__wrapped__  # type: ignore[attr-defined]
    signature = inspect.signature(build)
    self = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    returned = listing or str(signature.return_annotation).partition("[")[2].removesuffix("]")
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[self, *signature.parameters.values()], return_annotation=returned
    )
