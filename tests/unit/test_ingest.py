"""Ingest of files: what is read, what is refused, what is written."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from graph_store.errors import ConfigError, InputError, TooManyRejects
from graph_store.ingest import IngestReport, ingest, input_fingerprint
from graph_store.project import Project, load_project
from graph_store.schema import Triple
from graph_store.store import Written
from tests.memory_store import MemoryStore

SCHEMA = """
[nodes.Film]
role = "entity"
display = "title"
[nodes.Film.properties]
title = { type = "string", required = true }
year = { type = "int" }
score = { type = "float" }
seen = { type = "bool" }
day = { type = "date" }
at = { type = "timestamp" }
tags = { type = "strings" }
vector = { type = "vector", dimension = 2 }

[nodes.User]
role = "user"

[nodes.Genre]
role = "concept"
display = "name"
[nodes.Genre.properties]
name = { type = "string" }

[[relations]]
triple = ["User", "RATED", "Film"]
role = "engagement"
weight = "stars"
properties = { stars = { type = "float" } }

[[relations]]
triple = ["User", "SAW", "Film"]
role = "engagement"
time = "at"
kind = "how"
properties = { at = { type = "timestamp" }, how = { type = "string" } }

[[relations]]
triple = ["Film", "HAS_GENRE", "Genre"]
role = "semantic"
weight = "count"
properties = { count = { type = "int" } }
"""
FILMS = """
[[sources]]
file = "films.csv"
node = "Film"
id = "id"
properties = { title = "title" }
"""
RATED = """
[[sources]]
file = "ratings.csv"
relation = ["User", "RATED", "Film"]
source = "user"
target = "film"
create_source = true
properties = { stars = "stars" }
"""
RATED_TRIPLE = Triple("User", "RATED", "Film")
HAS_GENRE = Triple("Film", "HAS_GENRE", "Genre")


def project_of(folder: Path, sources: str, files: dict[str, str | bytes], settings: str = "") -> Project:
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    (folder / "kithkin.toml").write_text('name = "t"\n' + settings + SCHEMA + sources, encoding="utf-8")
    return load_project(folder, environment={})


def load(
    folder: Path, sources: str, files: dict[str, str | bytes], settings: str = ""
) -> tuple[MemoryStore, IngestReport]:
    project = project_of(folder, sources, files, settings)
    store = MemoryStore(project.schema)
    return store, ingest(project, store)


def rejected(folder: Path, name: str) -> list[tuple[int, str, str, str, str]]:
    with (folder / ".kithkin" / "rejects" / name).open(encoding="utf-8", newline="") as stream:
        return [
            (int(row["line"]), row["column"], row["value"], row["reason"], row["row"]) for row in csv.DictReader(stream)
        ]


def test_nodes_and_edges_arrive_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "films.csv": "id,title\n1,Alien\n2,Brazil\n",
        "ratings.csv": "user,film,stars,,,\nann,1,4.5,,,\nbob,1,3,,,\nann,2,1,,,\n",
    }
    store, report = load(tmp_path, FILMS + RATED, files)
    assert store.nodes["Film"] == {("1",): {"id": "1", "title": "Alien"}, ("2",): {"id": "2", "title": "Brazil"}}
    assert sorted(store.nodes["User"]) == [("ann",), ("bob",)]
    assert {key: row["stars"] for key, row in store.edges[RATED_TRIPLE].items()} == {
        ("ann", "1"): 4.5,
        ("bob", "1"): 3.0,
        ("ann", "2"): 1.0,
    }
    assert [source.written.created for source in report.sources] == [2, 3]
    assert report.created_nodes == {"User": Written(created=2)}
    again = ingest(load_project(tmp_path, environment={}), store)
    assert again.written == Written(unchanged=7)
    assert not (tmp_path / ".kithkin" / "staging").exists()


def test_every_type_is_read_and_what_does_not_fit_is_rejected_with_its_line(tmp_path: Path) -> None:
    source = """
[[sources]]
file = "films.csv"
node = "Film"
id = "id"
[sources.properties]
title = "title"
year = "year"
score = "score"
seen = "seen"
day = "day"
at = { column = "at", format = "unix" }
tags = { column = "tags", split = "|" }
vector = "vector"
"""
    rows = [
        "id,title,year,score,seen,day,at,tags,vector",
        '1,"A\nB",1999,1.5,yes,2020-02-29,1260759144,a| b||,"[1, 2.5]"',
        "2,B,,,,,,,",
        "3,C,1999.5,,,,,,",
        "4,D,,nan,,,,,",
        "5,E,,,maybe,,,,",
        "6,F,,,,2020-02-30,,,",
        "7,G,,,,,soon,,",
        "8,H,,,,,,,1 2 3",
        "9,I,,,,,,,1;NaN",
        "10,,,,,,,,",
        ",J,,,,,,,",
        "12,K,1_000,,,,,,",
        "13,L",
    ]
    store, report = load(tmp_path, source, {"films.csv": "\n".join(rows) + "\n"}, "[ingest]\nreject_floor = 100\n")
    assert store.nodes["Film"][("1",)] == {
        "id": "1",
        "title": "A\nB",
        "year": 1999,
        "score": 1.5,
        "seen": True,
        "day": date(2020, 2, 29),
        "at": datetime(2009, 12, 14, 2, 52, 24, tzinfo=UTC),
        "tags": ["a", "b"],
        "vector": [1.0, 2.5],
    }
    nothing = dict.fromkeys(("year", "score", "seen", "day", "at", "tags", "vector"))
    assert store.nodes["Film"][("2",)] == {"id": "2", "title": "B", **nothing}
    assert len(store.nodes["Film"]) == 2
    bad = rejected(tmp_path, "films.Film.csv")
    # The quoted line feed of the first row makes every later line number one larger.
    assert [(line, column, value) for line, column, value, _, _ in bad] == [
        (5, "year", "1999.5"),
        (6, "score", "nan"),
        (7, "seen", "maybe"),
        (8, "day", "2020-02-30"),
        (9, "at", "soon"),
        (10, "vector", "[1, 2, 3]"),
        (11, "vector", "[1, NaN]"),
        (12, "title", ""),
        (13, "id", ""),
        (14, "year", "1_000"),
        (15, "", ""),
    ]
    assert [reason for _, _, _, reason, _ in bad] == [
        "not a whole number",
        "not a finite number",
        "not true or false",
        "not a date in the format iso",
        "not a time in the format unix",
        "not a vector of 2 finite numbers, it has 3",
        "not a vector of 2 finite numbers, it has 2",
        "missing value",
        "empty id",
        "not a whole number",
        "expected 9 fields, found 2",
    ]
    assert bad[0][4] == "3,C,1999.5,,,,,,"
    assert bad[-1][4] == "13,L"
    assert (report.sources[0].rows, report.rejected) == (13, 11)


def test_too_many_bad_rows_write_nothing_and_name_the_first(tmp_path: Path) -> None:
    ratings = "user,film,stars\n" + "".join(f"u{n},1,{'x' if n < 11 else n}\n" for n in range(40))
    project = project_of(tmp_path, FILMS + RATED, {"films.csv": "id,title\n1,A\n", "ratings.csv": ratings})
    store = MemoryStore(project.schema)
    with pytest.raises(TooManyRejects) as caught:
        ingest(project, store)
    assert "11 of 40 rows for (User)-[RATED]->(Film) are bad, 10 are allowed; nothing was written" in str(caught.value)
    assert "line 2: column 'stars': not a finite number (got 'x'); line 3" in str(caught.value)
    assert (caught.value.file, caught.value.line, caught.value.column) == (tmp_path / "ratings.csv", 2, "stars")
    assert str(tmp_path / ".kithkin" / "rejects" / "ratings.User__RATED__Film.csv") in caught.value.hint
    assert len(rejected(tmp_path, "ratings.User__RATED__Film.csv")) == 11
    assert (store.writes, store.applied) == (0, False)


def test_ten_bad_rows_are_allowed_and_a_share_beyond(tmp_path: Path) -> None:
    ratings = "user,film,stars\n" + "".join(f"u{n},1,{'x' if n < 10 else n}\n" for n in range(40))
    store, report = load(tmp_path, FILMS + RATED, {"films.csv": "id,title\n1,A\n", "ratings.csv": ratings})
    assert (report.rejected, len(store.edges[RATED_TRIPLE]), len(store.nodes["User"])) == (10, 30, 30)


def test_identical_duplicates_are_merged_and_different_ones_rejected(tmp_path: Path) -> None:
    films = "id,title\n1,A\n2,B\n1,A\n2,C\n1,A\n"
    store, report = load(tmp_path, FILMS, {"films.csv": films})
    assert {key[0]: row["title"] for key, row in store.nodes["Film"].items()} == {"1": "A", "2": "B"}
    assert report.sources[0].merged == 2
    assert rejected(tmp_path, "films.Film.csv") == [(5, "id", "2", "duplicate id, differs from line 3", "2,C")]


def test_an_edge_to_an_unknown_node_is_rejected_and_creates_nothing(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "films.csv": "id,title\n1,A\n",
        "ratings.csv": "user,film,stars\nann,1,1\nbob,9,2\n",
    }
    store, _ = load(tmp_path, FILMS + RATED, files)
    assert rejected(tmp_path, "ratings.User__RATED__Film.csv") == [(3, "film", "9", "no Film has this id", "bob,9,2")]
    assert list(store.edges[RATED_TRIPLE]) == [("ann", "1")]
    assert list(store.nodes["User"]) == [("ann",)]


def test_an_end_may_be_known_from_the_store_or_from_another_source(tmp_path: Path) -> None:
    genre = """
[[sources]]
file = "genres.csv"
relation = ["Film", "HAS_GENRE", "Genre"]
source = "film"
target = "genre"
properties = { count = { value = "1" } }
"""
    create = genre.replace("genres.csv", "more.csv").replace(
        'target = "genre"', 'target = "genre"\ncreate_target = true'
    )
    files: dict[str, str | bytes] = {
        "genres.csv": "film,genre\nold,drama\nold,crime\nold,noir\n",
        "more.csv": "film,genre\nold,noir\n",
    }
    project = project_of(tmp_path, genre + create, files)
    store = MemoryStore(project.schema)
    store.nodes["Film"][("old",)] = {"id": "old", "title": "Old"}
    store.nodes["Genre"][("drama",)] = {"id": "drama", "name": "Drama"}
    report = ingest(project, store)
    assert sorted(store.edges[HAS_GENRE]) == [("old", "drama"), ("old", "noir")]
    assert [row[:4] for row in rejected(tmp_path, "genres.Film__HAS_GENRE__Genre.csv")] == [
        (3, "genre", "crime", "no Genre has this id")
    ]
    # A created node is called by its id; one that is there keeps its name.
    assert store.nodes["Genre"] == {
        ("drama",): {"id": "drama", "name": "Drama"},
        ("noir",): {"id": "noir", "name": "noir"},
    }
    assert report.created_nodes == {"Genre": Written(created=1)}


def test_split_ends_give_an_edge_each_and_count_as_counts_rows(tmp_path: Path) -> None:
    source = """
[[sources]]
file = "tags.csv"
relation = ["Film", "HAS_GENRE", "Genre"]
source = "film"
target = { column = "genres", split = "|", lower = true, null = ["(none)"] }
create_source = true
create_target = true
count_as = "count"
"""
    tags = "film,genres\n1,Drama| Crime \n1,drama\n2,(none)\n3,\n4,|\n"
    store, report = load(tmp_path, source, {"tags.csv": tags})
    assert {key: row["count"] for key, row in store.edges[HAS_GENRE].items()} == {("1", "drama"): 2, ("1", "crime"): 1}
    assert (report.sources[0].without_edge, report.sources[0].merged, report.rejected) == (3, 1, 0)
    assert store.nodes["Film"] == {("1",): {"id": "1", "title": "1"}}


def test_the_last_row_of_an_edge_wins_also_where_it_says_nothing(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "films.csv": "id,title\n1,A\n",
        "ratings.csv": "user,film,stars\nann,1,1\nann,1,5\nann,1,2\n",
    }
    store, report = load(tmp_path, FILMS + RATED, files)
    assert store.edges[RATED_TRIPLE][("ann", "1")]["stars"] == 2.0
    assert report.sources[1].merged == 2


def test_time_and_kind_tell_edges_apart(tmp_path: Path) -> None:
    source = """
[[sources]]
file = "log.csv"
relation = ["User", "SAW", "Film"]
source = "user"
target = "film"
create_source = true
properties = { at = { column = "at", format = "%d.%m.%Y %H:%M %z" }, how = { value = "viewed" } }
"""
    rows = ("01.02.2020 10:00 +0100", "01.02.2020 09:00 +0000", "02.02.2020 09:00 +0000", "")
    log = "user,film,at\n" + "".join(f"ann,1,{at}\n" for at in rows)
    store, _ = load(tmp_path, FILMS + source, {"films.csv": "id,title\n1,A\n", "log.csv": log})
    at = datetime(2020, 2, 1, 9, tzinfo=UTC)
    assert sorted(store.edges[Triple("User", "SAW", "Film")]) == [
        ("ann", "1", at, "viewed"),
        ("ann", "1", at.replace(day=2), "viewed"),
    ]
    assert rejected(tmp_path, "log.User__SAW__Film.csv")[0][:4] == (5, "at", "", "missing value")


@pytest.mark.parametrize(
    ("text", "time_format", "expected"),
    [
        ("2020-02-01T10:00:00+02:00", None, datetime(2020, 2, 1, 8, tzinfo=UTC)),
        ("2020-02-01 10:00:00.5Z", "iso", datetime(2020, 2, 1, 10, 0, 0, 500_000, tzinfo=UTC)),
        ("2020-02-01", None, datetime(2020, 2, 1, tzinfo=UTC)),
        ("1580551200.000001", "unix", datetime(2020, 2, 1, 10, 0, 0, 1, tzinfo=UTC)),
        ("1580551200123", "unix_ms", datetime(2020, 2, 1, 10, 0, 0, 123_000, tzinfo=UTC)),
        ("-1", "unix", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("infinity", None, None),
        ("99999999999999999999", "unix", None),
        ("1e300", "unix", None),
        ("01/02/2020", None, None),
        ("1/2/2020", "%d/%m/%Y", datetime(2020, 2, 1, tzinfo=UTC)),
    ],
)
def test_times(tmp_path: Path, text: str, time_format: str | None, expected: datetime | None) -> None:
    spec = '{ column = "at"' + (f', format = "{time_format}"' if time_format else "") + " }"
    source = FILMS.replace('title = "title"', f'title = "title", at = {spec}')
    store, report = load(tmp_path, source, {"films.csv": f"id,title,at\n1,A,{text}\n"})
    if expected is None:
        assert report.rejected == 1
    else:
        assert store.nodes["Film"][("1",)]["at"] == expected


def test_where_filters_before_anything_else(tmp_path: Path) -> None:
    source = FILMS.replace("properties", 'where = { kind = ["film", "short"] }\nproperties')
    store, report = load(tmp_path, source, {"films.csv": "id,title,kind\n1,A,film\n,,book\n2,B,short\n3,C,Film\n"})
    assert sorted(store.nodes["Film"]) == [("1",), ("2",)]
    assert (report.sources[0].rows, report.rejected) == (2, 0)


def test_two_sources_of_one_type_join_by_id_and_the_later_wins(tmp_path: Path) -> None:
    more = FILMS.replace("films.csv", "more.csv").replace('title = "title"', 'title = "name", year = "year"')
    files: dict[str, str | bytes] = {
        "films.csv": "id,title\n1,A\n2,B\n",
        "more.csv": "id,name,year\n2,Bee,1999\n3,C,2000\n",
    }
    store, _ = load(tmp_path, FILMS + more, files)
    assert store.nodes["Film"] == {
        ("1",): {"id": "1", "title": "A"},
        ("2",): {"id": "2", "title": "Bee", "year": 1999},
        ("3",): {"id": "3", "title": "C", "year": 2000},
    }
    assert ingest(load_project(tmp_path, environment={}), store).written == Written(unchanged=4)


def test_jsonl_and_parquet_say_the_same_as_csv(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "title": 'A, "B"', "tags": ["x", "y"], "vector": [1.0, 2.0], "at": "2020-02-01T00:00:00Z"},
        {"id": 2, "title": "Ü", "tags": [], "vector": None, "at": None},
    ]
    source = FILMS.replace('title = "title"', 'title = "title", tags = "tags", vector = "vector", at = "at"')
    lines = "\n".join(map(json.dumps, rows)) + '\nnot json\n[1]\n\n{"id": 3, "title": "C", "vector": ["a", 1]}\n'
    (tmp_path / "a").mkdir()
    store, report = load(
        tmp_path / "a", source.replace(".csv", ".jsonl.gz"), {"films.jsonl.gz": gzip.compress(lines.encode())}
    )
    expected = {
        ("1",): {
            "id": "1",
            "title": 'A, "B"',
            "tags": ["x", "y"],
            "vector": [1.0, 2.0],
            "at": datetime(2020, 2, 1, tzinfo=UTC),
        },
        ("2",): {"id": "2", "title": "Ü", "tags": None, "vector": None, "at": None},
    }
    assert store.nodes["Film"] == expected
    assert [row[:4] for row in rejected(tmp_path / "a", "films.Film.csv")] == [
        (3, "", "", "not a JSON object"),
        (4, "", "", "not a JSON object"),
        (6, "vector", "[a, 1]", "not a vector of 2 finite numbers, it has 2"),
    ]
    assert report.sources[0].rows == 5

    (tmp_path / "b").mkdir()
    times = pa.array([datetime(2020, 2, 1, tzinfo=UTC), None], pa.timestamp("ms", tz="Europe/Berlin"))
    table = pa.Table.from_pylist(rows).set_column(4, "at", times)
    pq.write_table(table, tmp_path / "b" / "films.parquet")
    store, _ = load(tmp_path / "b", source.replace(".csv", ".parquet"), {})
    assert store.nodes["Film"] == expected


def test_globs_read_all_files_and_lines_are_counted_in_each(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "films-1.csv": "id,title\n1,A\n2,B\n",
        "films-2.csv": "title,id\nX,1\nC,3\n",
    }
    store, _ = load(tmp_path, FILMS.replace("films.csv", "films-*.csv"), files)
    assert sorted(store.nodes["Film"]) == [("1",), ("2",), ("3",)]
    line, _, _, reason, row = rejected(tmp_path, "films-1.Film.csv")[0]
    assert (line, reason, row) == (2, "duplicate id, differs from line 2 of films-1.csv", "X,1")


def test_without_a_header_the_declared_columns_count_from_line_one(tmp_path: Path) -> None:
    source = FILMS.replace("node =", 'header = false\ncolumns = ["id", "title"]\ndelimiter = "\\t"\nquote = ""\nnode =')
    store, _ = load(tmp_path, source, {"films.csv": '1\tthe "best\n\tB\n'})
    assert store.nodes["Film"] == {("1",): {"id": "1", "title": 'the "best'}}
    assert rejected(tmp_path, "films.Film.csv")[0][0] == 2


def test_a_byte_order_mark_and_other_encodings_are_read(tmp_path: Path) -> None:
    store, _ = load(tmp_path, FILMS, {"films.csv": b"\xef\xbb\xbfid,title\n1,\xc3\x84\n"})
    assert store.nodes["Film"][("1",)]["title"] == "Ä"
    for encoding in ("utf-16", "latin-1"):
        source = FILMS.replace("node =", f'encoding = "{encoding}"\nnode =')
        store, _ = load(tmp_path, source, {"films.csv": "id,title\n1,Ä\n".encode(encoding)})
        assert store.nodes["Film"][("1",)]["title"] == "Ä"


def test_compressed_files_are_read(tmp_path: Path) -> None:
    plain = b"id,title\n1,A\n"
    with pa.CompressedOutputStream(str(tmp_path / "films.csv.zst"), "zstd") as stream:
        stream.write(plain)
    (tmp_path / "films.csv.gz").write_bytes(gzip.compress(plain))
    for ending in (".zst", ".gz"):
        store, _ = load(tmp_path, FILMS.replace("films.csv", f"films.csv{ending}"), {})
        assert store.nodes["Film"] == {("1",): {"id": "1", "title": "A"}}


def test_a_header_without_rows_is_a_warning(tmp_path: Path) -> None:
    _, report = load(tmp_path, FILMS, {"films.csv": "id,title\n"})
    assert report.warnings == ("films.csv -> Film: films.csv has no rows",)


def films(old: str, new: str) -> str:
    assert old in FILMS
    return FILMS.replace(old, new)


UNCLOSED = 'id,title\n1,A\n2,"B\n3,C\n'


@pytest.mark.parametrize(
    ("sources", "files", "message", "line"),
    [
        (FILMS, {}, "films.csv: no such file", None),
        (films("films.csv", "film*.csv"), {}, "no file has such a name", None),
        (FILMS, {"films.csv": ""}, "films.csv: the file is empty", None),
        (FILMS, {"films.csv": "\n \n"}, "films.csv: the file is empty", None),
        (
            FILMS,
            {"films.csv": "id,titel\n"},
            "'title': no such column\n  Did you mean 'titel'? The file has: id, t",
            None,
        ),
        (FILMS, {"films.csv": "id,title,id\n1,A,2\n"}, "column 'id': several columns have this name", None),
        (FILMS, {"films.csv": b"id,title\n1,A\n2,caf\xe9\n"}, "films.csv:3: not utf-8: byte 0xe9 at offset 18", 3),
        (FILMS, {"films.csv": UNCLOSED}, "films.csv:3: a quoted field in the row that starts here is never closed", 3),
        (
            films("node =", 'encoding = "klingon"\nnode ='),
            {"films.csv": "id\n"},
            "no encoding is called 'klingon'",
            None,
        ),
        (films("films.csv", "films.csv.gz"), {"films.csv.gz": b"\x1f\x8b\x08\x00broken"}, "cannot be read", None),
        (films("films.csv", "films.parquet"), {"films.parquet": b"no"}, "not readable as Parquet", None),
        (films("films.csv", "films.xls"), {"films.xls": b"no"}, "the ending '.xls' names no format", None),
        (films("films.csv", "films.jsonl"), {"films.jsonl": '{"id": 1}\n'}, "column 'title': no such key", None),
    ],
)
def test_what_concerns_a_whole_file_stops_before_anything_is_written(
    tmp_path: Path, sources: str, files: dict[str, str | bytes], message: str, line: int | None
) -> None:
    project = project_of(tmp_path, sources, files)
    store = MemoryStore(project.schema)
    with pytest.raises(InputError) as caught:
        ingest(project, store)
    assert message in str(caught.value)
    assert caught.value.line == line
    assert caught.value.hint
    assert caught.value.exit_code == 4
    assert (store.writes, store.applied) == (0, False)
    assert not (tmp_path / ".kithkin" / "staging").exists()


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ("{ column = 'title', extract = '(?=a)(b)' }", "sources[0].properties.title.extract"),
        ("{ column = 'title', format = '%Q' }", "sources[0].properties.at.format"),
    ],
)
def test_what_duckdb_cannot_do_is_an_error_of_the_configuration(tmp_path: Path, spec: str, key: str) -> None:
    name = key.split(".")[2]
    project = project_of(
        tmp_path, FILMS.replace('title = "title"', f"{name} = {spec}"), {"films.csv": "id,title\n1,A\n"}
    )
    with pytest.raises(ConfigError) as caught:
        ingest(project, MemoryStore(project.schema))
    assert caught.value.key == key


def test_old_reject_files_do_not_stay(tmp_path: Path) -> None:
    load(tmp_path, FILMS, {"films.csv": "id,title\n1,\n"})
    assert rejected(tmp_path, "films.Film.csv")
    load(tmp_path, FILMS, {"films.csv": "id,title\n1,A\n"})
    assert not list((tmp_path / ".kithkin" / "rejects").iterdir())


def test_the_fingerprint_follows_bytes_and_declaration_only(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"films.csv": "id,title\n1,A\n"}
    first = input_fingerprint(project_of(tmp_path, FILMS, files))
    assert input_fingerprint(project_of(tmp_path, FILMS, files, "[training]\nseed = 7\n")) == first
    assert input_fingerprint(project_of(tmp_path, FILMS, {"films.csv": "id,title\n1,B\n"})) != first
    assert input_fingerprint(project_of(tmp_path, FILMS.replace('"title" }', '"id" }'), files)) != first


def test_ends_are_created_whatever_the_order_of_the_sources(tmp_path: Path) -> None:
    genre = """
[[sources]]
file = "genres.csv"
relation = ["Film", "HAS_GENRE", "Genre"]
source = "film"
target = "genre"
create_source = true
create_target = true
properties = { count = { value = "1" } }
"""
    files: dict[str, str | bytes] = {
        "ratings.csv": "user,film,stars\nann,1,1\nbob,9,2\n",
        "genres.csv": "film,genre\n1,noir\n",
    }
    for number, sources in enumerate((RATED + genre, genre + RATED)):
        folder = tmp_path / str(number)
        folder.mkdir()
        store, report = load(folder, sources, files)
        assert store.nodes["Film"] == {("1",): {"id": "1", "title": "1"}}
        assert list(store.nodes["User"]) == [("ann",)]
        assert list(store.edges[RATED_TRIPLE]) == [("ann", "1")]
        assert list(store.edges[HAS_GENRE]) == [("1", "noir")]
        assert report.rejected == 1


def test_an_unknown_end_with_many_others_is_one_bad_row(tmp_path: Path) -> None:
    source = """
[[sources]]
file = "genres.csv"
relation = ["Film", "HAS_GENRE", "Genre"]
source = "film"
target = { column = "genres", split = "|" }
create_target = true
properties = { count = { value = "1" } }
"""
    load(tmp_path, source, {"genres.csv": "film,genres\n9,a|b|c\n"})
    assert rejected(tmp_path, "genres.Film__HAS_GENRE__Genre.csv") == [
        (2, "film", "9", "no Film has this id", "9,a|b|c")
    ]


def test_parquet_columns_are_told_apart_by_case_and_may_be_called_like_ours(tmp_path: Path) -> None:
    table = pa.table({"ID": ["X", "Y"], "id": ["1", "2"], "line": ["A", "B"], "C0": ["5", "no"]})
    pq.write_table(table, tmp_path / "films.parquet")
    source = films("films.csv", "films.parquet").replace('title = "title"', 'title = "line", year = "C0"')
    store, _ = load(tmp_path, source, {})
    assert store.nodes["Film"] == {("1",): {"id": "1", "title": "A", "year": 5}}
    whole = '{"ID":"Y","id":"2","line":"B","C0":"no"}'
    assert rejected(tmp_path, "films.Film.csv") == [(2, "C0", "no", "not a whole number", whole)]


@pytest.mark.parametrize("values", [[{"a": 1}], [[{"a": 1}]], [[["x"]]], [b"\xff"]])
def test_a_parquet_column_without_single_values_is_refused(tmp_path: Path, values: list[object]) -> None:
    pq.write_table(pa.table({"id": ["1"], "title": values}), tmp_path / "films.parquet")
    with pytest.raises(InputError, match=r"films.parquet: column 'title': holds .*, not texts, numbers") as caught:
        load(tmp_path, films("films.csv", "films.parquet"), {})
    assert "columns of their own" in caught.value.hint


def test_a_key_may_be_missing_in_some_json_files_and_a_file_without_a_header_may_be_empty(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "films-1.jsonl": '{"id": 1, "title": "A", "year": 1999}\n',
        "films-2.jsonl": '{"id": 2, "title": "B"}\n',
        "films-3.jsonl": "",
    }
    source = films("films.csv", "films-*.jsonl").replace('title = "title"', 'title = "title", year = "year"')
    store, report = load(tmp_path, source, files)
    assert store.nodes["Film"] == {
        ("1",): {"id": "1", "title": "A", "year": 1999},
        ("2",): {"id": "2", "title": "B", "year": None},
    }
    assert report.warnings == ("films-*.jsonl -> Film: films-3.jsonl has no rows",)

    headless = films("node =", 'header = false\ncolumns = ["id", "title"]\nnode =')
    store, report = load(tmp_path, headless, {"films.csv": ""})
    assert store.nodes["Film"] == {}
    assert report.warnings == ("films.csv -> Film: films.csv has no rows",)


def test_another_delimiter_is_guessed_in_the_hint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="column 'id': no such column") as caught:
        load(tmp_path, FILMS, {"films.csv": "id;title\n1;A\n"})
    assert caught.value.hint.startswith("Is the delimiter ';'? Set `delimiter` of the source.")
