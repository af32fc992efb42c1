"""Generates the Python stubs from the .proto files beside this script, straight into client/.

``python protos/generate.py`` writes them, and removes stubs whose .proto is gone; with ``--check`` it writes nothing,
lists the files that are stale and ends with 1 if there are any.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from google.rpc import status_pb2
from grpc_tools import protoc  # type: ignore[import-untyped]

PROTOS = Path(__file__).resolve().parent
STUBS = PROTOS.parent / "client"
PATTERNS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py")


class GenerationError(Exception):
    """protoc refused the .proto files; it has said why."""


def generate(protos: Path, out: Path) -> None:
    """Writes the stubs of every .proto under `protos` into `out`, under the same folders."""
    sources = sorted(protos.rglob("*.proto"))
    services = [path for path in sources if path.name.endswith("_service.proto")]
    # google.rpc comes with googleapis-common-protos, whose folder is where its modules are.
    google = Path(status_pb2.__file__).parents[2]
    include = [f"-I{protos}", f"-I{files('grpc_tools') / '_proto'}", f"-I{google}"]
    out.mkdir(parents=True, exist_ok=True)
    _protoc([*include, f"--python_out={out}", f"--pyi_out={out}", *map(str, sources)])
    if services:
        _protoc([*include, f"--grpc_python_out={out}", *map(str, services)])


def stale(protos: Path, stubs: Path) -> dict[str, bytes | None]:
    """What to write to bring `stubs` up to date: content by path relative to `stubs`; None: remove the file."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(protos, fresh)
        wanted = {path.relative_to(fresh).as_posix(): path.read_bytes() for path in fresh.rglob("*") if path.is_file()}
    there = {
        path.relative_to(stubs).as_posix(): path.read_bytes() for pattern in PATTERNS for path in stubs.rglob(pattern)
    }
    changes: dict[str, bytes | None] = {name: text for name, text in wanted.items() if there.get(name) != text}
    return changes | dict.fromkeys(there.keys() - wanted.keys())


def main(arguments: list[str] | None = None, *, protos: Path = PROTOS, stubs: Path = STUBS) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; list stale files and end with 1")
    options = parser.parse_args(arguments)
    try:
        changes = stale(protos, stubs)
    except GenerationError as error:
        print(error, file=sys.stderr)
        return 2
    for name, content in sorted(changes.items()):
        if options.check:
            what = "should not be there" if content is None else "is stale" if (stubs / name).exists() else "is missing"
            print(f"{name} {what}; run: python protos/generate.py", file=sys.stderr)
        elif content is None:
            (stubs / name).unlink()
            print(f"removed {name}")
        else:
            (stubs / name).parent.mkdir(parents=True, exist_ok=True)
            (stubs / name).write_bytes(content)
            print(f"wrote {name}")
    return 1 if options.check and changes else 0


def _protoc(arguments: list[str]) -> None:
    if protoc.main(["protoc", *arguments]) != 0:
        raise GenerationError(f"protoc refused the .proto files: {' '.join(arguments)}")


if __name__ == "__main__":
    sys.exit(main())
