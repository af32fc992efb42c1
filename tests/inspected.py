"""A small graph with known numbers, and holes: for what looks at a graph.

u1 ==2==> f1 "Alien Dawn" <-- u2      u1 --> f2 "Moon Base"      u3, f7, t4: no edge
tags: wide on f1 f2 f3 f4, half on f1 f2 f5, rare on f6          f2 --SEQUEL_OF--> f1, f3 --SEQUEL_OF--> f1
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from graph_store.project import load_project, parse_project
from graph_store.schema import GraphSchema, Triple
from graph_store.store import GraphStore
from graph_store.stores import open_store

WATCHED = Triple("User", "WATCHED", "Film")
HAS_TAG = Triple("Film", "HAS_TAG", "Tag")
SEQUEL_OF = Triple("Film", "SEQUEL_OF", "Film")
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)

TOML = """\
name = "inspected"

[nodes.Film]
role = "entity"
display = "title"
properties = { title = { type = "string" }, year = { type = "int" } }

[nodes.User]
role = "user"

[nodes.Tag]
role = "concept"

[[relations]]
triple = ["User", "WATCHED", "Film"]
role = "engagement"
weight = "share"
time = "time"
properties = { share = { type = "float" }, time = { type = "timestamp" } }

[[relations]]
triple = ["Film", "HAS_TAG", "Tag"]
role = "semantic"

[[relations]]
triple = ["Film", "SEQUEL_OF", "Film"]
role = "semantic"
"""

SCHEMA = parse_project(tomllib.loads(TOML), file=Path("kithkin.toml"), environment={}).schema


def write_inspected(folder: Path) -> GraphSchema:
    """Write kithkin.toml and fill the project's embedded store."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kithkin.toml").write_text(TOML)
    project = load_project(folder)
    with open_store(project) as store:
        fill(store, project.schema)
    return project.schema


def fill(store: GraphStore, schema: GraphSchema) -> None:
    """Apply the schema and write the graph."""
    store.apply_schema()
    films = [f"f{number}" for number in range(1, 8)]
    titles = ["Alien Dawn", "Moon Base", "Moon [Base] II", "The Wedding", None, "Two Letters", "New Orbit"]
    add_nodes(store, schema, "Film", films, title=titles, year=[1999, 2001, None, None, 2005, 2010, 2011])
    add_nodes(store, schema, "User", ["u1", "u2", "u3"])
    add_nodes(store, schema, "Tag", ["wide", "half", "rare", "t4"])
    watched = [("u1", "f1"), ("u1", "f1"), ("u1", "f2"), ("u2", "f1")]
    add_edges(store, schema, WATCHED, watched, share=[0.5, 1.0, 0.25, None], time=[NOON, None, NOON, NOON])
    tagged = {"wide": ["f1", "f2", "f3", "f4"], "half": ["f1", "f2", "f5"], "rare": ["f6"]}
    add_edges(store, schema, HAS_TAG, [(film, tag) for tag, of_tag in tagged.items() for film in of_tag])
    add_edges(store, schema, SEQUEL_OF, [("f2", "f1"), ("f3", "f1")])


def add_nodes(store: GraphStore, schema: GraphSchema, node_type: str, ids: Sequence[str], **columns: Any) -> None:
    """Upsert nodes, the columns in the declared types."""
    store.upsert_nodes(node_type, _table(schema.node_type(node_type).arrow_schema, {"id": ids, **columns}))


def add_edges(
    store: GraphStore, schema: GraphSchema, triple: Triple, pairs: Sequence[tuple[str, str]], **columns: Any
) -> None:
    """Upsert edges from pairs of source and target, the columns in the declared types."""
    ends = {"source": [source for source, _ in pairs], "target": [target for _, target in pairs]}
    store.upsert_edges(triple, _table(schema.relation(triple).arrow_schema, ends | columns))


def _table(declared: pa.Schema, columns: dict[str, Any]) -> pa.Table:
    return pa.table(columns, schema=pa.schema([declared.field(name) for name in columns]))
