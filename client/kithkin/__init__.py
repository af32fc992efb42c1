"""Python client of Kithkin, a retrieval service on a knowledge graph.

>>> from kithkin import Client
>>> client = Client("localhost:50051")
>>> client.similar("1", top_k=3)

`Client` and `AsyncClient` have the same methods. Everything else here is what they take (`kithkin.queries`,
`kithkin.filters`), what they answer (`kithkin.types`) and the errors they raise (`kithkin.errors`). Importing the
package costs little: gRPC is loaded with the first client class asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kithkin.aio import AsyncClient as AsyncClient
    from kithkin.client import Client as Client
    from kithkin.errors import Aborted as Aborted
    from kithkin.errors import Cancelled as Cancelled
    from kithkin.errors import DeadlineExceeded as DeadlineExceeded
    from kithkin.errors import FailedPrecondition as FailedPrecondition
    from kithkin.errors import FieldViolation as FieldViolation
    from kithkin.errors import Internal as Internal
    from kithkin.errors import InvalidArgument as InvalidArgument
    from kithkin.errors import KithkinError as KithkinError
    from kithkin.errors import NotFound as NotFound
    from kithkin.errors import PermissionDenied as PermissionDenied
    from kithkin.errors import ResourceExhausted as ResourceExhausted
    from kithkin.errors import Unauthenticated as Unauthenticated
    from kithkin.errors import Unavailable as Unavailable
    from kithkin.errors import Unimplemented as Unimplemented
    from kithkin.filters import F as F
    from kithkin.filters import Filter as Filter
    from kithkin.queries import Context as Context
    from kithkin.queries import Described as Described
    from kithkin.queries import Event as Event
    from kithkin.queries import Link as Link
    from kithkin.queries import Tls as Tls
    from kithkin.types import Activation as Activation
    from kithkin.types import Batch as Batch
    from kithkin.types import Bundles as Bundles
    from kithkin.types import BundleStatus as BundleStatus
    from kithkin.types import BundleSummary as BundleSummary
    from kithkin.types import DeltaStatus as DeltaStatus
    from kithkin.types import Explanation as Explanation
    from kithkin.types import IndexStatus as IndexStatus
    from kithkin.types import Node as Node
    from kithkin.types import Nodes as Nodes
    from kithkin.types import Page as Page
    from kithkin.types import Reason as Reason
    from kithkin.types import Ref as Ref
    from kithkin.types import ResponseInfo as ResponseInfo
    from kithkin.types import Results as Results
    from kithkin.types import ScoredEntity as ScoredEntity
    from kithkin.types import Scores as Scores
    from kithkin.types import SpaceStatus as SpaceStatus
    from kithkin.types import Status as Status
    from kithkin.types import Vector as Vector
    from kithkin.types import Vectors as Vectors

_MODULES = {
    "aio": ("AsyncClient",),
    "client": ("Client",),
    "errors": (
        "Aborted",
        "Cancelled",
        "DeadlineExceeded",
        "FailedPrecondition",
        "FieldViolation",
        "Internal",
        "InvalidArgument",
        "KithkinError",
        "NotFound",
        "PermissionDenied",
        "ResourceExhausted",
        "Unauthenticated",
        "Unavailable",
        "Unimplemented",
    ),
    "filters": ("F", "Filter"),
    "queries": ("Context", "Described", "Event", "Link", "Tls"),
    "types": (
        "Activation",
        "Batch",
        "BundleStatus",
        "BundleSummary",
        "Bundles",
        "DeltaStatus",
        "Explanation",
        "IndexStatus",
        "Node",
        "Nodes",
        "Page",
        "Reason",
        "Ref",
        "ResponseInfo",
        "Results",
        "ScoredEntity",
        "Scores",
        "SpaceStatus",
        "Status",
        "Vector",
        "Vectors",
    ),
}
_HOME = {name: f"kithkin.{module}" for module, names in _MODULES.items() for name in names}

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("kithkin")
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'kithkin' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
