"""``generate``: writes a catalogue, its log, its declaration and its truth into a folder."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from graph_store.errors import ConfigError
from graph_store.progress import NoProgress, Progress
from graph_store.project import FILE_NAME
from graph_store.synthetic import facts, words
from graph_store.synthetic.declaration import declaration
from graph_store.synthetic.engagement import events
from graph_store.synthetic.plan import Ints, Plan, make_plan
from graph_store.synthetic.table_file import TableFile
from graph_store.synthetic.truth import Truth, judged_users, make_truth

_CSV_EVENTS = 5_000_000
"""Above so many events the files are Parquet unless asked otherwise."""

_COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "films": {
        "film": pa.string(),
        "title": pa.string(),
        "year": pa.int64(),
        "runtime": pa.int64(),
        "language": pa.string(),
        "genres": pa.string(),
        "studio": pa.string(),
    },
    "people": {"person": pa.string(), "name": pa.string()},
    "credits": {"film": pa.string(), "person": pa.string(), "role": pa.string()},
    "tags": {"film": pa.string(), "tag": pa.string(), "count": pa.int64()},
    "books": {"film": pa.string(), "book": pa.string()},
    "sequels": {"film": pa.string(), "original": pa.string()},
    "users": {"user": pa.string(), "country": pa.string()},
    "events": {
        "user": pa.string(),
        "film": pa.string(),
        "time": pa.int64(),
        "kind": pa.string(),
        "share": pa.float64(),
    },
    "truth_similar": {"query": pa.string(), "similar": pa.string()},
    "truth_untouched": {"query": pa.string(), "similar": pa.string()},
    "truth_candidates": {"film": pa.string()},
    "truth_user": {"user": pa.string(), "entity": pa.string()},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class GeneratedCatalogue:
    """What was written."""

    folder: Path
    project_file: Path
    """The kithkin.toml."""
    rows: dict[str, int]
    """Rows by file (without its ending)."""
    untouched: tuple[str, ...]
    """Ids of films among the queries of the truth that nobody has engaged with (at most 100)."""
    users: tuple[str, ...]
    """Ids of users of whom the truth is known (at most 100)."""

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {
            "folder": str(self.folder),
            "project_file": str(self.project_file),
            "rows": self.rows,
            "untouched": list(self.untouched),
            "users": list(self.users),
        }

    def summary(self) -> str:
        """What was written and what to do with it, for a person."""
        rows = self.rows
        return (
            f"wrote {self.project_file}: {rows['films']:,} films, {rows['users']:,} users, {rows['events']:,} events\n"
            f"The truth is planted: {rows['truth_similar']:,} pairs of similar films in truth_similar, "
            f"{rows['truth_user']:,} of users and films in truth_user.\n"
            f"Next: kithkin build --project {self.project_file}"
        )


def generate(
    folder: Path,
    *,
    entities: int,
    users: int,
    seed: int = 1,
    events_per_user: float = 40.0,
    untouched_share: float = 0.1,
    format: Literal["csv", "parquet"] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> GeneratedCatalogue:
    """Write a catalogue of ``entities`` films, the log of ``users`` people, kithkin.toml and the planted truth.

    ``events_per_user`` is the mean number of views; about four of ten are clicked. ``untouched_share`` of the films
    appear in no event. The same arguments write the same bytes (with the same NumPy and Arrow). Without ``format``:
    CSV, from five million events on Parquet. Raises ConfigError for sizes that make no catalogue, and where the folder
    holds a kithkin.toml already, unless ``overwrite``.
    """
    _check(folder, entities, users, seed, events_per_user, untouched_share, overwrite)
    progress = progress or NoProgress()
    if format is None:
        format = "parquet" if users * events_per_user > _CSV_EVENTS else "csv"
    folder.mkdir(parents=True, exist_ok=True)
    files = _Files(folder, f".{format}")
    # One stream of random numbers per part: more users do not change the films.
    streams = dict(
        zip(("plan", "films", "people", "tags", "events", "truth"), np.random.SeedSequence(seed).spawn(6), strict=True)
    )
    plan = make_plan(
        films=entities, users=users, cold_share=untouched_share, rng=np.random.default_rng(streams["plan"])
    )
    film_ids, user_ids = facts.numbered("f", entities), facts.numbered("u", users)
    with progress.task("films", entities) as task:
        _write_films(files, plan, film_ids, np.random.default_rng(streams["films"]))
        _write_people(files, plan, film_ids, np.random.default_rng(streams["people"]))
        _write_tags(files, plan, film_ids, np.random.default_rng(streams["tags"]))
        task.advance(entities)
    truth_rng = np.random.default_rng(streams["truth"])
    judged = judged_users(users, truth_rng)
    seen = _write_events(
        files, plan, film_ids, user_ids, judged, events_per_user, np.random.default_rng(streams["events"]), progress
    )
    truth = make_truth(plan, judged, seen, truth_rng)
    untouched = _write_truth(files, plan, truth, film_ids, user_ids)
    project_file = folder / FILE_NAME
    text = declaration(entities=entities, users=users, seed=seed, ending=files.ending, untouched=bool(len(untouched)))
    project_file.write_text(text, encoding="utf-8", newline="\n")
    return GeneratedCatalogue(
        folder=folder,
        project_file=project_file,
        rows=files.rows,
        untouched=tuple(film_ids.take(pa.array(untouched[:100])).to_pylist()),
        users=tuple(user_ids.take(pa.array(judged[:100])).to_pylist()),
    )


def _check(
    folder: Path, entities: int, users: int, seed: int, events_per_user: float, untouched_share: float, overwrite: bool
) -> None:
    wrong: tuple[tuple[str, float, bool, str], ...] = (
        ("entities", entities, entities >= 50, "must be at least 50"),
        ("users", users, users >= 10, "must be at least 10"),
        ("seed", seed, seed >= 0, "must not be negative"),
        ("events_per_user", events_per_user, events_per_user >= 1, "must be at least 1"),
        ("untouched_share", untouched_share, 0 <= untouched_share <= 0.9, "must be between 0 and 0.9"),
    )
    for key, value, right, message in wrong:
        if not right:
            raise ConfigError(message, key=key, value=value, hint="Give another number.")
    if (folder / FILE_NAME).exists() and not overwrite:
        raise ConfigError(
            "is there already",
            file=folder / FILE_NAME,
            hint="Choose an empty folder, or say that it may be overwritten.",
        )


class _Files:
    """The folder's files, counted."""

    def __init__(self, folder: Path, ending: str) -> None:
        self.folder, self.ending = folder, ending
        self.rows: dict[str, int] = {}

    def open(self, name: str, stack: ExitStack) -> TableFile:
        file = TableFile(self.folder / f"{name}{self.ending}", pa.schema(list(_COLUMNS[name].items())))
        stack.callback(lambda: self.rows.update({name: file.rows}))
        return stack.enter_context(file)

    def write(self, name: str, *columns: Any) -> None:
        with ExitStack() as stack:
            self.open(name, stack).write(*columns)


def _write_films(files: _Files, plan: Plan, film_ids: pa.Array, rng: np.random.Generator) -> None:
    count = len(plan.films)
    titles = facts.titles(plan, rng)
    year = 2023 - np.minimum(rng.gamma(2.0, 10.0, count).astype(np.int64), 80)
    runtime = np.clip(rng.normal(108, 18, count), 62, 230).astype(np.int64)
    # What one theme is at home in: a language is a weak hint.
    language = np.where(rng.random(count) < 0.7, 0, (plan.main_theme + rng.integers(0, 3, count)) % 8)
    studios = max(5, count // 40)
    studio_names = facts.studio_names(studios, rng)
    names = pa.array(words.GENRES)
    with ExitStack() as stack:
        file = files.open("films", stack)
        start = 0
        for genres, studio in zip(facts.film_genres(plan, rng), facts.film_studios(plan, studios, rng), strict=True):
            stop = start + len(genres)
            parts = [names.take(pa.array(column, mask=column < 0)) for column in genres.T]
            file.write(
                film_ids.slice(start, len(genres)),
                titles.slice(start, len(genres)),
                year[start:stop],
                runtime[start:stop],
                pa.array(words.LANGUAGES).take(pa.array(language[start:stop])),
                facts.joined_known(parts, "|"),
                studio_names.take(pa.array(studio)),
            )
            start = stop
    sequels, filmed = np.flatnonzero(plan.sequel_of >= 0), np.flatnonzero(plan.book >= 0)
    files.write("sequels", _take(film_ids, sequels), _take(film_ids, plan.sequel_of[sequels]))
    books = facts.book_names(int(plan.book.max()) + 1, rng)
    files.write("books", _take(film_ids, filmed), _take(books, plan.book[filmed]))


def _write_people(files: _Files, plan: Plan, film_ids: pa.Array, rng: np.random.Generator) -> None:
    people = max(20, len(plan.films) * 2 // 5)
    ids = facts.numbered("p", people)
    files.write("people", ids, facts.person_names(people, rng))
    with ExitStack() as stack:
        file = files.open("credits", stack)
        start = 0
        for director, actors in facts.film_people(plan, people, rng):
            part = np.column_stack([director, actors])
            film = np.repeat(np.arange(start, start + len(part)), part.shape[1])
            role = np.tile(np.array([0, 1, 1, 1, 1]), len(part))
            there = part.ravel() >= 0
            file.write(
                _take(film_ids, film[there]),
                _take(ids, part.ravel()[there]),
                _take(pa.array(["director", "actor"]), role[there]),
            )
            start += len(part)


def _write_tags(files: _Files, plan: Plan, film_ids: pa.Array, rng: np.random.Generator) -> None:
    names = pa.array(facts.tag_names())
    with ExitStack() as stack:
        file = files.open("tags", stack)
        for film, tag, count in facts.film_tags(plan, rng):
            file.write(_take(film_ids, film), _take(names, tag), count)


def _write_events(
    files: _Files,
    plan: Plan,
    film_ids: pa.Array,
    user_ids: pa.Array,
    judged: Ints,
    events_per_user: float,
    rng: np.random.Generator,
    progress: Progress,
) -> dict[int, Ints]:
    """Write users and events; returns the films that each of the judged users touched."""
    users = len(plan.users)
    country = rng.integers(0, len(words.COUNTRIES), users)
    files.write("users", user_ids, _take(pa.array(words.COUNTRIES), country))
    kinds = pa.array(["view", "click"])
    seen: dict[int, Ints] = {int(user): np.empty(0, dtype=np.int64) for user in judged}
    with ExitStack() as stack:
        file = files.open("events", stack)
        task = stack.enter_context(progress.task("events", users, "users"))
        for block in events(plan, events_per_user=events_per_user, rng=rng):
            file.write(
                _take(user_ids, block.user),
                _take(film_ids, block.film),
                block.time,
                _take(kinds, block.clicked),
                block.share / 100,
            )
            first, last = int(block.user[0]), int(block.user[-1])
            for user in judged[np.searchsorted(judged, first) : np.searchsorted(judged, last, side="right")]:
                low, high = np.searchsorted(block.user, [user, user + 1])
                seen[int(user)] = np.unique(block.film[low:high])
            task.advance(last - first + 1)
    return seen


def _write_truth(files: _Files, plan: Plan, truth: Truth, film_ids: pa.Array, user_ids: pa.Array) -> Ints:
    """Write the truth; returns the queries that nobody has touched."""
    files.write("truth_candidates", _take(film_ids, truth.candidates))
    files.write("truth_similar", _take(film_ids, truth.query), _take(film_ids, truth.similar))
    files.write("truth_user", _take(user_ids, truth.user), _take(film_ids, truth.liked))
    cold = plan.cold[truth.query]
    if cold.any():
        files.write("truth_untouched", _take(film_ids, truth.query[cold]), _take(film_ids, truth.similar[cold]))
    return np.unique(truth.query[cold])


def _take(values: pa.Array, index: Ints | Iterable[int]) -> pa.Array:
    return values.take(pa.array(index))
