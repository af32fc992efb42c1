"""The manifest of a snapshot: what it holds, in which format, and how to see that it is whole."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graph_store.schema import GraphSchema
from training.errors import SnapshotCorrupt, SnapshotError, SnapshotVersionError
from training.export.canonical import schema_document

FORMAT = 1
FILE_NAME = "manifest.json"
_AGAIN = "Remove the folder and export the snapshot again."


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """One file of a snapshot."""

    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """What stands in ``manifest.json``."""

    content_hash: str
    schema: GraphSchema
    nodes: dict[str, dict[str, Any]]
    """By node type: ``count`` and ``columns``, a hash per column."""
    relations: dict[str, dict[str, Any]]
    """By the triple's key: ``count`` and ``columns``, a hash per column."""
    files: dict[str, FileEntry]
    """By path inside the folder."""

    def write(self, folder: Path) -> Path:
        """Write ``manifest.json`` into the folder."""
        document = {
            "format": FORMAT,
            "content_hash": self.content_hash,
            "nodes": self.nodes,
            "relations": self.relations,
            "schema": schema_document(self.schema),
            "files": {path: asdict(entry) for path, entry in sorted(self.files.items())},
        }
        path = folder / FILE_NAME
        path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read and check ``manifest.json`` against the sizes of the files.

        Raises SnapshotError where there is none, SnapshotVersionError for another format, SnapshotCorrupt for damage.
        """
        path = folder / FILE_NAME
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SnapshotError(f"{folder} is not a snapshot: it has no {FILE_NAME}", hint=_AGAIN) from None
        except (OSError, ValueError) as error:
            raise SnapshotCorrupt(f"{path} cannot be read: {error}", hint=_AGAIN) from None
        found = document.get("format") if isinstance(document, dict) else None
        if found != FORMAT:
            raise SnapshotVersionError(f"{path}: format {found!r}, this version reads format {FORMAT}", hint=_AGAIN)
        try:
            files = {name: FileEntry(**entry) for name, entry in document["files"].items()}
            manifest = cls(
                content_hash=document["content_hash"],
                schema=GraphSchema.model_validate(document["schema"]),
                nodes=document["nodes"],
                relations=document["relations"],
                files=files,
            )
        except (KeyError, TypeError, AttributeError, ValidationError) as error:
            raise SnapshotCorrupt(f"{path} is not a manifest: {error}", hint=_AGAIN) from None
        for name, entry in files.items():
            try:
                size = (folder / name).stat().st_size
            except OSError:
                raise SnapshotCorrupt(f"{folder / name} is missing", hint=_AGAIN) from None
            if size != entry.size:
                raise SnapshotCorrupt(f"{folder / name}: {size} bytes, the manifest says {entry.size}", hint=_AGAIN)
        return manifest

    def verify(self, folder: Path) -> None:
        """Read every file and compare its checksum; SnapshotCorrupt names the first that differs."""
        for name, entry in self.files.items():
            with (folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != entry.sha256:
                raise SnapshotCorrupt(f"{folder / name}: its checksum differs from the manifest's", hint=_AGAIN)
