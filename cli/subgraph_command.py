"""``kithkin export`` of a part of the graph: which part the options name."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.console import print_json, say
from cli.steps import Pipeline
from graph_store.errors import ConfigError, InputError
from graph_store.stores import open_store

if TYPE_CHECKING:
    from graph_store.project import Project

_ROWS = 1_000_000
"""Nodes that a statement may return."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The options of a part, as they were typed."""

    types: Sequence[str]
    relations: Sequence[str]
    since: str | None
    until: str | None
    seeds: Path | None
    where: str | None
    hops: int
    out: Path | None

    @property
    def whole(self) -> bool:
        """True where nothing narrows the graph."""
        return not (self.types or self.relations or self.since or self.until or self.seeds or self.where)


def export_part(pipeline: Pipeline, part: Part, *, as_json: bool) -> None:
    """Export the graph where it changed, and write the part of that snapshot."""
    from training.export.subgraph import Selection, write_subgraph

    project = pipeline.project
    since, until = _moment("--since", part.since), _moment("--until", part.until)
    with pipeline.alone():
        pipeline.export()
        whole = pipeline.snapshot()
        seeds = _seeds(project, part, [each.name for each in whole.schema.node_types])
        selection = Selection(
            node_types=part.types or None,
            relations=part.relations or None,
            since=since,
            until=until,
            seeds=seeds,
            hops=part.hops,
        )
        root = part.out or project.work / "subgraphs"
        memory_mib = project.settings.export.memory_mib
        made = write_subgraph(whole, selection, root, progress=pipeline.progress, memory_mib=memory_mib)
    nodes = {each.name: made.num_nodes(each.name) for each in made.schema.node_types}
    edges = {str(each.triple): made.num_edges(each.triple) for each in made.schema.relations}
    if as_json:
        of = whole.content_hash
        print_json(
            {"content_hash": made.content_hash, "folder": str(made.folder), "of": of, "nodes": nodes, "edges": edges}
        )
        return
    say(f"{sum(nodes.values()):,} nodes, {sum(edges.values()):,} edges: {made.folder}")


def _seeds(project: Project, part: Part, types: Sequence[str]) -> dict[str, list[str]] | None:
    """Ids by type from the file and from the statement; None without either."""
    if part.seeds is None and part.where is None:
        if part.hops:
            raise ConfigError("needs nodes to start from", key="--hops", hint="Give --seeds or --where.")
        return None
    found: dict[str, dict[str, None]] = {}
    rows = _listed(part.seeds) if part.seeds is not None else []
    if part.where is not None:
        with open_store(project, read_only=True) as store:
            result = store.query(part.where, limit=_ROWS)
        if result.truncated:
            raise ConfigError(f"returns more than {_ROWS:,} rows", key="--where", hint="List them in a file: --seeds.")
        rows = [*rows, *map(_returned, result.rows)]
    for node_type, node_id in rows:
        if node_type not in types:
            hint = f"Known are {', '.join(types)}."
            raise ConfigError("no such node type among the seeds", value=node_type, hint=hint)
        found.setdefault(node_type, {})[node_id] = None
    return {node_type: list(ids) for node_type, ids in found.items()}


def _listed(file: Path) -> list[tuple[str, str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            if not {"type", "id"} <= set(reader.fieldnames or ()):
                raise InputError("needs the columns type and id", file=file, line=1)
            return [(row["type"], row["id"]) for row in reader]
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=file) from None


def _returned(row: Sequence[Any]) -> tuple[str, str]:
    """A node, or its type and id."""
    if len(row) == 1 and isinstance(row[0], dict) and {"_type", "id"} <= row[0].keys():
        return row[0]["_type"], row[0]["id"]
    if len(row) == 2 and all(isinstance(each, str) for each in row):
        return row[0], row[1]
    raise ConfigError(
        "returns neither nodes nor types and ids",
        key="--where",
        value=str(row),
        hint="RETURN x, or RETURN 'Film', x.id.",
    )


def _moment(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        hint = "Write 2024-05-01 or 2024-05-01T12:00:00+02:00; without an offset it is UTC."
        raise ConfigError("is no date or time", key=option, value=text, hint=hint) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
