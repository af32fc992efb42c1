"""How close does a load of the embedded store come to Ladybug's own COPY, and what does its size do to it?

    python -m benchmarks.load                                            # 1 M nodes, 5 M edges, beside a bare COPY
    python -m benchmarks.load --sizes 1000000 10000000 100000000 --folder generated    # in edges, a tenth as many nodes

Both read the same generated Parquet files (``_load_files``) into a new file, each in a process of its own, in turn,
with the same buffer pool. *copy* is one ``COPY`` a table and nothing else. *load* is ``kithkin ingest``: types, ends,
duplicates, rejects. *compare* is the same again with ``--force``, which reads and compares everything; *same* the same
again without, which sees by the files' hash and the store's state that nothing is to be done. Both must leave the
store's state as it was. Ratios are of medians. Processor seconds, of all threads, depend less than the clock on what
else the machine does.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks._load_files import write_project
from benchmarks._results import Results
from benchmarks._watch import Clock, Figures, PeakDisk, PeakMemory

MEMORY_MIB = 1024
PARTS = ("copy", "load", "compare", "same")
_COPIES = {
    "Item": ("items", "id STRING PRIMARY KEY, title STRING, year INT64, price DOUBLE"),
    "Tag": ("tags", "id STRING PRIMARY KEY, name STRING"),
    "User": ("users", "id STRING PRIMARY KEY"),
    "VIEWED": ("viewed", "FROM User TO Item, share DOUBLE, time TIMESTAMP_TZ"),
    "NEAR": ("near", "FROM Item TO Item, strength DOUBLE"),
    "HAS_TAG": ("has_tag", "FROM Item TO Tag"),
}


def copied(folder: Path) -> Figures:
    """Ladybug alone."""
    import ladybug

    file = folder / "bare.lbug"
    for ending in ("", ".wal"):
        file.with_name(file.name + ending).unlink(missing_ok=True)
    database = ladybug.Database(file, buffer_pool_size=MEMORY_MIB << 20)
    connection: Any = ladybug.Connection(database)  # its types promise lists that only other calls give
    rows = 0
    for name, (source, columns) in _COPIES.items():
        kind = "REL" if "FROM" in columns else "NODE"
        connection.execute(f"CREATE {kind} TABLE {name}({columns})").close()
        connection.execute(f"COPY {name} FROM '{folder / source}.parquet'").close()
        pattern = f"()-[:{name}]->()" if kind == "REL" else f"(:{name})"
        rows += connection.execute(f"MATCH {pattern} RETURN count(*)").get_all()[0][0]
    connection.close()
    database.close()
    return {"rows": rows, "store_bytes": file.stat().st_size}


def loaded(folder: Path, *, force: bool) -> Figures:
    """``kithkin ingest``, as the command line runs it."""
    from cli.steps import Pipeline
    from graph_store.progress import NoProgress
    from graph_store.project import load_project
    from graph_store.stores import open_store

    project = load_project(folder, environment={})
    result = Pipeline(project, NoProgress(), force=force).ingest()
    with open_store(project, read_only=True) as store:
        counts, token = store.counts(), store.state_token()
    store_bytes = (folder / ".kithkin/graph.lbug").stat().st_size
    rows = sum(counts.nodes.values()) + sum(counts.edges.values())
    return {"rows": rows, "store_bytes": store_bytes, "token": token, "skipped": result.skipped}


def in_its_own_process(part: str, folder: Path) -> Figures:
    """Run one part as a process of its own."""
    if part == "load":
        shutil.rmtree(folder / ".kithkin", ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.load", "--part", part, "--folder", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{part} of {folder} failed:\n{ended.stderr}")
    found: Figures = json.loads(ended.stdout.splitlines()[-1])
    return found


def run_part(part: str, folder: Path) -> None:
    """Inside that process: measure, print JSON."""
    with PeakMemory() as memory, PeakDisk(folder / ".kithkin/staging") as disk:
        clock = Clock()
        figures = copied(folder) if part == "copy" else loaded(folder, force=part == "compare")
        figures |= clock.figures()
    print(json.dumps({**figures, **memory.figures(), "peak_staging_bytes": disk.bytes}))


def beside_copy(results: Results, folder: Path, nodes: int, edges: int, rounds: int) -> None:
    """Rounds of all parts, and the ratios of their medians."""
    write_project(folder, nodes=nodes, edges=edges, memory_mib=MEMORY_MIB)
    figures: dict[str, list[Figures]] = {part: [] for part in PARTS}
    for turn in range(rounds):
        found: dict[str, Figures] = {}
        for part in PARTS:
            settings = {"nodes": nodes, "edges": edges, "memory_mib": MEMORY_MIB, "part": part, "round": turn}
            found[part] = results.row(settings, partial(in_its_own_process, part, folder))
            figures[part].append(found[part])
        assert len({each["rows"] for each in found.values()}) == 1, found
        assert len({found[part]["token"] for part in ("load", "compare", "same")}) == 1, found
        assert found["same"]["skipped"], found
        assert not found["compare"]["skipped"], found
    print(f"{nodes:,} nodes, {edges:,} edges, medians of {rounds}")
    print(f"{'part':10} {'seconds':>9} {'processor':>10} {'of COPY':>8} {'of its processor':>17} {'resident MiB':>13}")
    median = {
        part: {name: statistics.median(row[name] for row in rows) for name in ("seconds", "processor_seconds")}
        for part, rows in figures.items()
    }
    for part, rows in figures.items():
        speed, lean = (median["copy"][name] / median[part][name] for name in ("seconds", "processor_seconds"))
        peak = max(row["peak_resident_mib"] for row in rows)
        print(
            f"{part:10} {median[part]['seconds']:9.1f} {median[part]['processor_seconds']:10.1f} {speed:8.2f} "
            f"{lean:17.2f} {peak:13,}"
        )
    for part in ("compare", "same"):
        faster = [median["load"][name] / median[part][name] for name in ("seconds", "processor_seconds")]
        print(f"{part} is {faster[0]:.1f} times as fast as load, {faster[1]:.1f} by processor time")


def by_size(results: Results, folder: Path, sizes: list[int]) -> None:
    """One load of each size: time, memory, disk, and their slopes."""
    rows: dict[int, Figures] = {}
    print(f"{'edges':>12} {'seconds':>9} {'processor':>10} {'own MiB':>9} {'staging MiB':>12} {'store MiB':>10}")
    for edges in sizes:
        place = folder / str(edges)
        settings = {"nodes": edges // 10, "edges": edges, "memory_mib": MEMORY_MIB}

        def measure(place: Path = place, edges: int = edges) -> Figures:
            write_project(place, nodes=edges // 10, edges=edges, memory_mib=MEMORY_MIB)
            return in_its_own_process("load", place)

        row = rows[edges] = results.row(settings, measure)
        print(
            f"{edges:12,} {row['seconds']:9.1f} {row['processor_seconds']:10.1f} {row['peak_own_mib']:9,} "
            f"{row['peak_staging_bytes'] >> 20:12,} {row['store_bytes'] >> 20:10,}",
            flush=True,
        )
    for name in ("processor_seconds", "peak_own_mib", "store_bytes"):
        found = [math.log(rows[b][name] / rows[a][name]) / math.log(b / a) for a, b in pairwise(sorted(rows))]
        if found:
            print(f"slope of {name}: {' '.join(f'{each:.2f}' for each in found)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=1_000_000)
    parser.add_argument("--edges", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", help="one load of each, in edges, in place of the comparison")
    parser.add_argument("--folder", type=Path, help="where to keep what is generated; nothing: a temporary folder")
    parser.add_argument("--again", action="store_true", help="measure what is there already")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        run_part(arguments.part, arguments.folder)
        return
    results = Results("load", again=arguments.again)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if arguments.sizes:
            by_size(results, folder, arguments.sizes)
        else:
            nodes, edges = arguments.nodes, arguments.edges
            beside_copy(results, folder / f"{nodes}x{edges}", nodes, edges, arguments.rounds)


if __name__ == "__main__":
    main()
