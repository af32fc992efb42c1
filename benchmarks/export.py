"""What do time, memory and disk of an export do from one million edges to a hundred million?

    python -m benchmarks.export --edges 1000000 10000000 100000000 [--store PROJECT ...] [--folder FOLDER]

Exports in a process of its own each: a store that makes its rows up as they are asked for (``generated``: ten edges a
node, ids of 13 characters in no order, edges with a weight, a time and a kind, skewed degrees), so that
what is measured is the export alone; and with ``--store`` the stores of projects (folders with a kithkin.toml), read
through ``GraphStore``. ``own`` memory leaves out pages of files, which the system takes back when it needs them;
``resident`` has both. ``disk_peak`` is the most that the export's folder held, sorted runs included. Times of the
processor are those of all threads; an edge's is the time of the whole export, nodes and both directions, through their
number. ``open`` is from the folder's name to every array mapped. The slope is that of the log of processor time (1 is
linear) over the log of edges. What is in ``results/export.json`` is not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks._results import Results
from benchmarks._watch import Clock, Figures, PeakDisk, PeakMemory, size
from graph_store.progress import Task
from graph_store.project import load_project
from graph_store.schema import GraphSchema, Triple
from graph_store.store import Counts
from graph_store.stores import open_store
from training.export import Snapshot, export_snapshot

NODES_AN_EDGE = 10
BATCH = 1 << 16
SAW = Triple("User", "SAW", "Item")
SCHEMA = GraphSchema.model_validate(
    {
        "node_types": [{"name": "Item", "role": "entity"}, {"name": "User", "role": "user"}],
        "relations": [
            {
                "triple": list(SAW),
                "role": "engagement",
                "weight": "stars",
                "time": "at",
                "kind": "how",
                "properties": {"stars": {"type": "float"}, "at": {"type": "timestamp"}, "how": {"type": "string"}},
            }
        ],
    }
)


class GeneratedStore:
    """What an export asks of a store: rows made up batch by batch, the same for the same number of edges."""

    def __init__(self, edges: int) -> None:
        self._edges = edges
        self._nodes = max(edges // NODES_AN_EDGE // 2, 1)

    def state_token(self) -> str:
        return str(self._edges)

    def counts(self) -> Counts:
        return Counts(nodes=dict.fromkeys(("Item", "User"), self._nodes), edges={SAW: self._edges})

    def scan_nodes(self, node_type: str) -> Iterator[pa.RecordBatch]:
        step = next(
            each for each in range(self._nodes * 2 // 3 + 1, 2 * self._nodes) if math.gcd(each, self._nodes) == 1
        )
        for low in range(0, self._nodes, BATCH):
            numbers = np.arange(low, min(low + BATCH, self._nodes), dtype=np.int64) * step % self._nodes
            yield pa.RecordBatch.from_arrays([_ids(node_type, numbers)], names=["id"])

    def scan_edges(self, triple: Triple) -> Iterator[pa.RecordBatch]:
        rng = np.random.default_rng(1)
        kinds = pa.array(["view", "click"])
        for low in range(0, self._edges, BATCH):
            count = min(BATCH, self._edges - low)
            sources, targets = (self._nodes * rng.random(count) ** power for power in (2, 3))
            columns = [
                _ids("User", sources.astype(np.int64)),
                _ids("Item", targets.astype(np.int64)),
                pa.array(rng.integers(1, 6, count).astype(np.float64)),
                pa.array(1_600_000_000_000_000 + rng.integers(0, 10**14, count), pa.timestamp("us", "UTC")),
                kinds.take(pa.array(rng.integers(0, 2, count))),
            ]
            yield pa.RecordBatch.from_arrays(columns, names=["source", "target", "stars", "at", "how"])


def _ids(kind: str, numbers: NDArray[np.int64]) -> pa.Array:
    """``item`` and nine digits."""
    name = kind.lower().encode()
    text = np.empty((len(numbers), len(name) + 9), dtype=np.uint8)
    text[:, : len(name)] = np.frombuffer(name, dtype=np.uint8)
    for digit in range(9):
        text[:, -1 - digit] = 48 + numbers // 10**digit % 10
    offsets = np.arange(len(numbers) + 1, dtype=np.int32) * text.shape[1]
    return pa.Array.from_buffers(pa.string(), len(numbers), [None, pa.py_buffer(offsets), pa.py_buffer(text)])


class Stages:
    """A ``Progress`` that keeps the seconds of each kind of work, by its first word: read, order, turn."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.processor: dict[str, float] = {}

    @contextmanager
    def task(self, description: str, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        clock, name = Clock(), description.split()[0]
        yield _Task()
        figures = clock.figures()
        self.seconds[name] = self.seconds.get(name, 0.0) + figures["seconds"]
        self.processor[name] = self.processor.get(name, 0.0) + figures["processor_seconds"]


class _Task:
    def advance(self, steps: int = 1, **fields: object) -> None:
        pass


def exported(source: str, edges: int, root: Path, memory_mib: int) -> Figures:
    """One export in this process, and the opening of what it wrote."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    stages, clock = Stages(), Clock()
    with PeakMemory() as memory, PeakDisk(root) as disk:
        if source == "generated":
            store: Any = GeneratedStore(edges)
            snapshot = export_snapshot(store, SCHEMA, root, progress=stages, memory_mib=memory_mib, known_as=source)
        else:
            project = load_project(Path(source))
            with open_store(project, read_only=True) as store:
                snapshot = export_snapshot(
                    store, project.schema, root, progress=stages, memory_mib=memory_mib, known_as=source
                )
    taken = clock.figures()
    edges = sum(snapshot.num_edges(relation.triple) for relation in snapshot.schema.relations)
    start = time.perf_counter()
    again = Snapshot.open(snapshot.folder)
    for edge_type in again.edge_types:
        again.csr(edge_type)
    opening = time.perf_counter() - start
    return {
        **taken,
        "edges": edges,
        "nodes": sum(snapshot.num_nodes(each.name) for each in snapshot.schema.node_types),
        "stage_seconds": stages.seconds,
        "stage_processor_seconds": stages.processor,
        "processor_microseconds_an_edge": taken["processor_seconds"] / edges * 1e6,
        "microseconds_an_edge": taken["seconds"] / edges * 1e6,
        **memory.figures(),
        "disk_mib": size(snapshot.folder) / 2**20,
        "disk_peak_mib": max(disk.bytes, size(root)) / 2**20,
        "open_milliseconds": opening * 1e3,
        "content_hash": snapshot.content_hash,
    }


def in_its_own_process(arguments: list[str]) -> Figures:
    """Run one export as a process of its own."""
    command = [sys.executable, "-m", "benchmarks.export", "--inner", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{ended.stderr}")
    found: Figures = json.loads(ended.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--edges", type=int, nargs="*", help="of generated stores; default: a million and ten, if no --store"
    )
    parser.add_argument("--store", nargs="*", default=[], help="folders of projects whose stores are exported too")
    parser.add_argument("--folder", type=Path, help="for the snapshots, each removed again; default: a temporary one")
    parser.add_argument("--memory-mib", type=int, default=2048)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inner:
        source = given.store[0] if given.store else "generated"
        edges = given.edges[0] if given.edges else 0
        print(json.dumps(exported(source, edges, given.folder, given.memory_mib)))
    elif given.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            measure(given, Path(folder))
    else:
        measure(given, given.folder)


def measure(given: argparse.Namespace, folder: Path) -> None:
    """Every export that is asked for, and the slopes between them."""
    results = Results("export", again=given.again)
    sizes = given.edges if given.edges is not None else [] if given.store else [1_000_000, 10_000_000]
    asked = [("generated", ["--edges", str(edges)], edges) for edges in sizes]
    asked += [("embedded", ["--store", store], _edges_of(Path(store))) for store in given.store]
    found: dict[str, list[Figures]] = {}
    for source, arguments, edges in asked:
        root = folder / f"export-{source}-{edges}"
        arguments += ["--folder", str(root), "--memory-mib", str(given.memory_mib)]
        settings = {"source": source, "edges": edges, "memory_mib": given.memory_mib}
        row = results.row(settings, partial(in_its_own_process, arguments))
        shutil.rmtree(root, ignore_errors=True)
        found.setdefault(source, []).append(row)
        print(
            f"{source:>9} {row['edges']:>12,} edges {row['seconds']:8.1f} s {row['processor_seconds']:8.1f} s processor"
            f" {row['processor_microseconds_an_edge']:6.2f} µs an edge, own {row['peak_own_mib']:,} MiB, resident"
            f" {row['peak_resident_mib']:,} MiB, disk {row['disk_mib']:,.0f} MiB (peak {row['disk_peak_mib']:,.0f}),"
            f" open {row['open_milliseconds']:.1f} ms"
        )
    for source, rows in found.items():
        for small, large in pairwise(sorted(rows, key=lambda row: row["edges"])):
            slope = math.log(large["processor_seconds"] / small["processor_seconds"]) / math.log(
                large["edges"] / small["edges"]
            )
            print(f"{source:>9} {small['edges']:,} to {large['edges']:,}: slope {slope:.3f}")


def _edges_of(folder: Path) -> int:
    project = load_project(folder)
    with open_store(project, read_only=True) as store:
        return sum(store.counts().edges.values())


if __name__ == "__main__":
    main()
