"""Export and reading of a snapshot, on a toy graph whose rows are known.

ann --WATCHED--> Jaws            ids by bytes: Movie  b "Jaws", é "Élan", z "Zulu"
ann --WATCHED--> Jaws (later)                  User   ann, bob, cyd (touches nothing)
ann --WATCHED--> Zulu
bob --WATCHED--> Zulu            Jaws and Élan are Thriller; Zulu has no genre
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from graph_store.schema import GraphSchema, NodeType, Relation, Triple
from graph_store.store import Counts
from model_store.csr import EdgeType
from training.errors import SnapshotCorrupt, SnapshotError, SnapshotVersionError
from training.export import NO_TIME, Snapshot, export_snapshot

WATCHED = Triple("User", "WATCHED", "Movie")
HAS_GENRE = Triple("Movie", "HAS_GENRE", "Genre")

SCHEMA = GraphSchema(
    node_types=(
        NodeType.model_validate(
            {
                "name": "Movie",
                "role": "entity",
                "properties": {
                    "title": {"type": "string"},
                    "year": {"type": "int", "feature": "number"},
                    "score": {"type": "float", "feature": "number"},
                    "words": {"type": "strings"},
                    "look": {"type": "vector", "dimension": 2, "feature": "vector"},
                },
            }
        ),
        NodeType.model_validate({"name": "User", "role": "user"}),
        NodeType.model_validate({"name": "Genre", "role": "concept"}),
    ),
    relations=(
        Relation.model_validate(
            {
                "triple": list(WATCHED),
                "role": "engagement",
                "weight": "stars",
                "time": "at",
                "kind": "how",
                "properties": {
                    "stars": {"type": "float"},
                    "at": {"type": "timestamp"},
                    "how": {"type": "string"},
                    "device": {"type": "string"},
                },
            }
        ),
        Relation.model_validate({"triple": list(HAS_GENRE), "role": "semantic"}),
    ),
)


def at(day: int) -> datetime:
    return datetime(2020, 1, day, tzinfo=UTC)


MOVIES: list[dict[str, Any]] = [
    {"id": "z", "title": "Zulu", "year": 1964, "score": None, "words": ["war", "hill"], "look": None},
    {"id": "b", "title": "Jaws", "year": 1975, "score": -0.0, "words": [], "look": [0.5, 1.0]},
    {"id": "é", "title": None, "year": None, "score": float("nan"), "words": None, "look": [0.0, -1.0]},
]
USERS: list[dict[str, Any]] = [{"id": "cyd"}, {"id": "ann"}, {"id": "bob"}]
GENRES: list[dict[str, Any]] = [{"id": "Thriller"}]
WATCHES: list[dict[str, Any]] = [
    {"source": "bob", "target": "z", "stars": None, "at": at(3), "how": "view", "device": None},
    {"source": "ann", "target": "z", "stars": 2.0, "at": None, "how": "view", "device": "tv"},
    {"source": "ann", "target": "b", "stars": 5.0, "at": at(2), "how": "view", "device": "tv"},
    {"source": "ann", "target": "b", "stars": 4.0, "at": at(1), "how": "view", "device": "phone"},
    {"source": "ann", "target": "b", "stars": 1.0, "at": at(1), "how": "click", "device": "phone"},
]
GENRE_OF: list[dict[str, Any]] = [{"source": "é", "target": "Thriller"}, {"source": "b", "target": "Thriller"}]


class MemoryStore:
    """The part of a GraphStore that an export reads, from rows in memory."""

    def __init__(self, schema: GraphSchema, nodes: dict[str, list[Any]], edges: dict[Triple, list[Any]]) -> None:
        self.schema, self.nodes, self.edges, self.chunk, self.state = schema, nodes, edges, 2, "unmoved"

    def scan_nodes(self, node_type: str, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        table = pa.Table.from_pylist(self.nodes[node_type], self.schema.node_type(node_type).arrow_schema)
        yield from table.to_batches(max_chunksize=self.chunk)

    def scan_edges(self, triple: Triple, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        table = pa.Table.from_pylist(self.edges[triple], self.schema.relation(triple).arrow_schema)
        yield from table.to_batches(max_chunksize=self.chunk)

    def counts(self) -> Counts:
        return Counts()

    def state_token(self) -> str:
        return self.state


def store(**changed: Any) -> Any:
    rows = {"Movie": MOVIES, "User": USERS, "Genre": GENRES, "watches": WATCHES, "genre_of": GENRE_OF} | changed
    nodes = {name: rows[name] for name in ("Movie", "User", "Genre")}
    return MemoryStore(SCHEMA, nodes, {WATCHED: rows["watches"], HAS_GENRE: rows["genre_of"]})


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    return export_snapshot(store(), SCHEMA, tmp_path)


def test_nodes_are_sorted_by_bytes_and_keep_their_values(snapshot: Snapshot) -> None:
    assert snapshot.ids("Movie").to_pylist() == ["b", "z", "é"]
    assert snapshot.num_nodes("Movie") == 3
    assert snapshot.nodes("Movie").schema == SCHEMA.node_type("Movie").arrow_schema
    assert snapshot.nodes("Movie").to_pylist() == [
        {"id": "b", "title": "Jaws", "year": 1975, "score": 0.0, "words": [], "look": [0.5, 1.0]},
        {"id": "z", "title": "Zulu", "year": 1964, "score": None, "words": ["war", "hill"], "look": None},
        {"id": "é", "title": None, "year": None, "score": None, "words": None, "look": [0.0, -1.0]},
    ]
    assert not np.signbit(snapshot.nodes("Movie").column("score")[0].as_py())


@pytest.mark.parametrize("repeat", [1, 100])
def test_rows_of_ids(snapshot: Snapshot, repeat: int) -> None:
    wanted = ["é", "a", "b", "zz", "", "z"] * repeat
    expected = np.array([2, -1, 0, -1, -1, 1] * repeat)
    for ids in (wanted, pa.array(wanted), pa.chunked_array([wanted]), pa.array(wanted, pa.large_string())):
        rows = snapshot.rows("Movie", ids)
        assert rows.dtype == np.int64
        np.testing.assert_array_equal(rows, expected)
    assert snapshot.rows("Movie", []).tolist() == []


def test_edge_types_name_every_relation_from_both_ends(snapshot: Snapshot) -> None:
    assert snapshot.edge_types == (
        EdgeType(WATCHED),
        EdgeType(WATCHED, True),
        EdgeType(HAS_GENRE),
        EdgeType(HAS_GENRE, True),
    )


def test_forward_edges_are_ordered_by_target_time_and_kind(snapshot: Snapshot) -> None:
    csr = snapshot.csr(EdgeType(WATCHED))
    assert csr.indptr.tolist() == [0, 4, 5, 5]
    assert csr.indices.tolist() == [0, 0, 0, 1, 1]
    assert csr.weight is not None
    assert csr.weight.tolist() == [1.0, 4.0, 5.0, 2.0, 1.0]
    first, second, third = (int(at(day).timestamp()) * 1_000_000 for day in (1, 2, 3))
    assert csr.time is not None
    assert csr.time.tolist() == [first, first, second, NO_TIME, third]
    assert (csr.indptr.dtype, csr.indices.dtype, csr.weight.dtype, csr.time.dtype) == ("i8", "i4", "f4", "i8")
    edges = snapshot.edges(WATCHED)
    assert edges.column("how").to_pylist() == ["click", "view", "view", "view", "view"]
    assert edges.column("stars").to_pylist() == [1.0, 4.0, 5.0, 2.0, None]


def test_reversed_edges_hold_the_same_edges(snapshot: Snapshot) -> None:
    edge_type = EdgeType(WATCHED, True)
    csr = snapshot.csr(edge_type)
    assert csr.indptr.tolist() == [0, 3, 5, 5]
    assert csr.indices.tolist() == [0, 0, 0, 0, 1]
    assert csr.weight is not None
    assert csr.weight.tolist() == [1.0, 4.0, 5.0, 2.0, 1.0]
    assert snapshot.edge_positions(edge_type).tolist() == [0, 1, 2, 3, 4]
    genres = snapshot.csr(EdgeType(HAS_GENRE))
    assert (genres.indptr.tolist(), genres.indices.tolist()) == ([0, 1, 1, 2], [0, 0])
    assert genres.weight is None
    assert genres.time is None
    back = snapshot.csr(EdgeType(HAS_GENRE, True))
    assert (back.indptr.tolist(), back.indices.tolist()) == ([0, 2], [0, 2])


def test_positions_lead_from_reversed_edges_to_their_properties(tmp_path: Path) -> None:
    watches = [
        {"source": "bob", "target": "b", "stars": 1.0, "at": at(1), "how": "view", "device": "bob-b"},
        {"source": "ann", "target": "z", "stars": 1.0, "at": at(1), "how": "view", "device": "ann-z"},
        {"source": "cyd", "target": "b", "stars": 1.0, "at": at(1), "how": "view", "device": "cyd-b"},
    ]
    snapshot = export_snapshot(store(watches=watches), SCHEMA, tmp_path)
    edge_type = EdgeType(WATCHED, True)
    csr = snapshot.csr(edge_type)
    devices = snapshot.edges(WATCHED).column("device").take(snapshot.edge_positions(edge_type)).to_pylist()
    users, movies = snapshot.ids("User"), snapshot.ids("Movie")
    for movie in range(csr.num_rows):
        for place in range(csr.indptr[movie], csr.indptr[movie + 1]):
            assert devices[place] == f"{users[csr.indices[place]]}-{movies[movie]}"
    assert devices == ["bob-b", "cyd-b", "ann-z"]


def test_an_empty_graph_has_a_snapshot(tmp_path: Path) -> None:
    empty = store(Movie=[], User=[], Genre=[], watches=[], genre_of=[])
    snapshot = export_snapshot(empty, SCHEMA, tmp_path)
    assert snapshot.ids("Movie").to_pylist() == []
    assert snapshot.rows("Movie", ["b"]).tolist() == [-1]
    for edge_type in snapshot.edge_types:
        assert snapshot.csr(edge_type).indptr.tolist() == [0]
        assert snapshot.csr(edge_type).num_edges == 0


def test_the_same_content_is_written_once(tmp_path: Path) -> None:
    first = export_snapshot(store(), SCHEMA, tmp_path)
    written = (first.folder / "manifest.json").stat().st_mtime_ns
    second = export_snapshot(store(), SCHEMA, tmp_path)
    assert second.folder == first.folder == tmp_path / first.content_hash
    assert (second.folder / "manifest.json").stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == [first.content_hash]


def _with(rows: list[dict[str, Any]], place: int, **values: Any) -> list[dict[str, Any]]:
    return [row | values if number == place else row for number, row in enumerate(rows)]


@pytest.mark.parametrize(
    "changed",
    [
        {"Movie": _with(MOVIES, 0, title="Zulu!")},
        {"Movie": _with(MOVIES, 0, year=None)},
        {"Movie": _with(MOVIES, 2, year=0)},
        {"Movie": _with(MOVIES, 2, title="")},
        {"Movie": _with(MOVIES, 1, words=None)},
        {"Movie": _with(MOVIES, 0, words=["warhill"])},
        {"Movie": _with(MOVIES, 1, look=[0.5, 2.0])},
        {"User": [*USERS, {"id": "dan"}]},
        {"watches": _with(WATCHES, 2, stars=4.5)},
        {"watches": _with(WATCHES, 2, at=at(4))},
        {"watches": _with(WATCHES, 2, how="click")},
        {"watches": _with(WATCHES, 2, device="car")},
        {"watches": WATCHES[1:]},
        {"genre_of": GENRE_OF[1:]},
    ],
)
def test_any_other_content_has_another_hash(tmp_path: Path, snapshot: Snapshot, changed: dict[str, Any]) -> None:
    assert export_snapshot(store(**changed), SCHEMA, tmp_path).content_hash != snapshot.content_hash


def test_the_schema_is_part_of_the_content(tmp_path: Path, snapshot: Snapshot) -> None:
    document = SCHEMA.model_dump()
    document["node_types"][0]["display"] = "title"
    other = GraphSchema.model_validate(document)
    assert export_snapshot(store(), other, tmp_path).content_hash != snapshot.content_hash
    assert Snapshot.open(snapshot.folder).schema == SCHEMA


def test_a_dangling_edge_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    watches = [*WATCHES, {"source": "eve", "target": "b", "stars": 1.0, "at": at(1), "how": "view", "device": None}]
    with pytest.raises(
        SnapshotError, match="1 edges have a source that is no User in the store, such as 'eve'"
    ) as error:
        export_snapshot(store(watches=watches), SCHEMA, tmp_path)
    assert "export again" in error.value.hint
    assert error.value.exit_code == 6
    assert list(tmp_path.iterdir()) == []


def test_an_id_twice_is_named(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="User: the id 'ann' is there more than once"):
        export_snapshot(store(User=[*USERS, {"id": "ann"}]), SCHEMA, tmp_path)


def test_a_column_of_another_type_is_named(tmp_path: Path) -> None:
    fake = store()
    fake.scan_nodes = lambda node_type: iter([pa.RecordBatch.from_pylist([{"id": "b", "title": "x", "year": "old"}])])
    with pytest.raises(SnapshotError, match="Movie: column 'year' is declared as int64, the store sends string"):
        export_snapshot(fake, SCHEMA, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_snapshot_there(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="is not a snapshot"):
        Snapshot.open(tmp_path)


def test_a_missing_and_a_cut_file_are_seen_at_opening(snapshot: Snapshot) -> None:
    path = snapshot.folder / f"csr/{WATCHED.key}.indices.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    with pytest.raises(SnapshotCorrupt, match=r"indices\.npy: \d+ bytes, the manifest says \d+"):
        Snapshot.open(snapshot.folder)
    path.unlink()
    with pytest.raises(SnapshotCorrupt, match=r"indices\.npy is missing"):
        Snapshot.open(snapshot.folder)


def test_a_changed_byte_is_seen_by_verify(snapshot: Snapshot) -> None:
    snapshot.verify()
    path = snapshot.folder / "nodes/Movie.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(SnapshotCorrupt, match=r"Movie\.arrow: its checksum differs"):
        Snapshot.open(snapshot.folder).verify()


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99}', "\x00"])
def test_a_broken_manifest_is_an_error_of_ours(snapshot: Snapshot, text: str) -> None:
    (snapshot.folder / "manifest.json").write_text(text)
    with pytest.raises((SnapshotCorrupt, SnapshotVersionError)):
        Snapshot.open(snapshot.folder)


def test_another_format_is_not_read_and_makes_room(tmp_path: Path, snapshot: Snapshot) -> None:
    path = snapshot.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    with pytest.raises(SnapshotVersionError, match="format 99"):
        Snapshot.open(snapshot.folder)
    again = export_snapshot(store(), SCHEMA, tmp_path)
    assert again.folder == snapshot.folder
    assert Snapshot.open(snapshot.folder).num_edges(WATCHED) == 5
    assert [path.name for path in tmp_path.iterdir()] == [snapshot.content_hash]


def test_hetero_data_holds_edges_and_numeric_features(snapshot: Snapshot) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch Geometric still scripts modules at import
        warnings.simplefilter("ignore", DeprecationWarning)
        data = snapshot.to_hetero_data()
    assert data["Movie"].num_nodes == 3
    assert data["Movie"].year.tolist()[:2] == [1975.0, 1964.0]
    assert np.isnan(data["Movie"].year[2].item())
    assert data["Movie"].look[[0, 2]].tolist() == [[0.5, 1.0], [0.0, -1.0]]
    assert data["User", "WATCHED", "Movie"].edge_index.tolist() == [[0, 0, 0, 0, 1], [0, 0, 0, 1, 1]]
    assert data["User", "WATCHED", "Movie"].edge_weight.tolist() == [1.0, 4.0, 5.0, 2.0, 1.0]
    assert data["Movie", "HAS_GENRE", "Genre"].edge_index.tolist() == [[0, 2], [0, 0]]
    assert data.validate()


def test_a_graph_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    moving = store()
    whole = moving.scan_edges

    def write_meanwhile(*arguments: Any) -> Iterator[pa.RecordBatch]:
        moving.state = "moved"
        return whole(*arguments)

    moving.scan_edges = write_meanwhile
    with pytest.raises(SnapshotError, match="changed while it was read"):
        export_snapshot(moving, SCHEMA, tmp_path)
    assert list(tmp_path.iterdir()) == []
