"""Filters in Python: what they say, what they become on the wire, and what is refused in words that help."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from kithkin import F, Node, Ref, filters
from kithkin._filter_message import filter_message
from kithkin.filters import AllOf, Equals, Negated
from kithkin.v1 import types_pb2 as wire

NOIR = Node(Ref("Genre", "noir"), "Film noir")

EXPRESSIONS: list[tuple[filters.Filter, str, str]] = [
    (F.year == 1990, "F.year == 1990", 'equals { property: "year" value { int_value: 1990 } }'),
    (F.year != 1990, "F.year != 1990", 'negated { equals { property: "year" value { int_value: 1990 } } }'),
    (~(F.year == 1990), "F.year != 1990", 'negated { equals { property: "year" value { int_value: 1990 } } }'),
    (F.year >= 1990, "F.year >= 1990", 'range { property: "year" min { int_value: 1990 } }'),
    (1990 <= F.year, "F.year >= 1990", 'range { property: "year" min { int_value: 1990 } }'),  # noqa: SIM300
    (F.year > 1990, "F.year > 1990", 'range { property: "year" min { int_value: 1990 } min_excluded: true }'),
    (F.year <= 1990, "F.year <= 1990", 'range { property: "year" max { int_value: 1990 } }'),
    (F.rating < 3.5, "F.rating < 3.5", 'range { property: "rating" max { float_value: 3.5 } max_excluded: true }'),
    (
        F.year.between(np.int64(1990), 1999),
        "F.year.between(1990, 1999)",
        'range { property: "year" min { int_value: 1990 } max { int_value: 1999 } }',
    ),
    (
        F.country.one_of(["de", "fr"]),
        "F.country.one_of(['de', 'fr'])",
        'one_of { property: "country" values { string_value: "de" } values { string_value: "fr" } }',
    ),
    (F.seen == True, "F.seen == True", 'equals { property: "seen" value { bool_value: true } }'),  # noqa: E712
    (F.name.present(), "F.name.present()", 'present: "name"'),
    (~F.name.present(), "~F.name.present()", 'negated { present: "name" }'),
    (~~F.name.present(), "F.name.present()", 'present: "name"'),
    (F["1st aired"] == "a", "F['1st aired'] == 'a'", 'equals { property: "1st aired" value { string_value: "a" } }'),
    (F["linked"].present(), "F['linked'].present()", 'present: "linked"'),
    (
        F.released >= date(2000, 1, 1),
        "F.released >= datetime.date(2000, 1, 1)",
        'range { property: "released" min { time_value { seconds: 946684800 } } }',
    ),
    (
        F.released < datetime(2000, 1, 1, 1, tzinfo=UTC),
        "F.released < datetime.datetime(2000, 1, 1, 1, 0, tzinfo=datetime.timezone.utc)",
        'range { property: "released" max { time_value { seconds: 946688400 } } max_excluded: true }',
    ),
    (
        F.linked("HAS_GENRE", "noir", ("Genre", "crime")),
        "F.linked('HAS_GENRE', 'noir', ('Genre', 'crime'))",
        'linked { relation: "HAS_GENRE" nodes { id: "noir" } nodes { type: "Genre" id: "crime" } }',
    ),
    (
        F.linked("HAS_GENRE", NOIR),
        "F.linked('HAS_GENRE', Ref(type='Genre', id='noir'))",
        'linked { relation: "HAS_GENRE" nodes { type: "Genre" id: "noir" } }',
    ),
    (
        (F.year >= 1990) & F.a.present() & ~F.linked("R", "x"),
        "(F.year >= 1990) & F.a.present() & ~F.linked('R', 'x')",
        """all_of {
          filters { range { property: "year" min { int_value: 1990 } } }
          filters { present: "a" }
          filters { negated { linked { relation: "R" nodes { id: "x" } } } }
        }""",
    ),
    (
        (F.a.present() | F.b.present()) & ~(F.c.present() & (F.d == 1)),
        "(F.a.present() | F.b.present()) & ~(F.c.present() & (F.d == 1))",
        """all_of {
          filters { any_of { filters { present: "a" } filters { present: "b" } } }
          filters { negated { all_of {
            filters { present: "c" } filters { equals { property: "d" value { int_value: 1 } } }
          } } }
        }""",
    ),
    (F.all_of(), "F.all_of()", "all_of { }"),
    (F.any_of(F.a.present()), "F.any_of(F.a.present())", 'any_of { filters { present: "a" } }'),
    (F.all_of() & F.b.present(), "F.all_of() & F.b.present()",
     'all_of { filters { all_of { } } filters { present: "b" } }'),
]  # fmt: skip


@pytest.mark.parametrize(("written", "shown", "message"), EXPRESSIONS)
def test_what_filters_say(written: filters.Filter, shown: str, message: str) -> None:
    assert repr(written) == shown
    assert filter_message(written) == text_format.Parse(message, wire.Filter())


@pytest.mark.parametrize(("written", "shown", "message"), EXPRESSIONS)
def test_what_is_shown_can_be_written(written: filters.Filter, shown: str, message: str) -> None:
    import datetime as module

    assert filter_message(eval(shown, {"F": F, "datetime": module, "Ref": Ref})) == filter_message(written)


def test_filters_are_values() -> None:
    def one() -> filters.Filter:
        return (F.year >= 1990) & ~F.linked("HAS_GENRE", "noir")

    assert one() == one()
    assert hash(one()) == hash(one())
    assert len({one(), one(), ~one()}) == 2
    assert one() != (F.year >= 1991) & ~F.linked("HAS_GENRE", "noir")
    assert pickle.loads(pickle.dumps(one())) == copy.deepcopy(one()) == one()
    with pytest.raises(AttributeError):
        one().filters = ()  # type: ignore[attr-defined]


def test_long_chains_are_one_list() -> None:
    whole = F.a == 0
    for value in range(1, 500):
        whole = whole | (F.a == value)
    message = filter_message(whole)
    assert len(message.any_of.filters) == 500
    assert {each.WhichOneof("kind") for each in message.any_of.filters} == {"equals"}


def test_what_lies_too_deep_is_said_so() -> None:
    whole = F.a == 0
    for value in range(3000):
        whole = (whole | (F.a == value)) & F.b.present()
    with pytest.raises(ValueError, match="too deep, the server takes 20 levels"):
        filter_message(whole)


WRONG: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (TypeError, r"F\.year >= 1990 is a filter, neither true.*F\.year\.between", lambda: 1990 <= F.year < 2000),
    (TypeError, "write & | ~ for `and`, `or`, `not`", lambda: (F.a == 1) and (F.b == 2)),
    (TypeError, "neither true nor false", lambda: (F.a == 1) or (F.b == 2)),
    (TypeError, "neither true nor false", lambda: not F.a.present()),
    (TypeError, "neither true nor false", lambda: F.a in (1, 2)),
    (TypeError, r"F\.a alone says nothing: compare it, or write F\.a\.present", lambda: bool(F.a)),
    (TypeError, "`in` cannot be taken over", lambda: 1 in F.a),
    (TypeError, "put each comparison in parentheses", lambda: F.a == 1 & F.b == 2),
    (TypeError, "put each comparison in parentheses", lambda: F.a & F.b),
    (TypeError, "put each comparison in parentheses", lambda: (F.a == 1) & F.b),
    (TypeError, "put each comparison in parentheses", lambda: ~F.a),
    (TypeError, "True is no filter", lambda: (F.a == 1) & True),
    (TypeError, "1 is no filter", lambda: 1 | (F.a == 1)),
    (TypeError, "'a' is no filter", lambda: F.all_of("a")),
    (TypeError, "not with another property", lambda: F.a == F.b),
    (TypeError, r"for entities without one write ~F\.a\.present\(\)", lambda: F.a == None),  # noqa: E711
    (ValueError, r"NaN equals nothing.*~F\.a\.present", lambda: F.a == float("nan")),
    (TypeError, r"of several values write F\.a\.one_of", lambda: F.a == ["x"]),
    (TypeError, "a value is str, int, float, bool, date or datetime, not 1j", lambda: F.a == 1j),
    (TypeError, "only numbers, dates and times have an order, not 'a'", lambda: F.a >= "a"),
    (TypeError, "only numbers, dates and times have an order, not True", lambda: F.a < True),
    (TypeError, "do not compare; give two numbers or two times", lambda: F.a.between(1, date(2000, 1, 1))),
    (ValueError, "does not fit in 64 bits", lambda: F.a == 2**63),
    (TypeError, "takes a list of values, not 'abc'; for a single one write ==", lambda: F.a.one_of("abc")),
    (TypeError, "takes the name of a property, not 3", lambda: F[3]),
    (TypeError, "takes the name of a relation", lambda: F.linked(F.a, "x")),
    (TypeError, "name at least one node", lambda: F.linked("R")),
    (TypeError, r"of a list write \*nodes", lambda: F.linked("R", ["a", "b"])),
    (TypeError, "compare it, or write F.a.present", lambda: filter_message(F.a)),
    (TypeError, "made of kithkin.filters.F, such as .*, not {'year': 3}", lambda: filter_message({"year": 3})),
    (ValueError, r"F\.linked: a tuple names a node", lambda: filter_message(F.linked("R", ("a", "b", "c")))),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "match", "write"), WRONG)
def test_what_says_nothing_is_refused(kind: type[Exception], match: str, write: Callable[[], Any]) -> None:
    with pytest.raises(kind, match=match) as caught:
        write()
    assert type(caught.value) is kind


def test_every_kind_of_the_protos_can_be_said() -> None:
    kinds = {filter_message(written).WhichOneof("kind") for written, _, _ in EXPRESSIONS}
    assert kinds == {field.name for field in wire.Filter.DESCRIPTOR.oneofs_by_name["kind"].fields}


def test_filters_can_be_taken_apart() -> None:
    match (F.year == 1990) & ~F.name.present():
        case AllOf((Equals("year", year), Negated(inner))):
            assert (year, inner) == (1990, F.name.present())
        case other:
            pytest.fail(repr(other))


def test_the_module_needs_no_protobuf() -> None:
    import subprocess
    import sys

    code = "import sys, kithkin.filters; assert not {'grpc', 'google.protobuf', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_the_example_of_the_module_runs() -> None:
    import doctest

    result = doctest.testmod(filters)
    assert (result.failed, result.attempted) == (0, 2)
