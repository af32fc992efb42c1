"""Filters that are refused: each by the path of the part that is wrong, what is not declared with what is."""

from __future__ import annotations

import math

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from kithkin.v1.types_pb2 import (
    Filter,
    FilterList,
    LinkedTo,
    NodeRef,
    PropertyEquals,
    PropertyOneOf,
    PropertyRange,
    PropertyValue,
    StringList,
)
from model_store.bundle_store import BundleStore
from server.deadline import Deadline
from server.errors import InvalidField, NotDeclared
from server.filters.filters import Filters
from tests.films import FILMS, all_of, deep, equal, filters_of, value_of, write_films


@pytest.fixture(scope="module")
def filters(tmp_path_factory: pytest.TempPathFactory) -> Filters:
    store = BundleStore(tmp_path_factory.mktemp("models"))
    return filters_of(store.open(write_films(store).version))


NAN, INFINITE = value_of(math.nan), value_of(math.inf)
PRESENT = Filter(present="year")
WRONG: dict[str, tuple[Filter, str, str]] = {
    "nothing": (Filter(), "filter", "is not set"),
    "nothing inside": (all_of(PRESENT, Filter()), "filter.all_of.filters[1]", "is not set"),
    "a range of texts": (
        all_of(PRESENT, PRESENT, Filter(range=PropertyRange(property="country", min=value_of("F")))),
        "filter.all_of.filters[2].range.property",
        "has no ranges",
    ),
    "the end of a range": (
        all_of(PRESENT, PRESENT, Filter(range=PropertyRange(property="year", min=value_of("1990")))),
        "filter.all_of.filters[2].range.min",
        "is a string_value, and year is declared int",
    ),
    "the other end": (Filter(range=PropertyRange(property="rating", max=NAN)), "filter.range.max", "NaN"),
    "an infinite end": (Filter(range=PropertyRange(property="rating", min=INFINITE)), "filter.range.min", "infinite"),
    "an end that is not set": (
        Filter(range=PropertyRange(property="year", min=PropertyValue())),
        "filter.range.min",
        "is not set",
    ),
    "no value": (Filter(equals=PropertyEquals(property="year")), "filter.equals.value", "is not set"),
    "of another type": (equal("colour", value_of(1)), "filter.equals.value", "declared bool"),
    "a list for an element": (
        equal("moods", PropertyValue(strings_value=StringList(values=["calm"]))),
        "filter.equals.value",
        "Send string_value",
    ),
    "a vector": (equal("still", value_of(1.0)), "filter.equals.value", "is a vector"),
    "not exact": (equal("rating", value_of(2**53 + 1)), "filter.equals.value", "not exact"),
    "beyond the years": (
        equal("opened", PropertyValue(time_value=Timestamp(seconds=10**15))),
        "filter.equals.value",
        "years 1 to 9999",
    ),
    "nanoseconds below zero": (
        equal("added", PropertyValue(time_value=Timestamp(nanos=-1))),
        "filter.equals.value",
        "years 1 to 9999",
    ),
    "one of several": (
        Filter(negated=Filter(one_of=PropertyOneOf(property="year", values=[value_of(1), value_of("x")]))),
        "filter.negated.one_of.values[1]",
        "declared int",
    ),
    "too many values": (
        Filter(one_of=PropertyOneOf(property="year", values=[value_of(1)] * 1001)),
        "filter.one_of.values",
        "at most 1000",
    ),
    "too many nodes": (
        Filter(linked=LinkedTo(relation="HAS_GENRE", nodes=[NodeRef(id="g1")] * 1001)),
        "filter.linked.nodes",
        "at most 1000",
    ),
    "too deep": (deep(21), "filter", "20 filters deep"),
    "too many parts": (all_of(*[PRESENT] * 1000), "filter", "more than 1000 parts"),
    "a node that is not there": (
        Filter(linked=LinkedTo(relation="HAS_GENRE", nodes=[NodeRef(id="g1"), NodeRef(id="g9")])),
        "filter.linked.nodes[1]",
        "no Genre has the id 'g9'",
    ),
    "a node without an id": (
        Filter(linked=LinkedTo(relation="HAS_GENRE", nodes=[NodeRef()])),
        "filter.linked.nodes[0].id",
        "is empty",
    ),
    "a node of another type": (
        Filter(linked=LinkedTo(relation="HAS_GENRE", nodes=[NodeRef(type="User", id="u01")])),
        "filter.linked.nodes[0].type",
        "does not lead to User",
    ),
}
NOT_DECLARED: dict[str, tuple[Filter, str]] = {
    "a name": (equal("nonsense", value_of(1)), "filter.equals.property"),
    "shown only": (equal("budget", value_of(1)), "filter.equals.property"),
    "of a range": (Filter(range=PropertyRange(property="budget")), "filter.range.property"),
    "of a set": (
        Filter(any_of=FilterList(filters=[Filter(one_of=PropertyOneOf())])),
        "filter.any_of.filters[0].one_of.property",
    ),
    "of presence": (Filter(present="title"), "filter.present"),
    "a relation": (Filter(linked=LinkedTo(relation="LIKES", nodes=[NodeRef(id="u01")])), "filter.linked.relation"),
    "a relation of nothing": (Filter(linked=LinkedTo()), "filter.linked.relation"),
    "a type": (
        Filter(linked=LinkedTo(relation="LIKED", nodes=[NodeRef(type="Nobody", id="u01")])),
        "filter.linked.nodes[0].type",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_part_is_named_by_its_path(filters: Filters, name: str) -> None:
    told, field, message = WRONG[name]
    with pytest.raises(InvalidField) as raised:
        filters.select(told, "Film", Deadline())
    assert raised.value.field == field
    assert message in f"{raised.value.description} {raised.value.hint}"


@pytest.mark.parametrize("name", NOT_DECLARED)
def test_what_is_not_declared_is_told_with_what_is(filters: Filters, name: str) -> None:
    told, field = NOT_DECLARED[name]
    with pytest.raises(NotDeclared) as raised:
        filters.select(told, "Film", Deadline())
    assert raised.value.field == field
    known = ("HAS_GENRE, LIKED, SEQUEL_OF", "country, year, rating, colour, opened, added, moods, still", "Film, User")
    assert any(each in raised.value.hint for each in known)


def test_the_largest_filter_is_answered(filters: Filters) -> None:
    assert len(filters.select(deep(20), "Film", Deadline())) == FILMS - len(filters.select(PRESENT, "Film", Deadline()))
    assert filters.select(all_of(*[PRESENT] * 999), "Film", Deadline()).rows.tolist() == (
        filters.select(PRESENT, "Film", Deadline()).rows.tolist()
    )
