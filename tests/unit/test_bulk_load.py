"""Loads into the embedded store: what is compared, what is copied, and columns that are typed in their files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graph_store.embedded.store import EmbeddedStore
from graph_store.errors import StoreError, TooManyRejects
from graph_store.ingest import ingest, run
from graph_store.ingest.differences import Differences, WritesDifferences
from graph_store.ingest.staging import Stager
from graph_store.project import Project, load_project
from graph_store.schema import Triple
from graph_store.store import Written
from graph_store.stores import open_store
from tests.memory_store import MemoryStore

DECLARATION = """
name = "t"
[nodes.Film]
role = "entity"
display = "title"
[nodes.Film.properties]
title = { type = "string" }
year = { type = "int" }
score = { type = "float" }
seen = { type = "bool" }
day = { type = "date" }
at = { type = "timestamp" }
[nodes.User]
role = "user"

[[relations]]
triple = ["User", "SAW", "Film"]
role = "engagement"
weight = "stars"
time = "at"
properties = { stars = { type = "float" }, at = { type = "timestamp" } }
[[relations]]
triple = ["Film", "NEAR", "Film"]
role = "semantic"

[[sources]]
file = "films.parquet"
node = "Film"
id = "id"
properties = { title = "title", year = "year", score = "score", seen = "seen", day = "day", at = "at" }
[[sources]]
file = "users.parquet"
node = "User"
id = "id"
[[sources]]
file = "saw.parquet"
relation = ["User", "SAW", "Film"]
source = "user"
target = "film"
properties = { stars = "stars", at = "at" }
[[sources]]
file = "near.parquet"
relation = ["Film", "NEAR", "Film"]
source = "film"
target = "other"
"""
SAW, NEAR = Triple("User", "SAW", "Film"), Triple("Film", "NEAR", "Film")
START = datetime(2024, 1, 1, tzinfo=UTC)


def tables() -> dict[str, pa.Table]:
    """20 films, 30 users, two events of each of them, a ring of films."""
    films, users = [f"f{number}" for number in range(20)], [f"u{number}" for number in range(30)]
    return {
        "films": pa.table(
            {
                "id": films,
                "title": [f"Film {name}" for name in films],
                "year": pa.array(range(1980, 2000), pa.int32()),
                "score": [number / 3 for number in range(20)],
                "seen": [number % 2 == 0 for number in range(20)],
                "day": pa.array([date(2000, 1, number + 1) for number in range(20)]),
                "at": pa.array([START] * 20, pa.timestamp("ms", tz="Europe/Amsterdam")),
            }
        ),
        "users": pa.table({"id": users}),
        "saw": pa.table(
            {
                "user": users * 2,
                "film": [films[number * 7 % 20] for number in range(60)],
                "stars": [1 + number % 9 / 2 for number in range(60)],
                "at": pa.array(list(range(60)), pa.timestamp("us", tz="UTC")),
            }
        ),
        "near": pa.table({"film": films, "other": [*films[1:], films[0]]}),
    }


def project_of(folder: Path, files: dict[str, pa.Table], declaration: str = DECLARATION) -> Project:
    for name, table in files.items():
        pq.write_table(table, folder / f"{name}.parquet")
    (folder / "kithkin.toml").write_text(declaration, encoding="utf-8")
    return load_project(folder, environment={})


def contents(store: Any) -> dict[str, list[dict[str, Any]]]:
    """Everything in a store, in one order."""
    found = {}
    for name, rows in (
        ("Film", store.scan_nodes("Film")),
        ("User", store.scan_nodes("User")),
        ("SAW", store.scan_edges(SAW)),
        ("NEAR", store.scan_edges(NEAR)),
    ):
        found[name] = sorted((row for batch in rows for row in batch.to_pylist()), key=str)
    return found


def forbidden(*_: object, **__: object) -> Iterator[pa.RecordBatch]:
    raise AssertionError("nothing needs to be read from the store")


def test_the_embedded_store_ends_like_one_that_is_written_row_by_row(tmp_path: Path) -> None:
    project = project_of(tmp_path, tables())
    plain = MemoryStore(project.schema)
    report = ingest(project, plain)
    with open_store(project) as store:
        assert isinstance(store, WritesDifferences)
        assert ingest(project, store).written == report.written == Written(created=130)
        expected = {
            "Film": list(plain.nodes["Film"].values()),
            "User": list(plain.nodes["User"].values()),
            "SAW": list(plain.edges[SAW].values()),
            "NEAR": list(plain.edges[NEAR].values()),
        }
        assert contents(store) == {name: sorted(rows, key=str) for name, rows in expected.items()}


def test_an_empty_store_is_not_read_and_the_second_load_reads_it_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_of(tmp_path, tables())
    with open_store(project) as store:
        with monkeypatch.context() as patched:
            patched.setattr(EmbeddedStore, "scan_nodes", forbidden)
            patched.setattr(EmbeddedStore, "scan_edges", forbidden)
            ingest(project, store)
        token, before = store.state_token(), contents(store)
        assert ingest(project, store).written == Written(unchanged=130)
        assert store.state_token() == token
        assert contents(store) == before


def test_ids_of_the_store_are_read_only_where_the_files_lack_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    scan = EmbeddedStore.scan_nodes

    def noted(self: EmbeddedStore, name: str, columns: Any = None) -> Iterator[pa.RecordBatch]:
        if columns == ():
            read.append(name)
        return scan(self, name, columns)

    monkeypatch.setattr(EmbeddedStore, "scan_nodes", noted)
    files = tables()
    project = project_of(tmp_path, files)
    with open_store(project) as store:
        ingest(project, store)
        ingest(project, store)
        assert read == []
        # Ten users leave their file: their edges still end at nodes of the store.
        ingest(project_of(tmp_path, {"users": files["users"].slice(10)}), store)
        assert read == ["User"]
        assert contents(store)["SAW"]
        assert len(contents(store)["User"]) == 30


@pytest.mark.parametrize(
    ("cypher", "written"),
    [
        ("MATCH (f:Film {id: 'f3'}) SET f.title = 'Other'", Written(changed=1, unchanged=129)),
        ("MATCH (:User)-[r:SAW]->(:Film {id: 'f7'}) SET r.stars = 9.5", Written(changed=3, unchanged=127)),
        ("MATCH (:Film {id: 'f3'})-[r:NEAR]->() DELETE r", Written(created=1, unchanged=129)),
        ("MATCH (u:User {id: 'u4'}) DETACH DELETE u", Written(created=3, unchanged=127)),
        ("MATCH (a:Film {id: 'f3'}), (b:Film {id: 'f4'}) CREATE (a)-[:NEAR]->(b)", Written(unchanged=130)),
        ("CREATE (:Film {id: 'new'})", Written(unchanged=130)),
    ],
)
def test_what_somebody_changed_in_between_is_found_and_set_again(tmp_path: Path, cypher: str, written: Written) -> None:
    project = project_of(tmp_path, tables())
    with open_store(project) as store:
        ingest(project, store)
        before = contents(store)
        store.query(cypher, write=True)
        assert ingest(project, store).written == written
        if written != Written(unchanged=130):
            assert contents(store) == before


def test_changed_files_write_the_difference(tmp_path: Path) -> None:
    files = tables()
    project = project_of(tmp_path, files)
    with open_store(project) as store:
        ingest(project, store)
        stars = files["saw"]["stars"].to_pylist()
        stars[5] = 8.0
        more = {"user": ["u1"], "film": ["f1"], "stars": [2.0], "at": pa.array([999], pa.timestamp("us", tz="UTC"))}
        saw = pa.concat_tables([files["saw"].set_column(2, "stars", pa.array(stars)), pa.table(more)])
        titles = [None if number == 2 else f"Film f{number}" for number in range(20)]
        films = files["films"].set_column(1, "title", pa.array(titles, pa.string()))
        report = ingest(project_of(tmp_path, {"saw": saw, "films": films}), store)
        assert [source.written for source in report.sources] == [
            Written(changed=1, unchanged=19),
            Written(unchanged=30),
            Written(created=1, changed=1, unchanged=59),
            Written(unchanged=20),
        ]
        found = contents(store)
        assert [row["title"] for row in found["Film"] if row["id"] == "f2"] == [None]
        assert sorted(row["stars"] for row in found["SAW"]) == sorted([*stars, 2.0])


def test_tables_of_a_few_rows_each_give_the_same_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    with open_store(whole := project_of(tmp_path / "whole", tables())) as store:
        ingest(whole, store)
        expected = contents(store)
    monkeypatch.setattr("graph_store.ingest.loading._BATCH_ROWS", 5)
    monkeypatch.setattr("graph_store.ingest.loading._COPIED_ROWS", 5)
    calls = []
    write = EmbeddedStore.write_edges

    def noted(self: EmbeddedStore, triple: Triple, new: pa.Table, changed: pa.Table) -> None:
        calls.append((triple, len(new), len(changed)))
        write(self, triple, new, changed)

    monkeypatch.setattr(EmbeddedStore, "write_edges", noted)
    with open_store(parts := project_of(tmp_path / "parts", tables())) as store:
        ingest(parts, store)
        assert contents(store) == expected
    assert len([call for call in calls if call[0] == SAW]) == 12
    assert {call[2] for call in calls} == {0}


def test_rows_whose_keys_seem_to_repeat_are_looked_at_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it would be if two keys had one hash."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "all").mkdir()
    with open_store(plain := project_of(tmp_path / "plain", tables())) as store:
        ingest(plain, store)
        expected = contents(store)
    monkeypatch.setattr(Stager, "_each_once", lambda *_: False)
    with open_store(every := project_of(tmp_path / "all", tables())) as store:
        report = ingest(every, store)
        assert contents(store) == expected
    assert [source.merged for source in report.sources] == [0, 0, 0, 0]


TYPED: list[tuple[str, pa.Array, Callable[[Any], Any]]] = [
    ("year", pa.array([7, -3, None], pa.int16()), lambda value: value),
    ("score", pa.array([0.1, -2.5e300, None]), lambda value: value),
    ("score", pa.array([7, 2**53 + 1, None], pa.int64()), float),
    ("seen", pa.array([True, False, None]), lambda value: value),
    ("day", pa.array([date(1, 1, 1), date(9999, 12, 31), None]), lambda value: value),
    (
        "at",
        pa.array([-1_500, 1_700_000_000_123_456, None], pa.timestamp("us", tz="Asia/Tokyo")),
        lambda value: value.astimezone(UTC),
    ),
    (
        "at",
        pa.array([-1, 86_400_000, None], pa.timestamp("ms")),
        lambda value: value.replace(tzinfo=UTC),
    ),
]


@pytest.mark.parametrize(("name", "column", "plain"), TYPED, ids=[f"{name}-{column.type}" for name, column, _ in TYPED])
def test_a_typed_column_is_read_as_its_text_would_be(
    tmp_path: Path, name: str, column: pa.Array, plain: Callable[[Any], Any]
) -> None:
    files = tables()
    films = files["films"].slice(0, 3)
    films = films.set_column(films.column_names.index(name), name, column)
    # Cut short, the other files would name films that are not there.
    files = {
        "films": films,
        "users": files["users"],
        "saw": files["saw"].slice(0, 0),
        "near": files["near"].slice(0, 0),
    }
    project = project_of(tmp_path, files)
    store = MemoryStore(project.schema)
    assert ingest(project, store).rejected == 0
    expected = [None if value is None else plain(value) for value in column.to_pylist()]
    assert [store.nodes["Film"][(f"f{number}",)][name] for number in range(3)] == expected
    as_text = duckdb.connect()
    as_text.execute("SET TimeZone = 'UTC'")
    as_text.register("films", films)
    texts = as_text.sql(f'SELECT "{name}"::VARCHAR AS t FROM films').to_arrow_table()["t"]
    text_store = MemoryStore(project.schema)
    files["films"] = films.set_column(films.column_names.index(name), name, texts)
    ingest(project_of(tmp_path, files), text_store)
    assert text_store.nodes["Film"] == store.nodes["Film"]


def test_bad_values_of_typed_columns_are_rejected_with_their_row(tmp_path: Path) -> None:
    files = tables()
    films = files["films"]
    scores: list[float | None] = films["score"].to_pylist()
    scores[3], scores[4] = float("nan"), float("inf")
    times = pa.array([-(10**17)] + [0] * 19, pa.timestamp("us"))
    days = pa.array([10**7 if number == 6 else 0 for number in range(20)], pa.int32()).cast(pa.date32())
    ids = films["id"].to_pylist()
    ids[8] = " \u00a0 "
    films = films.set_column(0, "id", pa.array(ids)).set_column(3, "score", pa.array(scores))
    films = films.set_column(5, "day", days).set_column(6, "at", times)
    saw, near = files["saw"].slice(0, 0), files["near"].slice(0, 0)
    project = project_of(tmp_path, {**files, "films": films, "saw": saw, "near": near})
    with open_store(project) as store:
        report = ingest(project, store)
        assert report.sources[0].rejected == 5
        assert report.sources[0].rows == 20
        assert len(contents(store)["Film"]) == 15
    with (tmp_path / ".kithkin/rejects/films.Film.csv").open(encoding="utf-8", newline="") as stream:
        found = [(row["line"], row["column"], row["value"], row["reason"]) for row in csv.DictReader(stream)]
    assert [(line, column, reason) for line, column, _, reason in found] == [
        ("1", "at", "not a time in the format iso"),
        ("4", "score", "not a finite number"),
        ("5", "score", "not a finite number"),
        ("7", "day", "not a date in the format iso"),
        ("9", "id", "empty id"),
    ]
    assert [value for _, _, value, _ in found[1:3]] == ["nan", "inf"]


def test_edges_without_their_end_and_repeated_ones_beside_clean_ones(tmp_path: Path) -> None:
    files = tables()
    saw = files["saw"].to_pylist()
    saw[7]["film"] = "nowhere"
    saw.append({**saw[0], "stars": 9.0})
    project = project_of(tmp_path, {**files, "saw": pa.Table.from_pylist(saw, schema=files["saw"].schema)})
    with open_store(project) as store:
        report = ingest(project, store)
        events = report.sources[2]
        assert (events.rows, events.rejected, events.merged, events.written.created) == (61, 1, 1, 59)
        assert [row["stars"] for row in contents(store)["SAW"] if row["source"] == "u0"] != []
        assert 9.0 in {row["stars"] for row in contents(store)["SAW"]}
    text = (tmp_path / ".kithkin/rejects/saw.User__SAW__Film.csv").read_text(encoding="utf-8")
    assert "saw.parquet,8,film,nowhere,no Film has this id" in text


@pytest.mark.parametrize("blank", [" ", "\t", "\r", "\n", "\u00a0", "\ufeff"])
def test_blanks_around_a_text_are_cut_at_both_ends(tmp_path: Path, blank: str) -> None:
    files = tables()
    films = files["films"].slice(0, 4)
    titles = [f"{blank}a{blank}b", f"a{blank}b{blank}", blank, f"{blank}{blank}a{blank}b{blank}"]
    films = films.set_column(1, "title", pa.array(titles))
    project = project_of(
        tmp_path, {**files, "films": films, "saw": files["saw"].slice(0, 0), "near": files["near"].slice(0, 0)}
    )
    store = MemoryStore(project.schema)
    ingest(project, store)
    titles = [store.nodes["Film"][(f"f{number}",)]["title"] for number in range(4)]
    assert titles == [f"a{blank}b", f"a{blank}b", None, f"a{blank}b"]


def test_a_small_file_that_is_mostly_bad_is_told_of(tmp_path: Path) -> None:
    files = tables()
    near = pa.table({"film": ["f1", "f2", "f3"], "other": ["f2", "x", "y"]})
    project = project_of(tmp_path, {**files, "near": near})
    with open_store(project) as store:
        report = ingest(project, store)
    (warning,) = report.warnings
    assert "2 of 3 rows are bad" in warning
    assert "near.Film__NEAR__Film.csv" in warning
    strict = project_of(tmp_path, {}, DECLARATION + "[ingest]\nreject_floor = 1\n")
    with open_store(strict) as store, pytest.raises(TooManyRejects):
        ingest(strict, store)


def test_differences_hold_each_row_once_also_where_the_store_has_an_edge_twice() -> None:
    connection = duckdb.connect()
    connection.execute(
        "CREATE TABLE here AS SELECT * FROM (VALUES ('a', 'b', 1.5), ('a', 'c', 2), ('d', 'e', 3)) t(s, t, w)"
    )
    there = pa.RecordBatch.from_pydict(
        {"s": ["a", "a", "d", "z"], "t": ["b", "b", "e", "z"], "w": [1.0, 1.5, 3.0, 0.0]}
    )
    differences = Differences(connection, 'SELECT s AS "s", t AS "t", w::DOUBLE AS "w" FROM here', ["s", "t"], ["w"])
    differences.compare([there])
    assert connection.execute(differences.rows(lacking=False)).fetchall() == [("a", "b", 1.5)]
    assert connection.execute(differences.rows(lacking=True)).fetchall() == [("a", "c", 2.0)]


def test_a_disk_without_room_for_staging_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = project_of(tmp_path, tables())
    connect = run.connect

    def little(folder: Path) -> duckdb.DuckDBPyConnection:
        connection = connect(folder)
        connection.execute("SET memory_limit = '1MiB'")
        connection.execute("SET max_temp_directory_size = '0KiB'")
        return connection

    monkeypatch.setattr(run, "connect", little)
    with pytest.raises(StoreError, match="cannot be staged in") as caught, open_store(project) as store:
        ingest(project, store)
    assert "KITHKIN_WORK" in caught.value.hint
    assert not (project.work / "staging").exists()
