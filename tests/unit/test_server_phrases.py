"""Reasons read as English, whatever relations are called."""

from __future__ import annotations

import pytest

from server.reasons import phrases


@pytest.mark.parametrize(
    ("relation", "concept_type", "concept", "sentence"),
    [
        ("HAS_TAG", "Tag", "shoegaze", "both have the tag shoegaze"),
        ("HAS_LABEL", "RecordLabel", "4AD", "both have the record label 4AD"),
        ("DIRECTED_BY", "Person", "Agnès Varda", "both are directed by Agnès Varda"),
        ("BORN_IN", "Place", "Oslo", "both are born in Oslo"),
        ("MADE_BY", "Studio", "Ilves", "both are made by Ilves"),
        ("BELONGS_TO", "Series", "Alien", "both belong to Alien"),
        ("SEQUEL_OF", "Film", "Alien", "both are sequel of Alien"),
        ("FROM", "Country", "Mali", "both are from Mali"),
        ("STARS", "Person", "Tilda Swinton", "both have Tilda Swinton as star"),
        ("COUNTRIES", "Country", "Mali", "both have Mali as country"),
        ("SUCCESS", "Prize", "Oscar", "both have Oscar as success"),
        ("HOMETOWN", "Place", "Reading", "both have Reading as hometown"),
        ("BAND_MEMBER", "Act", "Kim Deal", "both have Kim Deal as band member"),
    ],
)
def test_what_two_have_in_common(relation: str, concept_type: str, concept: str, sentence: str) -> None:
    assert phrases.shared(relation, concept_type, concept) == sentence


@pytest.mark.parametrize(
    ("relation", "sentence"),
    [
        ("BAND_MEMBER", "both are band member of X"),
        ("INFLUENCED_BY", "X is influenced by both"),
        ("HAS_SEQUEL", "X has both"),
    ],
)
def test_what_points_at_both(relation: str, sentence: str) -> None:
    assert phrases.shared(relation, "Act", "X", reverse=True) == sentence


def test_an_edge_between_them() -> None:
    assert phrases.direct("Slowdive", "ASSOCIATED_BAND", "Mojave 3") == "Slowdive has Mojave 3 as associated band"
    assert phrases.direct("A", "INFLUENCED_BY", "B") == "A is influenced by B"
    assert phrases.direct("A", "INFLUENCED", "B") == "A influenced B"
    assert phrases.direct("A", "SAMPLES_FROM", "B") == "A samples from B"


def test_users_are_counted_and_never_named() -> None:
    assert phrases.together(1, "PLAYED") == "1 user played both"
    assert phrases.together(1400, "RATED") == "1,400 users rated both"
    assert phrases.together(3, "LISTENS_TO") == "3 users in common (listens to)"
    assert phrases.together(None, None) == "the same users engage with both"


def test_what_led_there() -> None:
    assert phrases.engaged("PLAYED", "Ride", "both are loud") == "played Ride, and both are loud"
    assert phrases.engaged("CLICK", "Ride", "both are loud") == "engaged with Ride, and both are loud"
    assert phrases.engaged("", "Ride", "both are loud") == "engaged with Ride, and both are loud"
    assert phrases.sentence("both") == "Both"
