"""Bundles: written whole or not at all, read in place, refused when anything is not as it was published."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from google.protobuf import json_format

from graph_store.schema import NodeType
from model_store import layout
from model_store.bundle_store import BundleStore
from model_store.csr import Csr, EdgeType
from model_store.durable import sha256
from model_store.errors import BundleCorrupt, BundleIncomplete, BundleNotFound, BundleVersionUnknown, NothingBefore
from tests.bundles import ANGLES, CO_PLAYED, HAS_TAG, PLAYED, fill, write_toy_bundle


@pytest.fixture
def store(tmp_path: Path) -> BundleStore:
    return BundleStore(tmp_path / "models")


def test_what_was_written_is_read_back(store: BundleStore) -> None:
    bundle = store.open(write_toy_bundle(store))
    assert list(bundle.ids("Artist")) == ["1", "10", "2", "3", "4", "5", "6"]
    assert [bundle.row("Artist", key) for key in ("1", "10", "2", "6")] == [0, 1, 2, 6]
    assert [bundle.row("Artist", key) for key in ("", "0", "100", "7", "é", "\ud800")] == [None] * 6
    assert [bundle.name("Artist", row) for row in range(3)] == ["Slowdive", "Ride", "Lush"]
    assert bundle.popularity("Artist").tolist() == [2, 2, 1, 1, 1, 0, 0]
    assert bundle.property("Artist", "year").to_pylist() == [1991, 1990, 1992, 1986, 1995, None, None]
    played = bundle.neighbours(EdgeType(PLAYED))
    assert played.indices[played.row(1)].tolist() == [1, 2, 0], "u2's heaviest first"
    assert played.weight is not None
    assert played.weight[played.row(1)].tolist() == [7, 3, 1]
    assert bundle.vectors("similar", "Artist")[0].tolist() == [1, 0, 0, 0]
    assert bundle.states("similar", 0, "Tag")[2].tolist() == [0, 1, 0, 0]
    assert bundle.features().apply("User", pa.table({"id": ["x"]}), {}).tolist() == [[1.0]]


def test_edge_types_are_those_with_lists(store: BundleStore) -> None:
    bundle = store.open(write_toy_bundle(store))
    assert EdgeType(HAS_TAG, True) in bundle.edge_types
    assert EdgeType(CO_PLAYED, True) not in bundle.edge_types
    with pytest.raises(KeyError):
        bundle.neighbours(EdgeType(CO_PLAYED, True))
    with pytest.raises(KeyError):
        bundle.vectors("similar", "User")


def test_a_property_called_name_does_not_hide_the_name(store: BundleStore) -> None:
    node_type = NodeType.model_validate(
        {
            "name": "Film",
            "role": "entity",
            "display": "title",
            "properties": {
                "title": {"type": "string", "show": True},
                "name": {"type": "string", "show": True},
                "popularity": {"type": "int", "show": True},
            },
        }
    )
    table = pa.Table.from_arrays(
        [pa.array(v) for v in (["f1"], ["Alien"], [3.0], ["file-7"], [99])],
        names=["id", "name", "popularity", "name", "popularity"],
    )
    with store.writer("films") as writer:
        writer.write_nodes(node_type, table)
        version = writer.commit()
    bundle = store.open(version)
    assert bundle.name("Film", 0) == "Alien"
    assert bundle.popularity("Film").tolist() == [3.0]
    assert bundle.property("Film", "title").to_pylist() == ["Alien"]
    assert bundle.property("Film", "name").to_pylist() == ["file-7"]
    assert bundle.property("Film", "popularity").to_pylist() == [99]


def test_versions_sort_by_publication_and_activate_moves_the_pointer(store: BundleStore) -> None:
    assert store.versions() == ()
    assert store.active() is None
    with pytest.raises(BundleNotFound, match="kithkin build"):
        store.open()
    first, second = (write_toy_bundle(store, encoders=False) for _ in range(2))
    assert store.versions() == (first, second)
    store.activate(second)
    assert store.open().version == second
    store.activate(first)
    assert store.active() == first
    with pytest.raises(BundleNotFound, match=second):
        store.activate("20200101T000000.000000Z")
    with pytest.raises(BundleNotFound):
        store.open("../models")
    assert store.active() == first


def test_roll_back_goes_down_what_was_activated(store: BundleStore) -> None:
    assert store.previous() is None
    with pytest.raises(NothingBefore, match="kithkin bundles"):
        store.roll_back()
    one, two, three = (write_toy_bundle(store, encoders=False) for _ in range(3))
    for version in (one, two, two, three):
        store.activate(version)
    assert (store.roll_back(), store.active(), store.roll_back(), store.active()) == (two, two, one, one)
    with pytest.raises(NothingBefore):
        store.roll_back()
    # What was rolled back from is not come back to.
    store.activate(three)
    assert (store.previous(), store.roll_back()) == (one, one)


def test_the_history_is_only_added_to_and_survives_what_happens_to_it(store: BundleStore) -> None:
    one, two, three = (write_toy_bundle(store, encoders=False) for _ in range(3))
    # ACTIVE written by other hands, or by a release without a history.
    (store.root / "ACTIVE").write_text(f"{one}\n")
    store.activate(two)
    history = store.root / "HISTORY"
    before = history.read_text()
    assert [line.split()[:2] for line in before.splitlines()] == [["activated", one], ["activated", two]]
    store.roll_back()
    assert history.read_text().startswith(before)
    assert history.read_text().splitlines()[-1].startswith(f"rolled-back-to {one} 2")
    # A line that a crash cut short, and ACTIVE moved without a line.
    history.write_text(f"{history.read_text()}activated {two[:9]}\n")
    (store.root / "ACTIVE").write_text(f"{three}\n")
    assert store.previous() == one
    # A bundle that is gone is passed over.
    store.activate(two)
    shutil.rmtree(store.root / three)
    assert store.previous() == one


def test_versions_sort_even_when_the_clock_goes_back(store: BundleStore) -> None:
    (store.root / "20990101T000000.000000Z").mkdir(parents=True)
    version = write_toy_bundle(store, encoders=False)
    assert version == "20990101T000000.000001Z"


def test_an_error_while_writing_leaves_nothing(store: BundleStore) -> None:
    kept = write_toy_bundle(store, encoders=False)

    def fail() -> None:
        with store.writer("toy") as writer:
            fill(writer, encoders=False)
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in store.root.iterdir()] == [kept]


def test_prune_keeps_the_active_one_and_clears_what_crashed_writers_left(store: BundleStore) -> None:
    versions = [write_toy_bundle(store, encoders=False) for _ in range(4)]
    store.activate(versions[0])
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    (store.root / f".unfinished-{versions[3]}-{dead.stdout.strip()}").mkdir()
    (store.root / layout.unfinished_name(versions[3])).mkdir()  # of a run before that had our number
    (store.root / f".ACTIVE.{dead.stdout.strip()}").write_text(versions[3])
    with store.writer("toy") as ours:
        store.prune(keep=2)
        assert store.versions() == (versions[0], versions[2], versions[3])
        assert list(store.root.glob(".*")) == [ours.folder]


def test_a_pruned_bundle_that_is_open_still_answers(store: BundleStore) -> None:
    old, new = (write_toy_bundle(store, encoders=False) for _ in range(2))
    bundle = store.open(old)
    vectors = bundle.vectors("similar", "Artist")
    store.activate(new)
    store.prune(keep=0)
    assert store.versions() == (new,)
    assert vectors[1][0] == pytest.approx(np.cos(np.radians(ANGLES["10"])))


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


DAMAGE: dict[str, tuple[str, Callable[[Path], None]]] = {
    "a byte of the vectors flipped": ("spaces/similar/Artist.npy", _flip),
    "nodes cut short": ("nodes/Artist.arrow", _shorten),
    "a neighbour list removed": ("neighbours/Artist__HAS_TAG__Tag.indices.npy", Path.unlink),
    "an encoder changed": ("encoders/similar/Artist.onnx", _flip),
    "manifest cut short": ("manifest.json", _shorten),
    "a byte of the manifest flipped": ("manifest.json", _flip),
    "manifest removed": ("manifest.json", Path.unlink),
    "manifest not text": ("manifest.json", lambda path: path.write_bytes(b"\xff\xfe\x00")),
    "seal removed": ("manifest.sha256", Path.unlink),
    "seal empty": ("manifest.sha256", lambda path: path.write_text("")),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_refused_and_says_what_to_do(store: BundleStore, case: str) -> None:
    name, damage = DAMAGE[case]
    whole, hurt = write_toy_bundle(store), write_toy_bundle(store)
    damage(store.root / hurt / name)
    with pytest.raises(BundleCorrupt, match="kithkin publish") as raised:
        store.open(hurt)
    # An emptied seal shows as a manifest without its checksum.
    blamed = "manifest.json" if case == "seal empty" else name
    assert raised.value.file == store.root / hurt / blamed
    assert raised.value.exit_code == 6
    assert store.open(whole).version == whole


def test_sizes_are_checked_even_without_checksums(store: BundleStore) -> None:
    version = write_toy_bundle(store)
    _flip(store.root / version / "spaces/similar/Artist.npy")
    assert store.open(version, verify=False).version == version
    _shorten(store.root / version / "spaces/similar/Artist.npy")
    with pytest.raises(BundleCorrupt, match="bytes"):
        store.open(version, verify=False)


def test_another_layout_is_not_read(store: BundleStore) -> None:
    version = write_toy_bundle(store)
    manifest = store.open(version).manifest
    manifest.format_version = 99
    path = store.root / version / "manifest.json"
    text = json_format.MessageToJson(manifest)
    path.write_text(text.replace('"formatVersion": 99', '"formatVersion": 99, "newThing": [1]'))
    (store.root / version / "manifest.sha256").write_text(f"{sha256(path)}  manifest.json\n")
    with pytest.raises(BundleVersionUnknown, match="layout 99, this release reads 1"):
        store.open(version)


def test_the_seal_is_what_sha256sum_reads(store: BundleStore) -> None:
    folder = store.root / write_toy_bundle(store)
    checked = subprocess.run(["sha256sum", "-c", "manifest.sha256"], cwd=folder, capture_output=True, text=True)
    assert checked.stdout == "manifest.json: OK\n"


def test_nothing_is_pickled(store: BundleStore) -> None:
    folder = store.root / write_toy_bundle(store)
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert kinds == {".json", ".sha256", ".arrow", ".npy", ".onnx"}
    for path in folder.rglob("*.npy"):
        np.load(path, allow_pickle=False)


def _artist() -> NodeType:
    return NodeType.model_validate({"name": "Artist", "role": "entity"})


def test_the_writer_refuses_what_does_not_fit(store: BundleStore) -> None:
    with store.writer("toy") as writer:
        with pytest.raises(BundleIncomplete, match="id, name, popularity"):
            writer.write_nodes(_artist(), pa.table({"id": ["1"]}))
        with pytest.raises(BundleIncomplete, match="row 1"):
            writer.write_nodes(_artist(), pa.table({"id": ["2", "10"], "name": ["b", "a"], "popularity": [0.0, 0.0]}))
        with pytest.raises(BundleIncomplete, match="row 1"):
            writer.write_nodes(_artist(), pa.table({"id": ["2", "2"], "name": ["b", "a"], "popularity": [0.0, 0.0]}))
        with pytest.raises(BundleIncomplete, match="nodes of Artist before"):
            writer.write_vectors("similar", "Artist", np.zeros((1, 4), np.float32))
        writer.write_nodes(_artist(), pa.table({"id": ["1", "2"], "name": ["a", None], "popularity": [0.0, 1.0]}))
        with pytest.raises(BundleIncomplete, match=r"\(1, 4\) for 2 nodes"):
            writer.write_vectors("similar", "Artist", np.zeros((1, 4), np.float32))
        with pytest.raises(BundleIncomplete, match="NaN"):
            writer.write_vectors("similar", "Artist", np.full((2, 4), np.nan, np.float32))
        pointers, outside = np.array([0, 1, 1], np.int64), np.array([2], np.int32)
        with pytest.raises(BundleIncomplete, match="outside the 2"):
            writer.write_neighbours(EdgeType(CO_PLAYED), Csr(indptr=pointers, indices=outside))
        with pytest.raises(BundleIncomplete, match="indptr"):
            writer.write_neighbours(EdgeType(CO_PLAYED), Csr(indptr=pointers, indices=np.zeros(2, np.int32)))
        writer.write_neighbours(EdgeType(CO_PLAYED), Csr(indptr=pointers, indices=np.zeros(1, np.int32)))
        with pytest.raises(BundleIncomplete, match="does not name the relation"):
            writer.commit()
        writer.manifest.relations.add(source="Artist", name="CO_PLAYED", target="Artist", role="co_engagement")
        space = writer.manifest.spaces.add(name="similar", dimension=3, node_types=["Artist"])
        with pytest.raises(BundleIncomplete, match=r"lacks spaces/similar/Artist\.npy"):
            writer.commit()
        writer.write_vectors("similar", "Artist", np.zeros((2, 4), np.float32))
        with pytest.raises(BundleIncomplete, match="length 4, not 3"):
            writer.commit()
        space.dimension = 4
        version = writer.commit()
    bundle = store.open(version)
    assert bundle.name("Artist", 1) == "2", "without a name, the id"
    assert bundle.neighbours(EdgeType(CO_PLAYED)).weight is None


def test_empty_types_and_relations_are_fine(store: BundleStore) -> None:
    with store.writer("toy") as writer:
        empty = pa.table(
            {
                "id": pa.array([], pa.string()),
                "name": pa.array([], pa.string()),
                "popularity": pa.array([], pa.float64()),
            }
        )
        writer.write_nodes(_artist(), empty)
        writer.manifest.relations.add(source="Artist", name="CO_PLAYED", target="Artist", role="co_engagement")
        writer.write_neighbours(EdgeType(CO_PLAYED), Csr(indptr=np.zeros(1, np.int64), indices=np.zeros(0, np.int32)))
        version = writer.commit()
    bundle = store.open(version)
    assert len(bundle.ids("Artist")) == 0
    assert bundle.row("Artist", "1") is None
    assert bundle.neighbours(EdgeType(CO_PLAYED)).num_edges == 0


def test_on_a_disk_without_locks_who_has_our_number_is_let_be(
    store: BundleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr("model_store.holds.fcntl.flock", no_locks)
    with store.writer("toy") as first, store.writer("toy"):
        assert first.folder.is_dir(), "it may be another container's"


def test_a_writer_killed_before_commit_publishes_nothing(store: BundleStore) -> None:
    kept = write_toy_bundle(store, encoders=False)
    store.activate(kept)
    script = (
        "import os, sys; from pathlib import Path; from model_store.bundle_store import BundleStore; "
        "from tests.bundles import fill\n"
        "writer = BundleStore(Path(sys.argv[1])).writer('toy')\n"
        "fill(writer, encoders=False)\n"
        "os._exit(9)"
    )
    root = Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", script, str(store.root)], env={**os.environ, "PYTHONPATH": str(root)}, check=False
    )
    assert killed.returncode == 9
    assert len(list(store.root.glob(".unfinished-*"))) == 1
    assert store.versions() == (kept,)
    assert store.open().version == kept
    store.prune(keep=1)
    assert not list(store.root.glob(".unfinished-*"))
