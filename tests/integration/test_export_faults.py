"""What becomes of an export that is killed, that finds the disk full, or whose store changes meanwhile.

The exports run in processes of their own (``WORKER``), which end themselves at a point that is told, with SIGKILL: no
handler runs, no file is closed.
"""

from __future__ import annotations

import hashlib
import json
import resource
import signal
import string
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from cli.main import app
from graph_store.embedded.store import EmbeddedStore
from graph_store.schema import GraphSchema, Triple
from graph_store.settings import StoreSettings
from graph_store.store import GraphStore
from tests.conftest import Neo4jServer
from tests.inspected import write_inspected
from tests.random_graph import HAS_TAG, LIKED, NEAR, SAW, SCHEMA, TableStore, random_graph
from training.errors import SnapshotError
from training.export import Snapshot, export_snapshot, exporter
from training.export.workspace import Workspace

ROOT = Path(__file__).parents[2]
ALPHABET = string.ascii_letters + string.digits
MEMORY_MIB = 0.05  # sorted runs for every relation
ALL = ["Film", "User", "Tag", *(triple.key for triple in (LIKED, NEAR, HAS_TAG, SAW))]

WORKER = """
import json, os, resource, signal, sys
from contextlib import contextmanager
from pathlib import Path
from tests.inspected import write_inspected
from tests.conftest import Neo4jServer
from tests.random_graph import SCHEMA, random_graph
from training.export import export_snapshot

given = json.loads(sys.argv[1])
store = random_graph(1, (200, 300, 9), 3000, batch=500)
store.state = given["state"]
passed = 0

def at_a_point(what):
    global passed
    passed += 1
    if passed == given.get("die_at") or what == given.get("die_before"):
        print(json.dumps(store.scanned), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

class Points:
    @contextmanager
    def task(self, description, total=None, unit="rows"):
        at_a_point(description)
        yield self
        at_a_point("after " + description)

    def advance(self, steps=1, **fields):
        at_a_point("")

if "largest_file" in given:
    resource.setrlimit(resource.RLIMIT_FSIZE, (given["largest_file"],) * 2)
snapshot = export_snapshot(
    store, SCHEMA, Path(given["root"]), progress=Points(), memory_mib=given["memory_mib"], known_as=given["known_as"]
)
print(json.dumps([store.scanned, snapshot.content_hash, passed]))
"""


def run(root: Path, **given: Any) -> subprocess.CompletedProcess[str]:
    words = {"root": str(root), "memory_mib": MEMORY_MIB, "known_as": "here", "state": "one"} | given
    command = [sys.executable, "-c", WORKER, json.dumps(words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def finished(root: Path, **given: Any) -> tuple[list[str], str]:
    """Tables that were read, and the content hash."""
    ended = run(root, **given)
    assert ended.returncode == 0, ended.stderr
    scanned, content_hash, _ = json.loads(ended.stdout)
    return scanned, content_hash


def killed(root: Path, **given: Any) -> list[str]:
    """Tables that were read."""
    ended = run(root, **given)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    scanned: list[str] = json.loads(ended.stdout)
    return scanned


def checksums(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Snapshot, int]:
    """The snapshot of an export that nothing happens to, and how many points it passes."""
    root = tmp_path_factory.mktemp("whole")
    ended = run(root)
    _, content_hash, points = json.loads(ended.stdout)
    return Snapshot.open(root / content_hash), points


def test_killed_at_any_point_it_is_taken_up_again(tmp_path: Path, whole: tuple[Snapshot, int]) -> None:
    snapshot, points = whole
    assert points > 60
    for point in (points // 5, points // 2, points):
        root = tmp_path / str(point)
        killed(root, die_at=point)
        # Nothing there is, or looks like, a snapshot.
        assert [path.name[:11] for path in root.iterdir()] == [".exporting-"]
        for manifest in root.rglob("manifest.json"):
            raise AssertionError(manifest)
        _, content_hash = finished(root)
        assert content_hash == snapshot.content_hash
        assert checksums(root / content_hash) == checksums(snapshot.folder)
        assert [path.name for path in root.iterdir()] == [content_hash]


def test_finished_tables_are_not_read_again(tmp_path: Path) -> None:
    assert killed(tmp_path, die_before=f"read {NEAR}") == ["Film", "User", "Tag", LIKED.key]
    assert finished(tmp_path)[0] == [NEAR.key, HAS_TAG.key, SAW.key]


@pytest.mark.parametrize("stage", ["after order", "after turn"])
def test_what_was_read_is_ordered_without_reading_again(tmp_path: Path, stage: str) -> None:
    assert killed(tmp_path, die_before=f"{stage} {HAS_TAG}") == ALL[:-1]
    assert finished(tmp_path)[0] == [SAW.key]


def test_a_table_that_was_not_read_to_its_end_is_read_again(tmp_path: Path) -> None:
    assert killed(tmp_path, die_before=f"after read {LIKED}") == ALL[:4]
    assert finished(tmp_path)[0] == ALL[3:]


def test_of_another_state_nothing_is_taken(tmp_path: Path) -> None:
    killed(tmp_path, die_before=f"read {NEAR}")
    scanned, content_hash = finished(tmp_path, state="two")
    assert scanned == ALL
    assert [path.name for path in tmp_path.iterdir()] == [content_hash]  # what the other left is gone


def test_of_another_store_nothing_is_taken(tmp_path: Path) -> None:
    killed(tmp_path, die_before=f"read {NEAR}")
    assert finished(tmp_path, known_as="there")[0] == ALL


def test_a_finished_table_whose_files_are_gone_is_read_again(tmp_path: Path, whole: tuple[Snapshot, int]) -> None:
    killed(tmp_path, die_before=f"read {HAS_TAG}")
    (cut,) = tmp_path.glob(f".exporting-*/snapshot/csr/{LIKED.key}.indices.npy")
    cut.write_bytes(cut.read_bytes()[:-4])
    (note,) = tmp_path.glob(".exporting-*/finished/nodes-Tag.json")
    note.write_text("{")
    scanned, content_hash = finished(tmp_path)
    assert scanned == ["Tag", LIKED.key, HAS_TAG.key, SAW.key]
    assert checksums(tmp_path / content_hash) == checksums(whole[0].folder)


@pytest.mark.parametrize(("largest_file", "tables", "read"), [(20_000, 0, 0), (60_000, 3, 4)])
def test_a_full_disk_is_told_and_finished_tables_stay(
    tmp_path: Path, whole: tuple[Snapshot, int], largest_file: int, tables: int, read: int
) -> None:
    ended = run(tmp_path, largest_file=largest_file)
    assert ended.returncode == 1
    last = [line for line in ended.stderr.splitlines() if line][-2:]
    assert f"{tmp_path}: the disk is full" in last[0]
    assert "Make room, or set `work`" in last[1]
    assert [path.name[:11] for path in tmp_path.iterdir()] == [".exporting-"]
    assert len(list(tmp_path.glob(".exporting-*/finished/*.json"))) == tables
    scanned, content_hash = finished(tmp_path)
    assert scanned == ALL[read:]  # at the second limit a relation was read, and its runs are whole
    assert content_hash == whole[0].content_hash
    assert checksums(tmp_path / content_hash) == checksums(whole[0].folder)


@pytest.mark.parametrize("reverse", [False, True])
def test_an_array_that_finds_no_room_is_told_too(tmp_path: Path, reverse: bool) -> None:
    # Ids of two letters: where the rows of a relation begin takes more than the nodes do. What numpy.save says of a
    # full disk is how many numbers it wrote, and not why.
    ids = [first + second for first in ALPHABET for second in ALPHABET]
    few, many = pa.table({"id": ["x"]}), pa.table({"id": ids})
    own = Triple("Item", "HAS", "Part")
    schema = GraphSchema.model_validate(
        {
            "node_types": [{"name": "Item", "role": "entity"}, {"name": "Part", "role": "concept"}],
            "relations": [{"triple": list(own), "role": "semantic"}],
        }
    )
    edges = pa.table({"source": pa.array([], pa.string()), "target": pa.array([], pa.string())})
    store = TableStore({"Item": few if reverse else many, "Part": many if reverse else few}, {own: edges})
    whole = export_snapshot(store, schema, tmp_path / "whole")
    sizes = {path.name: path.stat().st_size for path in whole.folder.rglob("*.*")}
    array = f"{own.key}{'__rev' if reverse else ''}.indptr.npy"
    limit = max(size for name, size in sizes.items() if name != array)
    assert sizes[array] > limit
    most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most[1]))
    try:
        with pytest.raises(SnapshotError, match="the disk is full, or a limit of this user's files is reached"):
            export_snapshot(store, schema, tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, most)
    assert list((tmp_path / "full").iterdir()) == []


def test_without_a_name_nothing_is_left_of_a_full_disk(tmp_path: Path) -> None:
    ended = run(tmp_path, largest_file=20_000, known_as=None)
    assert "the disk is full" in ended.stderr
    assert "nothing was left behind" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_the_graph_leaves_nothing(tmp_path: Path) -> None:
    store = random_graph(1, (200, 300, 9), 3000)
    store.edges[SAW] = pa.concat_tables(
        [store.edges[SAW], pa.table({"source": ["nobody"], "target": ["x"], "day": [None]}, store.edges[SAW].schema)]
    )
    with pytest.raises(SnapshotError, match="such as 'nobody'"):
        export_snapshot(store, SCHEMA, tmp_path, known_as="here")
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_do_not_meet(tmp_path: Path, whole: tuple[Snapshot, int]) -> None:
    store = random_graph(1, (200, 300, 9), 3000, batch=500)
    known = "\n".join(["here", "one", SCHEMA.model_dump_json()])
    with Workspace.opened(tmp_path, known) as other:
        assert other.resumable
        snapshot = export_snapshot(store, SCHEMA, tmp_path, known_as="here")
        assert snapshot.content_hash == whole[0].content_hash
        assert other.snapshot.is_dir()


# ------------------------------------------------------------------ a real store


def test_an_embedded_store_that_changes_between_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = StoreSettings(uri="graph.lbug", memory_mib=64)
    with EmbeddedStore.open(SCHEMA, settings, tmp_path, read_only=False) as store:
        edges = _fill(store)

    def scanned(*, stop: bool) -> list[str]:
        found: list[str] = []
        with EmbeddedStore.open(SCHEMA, settings, tmp_path, read_only=True) as store:
            scan_nodes, scan_edges = store.scan_nodes, store.scan_edges

            def nodes(name: str) -> Any:
                found.append(name)
                return scan_nodes(name)

            def edges_of(triple: Any) -> Any:
                if stop and triple == HAS_TAG:
                    raise KeyboardInterrupt
                found.append(triple.key)
                return scan_edges(triple)

            monkeypatch.setattr(store, "scan_nodes", nodes)
            monkeypatch.setattr(store, "scan_edges", edges_of)
            if stop:
                with pytest.raises(KeyboardInterrupt):
                    export_snapshot(store, SCHEMA, tmp_path / "snapshots", known_as="here")
            else:
                snapshot = export_snapshot(store, SCHEMA, tmp_path / "snapshots", known_as="here")
                assert snapshot.num_edges(LIKED) == len(edges[LIKED])
                assert snapshot.num_edges(HAS_TAG) == len(edges[HAS_TAG])
        return found

    assert scanned(stop=True) == ALL[:5]
    assert scanned(stop=True) == []  # nothing but what is missing
    assert scanned(stop=False) == ALL[5:]
    assert scanned(stop=True) == ALL[:5]
    with EmbeddedStore.open(SCHEMA, settings, tmp_path, read_only=False) as store:
        store.upsert_nodes("User", pa.table({"id": ["somebody new"]}))
    assert scanned(stop=False) == ALL


@pytest.mark.neo4j
def test_both_stores_give_the_same_files(tmp_path: Path, clean_neo4j: Neo4jServer) -> None:
    from graph_store.neo4j.store import Neo4jStore

    here = StoreSettings(uri="graph.lbug", memory_mib=64)
    with EmbeddedStore.open(SCHEMA, here, tmp_path, read_only=False) as store:
        _fill(store)
        whole = export_snapshot(store, SCHEMA, tmp_path / "embedded")
    with Neo4jStore.open(SCHEMA, StoreSettings(uri=clean_neo4j.uri, timeout_s=20), read_only=False) as there:
        _fill(there)
        interrupted: Any = _Interrupted(there)
        with pytest.raises(KeyboardInterrupt):
            export_snapshot(interrupted, SCHEMA, tmp_path / "neo4j", memory_mib=MEMORY_MIB, known_as="there")
        parted = export_snapshot(there, SCHEMA, tmp_path / "neo4j", memory_mib=MEMORY_MIB, known_as="there")
    assert parted.content_hash == whole.content_hash
    assert checksums(parted.folder) == checksums(whole.folder)


class _Interrupted:
    """A store whose last relation cannot be read."""

    def __init__(self, store: GraphStore) -> None:
        self.scan_nodes, self.counts, self.state_token = store.scan_nodes, store.counts, store.state_token
        self._store = store

    def scan_edges(self, triple: Triple) -> Iterator[pa.RecordBatch]:
        if triple == SAW:
            raise KeyboardInterrupt
        return self._store.scan_edges(triple)


def _fill(store: GraphStore) -> dict[Triple, pa.Table]:
    """Write a random graph, less its vectors with NaN; returns the edges, every one once, of two relations."""
    rows = random_graph(1, (40, 50, 3), 200)
    edges = {triple: _once(rows.edges[triple], SCHEMA.relation(triple).key_columns) for triple in (LIKED, HAS_TAG)}
    store.apply_schema()
    for name, table in rows.nodes.items():
        store.upsert_nodes(name, table.select([each for each in ("id", "name") if each in table.column_names]))
    for triple, table in edges.items():
        store.upsert_edges(triple, table.select(list(SCHEMA.relation(triple).key_columns)))
    return edges


def _once(edges: pa.Table, keys: tuple[str, ...]) -> pa.Table:
    found = {tuple(row[key] for key in keys): row for row in edges.to_pylist()}
    return pa.Table.from_pylist(list(found.values()), edges.schema)


def test_the_memory_setting_reaches_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    write_nodes = exporter.write_nodes

    def noted(*arguments: Any, limit: int, **more: Any) -> Any:
        seen.append(limit)
        return write_nodes(*arguments, limit=limit, **more)

    monkeypatch.setattr(exporter, "write_nodes", noted)
    monkeypatch.setenv("KITHKIN_EXPORT__MEMORY_MIB", "96")
    write_inspected(tmp_path)
    for arguments in (["export"], ["export", "--types", "Film"]):
        ended = CliRunner().invoke(app, [*arguments, "-p", str(tmp_path)])
        assert ended.exit_code == 0, ended.output
    assert seen == [96 * 2**20 // 8] * 4  # three types of the whole, one of the part


def test_forget_removes_what_an_interrupted_export_left(tmp_path: Path) -> None:
    write_inspected(tmp_path)
    left = tmp_path / ".kithkin" / "snapshots" / ".exporting-0123"
    (left / "snapshot" / "nodes").mkdir(parents=True)
    ended = CliRunner().invoke(app, ["forget", "nobody here", "-p", str(tmp_path)])
    assert ended.exit_code != 0
    assert left.is_dir()
    ended = CliRunner().invoke(app, ["forget", "u1", "-p", str(tmp_path)])
    assert ended.exit_code == 0, ended.output
    assert "an export that was interrupted: removed" in ended.output
    assert not left.exists()
