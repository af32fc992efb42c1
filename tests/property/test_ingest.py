"""Whatever is in a table, it arrives; whatever is bad, its line is right; twice changes nothing."""

from __future__ import annotations

import csv
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph_store.ingest import ingest
from graph_store.ingest.csv_reader import CsvReader, Dialect
from graph_store.project import load_project
from graph_store.store import Written
from tests.memory_store import MemoryStore

# Everything that UTF-8 can hold, with what CSV finds special often.
CELLS = st.text(st.one_of(st.sampled_from('a,;"\n\r\t é'), st.characters(exclude_categories=("Cs",))), max_size=8)
TOML = """
name = "t"
[ingest]
reject_floor = 1000
[nodes.Film]
role = "entity"
[nodes.Film.properties]
title = { type = "string" }
year = { type = "int" }
[nodes.User]
role = "user"
[[relations]]
triple = ["User", "SAW", "Film"]
role = "engagement"
weight = "times"
properties = { times = { type = "int" } }
[[sources]]
file = "films.csv"
node = "Film"
id = "id"
properties = { title = "title", year = "year" }
[[sources]]
file = "seen.csv"
relation = ["User", "SAW", "Film"]
source = "user"
target = "film"
create_source = true
count_as = "times"
"""


def written(rows: list[list[str]], delimiter: str, line_end: str) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows(rows)
    return stream.getvalue()


@given(
    width=st.integers(1, 4),
    data=st.data(),
    delimiter=st.sampled_from(",;\t"),
    line_end=st.sampled_from(["\n", "\r\n"]),
    block=st.integers(64, 300),
)
@settings(max_examples=150, deadline=None)
def test_a_table_of_texts_comes_back_with_its_lines(
    width: int, data: st.DataObject, delimiter: str, line_end: str, block: int
) -> None:
    # A row takes one quarter of the smallest block at most; rows of empty fields alone are blank lines to any reader.
    cells = CELLS.map(lambda text: text[: 16 // width])
    rows = data.draw(st.lists(st.lists(cells, min_size=width, max_size=width).filter(any), max_size=20))
    header = [f"h\n{number}" for number in range(width)]
    content = written([header, *rows], delimiter, line_end)
    lines = [written([header, *rows[:before]], delimiter, line_end).count("\n") + 1 for before in range(len(rows))]
    reader = CsvReader(io.BytesIO(content.encode()), Path("x.csv"), Dialect(delimiter=delimiter), block=block)
    found = [tuple(row.values()) for batch in reader for row in batch.to_pylist()]
    assert reader.names == tuple(header)
    assert found == [(line, *row) for line, row in zip(lines, rows, strict=True)]
    assert (reader.bad, reader.bad_rows) == ([], 0)


@given(data=st.data(), block=st.integers(64, 200))
@settings(max_examples=100, deadline=None)
def test_rows_of_a_wrong_width_and_blank_lines_leave_every_line_number_right(data: st.DataObject, block: int) -> None:
    kinds = data.draw(st.lists(st.sampled_from(["good", "quoted", "short", "long", "blank"]), max_size=40))
    texts = {"good": "a,b\n", "quoted": '"a\nb",c\n', "short": '"x\ny"\n', "long": "a,b,c\n", "blank": "\n"}
    content, good, bad = "p,q\n", [], []
    for kind in kinds:
        line = content.count("\n") + 1
        content += texts[kind]
        if kind in ("good", "quoted"):
            good.append(line)
        elif kind != "blank":
            bad.append((line, f"expected 2 fields, found {1 if kind == 'short' else 3}"))
    reader = CsvReader(io.BytesIO(content.encode()), Path("x.csv"), Dialect(), block=block)
    assert [row["line"] for batch in reader for row in batch.to_pylist()] == good
    assert [(row.line, row.reason) for row in reader.bad] == bad


NODES = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "3", " 3", "ä", ""]),
        st.sampled_from(["A", "two\nlines", 'q"', ""]),
        st.sampled_from(["1999", "", "x", "2.5"]),
    ),
    max_size=12,
)
EDGES = st.lists(st.tuples(st.sampled_from(["u", "v", ""]), st.sampled_from(["1", "2", "9", ""])), max_size=12)


@given(nodes=NODES, edges=EDGES)
@settings(max_examples=15, deadline=None)
@pytest.mark.filterwarnings("error")
def test_ingest_does_what_a_loop_over_the_rows_would_do_and_twice_changes_nothing(
    nodes: list[tuple[str, str, str]], edges: list[tuple[str, str]]
) -> None:
    films: dict[str, tuple[str | None, int | None]] = {}
    for node, title, year in nodes:
        key = node.strip()
        if key and year in ("1999", ""):
            films.setdefault(key, (title or None, int(year) if year else None))
    seen: dict[tuple[str, str], int] = {}
    for user, film in edges:
        if user and film in films:
            seen[user, film] = seen.get((user, film), 0) + 1

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "kithkin.toml").write_text(TOML)
        (folder / "films.csv").write_text(written([["id", "title", "year"], *map(list, nodes)], ",", "\n"), newline="")
        (folder / "seen.csv").write_text(written([["user", "film"], *map(list, edges)], ",", "\n"), newline="")
        project = load_project(folder, environment={})
        store = MemoryStore(project.schema)
        first = ingest(project, store)
        second = ingest(project, store)
        rejects = [
            (Path(row["file"]).name, int(row["line"]))
            for file in sorted((folder / ".kithkin" / "rejects").glob("*.csv"))
            for row in csv.DictReader(io.StringIO(file.read_text(), newline=""))
        ]
    assert {key[0]: (row["title"], row["year"]) for key, row in store.nodes["Film"].items()} == films
    assert {key: row["times"] for key, row in store.edges[next(iter(store.edges))].items()} == seen
    assert set(store.nodes["User"]) == {(user,) for user, _ in seen}
    assert second.written == Written(unchanged=first.written.created)

    expected, line, first_of = [], 2, {}
    for node, title, year in nodes:
        key = node.strip()
        value = (title or None, year)
        blank = not (node or title or year)  # a row of empty fields alone is a blank line
        if not blank and (not key or year not in ("1999", "") or first_of.setdefault(key, value) != value):
            expected.append(("films.csv", line))
        line += 1 + title.count("\n")
    expected += [
        ("seen.csv", number + 2)
        for number, (user, film) in enumerate(edges)
        if (user or film) and (not user or film not in films)
    ]
    assert sorted(rejects) == sorted(expected)
