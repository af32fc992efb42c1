"""Co-engagement edges against a plain computation of the same definition."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from graph_store.co_engagement import derive, engines
from graph_store.project import Project, load_project
from graph_store.schema import CoEngagement, Triple
from graph_store.store import Written
from tests.memory_store import MemoryStore

START = datetime(2020, 1, 1, tzinfo=UTC)
CO_SAW = Triple("Film", "CO_SAW", "Film")
SAW = Triple("User", "SAW", "Film")
Event = tuple[str, str, float, int]


def project_of(folder: Path, derived: str, *, timed: bool = True) -> Project:
    time = ('time = "at"\n', ', at = { type = "timestamp" }') if timed else ("", "")
    (folder / "kithkin.toml").write_text(f"""
[nodes.Film]
role = "entity"
[nodes.User]
role = "user"
[nodes.Guest]
role = "user"
[[relations]]
triple = ["User", "SAW", "Film"]
role = "engagement"
weight = "stars"
{time[0]}properties = {{ stars = {{ type = "float" }}{time[1]} }}
[[relations]]
triple = ["Guest", "SAW", "Film"]
role = "engagement"
weight = "stars"
{time[0]}properties = {{ stars = {{ type = "float" }}{time[1]} }}
[[relations]]
triple = ["Film", "CO_SAW", "Film"]
role = "co_engagement"
derive = {{ via = "SAW", {derived} }}
""")
    return load_project(folder, environment={})


def store_of(project: Project, events: list[Event], relation: Triple = SAW) -> MemoryStore:
    store = MemoryStore(project.schema)
    timed = project.schema.relation(relation).time is not None
    for user, film, stars, day in events:
        store.nodes["Film"][(film,)] = {"id": film}
        at = {"at": START + timedelta(days=day)} if timed else {}
        row: dict[str, Any] = {"source": user, "target": film, "stars": stars, **at}
        store.edges[relation][(user, film, day if timed else 0)] = row
    return store


def edges_of(store: MemoryStore) -> dict[tuple[str, str], tuple[float, int]]:
    return {(row["source"], row["target"]): (row["weight"], row["support"]) for row in store.edges[CO_SAW].values()}


def counted(events: list[Event], settings: CoEngagement, *, timed: bool) -> dict[tuple[str, str], tuple[float, int]]:
    """The definition, pair by pair."""
    newest = max(day for *_, day in events)
    if settings.window_days is not None:
        events = [event for event in events if event[3] >= newest - settings.window_days]
    if settings.min_engagement is not None:
        events = [event for event in events if event[2] >= settings.min_engagement]
    once: dict[tuple[str, int], dict[str, tuple[float, int]]] = defaultdict(dict)
    for user, sitting, film, stars, day in sittings(events, settings):
        before = once[user, sitting].get(film, (-math.inf, -1))
        once[user, sitting][film] = (max(stars, before[0]), max(day, before[1]))
    kept = {
        unit: sorted(films, key=lambda film: (-films[film][1 if timed else 0], film.encode()))[: settings.max_per_user]
        for unit, films in once.items()
    }
    if settings.max_per_entity is not None:
        by_film: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for unit, films in kept.items():
            for film in films:
                by_film[film].append(unit)
        for film, units in by_film.items():
            order = sorted(units, key=lambda unit: (-once[unit][film][1 if timed else 0], unit[0].encode(), unit[1]))
            for unit in order[settings.max_per_entity :]:
                kept[unit].remove(film)
        kept = {unit: films for unit, films in kept.items() if films}

    def share(unit: tuple[str, int], film: str) -> int:
        if settings.half_life_days is None:
            return 1
        return round(2 ** -((newest - once[unit][film][1]) / settings.half_life_days) * 2**20)

    alone = Counter[str]()
    together, support = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for unit, films in kept.items():
        for a in films:
            alone[a] += share(unit, a)
            for b in films:
                if a != b:
                    support[a, b] += 1
                    together[a, b] += min(share(unit, a), share(unit, b))
    lists: dict[str, list[tuple[float, bytes, str, int]]] = defaultdict(list)
    n = sum(max(share(unit, film) for film in films) for unit, films in kept.items())
    for (a, b), c in together.items():
        product = alone[a] * alone[b]
        match settings.weight.value:
            case "count":
                weight = c / (1 if settings.half_life_days is None else 2**20)
            case "cosine":
                weight = c / math.sqrt(product)
            case "lift":
                weight = c * n / product
            case _:
                weight = math.log(c * n / product) / math.log(n / c) if c < n else 0.0
        if support[a, b] >= settings.min_support and (settings.weight != "npmi" or weight > 0):
            lists[a].append((-weight, b.encode(), b, support[a, b]))
    return {(a, b): (-weight, c) for a, listed in lists.items() for weight, _, b, c in sorted(listed)[: settings.top_k]}


def sittings(events: list[Event], settings: CoEngagement) -> list[tuple[str, int, str, float, int]]:
    """The events with the number of their sitting."""
    found = []
    by_user: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_user[event[0]].append(event)
    for user, own in by_user.items():
        sitting, before = 0, None
        for _, film, stars, day in sorted(own, key=lambda event: event[3]):
            pause = settings.session_gap_minutes
            if pause is not None and before is not None and (day - before) * 1440 > pause:
                sitting += 1
            before = day
            found.append((user, sitting, film, stars, day))
    return found


@pytest.mark.parametrize("weight", ["count", "cosine", "npmi", "lift"])
@pytest.mark.parametrize(
    ("limits", "timed"),
    [
        ("min_support = 1", True),
        ("min_support = 2, top_k = 2, min_engagement = 2", True),
        ("min_support = 1, window_days = 5.0, max_per_user = 3", True),
        ("min_support = 1, max_per_user = 3, top_k = 3", False),
        ("min_support = 1, max_per_entity = 4", True),
        ("min_support = 1, half_life_days = 2.5", True),
        ("min_support = 1, session_gap_minutes = 2000, half_life_days = 4", True),
    ],
)
def test_edges_are_the_ones_counted_by_hand(tmp_path: Path, weight: str, limits: str, timed: bool) -> None:
    random.seed(1)
    # Ids whose order by bytes is another than by letters, by numbers, or by UTF-16.
    films = ["a", "B", "é", "zz", "10", "2", "ab", "\U0001f600", "\uffff"]
    events = [
        (random.choice("uvwxyzéZ"), random.choice(films), random.choice([1.0, 2.0, 3.5]), random.randrange(10))
        for _ in range(70)
    ]
    if not timed:
        events = [(user, film, stars, 0) for (user, film), stars in {e[:2]: e[2] for e in events}.items()]
    project = project_of(tmp_path, f'weight = "{weight}", {limits}', timed=timed)
    store = store_of(project, events)
    settings = project.schema.relation(CO_SAW).derive
    assert settings is not None
    written = derive(project, store)[CO_SAW]
    found, expected = edges_of(store), counted(events, settings, timed=timed)
    assert written == Written(created=len(expected))
    assert len(expected) > 5
    # Logarithms may differ in the last bit between two libraries, products of many shares in the last few.
    if weight == "npmi" or settings.half_life_days is not None:
        assert found.keys() == expected.keys()
        assert all(found[pair] == pytest.approx(expected[pair], rel=1e-14) for pair in expected)
    else:
        assert found == expected
    assert derive(project, store)[CO_SAW] == Written(unchanged=len(expected))
    assert list(project.work.iterdir()) == []


def test_pairs_counted_a_part_at_a_time_give_the_same_edges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(4)
    events = [(random.choice("uvwxyz"), random.choice("abcdefghij"), 1.0, random.randrange(9)) for _ in range(80)]
    parts: list[int] = []
    counting = engines.expression.pairs_expression

    def noted(kept: Any, settings: CoEngagement, *, part: int = 0, parts: int = 1, told: list[int] = parts) -> Any:
        told.append(parts)
        return counting(kept, settings, part=part, parts=parts)

    monkeypatch.setattr(engines.expression, "pairs_expression", noted)
    found = []
    for number, together in enumerate((engines._PAIRS, 20)):
        monkeypatch.setattr(engines, "_PAIRS", together)
        folder = tmp_path / str(number)
        folder.mkdir()
        project = project_of(folder, 'weight = "npmi", min_support = 1')
        store = store_of(project, events)
        derive(project, store)
        found.append(edges_of(store))
    assert parts[0] == 1
    assert len(parts) > 4
    assert found[0] == found[1] != {}


def test_an_edge_is_in_the_list_of_its_own_side_only(tmp_path: Path) -> None:
    """H is everyone's neighbour, but keeps one of its own: 'a' by the bytes of its id."""
    events = [(f"{film}{number}", which, 1.0, 0) for film in "abc" for number in range(2) for which in (film, "h")]
    project = project_of(tmp_path, 'weight = "cosine", min_support = 2, top_k = 1')
    store = store_of(project, events)
    derive(project, store)
    weight = 2 / math.sqrt(12)
    assert edges_of(store) == dict.fromkeys((("a", "h"), ("b", "h"), ("c", "h"), ("h", "a")), (weight, 2))


def test_users_of_two_types_with_one_id_are_two(tmp_path: Path) -> None:
    project = project_of(tmp_path, 'weight = "count", min_support = 2')
    store = store_of(project, [("ann", "x", 1.0, 0), ("ann", "y", 1.0, 0)])
    derive(project, store)
    assert edges_of(store) == {}
    guest = Triple("Guest", "SAW", "Film")
    store.edges[guest] = store_of(project, [("ann", "x", 1.0, 0), ("ann", "y", 1.0, 0)], guest).edges[guest]
    derive(project, store)
    assert edges_of(store) == {("x", "y"): (2.0, 2), ("y", "x"): (2.0, 2)}


def test_no_engagement_gives_no_edges_and_takes_the_old_ones_away(tmp_path: Path) -> None:
    project = project_of(tmp_path, 'weight = "npmi"')
    store = store_of(project, [])
    store.edges[CO_SAW][("x", "y")] = {"source": "x", "target": "y", "weight": 1.0, "support": 2}
    assert derive(project, store) == {CO_SAW: Written(deleted=1)}
    assert edges_of(store) == {}


def test_a_heavy_user_does_no_harm(tmp_path: Path) -> None:
    """One with 20,000 engagements, whose pairs alone would be 200 million, adds those of the newest twenty."""
    events = [("heavy", f"film{number}", 1.0, number) for number in range(20_000)]
    events += [(f"u{number}", film, 1.0, 0) for number in range(3) for film in ("film1", "film2")]
    project = project_of(tmp_path, 'weight = "count", min_support = 1, max_per_user = 20')
    store = store_of(project, events)
    written = derive(project, store)[CO_SAW]
    assert written.created == 20 * 19 + 2
    assert edges_of(store)["film1", "film2"] == (3.0, 3)
