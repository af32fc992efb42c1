"""Source files: found, opened whatever their compression, and fingerprinted."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from graph_store.errors import InputError
from graph_store.project import Project
from graph_store.sources import FileFormat, Source

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_ENDINGS = {
    ".csv": FileFormat.CSV,
    ".tsv": FileFormat.CSV,
    ".txt": FileFormat.CSV,
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
    ".parquet": FileFormat.PARQUET,
    ".pq": FileFormat.PARQUET,
}
_CHUNK = 1 << 20


def source_files(project: Project, source: Source) -> tuple[Path, ...]:
    """The files of one source, sorted by name; InputError where there is none."""
    pattern = Path(os.path.normpath(project.data / source.file))
    if any(sign in source.file for sign in "*?["):
        # Not Path.glob: the pattern may start anywhere, at the root too.
        names = glob.glob(str(pattern), recursive=True)  # noqa: PTH207
        found = sorted(file for file in map(Path, names) if file.is_file())
        if not found:
            raise InputError("no file has such a name", file=pattern, hint=_missing_hint(project))
        return tuple(found)
    if not pattern.is_file():
        reason = "is a folder, not a file" if pattern.is_dir() else "no such file"
        raise InputError(reason, file=pattern, hint=_missing_hint(project))
    return (pattern,)


def _missing_hint(project: Project) -> str:
    return (
        f"Paths start from {os.path.normpath(project.data)} (`data` in {project.file.name}, KITHKIN_DATA or --data); "
        "correct that folder or the source's `file`."
    )


def file_format(file: Path, declared: FileFormat | None) -> FileFormat:
    """Format of a file, as declared or by its ending; InputError where neither says."""
    if declared is not None:
        return declared
    ending = inner_name(file).suffix.lower()
    if ending not in _ENDINGS:
        raise InputError(
            f"the ending {ending!r} names no format", file=file, hint='Set format = "csv", "jsonl" or "parquet".'
        )
    return _ENDINGS[ending]


def inner_name(file: Path) -> Path:
    """The name without the compression's ending."""
    return file.with_suffix("") if file.suffix.lower() in COMPRESSIONS else file


@contextmanager
def open_bytes(file: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed by its ending; InputError where it cannot be read or is damaged."""
    compression = COMPRESSIONS.get(file.suffix.lower())
    try:
        with pa.input_stream(str(file), compression=compression) as stream:
            yield cast("IO[bytes]", stream)
    except PermissionError as error:
        raise InputError("may not be read", file=file, hint="Give this user the right to read it.") from error
    except (OSError, zlib.error) as error:
        raise InputError(
            f"cannot be read: {error}", file=file, hint="The file may be damaged or cut short; copy it again."
        ) from error


def input_fingerprint(project: Project) -> str:
    """Hash over the bytes of all source files and the declaration of schema, sources and checks.

    Two equal fingerprints mean that an ingest would write the same. Raises InputError where a file is missing.
    """
    digest = hashlib.blake2b(digest_size=20)
    declaration = {
        "schema": project.schema.model_dump(mode="json"),
        "sources": [source.model_dump(mode="json") for source in project.sources],
        "ingest": project.settings.ingest.model_dump(mode="json"),
        "checks": [check.model_dump(mode="json") for check in project.checks],
    }
    digest.update(json.dumps(declaration, sort_keys=True).encode())
    files = {file for source in project.sources for file in source_files(project, source)}
    for file in sorted(files):
        digest.update(f"\n{Path(os.path.relpath(file, project.data)).as_posix()}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
