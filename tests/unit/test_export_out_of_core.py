"""An export in little memory writes what one in much memory writes, byte for byte, and what earlier versions wrote."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from graph_store.progress import NoProgress
from model_store.csr import EdgeType
from tests.random_graph import LIKED, SCHEMA, TableStore, random_graph
from training.errors import SnapshotError
from training.export import Snapshot, backward, export_snapshot, node_rows
from training.export.array_file import ArrayFile
from training.export.backward import write_backward
from training.export.node_rows import NodeRows, Scratch
from training.export.order import counting_order
from training.export.sorting import IdKey, PairKey, Sorter

ROOT = Path(__file__).parents[2]

# Nodes by type, edges of each relation, rows a batch; hashes of the manifest's columns and of the arrays, as the export
# that held whole tables in memory wrote them.
WRITTEN_BEFORE = [
    (
        (0, 0, 0),
        0,
        7,
        "47e6c538dfeea6333b2116a655961e83c1039b1ebcc2dca799b144c2bb84cd49",
        "278223168c4a1cb431c4c5ac262758bc2e6ef302bb888416e41ee5b5f14a0428",
    ),
    (
        (1, 0, 1),
        5,
        1,
        "96ea29c138f653ae28e338995df70f1d4abcda14efbe0ce4625c4d972d02174e",
        "85f7af6648baea5c658b2a5ee811c89402a72d55fd06e7f6db96d7b1aaf4050b",
    ),
    (
        (90, 40, 0),
        300,
        100,
        "4113081775bd9a7e7357a4a681fe1ba65ba76a9d16c796407138529d83051176",
        "8e6afc680e169b4f8742f855c3206c4d49bbe31d2ab7912d969fce4673e1679c",
    ),
    (
        (7, 2, 1),
        300,
        7,
        "021a1b2da07f8c98e5682d04a68b331f4ae50108b8cef1daf439779a65d0e619",
        "ec283498e7b381e3c28830a94f1cc99d29d2781effa17067a21410a8907d7c8a",
    ),
    (
        (300, 500, 5),
        4000,
        500,
        "7035e63b618daf8795e336f1fee2cc926a38b9ddbac65a68a09f0367bb78d94e",
        "4bf33f3925861c6d4c1b55b4f4e29ba175638711c1775f1a297a67f1fd30314b",
    ),
    (
        (50, 900, 12),
        6000,
        999,
        "d83e6f3f4c004236800398e92bdcc1e9b53be4e965dc11e8ec13da912c8e18a4",
        "62ab64a4722a633d393f848955d820b6e2c2a8fc88a23a3996ebd7a0eb96f075",
    ),
]


def checksums(snapshot: Snapshot) -> dict[str, str]:
    found = (path for path in sorted(snapshot.folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(snapshot.folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.mark.parametrize("memory_mib", [2048, 0.05, 0.005])
@pytest.mark.parametrize("seed", range(len(WRITTEN_BEFORE)))
def test_the_arrays_and_hashes_are_those_of_earlier_versions(tmp_path: Path, seed: int, memory_mib: float) -> None:
    nodes, edges, batch, columns, arrays = WRITTEN_BEFORE[seed]
    store = random_graph(seed, nodes, edges, batch=batch)
    snapshot = export_snapshot(store, SCHEMA, tmp_path, memory_mib=memory_mib)
    hashes = json.dumps([snapshot.manifest.nodes, snapshot.manifest.relations])
    assert hashlib.sha256(hashes.encode()).hexdigest() == columns
    of_arrays = "".join(value for name, value in checksums(snapshot).items() if name.endswith(".npy"))
    assert hashlib.sha256(of_arrays.encode()).hexdigest() == arrays
    snapshot.verify()
    assert [path.name for path in tmp_path.iterdir()] == [snapshot.content_hash]


def test_files_do_not_depend_on_the_memory(tmp_path: Path) -> None:
    store = random_graph(7, (700, 400, 30), 5000)
    whole = export_snapshot(store, SCHEMA, tmp_path / "much", memory_mib=2048)
    for memory_mib in (1, 0.1, 0.01):
        parted = export_snapshot(store, SCHEMA, tmp_path / str(memory_mib), memory_mib=memory_mib)
        assert parted.content_hash == whole.content_hash
        assert checksums(parted) == checksums(whole)


def test_more_edges_than_a_batch_of_the_file_holds(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    edges = 300_000
    film, user = [f"f{number:04}" for number in range(3000)], [f"u{number:04}" for number in range(2000)]
    source, target = rng.integers(0, len(user), edges), rng.integers(0, len(film), edges)
    much = rng.permutation(edges).astype(np.float64)  # no two alike: the order is the one of these keys
    nothing = random_graph(0, (0, 0, 0), 0)
    of = dict(nothing.edges)
    of[LIKED] = pa.table(
        {
            "source": pa.array(user).take(pa.array(source)),
            "target": pa.array(film).take(pa.array(target)),
            "how": pa.nulls(edges, pa.string()),
            "much": much,
            "at": pa.nulls(edges, pa.timestamp("us", "UTC")),
            "note": pa.nulls(edges, pa.list_(pa.string())),
        }
    )
    of_films = pa.table({"id": film} | {name: pa.nulls(len(film), pa.null()) for name in ("name", "score", "old")})
    of_films = of_films.append_column("out", pa.nulls(len(film))).append_column("words", pa.nulls(len(film)))
    nodes = {
        **nothing.nodes,
        "Film": of_films.append_column("look", pa.nulls(len(film))),
        "User": pa.table({"id": user}),
    }
    store: Any = TableStore(nodes, of, batch=50_000)
    snapshot = export_snapshot(store, SCHEMA, tmp_path, memory_mib=16)
    order = np.lexsort([much, target, source])
    np.testing.assert_array_equal(snapshot.csr(EdgeType(LIKED)).indices, target[order])
    np.testing.assert_array_equal(np.asarray(snapshot.edges(LIKED).column("much")), much[order])
    assert [len(chunk) for chunk in snapshot.edges(LIKED).column("much").chunks] == [1 << 18, edges - (1 << 18)]
    back = np.lexsort([np.arange(edges), target[order]])
    reverse = snapshot.csr(EdgeType(LIKED, True))
    np.testing.assert_array_equal(reverse.indices, source[order][back])
    np.testing.assert_array_equal(reverse.indptr, np.searchsorted(target[order][back], np.arange(len(film) + 1)))
    np.testing.assert_array_equal(snapshot.edge_positions(EdgeType(LIKED, True)), back)


def test_an_id_twice_is_found_across_runs(tmp_path: Path) -> None:
    store = random_graph(3, (0, 800, 0), 0, batch=50)
    twice = store.nodes["User"]["id"][700].as_py()
    store.nodes["User"] = pa.concat_tables(
        [store.nodes["User"], pa.table({"id": [twice]}, schema=store.nodes["User"].schema)]
    )
    with pytest.raises(SnapshotError, match=r"User: the id .* is there more than once") as error:
        export_snapshot(store, SCHEMA, tmp_path, memory_mib=0.02)
    assert repr(twice) in error.value.message
    assert list(tmp_path.iterdir()) == []


def test_missing_ids_are_counted(tmp_path: Path) -> None:
    store = random_graph(3, (0, 10, 0), 0, batch=3)
    store.nodes["User"] = pa.table({"id": pa.array(["a", None, "b", None, "c", None, "d"])})
    with pytest.raises(SnapshotError, match="User: 3 nodes have no id"):
        export_snapshot(store, SCHEMA, tmp_path)


# ------------------------------------------------------------------ sorting


def _pairs(source: NDArray[Any], target: NDArray[Any]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [pa.array(source, pa.int32()), pa.array(target, pa.int32())], names=["source", "target"]
    )


@pytest.mark.parametrize("limit", [64, 4096, 1 << 20])
def test_windows_hold_every_row_once_and_their_keys_go_up(tmp_path: Path, limit: int) -> None:
    rng = np.random.default_rng(1)
    source, target = rng.integers(0, 50, 5000), rng.integers(0, 1 << 30, 5000)
    source[1000:3000], target[1000:3000] = 7, 11  # one pair, more often than a window is long
    sorter = Sorter(tmp_path / "runs", PairKey(), _pairs(source, target).schema, limit=limit)
    for start in range(0, 5000, 70):
        sorter.add(_pairs(source[start : start + 70], target[start : start + 70]))
    assert sorter.rows == 5000
    last, found, windows = -1, Counter[int](), 0
    for window in sorter.windows():
        keys = (np.asarray(window["source"]).astype(np.int64) << 32) | np.asarray(window["target"])
        windows += 1
        assert keys.min(initial=1 << 62) > last
        last = int(keys.max(initial=last))
        found.update(keys.tolist())
    assert found == Counter(((source << 32) | target).tolist())
    assert (windows > 1) == (limit < 1 << 20)
    assert (tmp_path / "runs").exists() == (limit < 1 << 20)


def test_windows_of_ids_are_cut_by_bytes(tmp_path: Path) -> None:
    ids = [chr(number) for number in (*range(0x20, 0x7F), *range(0x391, 0x3A0), *range(0x1F600, 0x1F650))] * 2
    random.Random(1).shuffle(ids)
    schema = pa.schema([("id", pa.large_string())])
    sorter = Sorter(tmp_path, IdKey(), schema, limit=700)
    for start in range(0, len(ids), 10):
        sorter.add(pa.RecordBatch.from_pydict({"id": ids[start : start + 10]}, schema))
    windows = [window["id"].to_pylist() for window in sorter.windows()]
    assert len(windows) > 3
    assert [each for window in windows for each in sorted(window, key=str.encode)] == sorted(ids, key=str.encode)


# ------------------------------------------------------------------ ids and rows


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_rows_of_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool, limit: int) -> None:
    monkeypatch.setattr(node_rows, "_ARROW_WORK", 0 if compiled else 1 << 30)
    ids = sorted({"", "a", "aa", "é", "𝄞", *(f"n{number}" for number in range(20_000))}, key=str.encode)
    schema = pa.schema([("id", pa.string())])
    with pa.OSFile(str(tmp_path / "nodes.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, len(ids), 3000):
            writer.write_batch(pa.RecordBatch.from_pydict({"id": ids[start : start + 3000]}, schema))
    rows = NodeRows(tmp_path / "nodes.arrow", Scratch(tmp_path / "scratch", limit))
    assert rows.count == len(ids)
    asked: list[str | None] = [*ids, None, "n", "n20000", "ab", "e", *reversed(ids)]
    expected = [*range(len(ids)), -1, -1, -1, -1, -1, *reversed(range(len(ids)))]
    for kind in (pa.string(), pa.large_string()):
        found = rows.of(pa.array(asked, kind))
        assert found.dtype == np.int32
        assert found.tolist() == expected
        assert rows.of(pa.array(asked, kind).slice(5, 7)).tolist() == expected[5:12]
    assert rows.of(pa.array([], pa.string())).tolist() == []


def test_rows_of_no_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_rows, "_ARROW_WORK", 0)
    schema = pa.schema([("id", pa.string())])
    with pa.OSFile(str(tmp_path / "nodes.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema):
        pass
    rows = NodeRows(tmp_path / "nodes.arrow", Scratch(tmp_path, 0))
    assert rows.count == 0
    assert rows.of(pa.array(["", "a", None])).tolist() == [-1, -1, -1]


# ------------------------------------------------------------------ the other direction


@pytest.mark.parametrize("limit", [1, 3000, 1 << 20])
def test_turned_edges(tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backward, "_FEWEST_EDGES", 500)
    rng = np.random.default_rng(2)
    sources, targets, edges = 40, 90, 6000
    target = (targets * rng.random(edges) ** 3).astype(np.int32)
    target[rng.random(edges) < 0.3] = 60  # more edges than a part holds
    target[target == 33] = 34  # and none
    source = np.sort(rng.integers(0, sources - 5, edges)).astype(np.int32)  # the last ones have none
    source[source == 3] = 4
    weight, time = rng.random(edges).astype(np.float32), rng.integers(0, 9, edges)
    relation = SCHEMA.relation(LIKED)
    key = relation.triple.key
    indptr = np.searchsorted(source, np.arange(sources + 1)).astype(np.int64)
    for name, values in (("indptr", indptr), ("indices", target), ("weight", weight), ("time", time)):
        np.save(tmp_path / f"{key}.{name}.npy", values)
    write_backward(
        relation, targets, tmp_path, tmp_path / "work", Scratch(tmp_path, 0), limit=limit, progress=NoProgress()
    )
    order, starts = counting_order(target, targets)
    expected = {"indptr": starts, "indices": source[order], "weight": weight[order], "time": time[order]}
    for name, values in (expected | {"position": order}).items():
        found = np.load(tmp_path / f"{key}__rev.{name}.npy")
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values, err_msg=name)


def test_an_array_file_is_what_numpy_saves(tmp_path: Path) -> None:
    values = np.arange(1000, dtype=np.float32)
    with ArrayFile.make(tmp_path / "ours.npy", np.float32, len(values)) as file:
        file.write(400, values[400:])
        file.write(0, values[:400])
    np.save(tmp_path / "numpy.npy", values)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    assert ArrayFile.open(tmp_path / "ours.npy").read(10, 13).tolist() == [10.0, 11.0, 12.0]


# ------------------------------------------------------------------ memory

MEASURED = """
import resource, sys, tempfile
from pathlib import Path
import numpy as np, pyarrow as pa
from graph_store.store import Counts
from tests.random_graph import LIKED, SCHEMA, random_graph
from training.export import export_snapshot, node_rows

node_rows._ARROW_WORK = 0  # both processes load Numba
edges = int(sys.argv[1])
nodes = random_graph(1, (800, 900, 1), 0)
film, user = (nodes.nodes[name]["id"].combine_chunks() for name in ("Film", "User"))

class Store:
    scan_nodes, state_token, counts = nodes.scan_nodes, nodes.state_token, nodes.counts

    def scan_edges(self, triple):
        rng = np.random.default_rng(0)
        for _ in range(edges // 50_000 if triple == LIKED else 0):
            count = 50_000
            columns = {
                "source": user.take(pa.array(rng.integers(0, len(user), count))),
                "target": film.take(pa.array((len(film) * rng.random(count) ** 3).astype(np.int64))),
                "how": pa.nulls(count, pa.string()),
                "much": pa.array(rng.random(count)),
                "at": pa.array(rng.integers(0, 10**15, count), pa.timestamp("us", "UTC")),
                "note": pa.nulls(count, pa.list_(pa.string())),
            }
            yield pa.RecordBatch.from_pydict(columns)

with tempfile.TemporaryDirectory() as root:
    snapshot = export_snapshot(Store(), SCHEMA, Path(root), memory_mib=16)
    assert snapshot.num_edges(LIKED) == edges
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_edges() -> None:
    def peak_mib(edges: int) -> float:
        command = [sys.executable, "-c", MEASURED, str(edges)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return int(ended.stdout) / 1024

    # Held in memory, these edges more took 200 MiB.
    assert peak_mib(1_600_000) - peak_mib(400_000) < 60
