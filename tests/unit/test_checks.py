"""Declared checks: what fails, where it is told, and that nothing is written then."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from graph_store.errors import ChecksFailed, ConfigError
from graph_store.ingest import CheckReport, check, ingest, input_fingerprint
from graph_store.project import Project, load_project
from tests.memory_store import MemoryStore

DECLARATION = """
name = "t"

[nodes.Film]
role = "entity"

[nodes.Film.properties]
title = { type = "string" }
imdb = { type = "string" }
year = { type = "int" }
day = { type = "date" }
tags = { type = "strings" }

[nodes.User]
role = "user"

[nodes.Genre]
role = "concept"

[[relations]]
triple = ["User", "RATED", "Film"]
role = "engagement"
time = "at"
properties = { at = { type = "timestamp" }, stars = { type = "float" } }

[[relations]]
triple = ["Film", "HAS_GENRE", "Genre"]
role = "semantic"
weight = "times"
properties = { times = { type = "int" } }

[[sources]]
file = "films*.csv"
node = "Film"
id = "id"
properties = { imdb = "imdb", year = "year", day = "day", tags = { column = "tags", split = "|" } }

[[sources]]
file = "titles.csv"
node = "Film"
id = "film"
properties = { title = "name" }

[[sources]]
file = "genres.csv"
relation = ["Film", "HAS_GENRE", "Genre"]
source = "film"
target = "genre"
create_target = true
count_as = "times"

[[sources]]
file = "ratings.csv"
relation = ["User", "RATED", "Film"]
source = "user"
target = "film"
create_source = true
properties = { at = "at", stars = { column = "stars", null = ["-"] } }
"""
FILES = {
    "films.csv": "id,imdb,year,day,tags\n1,tt1,1979,1979-05-25,space|horror\n2,tt2,1985,,space\n3,,1879,2001-01-01,\n",
    "films2.csv": "id,imdb,year,day,tags\n4,tt1,,9999-12-31,western\n",
    "titles.csv": "film,name\n1,Alien\n2,\n4,Django\n",
    "genres.csv": "film,genre\n1,SF\n1,SF\n2,SF\n4,Western\n",
    "ratings.csv": "user,film,at,stars\nann,1,2020-01-01T00:00:00,4\nann,1,2020-01-01T00:00:00,-\n"
    "bob,2,2999-01-01T00:00:00,6\nbob,4,2021-01-01T00:00:00,5\n",
}


def project_of(folder: Path, checks: str) -> Project:
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "kithkin.toml").write_text(DECLARATION + checks, encoding="utf-8")
    return load_project(folder, environment={})


def checked(folder: Path, checks: str) -> CheckReport:
    (report,) = check(project_of(folder, checks), None).checks
    return report


def found(report: CheckReport) -> list[tuple[str, int, str, str | None, str]]:
    return [(row.file.name, row.line, row.column, row.value, row.reason) for row in report.first]


FILM = '[[checks]]\nnode = "Film"\n'
RATED = '[[checks]]\nrelation = ["User", "RATED", "Film"]\n'
HAS_GENRE = '[[checks]]\nrelation = ["Film", "HAS_GENRE", "Genre"]\n'


@pytest.mark.parametrize(
    ("declared", "rows", "offenders"),
    [
        # A film's title comes from another source than the film: 2 has an empty one, 3 none.
        (
            FILM + 'required = "title"',
            4,
            [("films.csv", 3, "title", None, "missing value"), ("films.csv", 4, "title", None, "missing value")],
        ),
        (FILM + 'unique = "imdb"', 3, [("films2.csv", 2, "imdb", "tt1", "the same value as line 2 of films.csv")]),
        (
            FILM + 'range = { property = "year", min = 1880, max = 1980 }',
            4,
            [
                ("films.csv", 3, "year", "1985", "above 1980"),
                ("films.csv", 4, "year", "1879", "below 1880"),
            ],
        ),
        (
            FILM + 'range = { property = "day", min = 2001-01-02 }',
            4,
            [
                ("films.csv", 2, "day", "1979-05-25", "below 2001-01-02"),
                ("films.csv", 4, "day", "2001-01-01", "below 2001-01-02"),
            ],
        ),
        (
            FILM + 'allowed = { property = "tags", values = ["space", "western"] }',
            4,
            [("films.csv", 2, "tags", "[space, horror]", "holds a value that is not allowed")],
        ),
        (FILM + 'allowed = { property = "year", values = [1979, 1985, 1879] }', 4, []),
        (FILM + 'no_future = "day"', 4, [("films2.csv", 2, "day", "9999-12-31", "later than now")]),
        (FILM + 'has = "HAS_GENRE"', 4, [("films.csv", 4, "id", "3", "no HAS_GENRE")]),
        (FILM + 'has = "RATED"', 4, [("films.csv", 4, "id", "3", "no RATED")]),
        (RATED + 'no_future = "at"', 4, [("ratings.csv", 4, "at", "2999-01-01 00:00:00", "later than now")]),
        # Of an edge that is there twice the last row counts, and three edges are left.
        (RATED + 'required = "stars"', 3, [("ratings.csv", 3, "stars", None, "missing value")]),
        (RATED + 'range = { property = "stars", max = 5 }', 4, [("ratings.csv", 4, "stars", "6.0", "above 5")]),
        (HAS_GENRE + 'range = { property = "times", max = 1 }', 3, [("genres.csv", 2, "times", "2", "above 1")]),
    ],
)
def test_a_check_counts_rows_and_names_those_that_fail(
    tmp_path: Path, declared: str, rows: int, offenders: list[tuple[str, int, str, str | None, str]]
) -> None:
    report = checked(tmp_path, declared)
    assert (report.checked, report.failed) == (rows, len(offenders))
    assert found(report) == offenders
    assert report.passed is not bool(offenders)


def test_an_error_stops_the_ingest_and_its_rows_stand_in_a_file(tmp_path: Path) -> None:
    project = project_of(tmp_path, FILM + 'has = "HAS_GENRE"\n' + FILM + 'unique = "imdb"\n')
    store = MemoryStore(project.schema)
    with pytest.raises(ChecksFailed, match=r"films\.csv:4: column 'id': no HAS_GENRE\. Film: has HAS_GENRE: 1 of 4"):
        ingest(project, store)
    assert not store.applied
    assert store.writes == 0
    path = tmp_path / ".kithkin" / "rejects" / "films.Film.checks.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(Path(row["file"]).name, row["line"], row["column"], row["row"]) for row in rows] == [
        ("films.csv", "4", "id", "3,,1879,2001-01-01,"),
        ("films2.csv", "2", "imdb", "4,tt1,,9999-12-31,western"),
    ]
    (tmp_path / "films2.csv").write_text("id,imdb,year,day,tags\n4,tt4,,,western\n", encoding="utf-8")
    with (tmp_path / "genres.csv").open("a", encoding="utf-8") as stream:
        stream.write("3,SF\n")
    report = ingest(project, store)
    assert [(each.failed, each.passed) for each in report.checks] == [(0, True), (0, True)]
    assert len(store.nodes["Film"]) == 4
    assert not path.exists()


@pytest.mark.parametrize("mild", ['level = "warn"', "tolerance = 0.25"])
def test_a_warning_or_a_tolerance_lets_the_rows_in(tmp_path: Path, mild: str) -> None:
    project = project_of(tmp_path, FILM + f'unique = "imdb"\n{mild}\n'.replace("0.25", "0.34"))
    store = MemoryStore(project.schema)
    (report,) = ingest(project, store).checks
    assert report.failed == 1
    assert report.rejects == (tmp_path / ".kithkin" / "rejects" / "films.Film.checks.csv",)
    assert len(store.nodes["Film"]) == 4


def test_a_tolerance_is_a_share_of_the_rows(tmp_path: Path) -> None:
    report = checked(tmp_path, FILM + 'unique = "imdb"\ntolerance = 0.33')  # of three rows with a value
    assert (report.allowed, report.passed) == (0, False)
    report = checked(tmp_path, FILM + 'unique = "imdb"\ntolerance = 0.34')
    assert (report.allowed, report.passed) == (1, True)


def test_rows_that_are_bad_are_not_checked(tmp_path: Path) -> None:
    project = project_of(tmp_path, FILM + 'range = { property = "year", min = 1880 }')
    (tmp_path / "films.csv").write_text(
        "id,imdb,year,day,tags\n1,a,soon,,\n2,b,1985,,\n4x,c,1990,,\n", encoding="utf-8"
    )
    (report,) = check(project, None).checks
    assert (report.checked, report.failed) == (3, 0)


def test_a_changed_check_is_another_input(tmp_path: Path) -> None:
    before = input_fingerprint(project_of(tmp_path, ""))
    assert input_fingerprint(project_of(tmp_path, FILM + 'has = "RATED"')) != before


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ('[[checks]]\nnode = "Fil"\nrequired = "title"', "checks[0].node: is not a declared node type (got 'Fil')"),
        (FILM + 'required = "titel"', "checks[0].required: is not a declared property (got 'titel')"),
        (FILM + 'range = { property = "title", min = 1 }', "checks[0].range.property: range needs a property of type"),
        (FILM + 'range = { property = "yea", min = 1 }', "checks[0].range.property: is not a declared property"),
        (FILM + 'range = { property = "day", min = 1 }', "checks[0].range.min: does not fit the property"),
        (FILM + 'range = { property = "year", min = 2001-01-01 }', "checks[0].range.min: does not fit the property"),
        (FILM + 'range = { property = "year", min = 2, max = 1 }', "checks[0].range: min must not be above max"),
        (FILM + 'range = { property = "year" }', "checks[0].range: give min, max or both"),
        (FILM + 'allowed = { property = "year", values = ["1"] }', "checks[0].allowed.values: does not fit"),
        (FILM + 'allowed = { property = "year", values = [true] }', "checks[0].allowed.values: does not fit"),
        (FILM + 'has = "GENRE"', "checks[0].has: no relation of this name joins Film (got 'GENRE')"),
        (FILM + 'required = "title"\nunique = "imdb"', "checks[0]: a check has exactly one of"),
        (FILM + 'requird = "title"', "checks[0].requird: unknown key"),
        (RATED + 'has = "HAS_GENRE"', "checks[0]: has is a check of a node"),
        ('[[checks]]\nrequired = "title"', "checks[0]: a check is of either a node or a relation"),
        ('[[checks]]\nnode = "Genre"\nhas = "HAS_GENRE"', "checks[0].node: no source fills it (got 'Genre')"),
        (
            '[[checks]]\nrelation = ["Film", "RATED", "User"]\nrequired = "at"',
            "checks[0].relation: relation (Film)-[RATED]->(User) is not declared",
        ),
    ],
)
def test_a_check_of_what_is_not_there_names_file_and_key(tmp_path: Path, declared: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        project_of(tmp_path, declared)
    assert f"{tmp_path / 'kithkin.toml'}: {message}" in str(caught.value)


def test_check_only_reports_and_writes_nothing(tmp_path: Path) -> None:
    project_of(tmp_path, FILM + 'unique = "imdb"\n' + RATED + 'no_future = "at"\nlevel = "warn"\n')
    found = CliRunner().invoke(app, ["ingest", "-p", str(tmp_path), "--check-only", "--json"])
    assert isinstance(found.exception, ChecksFailed)
    document = json.loads(found.stdout)
    assert document["passed"] is False
    assert [(each["name"], each["level"], each["failed"], each["passed"]) for each in document["checks"]] == [
        ("Film: unique imdb", "error", 1, False),
        ("(User)-[RATED]->(Film): no_future at", "warn", 1, False),
    ]
    assert document["checks"][0]["first"][0]["line"] == 2
    assert not (tmp_path / ".kithkin" / "graph.lbug").exists()

    (tmp_path / "films2.csv").write_text("id,imdb,year,day,tags\n4,tt4,,,western\n", encoding="utf-8")
    found = CliRunner().invoke(app, ["ingest", "-p", str(tmp_path), "--check-only"])
    assert found.exit_code == 0, found.output
    assert "2999-01-01" in found.stdout
    assert not (tmp_path / ".kithkin" / "graph.lbug").exists()


def test_ingest_prints_the_checks_that_stop_it(tmp_path: Path) -> None:
    project_of(tmp_path, FILM + 'has = "HAS_GENRE"\n')
    found = CliRunner().invoke(app, ["ingest", "-p", str(tmp_path), "--json"])
    assert isinstance(found.exception, ChecksFailed)
    assert json.loads(found.stdout)["checks"][0]["name"] == "Film: has HAS_GENRE"
    (tmp_path / "genres.csv").write_text("film,genre\n1,SF\n2,SF\n3,SF\n4,SF\n", encoding="utf-8")
    found = CliRunner().invoke(app, ["ingest", "-p", str(tmp_path)])
    assert found.exit_code == 0, found.output
    # The ends are in the store now, and are read beside a closed writer.
    found = CliRunner().invoke(app, ["ingest", "-p", str(tmp_path), "--check-only"])
    assert found.exit_code == 0, found.output
