"""A generated catalogue of any size as a snapshot on disk: items, tags, users; skewed degrees; the same every time."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from graph_store.project import parse_project
from graph_store.schema import GraphSchema, Triple
from model_store.csr import Csr
from training.export import Snapshot
from training.export.manifest import FILE_NAME, FileEntry, Manifest
from training.export.order import counting_order
from training.graph import Graph

VIEWED = Triple("User", "VIEWED", "Item")
NEAR = Triple("Item", "NEAR", "Item")
HAS_TAG = Triple("Item", "HAS_TAG", "Tag")
NODE_SHARES = {"Item": 0.45, "Tag": 0.05, "User": 0.5}
EDGE_SHARES = {VIEWED: 0.7, NEAR: 0.2, HAS_TAG: 0.1}
VECTOR = 32
"""Length of the items' vectors."""


def schema() -> GraphSchema:
    """Users view items; items are near each other, with weights, and have tags."""
    document: dict[str, Any] = {
        "name": "generated",
        "nodes": {
            "Item": {
                "role": "entity",
                "properties": {
                    "price": {"type": "float", "feature": "number"},
                    "vector": {"type": "vector", "dimension": VECTOR, "feature": "vector"},
                },
            },
            "Tag": {"role": "concept"},
            "User": {"role": "user"},
        },
        "relations": [
            {"triple": [*VIEWED], "role": "engagement"},
            {
                "triple": [*NEAR],
                "role": "co_engagement",
                "weight": "strength",
                "properties": {"strength": {"type": "float"}},
            },
            {"triple": [*HAS_TAG], "role": "semantic"},
        ],
    }
    return parse_project(document, file=Path("kithkin.toml"), environment={}).schema


def generated_snapshot(folder: Path, *, nodes: int, edges: int) -> Snapshot:
    """A snapshot's folder with about so many nodes and edges; made once, then opened."""
    if not (folder / FILE_NAME).exists():
        _write(folder, nodes, edges)
    return Snapshot.open(folder)


def thinned(graph: Graph, every: int) -> Graph:
    """One edge in ``every`` of each list of neighbours, for fitting transforms where what they say does not matter."""
    replaced = {}
    for each in graph.edge_types:
        csr = graph.csr(each)
        replaced[each] = Csr(
            indptr=-(-np.asarray(csr.indptr) // every),
            indices=np.asarray(csr.indices[::every]),
            weight=None if csr.weight is None else np.asarray(csr.weight[::every]),
        )
    return Graph(graph.snapshot, replaced=replaced)


def _write(folder: Path, nodes: int, edges: int) -> None:
    rng = np.random.default_rng(1)
    declared = schema()
    for part in ("nodes", "csr", "edges"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    counts = {name: max(int(nodes * share), 4) for name, share in NODE_SHARES.items()}
    for name, count in counts.items():
        columns: list[Any] = [pa.array([f"{name[0].lower()}{number:09}" for number in range(count)], pa.string())]
        if name == "Item":
            values = rng.standard_normal(count * VECTOR, dtype=np.float32)
            columns += [pa.array(rng.exponential(10.0, count)), pa.FixedSizeListArray.from_arrays(values, VECTOR)]
        arrow = declared.node_type(name).arrow_schema
        arrays = [column.cast(field.type) for column, field in zip(columns, arrow, strict=True)]
        _save_table(pa.Table.from_arrays(arrays, schema=arrow), folder / f"nodes/{name}.arrow")
    for triple, share in EDGE_SHARES.items():
        _write_edges(folder, declared, triple, int(edges * share), counts, rng)
    # Nothing is verified here: no checksums.
    files = {
        path.relative_to(folder).as_posix(): FileEntry(size=path.stat().st_size, sha256="")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    Manifest(
        content_hash=hashlib.sha256(f"generated {nodes} {edges}".encode()).hexdigest(),
        schema=declared,
        nodes={name: {"count": count, "columns": {}} for name, count in counts.items()},
        relations={each.key: {"count": int(edges * share), "columns": {}} for each, share in EDGE_SHARES.items()},
        files=files,
    ).write(folder)


def _write_edges(
    folder: Path, declared: GraphSchema, triple: Triple, edges: int, counts: dict[str, int], rng: np.random.Generator
) -> None:
    """Ends are drawn independently, by the square of an even number: the first nodes get most edges."""
    ends = {}
    for end, name in (("source", triple.source), ("target", triple.target)):
        ends[end] = (counts[name] * rng.random(edges, dtype=np.float32) ** 2).astype(np.int32)
        np.minimum(ends[end], counts[name] - 1, out=ends[end])
    weight = rng.random(edges, dtype=np.float32) + np.float32(0.1) if declared.relation(triple).weight else None
    forward: NDArray[np.int64] = np.empty(0, np.int64)
    for key, near, far, count in (
        (triple.key, ends["source"], ends["target"], counts[triple.source]),
        (f"{triple.key}__rev", ends["target"], ends["source"], counts[triple.target]),
    ):
        by_far = counting_order(far, int(far.max()) + 1)[0]
        by_near, indptr = counting_order(near[by_far], count)
        order = by_far[by_near]
        del by_far, by_near
        np.save(folder / f"csr/{key}.indptr.npy", indptr)
        np.save(folder / f"csr/{key}.indices.npy", far[order])
        if weight is not None:
            np.save(folder / f"csr/{key}.weight.npy", weight[order])
        if not key.endswith("__rev"):
            forward = order
    place = np.empty(edges, np.int32)
    place[forward] = np.arange(edges, dtype=np.int32)
    np.save(folder / f"csr/{triple.key}__rev.position.npy", place[order])
    if weight is not None:
        table = pa.table({"strength": pa.array(weight[forward].astype(np.float64))})
        _save_table(table, folder / f"edges/{triple.key}.arrow")


def _save_table(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
