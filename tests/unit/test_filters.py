"""Filters: what passes is what a plain evaluation, film by film, lets pass; what is wrong is named by its path."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kithkin.v1.types_pb2 import (
    Filter,
    FilterList,
    LinkedTo,
    NodeRef,
    PropertyEquals,
    PropertyOneOf,
    PropertyRange,
    PropertyValue,
)
from model_store.bundle import Bundle
from model_store.bundle_store import BundleStore
from model_store.csr import EdgeType
from server.deadline import Deadline
from server.errors import CallError, DeadlinePassed
from server.filters.filters import Filters
from server.filters.link_index import LinkIndex
from server.filters.recent import Recent
from server.index.selection import Selection
from tests.films import (
    FILMS,
    GENRES,
    HAS_GENRE,
    LIKED,
    MOMENT,
    SEQUEL_OF,
    USERS,
    Films,
    equal,
    filters_of,
    nanoseconds,
    stamp,
    value_of,
    write_films,
)

PRESENT = Filter(present="year")
YEARS = (1990, 1992, 1995, 2000, 2005, -(2**62), 2**62, 2**63 - 1, -(2**63))
RATINGS = (-2.0, -1.5, 0.0, -0.0, 2.5, 9.0)
COUNTRIES = ("France", "Österreich", "", "日本", "Atlantis", "F")
MOODS = ("calm", "loud", "dark", "none of these")
EDGES = {"HAS_GENRE": EdgeType(HAS_GENRE), "SEQUEL_OF": EdgeType(SEQUEL_OF), "LIKED": EdgeType(LIKED, True)}
SIZES = {
    "HAS_GENRE": ("Genre", "g{}", GENRES),
    "SEQUEL_OF": ("Film", "f{:02}", FILMS),
    "LIKED": ("User", "u{:02}", USERS),
}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> tuple[Films, Bundle]:
    store = BundleStore(tmp_path_factory.mktemp("models"))
    films = write_films(store)
    return films, store.open(films.version)


@pytest.fixture(scope="module")
def filters(films: tuple[Films, Bundle]) -> Filters:
    return filters_of(films[1])


class Plain:
    """The definition, one film at a time."""

    def __init__(self, films: Films) -> None:
        self.films = films

    def rows(self, filter: Filter) -> list[int]:
        return [row for row in range(FILMS) if self.passes(filter, row)]

    def passes(self, filter: Filter, row: int) -> bool:
        match filter.WhichOneof("kind"):
            case "all_of":
                return all(self.passes(each, row) for each in filter.all_of.filters)
            case "any_of":
                return any(self.passes(each, row) for each in filter.any_of.filters)
            case "negated":
                return not self.passes(filter.negated, row)
            case "present":
                return self.films.properties[row][filter.present] is not None
            case "equals":
                return self.has(row, filter.equals.property, [filter.equals.value])
            case "one_of":
                return self.has(row, filter.one_of.property, list(filter.one_of.values))
            case "range":
                return self.lies(row, filter.range)
        edge_type = EDGES[filter.linked.relation]
        rows = [int(node.id[1:]) for node in filter.linked.nodes]
        return self.films.linked(row, edge_type, rows)

    def has(self, row: int, name: str, values: list[PropertyValue]) -> bool:
        own = self.films.properties[row][name]
        owns = [] if own is None else own if isinstance(own, list) else [own]
        return any(self.told(value) == self.comparable(each) for value in values for each in owns)

    def lies(self, row: int, asked: PropertyRange) -> bool:
        own = self.films.properties[row][asked.property]
        if own is None or (isinstance(own, float) and math.isnan(own)):
            return False
        number = self.comparable(own)
        if asked.HasField("min"):
            low = self.told(asked.min)
            if number < low or (asked.min_excluded and number == low):
                return False
        if asked.HasField("max"):
            high = self.told(asked.max)
            if number > high or (asked.max_excluded and number == high):
                return False
        return True

    @staticmethod
    def comparable(own: Any) -> Any:
        return nanoseconds(own) if isinstance(own, date) else own

    @staticmethod
    def told(value: PropertyValue) -> Any:
        kind = value.WhichOneof("kind")
        if kind == "time_value":
            return value.time_value.seconds * 10**9 + value.time_value.nanos
        return getattr(value, kind)


def times(middle: datetime, step_ns: int) -> st.SearchStrategy[PropertyValue]:
    return st.integers(-5, 5).map(
        lambda number: PropertyValue(time_value=stamp(nanoseconds(middle) + number * step_ns))
    )


VALUES: dict[str, st.SearchStrategy[PropertyValue]] = {
    "country": st.sampled_from(COUNTRIES).map(value_of),
    "year": st.sampled_from(YEARS).map(value_of),
    "rating": st.one_of(st.sampled_from(RATINGS).map(value_of), st.integers(-3, 3).map(value_of)),
    "colour": st.booleans().map(value_of),
    # Half days and halves of microseconds: between the values there are.
    "opened": times(datetime(2020, 5, 17, tzinfo=UTC), 43_200 * 10**9),
    "added": times(MOMENT, 500),
    "moods": st.sampled_from(MOODS).map(value_of),
}
RANGED = ("year", "rating", "opened", "added")


@st.composite
def equals(draw: st.DrawFn) -> Filter:
    name = draw(st.sampled_from(sorted(VALUES)))
    return Filter(equals=PropertyEquals(property=name, value=draw(VALUES[name])))


@st.composite
def one_of(draw: st.DrawFn) -> Filter:
    name = draw(st.sampled_from(sorted(VALUES)))
    return Filter(one_of=PropertyOneOf(property=name, values=draw(st.lists(VALUES[name], max_size=3))))


@st.composite
def ranges(draw: st.DrawFn) -> Filter:
    name = draw(st.sampled_from(RANGED))
    return Filter(
        range=PropertyRange(
            property=name,
            min=draw(st.none() | VALUES[name]),
            max=draw(st.none() | VALUES[name]),
            min_excluded=draw(st.booleans()),
            max_excluded=draw(st.booleans()),
        )
    )


@st.composite
def linked(draw: st.DrawFn) -> Filter:
    relation = draw(st.sampled_from(sorted(SIZES)))
    kind, form, count = SIZES[relation]
    numbers = draw(st.lists(st.integers(0, count - 1), max_size=3))
    typed = draw(st.booleans())
    nodes = [NodeRef(type=kind if typed else "", id=form.format(number)) for number in numbers]
    return Filter(linked=LinkedTo(relation=relation, nodes=nodes))


LEAVES = st.one_of(
    equals(),
    one_of(),
    ranges(),
    linked(),
    st.sampled_from([*sorted(VALUES), "still"]).map(lambda name: Filter(present=name)),
)


def combined(parts: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    lists = st.lists(parts, max_size=3).map(lambda filters: FilterList(filters=filters))
    return st.one_of(
        lists.map(lambda filters: Filter(all_of=filters)),
        lists.map(lambda filters: Filter(any_of=filters)),
        parts.map(lambda each: Filter(negated=each)),
    )


@settings(max_examples=300, deadline=None, derandomize=True)
@given(filter=st.recursive(LEAVES, combined, max_leaves=8))
def test_what_passes_is_what_a_plain_evaluation_lets_pass(
    films: tuple[Films, Bundle], filters: Filters, filter: Filter
) -> None:
    expected = Plain(films[0]).rows(filter)
    found = filters.select(filter, "Film", Deadline())
    assert found.rows.tolist() == expected
    assert len(found) == len(expected)
    assert np.flatnonzero(found.mask).tolist() == expected


def test_every_kind_of_filter_passes_some_and_not_all(films: tuple[Films, Bundle]) -> None:
    """Or the comparison above would compare nothing."""
    told = [
        *(Filter(present=name) for name in [*VALUES, "still"]),
        *(Filter(linked=LinkedTo(relation=name, nodes=[NodeRef(id=SIZES[name][1].format(1))])) for name in SIZES),
        Filter(equals=PropertyEquals(property="country", value=value_of(""))),
        Filter(equals=PropertyEquals(property="rating", value=value_of(0))),
        Filter(range=PropertyRange(property="added", min=PropertyValue(time_value=stamp(nanoseconds(MOMENT) + 500)))),
        Filter(range=PropertyRange(property="rating")),
    ]
    for each in told:
        assert 0 < len(Plain(films[0]).rows(each)) < FILMS, each


@pytest.mark.parametrize("excluded", [False, True])
def test_an_end_between_two_microseconds_parts_them(
    films: tuple[Films, Bundle], filters: Filters, excluded: bool
) -> None:
    """Times are held by the microsecond, and told by the nanosecond."""
    between = PropertyValue(time_value=stamp(nanoseconds(MOMENT) + 500))
    told = [each["added"] for each in films[0].properties]
    above = Filter(range=PropertyRange(property="added", min=between, min_excluded=excluded))
    expected = [row for row, time in enumerate(told) if time is not None and time > MOMENT]
    assert filters.select(above, "Film", Deadline()).rows.tolist() == expected
    below = Filter(range=PropertyRange(property="added", max=between, max_excluded=excluded))
    expected = [row for row, time in enumerate(told) if time is not None and time <= MOMENT]
    assert filters.select(below, "Film", Deadline()).rows.tolist() == expected
    assert any(time == MOMENT for time in told)
    assert not len(filters.select(equal("added", between), "Film", Deadline()))


@pytest.mark.parametrize("most", [0, 20_000_000])
def test_links_are_the_same_read_through_and_turned_around(
    films: tuple[Films, Bundle], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.filters.link_index._MOST_TURNED", most)
    told, bundle = films
    index = LinkIndex(bundle)
    index.prepare("Film")
    for relation, edge_type in EDGES.items():
        for neighbours in ([0], [1, 3], list(range(SIZES[relation][2]))):
            expected = [row for row in range(FILMS) if told.linked(row, edge_type, neighbours)]
            assert list(index.linked(edge_type, np.array(neighbours, np.int64))) == expected


def test_users_and_concepts_are_filtered_too(films: tuple[Films, Bundle], filters: Filters) -> None:
    told, _ = films
    of_age = Filter(range=PropertyRange(property="age", min=value_of(22), max=value_of(28)))
    assert filters.select(of_age, "User", Deadline()).rows.tolist() == [2, 3, 4, 6, 7, 8]
    liked = Filter(linked=LinkedTo(relation="LIKED", nodes=[NodeRef(id="f03")]))
    expected = [user for user in range(USERS) if 3 in told.links[EdgeType(LIKED)][user]]
    assert filters.select(liked, "User", Deadline()).rows.tolist() == expected != []
    not_old = Filter(negated=Filter(equals=PropertyEquals(property="old", value=value_of(True))))
    assert filters.select(not_old, "Genre", Deadline()).rows.tolist() == [0, 1, 3]


def test_a_filter_asked_again_is_remembered_by_type(films: tuple[Films, Bundle]) -> None:
    filters = filters_of(films[1])
    linked = Filter(linked=LinkedTo(relation="LIKED"))
    first = filters.select(PRESENT, "Film", Deadline())
    assert filters.select(Filter(present="year"), "Film", Deadline()) is first
    assert filters.select(linked, "Film", Deadline()).total == FILMS
    assert filters.select(linked, "User", Deadline()).total == USERS
    # A wrong one is never remembered as right, and is wrong each time.
    for _ in range(2):
        with pytest.raises(CallError):
            filters.select(equal("budget", value_of(1)), "Film", Deadline())


def test_the_deadline_ends_a_long_filter(films: tuple[Films, Bundle]) -> None:
    with pytest.raises(DeadlinePassed):
        filters_of(films[1]).select(PRESENT, "Film", Deadline(0))


def test_what_was_not_asked_for_longest_goes_first() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert [recent.get(each) for each in "abc"] == [1, None, 3]
    assert len(recent) == 2


def test_a_selection_is_the_same_in_every_form() -> None:
    some = Selection.of(np.array([9, 2, 5]), 12)
    assert (len(some), some.rows.tolist(), np.flatnonzero(some.mask).tolist()) == (3, [2, 5, 9], [2, 5, 9])
    assert some.rows.dtype == np.int64
    assert some.without(np.array([5, 11, 0])).tolist() == [2, 9]
    assert some.without(None).tolist() == some.without(np.empty(0, np.int64)).tolist() == [2, 5, 9]
