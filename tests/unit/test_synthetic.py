"""The generated catalogue: what it promises is there, and the planted truth can be found in it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from graph_store.errors import ConfigError
from graph_store.project import load_project
from graph_store.schema import NodeRole, RelationRole
from graph_store.synthetic import GeneratedCatalogue, generate, words
from graph_store.synthetic.facts import tag_names


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> GeneratedCatalogue:
    return generate(tmp_path_factory.mktemp("films"), entities=1200, users=900, seed=3)


def read(catalogue: GeneratedCatalogue, name: str) -> pa.Table:
    return pa_csv.read_csv(catalogue.folder / f"{name}.csv")


def checksums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def pairs(table: pa.Table) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for left, right in zip(table.column(0).to_pylist(), table.column(1).to_pylist(), strict=True):
        found[left].append(right)
    return found


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        generate(tmp_path / name, entities=60, users=20, seed=seed)
    assert checksums(tmp_path / "a") == checksums(tmp_path / "b")
    other = checksums(tmp_path / "c")
    assert not {name for name, value in checksums(tmp_path / "a").items() if other[name] == value} - {
        "truth_candidates.csv"  # all films
    }


def test_more_users_do_not_change_the_films(tmp_path: Path) -> None:
    generate(tmp_path / "few", entities=60, users=20, seed=7)
    generate(tmp_path / "many", entities=60, users=40, seed=7)
    for name in ("films", "credits", "tags", "sequels", "books"):
        assert (tmp_path / "few" / f"{name}.csv").read_bytes() == (tmp_path / "many" / f"{name}.csv").read_bytes()


@pytest.mark.parametrize("format", ["csv", "parquet"])
@pytest.mark.parametrize(("entities", "users"), [(50, 10), (333, 40)])
def test_the_declaration_parses_and_names_files_and_columns_that_are_there(
    tmp_path: Path, entities: int, users: int, format: str
) -> None:
    made = generate(tmp_path, entities=entities, users=users, format=format)  # type: ignore[arg-type]
    project = load_project(made.project_file, environment={})
    assert [node.name for node in project.schema.of_role(NodeRole.ENTITY)] == ["Film"]
    assert len(project.schema.relations_of_role(RelationRole.SEMANTIC)) == 7
    read_table = pa_csv.read_csv if format == "csv" else pq.read_table
    for source in project.sources:
        columns = set(read_table(project.data / source.file).column_names)
        specs = [spec for spec in (source.id, source.source, source.target, *source.properties.values()) if spec]
        assert {spec.column for spec in specs} <= columns
        assert set(source.where) <= columns
    for judged in project.settings.evaluation.judged:
        table = read_table(project.data / judged.file)
        assert {judged.query, judged.similar} == set(table.column_names)
        assert judged.candidates is not None
        assert read_table(project.data / judged.candidates).column_names == [judged.candidates_column]
    films = read_table(tmp_path / f"films.{format}")
    assert films.num_rows == made.rows["films"] == entities
    assert pc.count_distinct(films.column("title")).as_py() == entities
    assert films.column("film").to_pylist() == sorted(films.column("film").to_pylist())


def test_every_edge_ends_at_a_row(catalogue: GeneratedCatalogue) -> None:
    known = {
        "film": set(read(catalogue, "films").column("film").to_pylist()),
        "person": set(read(catalogue, "people").column("person").to_pylist()),
        "user": set(read(catalogue, "users").column("user").to_pylist()),
    }
    ends = {
        "credits": {"film": "film", "person": "person"},
        "tags": {"film": "film"},
        "books": {"film": "film"},
        "sequels": {"film": "film", "original": "film"},
        "events": {"user": "user", "film": "film"},
        "truth_similar": {"query": "film", "similar": "film"},
        "truth_candidates": {"film": "film"},
        "truth_user": {"user": "user", "entity": "film"},
    }
    for name, columns in ends.items():
        table = read(catalogue, name)
        assert table.num_rows == catalogue.rows[name]
        for column, kind in columns.items():
            assert set(table.column(column).to_pylist()) <= known[kind], (name, column)
    keys = read(catalogue, "events").group_by(["user", "film", "time", "kind"]).aggregate([])
    assert keys.num_rows == catalogue.rows["events"]
    assert (
        read(catalogue, "credits").group_by(["film", "person", "role"]).aggregate([]).num_rows
        == (catalogue.rows["credits"])
    )


def test_untouched_films_are_in_no_event_and_among_the_queries(catalogue: GeneratedCatalogue) -> None:
    films = set(read(catalogue, "films").column("film").to_pylist())
    touched = set(read(catalogue, "events").column("film").to_pylist())
    assert len(films - touched) >= 120
    queries = pairs(read(catalogue, "truth_similar"))
    untouched = pairs(read(catalogue, "truth_untouched"))
    assert len(queries) == 500
    assert 100 <= len(untouched) <= 125
    assert not touched & set(untouched)
    assert all(queries[query] == answers for query, answers in untouched.items())
    assert set(catalogue.untouched) <= set(untouched)
    for query, answers in queries.items():
        assert len(set(answers)) == 20
        assert query not in answers


def test_popularity_is_skewed_and_clicks_follow_views(catalogue: GeneratedCatalogue) -> None:
    events = read(catalogue, "events").to_pylist()
    views = {(row["user"], row["film"]): row["time"] for row in events if row["kind"] == "view"}
    clicks = [row for row in events if row["kind"] == "click"]
    assert 0.3 < len(clicks) / len(views) < 0.7
    for row in clicks:
        assert 0 < row["time"] - views[row["user"], row["film"]] < 90
        assert 0.1 <= row["share"] <= 1
    _, counts = np.unique([film for _, film in views], return_counts=True)
    counts = np.sort(counts)[::-1]
    assert counts[: len(counts) // 10].sum() > 0.3 * counts.sum()


def test_a_users_true_answers_are_films_they_have_not_touched(catalogue: GeneratedCatalogue) -> None:
    touched = pairs(read(catalogue, "events").select(["user", "film"]))
    liked = pairs(read(catalogue, "truth_user"))
    assert len(liked) == 500
    for user, films in liked.items():
        assert len(set(films)) == 20
        assert not set(films) & set(touched[user])


def incidence(rows: list[int], columns: list[str], shape: int) -> NDArray[np.float64]:
    names = {name: number for number, name in enumerate(sorted(set(columns)))}
    matrix = np.zeros((shape, len(names)))
    np.add.at(matrix, (rows, [names[name] for name in columns]), 1)
    matrix *= np.log(shape / (matrix > 0).sum(axis=0))
    return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)


def test_signals_find_some_of_the_truth_each_and_more_together(catalogue: GeneratedCatalogue) -> None:
    films = {film: number for number, film in enumerate(read(catalogue, "films").column("film").to_pylist())}
    events = read(catalogue, "events")
    clicks = events.filter(pc.equal(events.column("kind"), "click"))

    def cosines(table: pa.Table, column: str) -> NDArray[np.float64]:
        rows = [films[film] for film in table.column("film").to_pylist()]
        matrix = incidence(rows, table.column(column).to_pylist(), len(films))
        return matrix @ matrix.T

    seen = np.bincount([films[film] for film in events.column("film").to_pylist()], minlength=len(films))
    tags, together = cosines(read(catalogue, "tags"), "tag"), cosines(clicks, "user")
    scores = {
        "popularity": np.tile(seen / seen.max(), (len(films), 1)),
        "tags": tags,
        "clicks": together,
        "both": tags + together,
    }
    truth = pairs(read(catalogue, "truth_similar"))
    cold = set(pairs(read(catalogue, "truth_untouched")))

    def recall(name: str, queries: set[str]) -> float:
        found = []
        for query in queries:
            row = scores[name][films[query]].copy()
            row[films[query]] = -1
            best = set(np.argsort(-row, kind="stable")[:20].tolist())
            found.append(len(best & {films[film] for film in truth[query]}) / 20)
        return float(np.mean(found))

    warm = {name: recall(name, set(truth) - cold) for name in scores}
    assert warm["popularity"] < 0.05
    assert 0.15 < warm["tags"] < 0.4
    assert 0.1 < warm["clicks"] < 0.4
    assert warm["both"] > max(warm["tags"], warm["clicks"])
    assert recall("clicks", cold) < 0.05
    assert 0.12 < recall("tags", cold) < 0.4


def test_the_rare_relations_hold_films_that_are_truly_close(catalogue: GeneratedCatalogue) -> None:
    truth = pairs(read(catalogue, "truth_similar"))
    asked = [
        (film, original) for film, originals in pairs(read(catalogue, "sequels")).items() for original in originals
    ]
    hits = [original in truth[film] for film, original in asked if film in truth]
    assert len(hits) > 10
    assert np.mean(hits) > 0.9


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"entities": 49}, "entities: must be at least 50"),
        ({"users": 1}, "users: must be at least 10"),
        ({"seed": -1}, "seed"),
    ],
)
def test_sizes_that_make_no_catalogue_are_refused(tmp_path: Path, wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        generate(tmp_path, **({"entities": 50, "users": 10} | wrong))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_project_that_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    (tmp_path / "kithkin.toml").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        generate(tmp_path, entities=50, users=10)
    assert (tmp_path / "kithkin.toml").read_text() == "mine"
    made = generate(tmp_path, entities=50, users=10, overwrite=True)
    assert load_project(made.project_file, environment={}).name == "films"
    assert "50 films, 10 users" in made.summary()
    assert made.to_json()["rows"]["films"] == 50


def test_the_word_lists_fit_together() -> None:
    assert list(words.THEME_GENRES) == list(words.THEMES)
    assert {genre for genres in words.THEME_GENRES.values() for genre in genres} == set(words.GENRES)
    assert {len(tags) for tags in words.THEMES.values()} == {8}
    tags = tag_names()
    assert len(tags) == len(set(tags)) == 24 * 8 + len(words.GENERIC_TAGS)
