"""Writes docs/api.md from the comments in protos/.

``python docs/generate_api.py`` writes it; with ``--check`` it writes nothing and ends with 1 where the page is stale.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from google.rpc import status_pb2
from grpc_tools import protoc  # type: ignore[import-untyped]

DOCS = Path(__file__).resolve().parent
PROTOS = DOCS.parent / "protos"
PAGE = DOCS / "api.md"

HEAD = """# API reference: kithkin.v1

Generated from the comments in `protos/` by `python docs/generate_api.py`; change them there.
"""

# Numbers of fields in descriptor.proto: what source positions are made of.
_SYNTAX = FileDescriptorProto.DESCRIPTOR.fields_by_name["syntax"].number
_MESSAGES = FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER
_ENUMS = FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER
_SERVICES = FileDescriptorProto.SERVICE_FIELD_NUMBER
_METHODS = ServiceDescriptorProto.METHOD_FIELD_NUMBER
_FIELDS = DescriptorProto.FIELD_FIELD_NUMBER
_ONEOFS = DescriptorProto.ONEOF_DECL_FIELD_NUMBER
_VALUES = EnumDescriptorProto.VALUE_FIELD_NUMBER


class GenerationError(Exception):
    """protoc refused the .proto files; it has said why."""


class ProtoFile:
    """One .proto file with its comments by position."""

    def __init__(self, descriptor: FileDescriptorProto) -> None:
        self.descriptor = descriptor
        self._comments: dict[tuple[int, ...], str] = {}
        for location in descriptor.source_code_info.location:
            detached = " ".join(location.leading_detached_comments) if location.path == [_SYNTAX] else ""
            text = " ".join(f"{detached} {location.leading_comments} {location.trailing_comments}".split())
            if text:
                self._comments[tuple(location.path)] = text

    def comment(self, *path: int) -> str:
        """The comment at a position, on one line; empty: none."""
        return self._comments.get(path, "")


def read(protos: Path) -> list[ProtoFile]:
    """Every .proto file under `protos`, services first, then by name."""
    sources = sorted(protos.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "protos.bin"
        google = Path(status_pb2.__file__).parents[2]
        include = [f"-I{protos}", f"-I{files('grpc_tools') / '_proto'}", f"-I{google}"]
        arguments = [*include, "--include_source_info", f"--descriptor_set_out={out}", *map(str, sources)]
        if protoc.main(["protoc", *arguments]) != 0:
            raise GenerationError("protoc refused the .proto files")
        descriptors = FileDescriptorSet.FromString(out.read_bytes()).file
    return [ProtoFile(file) for file in sorted(descriptors, key=lambda file: (not file.service, file.name))]


def render(protos: Path = PROTOS) -> str:
    """The page for the .proto files under `protos`, in Markdown."""
    return "\n".join([HEAD, *(line for file in read(protos) for line in _file(file))])


def main(arguments: list[str] | None = None, *, protos: Path = PROTOS, page: Path = PAGE) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 where the page is stale")
    options = parser.parse_args(arguments)
    try:
        text = render(protos)
    except GenerationError as error:
        print(error, file=sys.stderr)
        return 2
    if page.exists() and page.read_text(encoding="utf-8") == text:
        return 0
    if options.check:
        print(f"{page.name} is stale; run: python docs/generate_api.py", file=sys.stderr)
        return 1
    page.write_text(text, encoding="utf-8")
    print(f"wrote {page.name}")
    return 0


def _file(file: ProtoFile) -> Iterator[str]:
    descriptor = file.descriptor
    yield f"## {Path(descriptor.name).name}\n"
    if comment := file.comment(_SYNTAX):
        yield f"{comment}\n"
    for i, service in enumerate(descriptor.service):
        yield f"### {service.name}\n"
        if comment := file.comment(_SERVICES, i):
            yield f"{comment}\n"
        yield "| call | request | response | |\n|---|---|---|---|"
        for j, method in enumerate(service.method):
            comment = file.comment(_SERVICES, i, _METHODS, j)
            yield _row(f"`{method.name}`", _link(method.input_type), _link(method.output_type), comment)
        yield ""
    for i, message in enumerate(descriptor.message_type):
        yield from _message(file, i, message)
    for i, enum in enumerate(descriptor.enum_type):
        yield f"### {enum.name}\n"
        if comment := file.comment(_ENUMS, i):
            yield f"{comment}\n"
        yield "| value | number | |\n|---|---|---|"
        for j, value in enumerate(enum.value):
            yield _row(f"`{value.name}`", str(value.number), file.comment(_ENUMS, i, _VALUES, j))
        yield ""


def _message(file: ProtoFile, i: int, message: DescriptorProto) -> Iterator[str]:
    yield f"### {message.name}\n"
    if comment := file.comment(_MESSAGES, i):
        yield f"{comment}\n"
    if not message.field:
        yield "No fields.\n"
        return
    yield "| field | type | |\n|---|---|---|"
    maps = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
    opened = -1
    for j, field in enumerate(message.field):
        within = field.HasField("oneof_index") and not field.proto3_optional
        if within and field.oneof_index != opened:
            opened = field.oneof_index
            comment = file.comment(_MESSAGES, i, _ONEOFS, opened)
            yield _row(f"*one of `{message.oneof_decl[opened].name}`:*", "", comment)
        name = f"– `{field.name}`" if within else f"`{field.name}`"
        yield _row(name, _type(field, maps), file.comment(_MESSAGES, i, _FIELDS, j))
    yield ""


def _type(field: FieldDescriptorProto, maps: dict[str, DescriptorProto]) -> str:
    entry = maps.get(field.type_name.rpartition(".")[2])
    if entry is not None:
        key, value = entry.field
        return f"map of {_type(key, {})} to {_type(value, {})}"
    name = (
        _link(field.type_name)
        if field.type_name
        else FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    )
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _link(type_name: str) -> str:
    name = type_name.lstrip(".")
    short = name.rpartition(".")[2]
    return f"`{name}`" if name.startswith("google.") else f"[{short}](#{short.lower()})"


def _row(*cells: str) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return "|".join(["", *(f" {cell} " if cell else " " for cell in escaped), ""])


if __name__ == "__main__":
    sys.exit(main())
