"""The guesses as a commented kithkin.toml."""

from __future__ import annotations

import os
import tempfile
import tomllib
from pathlib import Path

import duckdb

from graph_store.errors import ConfigError, InputError
from graph_store.ingest.files import inner_name
from graph_store.json_schema import FILE_NAME as SCHEMA_FILE
from graph_store.project import FILE_NAME, parse_project
from graph_store.scaffold.declaration import Guess, NodeGuess, RelationGuess, SourceGuess
from graph_store.scaffold.guess import Guesser
from graph_store.scaffold.naming import text
from graph_store.scaffold.profile import SAMPLE_ROWS, profile
from graph_store.sources import FileFormat

_DATA = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq")


def write_project(folder: Path, *, out: Path | None = None, force: bool = False) -> Path:
    """Look at the data files in ``folder`` and write a kithkin.toml that reads them, each guess explained.

    ``out`` is the file to write, by default ``folder/kithkin.toml``; ConfigError where it is there, without ``force``.
    Raises InputError where the folder holds no data file, or nothing that looks like a catalogue.
    """
    folder = Path(os.path.normpath(folder))
    out = folder / FILE_NAME if out is None else out / FILE_NAME if out.is_dir() else out
    if out.exists() and not force:
        raise ConfigError("is there already", file=out, hint="Edit it, remove it, or give --force to write it anew.")
    if not folder.is_dir():
        raise InputError(
            "no such folder", file=folder, hint="Give the folder that holds the CSV, JSONL or Parquet files."
        )
    files = sorted(file for file in folder.iterdir() if file.is_file() and inner_name(file).suffix.lower() in _DATA)
    if not files:
        raise InputError(
            "holds no data file", file=folder, hint=f"Looked for {', '.join(_DATA)}, also with .gz or .zst behind."
        )
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect(str(Path(scratch) / "profiles.duckdb")) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET autoinstall_known_extensions = false")
        profiles, skipped = [], []
        for number, file in enumerate(files):
            try:
                found = profile(connection, file, number, Path(scratch))
            except InputError as error:
                skipped.append((file, error.message.removeprefix(f"{file}: ")))
                continue
            if found.rows:
                profiles.append(found)
            else:
                skipped.append((file, "has no rows"))
        if not profiles:
            raise InputError(
                f"no file can be read: {skipped[0][1]}",
                file=skipped[0][0],
                hint="Give a folder with filled data files.",
            )
        guess = Guesser(connection, profiles).guess()
    notes = [(file.file, why) for file, why in guess.unused] + skipped
    body = render(guess, name=folder.resolve().name, data=_relative(folder, out.parent), notes=notes)
    if (out.parent / SCHEMA_FILE).is_file():
        # Taplo and Even Better TOML read it in the first line only.
        body = f"#:schema ./{SCHEMA_FILE}\n{body}"
    parse_project(tomllib.loads(body), file=out, environment={})  # what is written must be readable
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(body, encoding="utf-8")
    return out


def render(guess: Guess, *, name: str, data: str, notes: list[tuple[Path, str]]) -> str:
    """The text of a kithkin.toml."""
    lines = [
        "# What the graph is made of, guessed from the files. Read it through: names and roles are yours to choose.",
        f"# Guesses rest on the first {SAMPLE_ROWS:,} rows of each file. Every key: docs/configuration.md.",
        f"name = {text(name)}",
        f"data = {text(data)} # the folder that the sources' paths start from",
    ]
    for file, why in notes:
        lines.append(f"# Not used: {file.name} ({why}).")
    lines += ["", _rule("node types")]
    lines += ["# role: entity (what is retrieved), concept (what describes it) or user."]
    order = {"entity": 0, "user": 1, "concept": 2}
    for node in sorted(guess.nodes.values(), key=lambda node: order[node.role.value]):
        lines += ["", *_node(node)]
    lines += ["", _rule("relations")]
    for relation in guess.relations.values():
        lines += ["", *_relation(relation)]
    lines += ["", _rule("sources")]
    lines += ["# One reading of one file each; a file may be read several times."]
    for source in sorted(guess.sources, key=lambda source: "node" not in source.fills):
        lines += ["", *_source(source)]
    return "\n".join(lines) + "\n"


def _rule(title: str) -> str:
    return f"# {'-' * (76 - len(title))} {title}"


def _comment(note: str) -> list[str]:
    return [f"# {line}" for line in note.splitlines() if line]


def _node(node: NodeGuess) -> list[str]:
    lines = [*_comment(node.note), f"[nodes.{node.name}]", f"role = {text(node.role.value)}"]
    if node.display:
        lines.append(f"display = {text(node.display)} # what people call it by")
    if node.properties:
        lines += ["", f"[nodes.{node.name}.properties]"]
        lines += [f"{name} = {declared}" for name, declared in node.properties.items()]
    return lines


def _relation(relation: RelationGuess) -> list[str]:
    triple = ", ".join(map(text, relation.triple))
    lines = [*_comment(relation.note), "[[relations]]", f"triple = [{triple}]", f"role = {text(relation.role.value)}"]
    lines += [
        f"{key} = {text(value)}"
        for key, value in (("weight", relation.weight), ("time", relation.time), ("kind", relation.kind))
        if value
    ]
    if relation.properties:
        declared = ", ".join(f"{name} = {value}" for name, value in relation.properties.items())
        lines.append(f"properties = {{ {declared} }}")
    if relation.derive:
        lines.append(f"derive = {relation.derive}")
    return lines


def _source(source: SourceGuess) -> list[str]:
    file, dialect = source.file.file, source.file.dialect
    lines = [*_comment(source.note), "[[sources]]", f"file = {text(file.name)}"]
    if source.file.format is FileFormat.CSV:
        if dialect.delimiter != ",":
            lines.append(f"delimiter = {text(dialect.delimiter)}")
        if dialect.encoding != "utf-8":
            lines.append(f"encoding = {text(dialect.encoding)} # not UTF-8; a guess, check names with accents")
        if not dialect.header:
            lines.append("header = false # the first row looks like data")
            lines.append(f"columns = [{', '.join(map(text, dialect.columns))}]")
    lines += [f"{key} = {value}" for key, value in source.fills.items()]
    if source.properties:
        lines += ["", "[sources.properties]"]
        lines += [f"{name} = {value}" for name, value in source.properties.items()]
    return lines


def _relative(folder: Path, start: Path) -> str:
    return Path(os.path.relpath(folder.resolve(), start.resolve())).as_posix()
