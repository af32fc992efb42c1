"""Where things lie in a bundle's folder, and how versions are written."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime

from model_store.csr import EdgeType

FORMAT_VERSION = 1
"""Layout that this release writes and reads."""

MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
"""Checksum of the manifest itself, in the form `sha256sum -c` reads."""
ACTIVE = "ACTIVE"
HISTORY = "HISTORY"
"""Which bundles were active, one line each time ACTIVE was moved, oldest first."""

NEURAL = "neural"
"""Folder of the neural scorer, its entities' vectors and its graph."""

_VERSION = re.compile(r"^\d{8}T\d{6}\.\d{6}Z$")
_VERSION_TIME = "%Y%m%dT%H%M%S.%fZ"
_UNFINISHED = re.compile(r"^\.unfinished-(.+)-(\d+)$")
_OWN_COLUMNS = frozenset({"name", "popularity"})


def version_of(time: datetime) -> str:
    """Version of a bundle published at a time, such as ``20260102T030405.000006Z``; sorts by time."""
    return time.astimezone(UTC).strftime(_VERSION_TIME)


def time_of(version: str) -> datetime:
    """The time a version names."""
    return datetime.strptime(version, _VERSION_TIME).replace(tzinfo=UTC)


def is_version(name: str) -> bool:
    """Whether a folder's name is a version."""
    return _VERSION.match(name) is not None


def unfinished_name(version: str) -> str:
    """Name of the folder of a bundle in the making; tells whose it is."""
    return f".unfinished-{version}-{os.getpid()}"


def unfinished_owner(name: str) -> int | None:
    """Process id in the name of an unfinished folder; None where it is no such name."""
    match = _UNFINISHED.match(name)
    return int(match.group(2)) if match else None


def property_column(name: str) -> str:
    """Column of nodes/<Type>.arrow that holds a property; differs from its name only for `name` and `popularity`."""
    return f"property:{name}" if name in _OWN_COLUMNS else name


def nodes_path(node_type: str) -> str:
    return f"nodes/{node_type}.arrow"


def neighbours_path(edge_type: EdgeType, part: str) -> str:
    return f"neighbours/{edge_type.key}.{part}.npy"


def vectors_path(space: str, node_type: str) -> str:
    return f"spaces/{space}/{node_type}.npy"


def states_path(space: str, layer: int, node_type: str) -> str:
    return f"spaces/{space}/states/{layer}/{node_type}.npy"


def encoder_path(space: str, node_type: str) -> str:
    return f"encoders/{space}/{node_type}.onnx"


def focal_encoder_path(space: str, node_type: str) -> str:
    return f"encoders/{space}/{node_type}.focal.onnx"


def relevance_path(space: str, node_type: str) -> str:
    return f"spaces/{space}/relevance/{node_type}.npy"


def focal_path(space: str, node_type: str) -> str:
    return f"spaces/{space}/focal/{node_type}.npy"


def index_path(space: str, node_type: str) -> str:
    return f"index/{space}/{node_type}"
